"""The domain of a variant: the words, sounds and text lengths that its training covered.

A small model answers anything fluently, also a request for a word that it has never seen. So a
variant may declare its domain, and a request outside it gets a warning or, if strict, an error.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from unison_audio.errors import InputError
from unison_audio.tasks.mentions import mentions

if TYPE_CHECKING:
    from unison_audio.data.records import ClipRecord

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

_LETTERS = re.compile(r"[a-z]+(?:'[a-z]+)*")

MAX_PARTS = 4
"""Parts between separators that one description of a sound may have."""

# Words between two sounds of one phrase. All prepositions separate: "a dog barking in the rain" is
# two sounds. A known phrase with a preposition, such as "footsteps in snow", is tried whole first.
_SEPARATOR = re.compile(
    r"[,;:.&+]|\b(?:and|or|with|while|as|then|plus|in|on|at|to|from|into|by|under|over|through|near|"
    r"behind|before|after|for|between|during|beside|around|without)\b",
    re.IGNORECASE,
)


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that name no sound: articles, pronouns, verbs of hearing, loudness, distance, number.
_FILLERS = _word_set(
    "a an the of off up down out past is are was were be being been it its their his her this that "
    "these those there some any someone somebody something one two three four five six several "
    "many few both same time once twice again i we you hear hears heard hearing sound sounds "
    "recording audio clip effect generate make produce give create want please mix mixed together "
    "along followed event scene background foreground front middle start beginning end "
    "loud loudly soft softly quiet quietly faint faintly heavy heavily light lightly strong "
    "strongly gentle gently big large small little old young deep high low long short slow slowly "
    "fast quick quickly far away distant distance nearby close closely outside outdoors inside "
    "indoors very single continuous continuously repeatedly s sec second seconds"
)

_IRREGULAR = {
    "feet": "foot",
    "geese": "goose",
    "leaves": "leaf",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "tire": "tyre",
    "tires": "tyre",
    "wolves": "wolf",
    "women": "woman",
}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """The parts of an instruction that lie outside a domain; empty if none does."""

    words: tuple[str, ...] = ()
    """Unknown words of the text to speak."""
    sounds: tuple[str, ...] = ()
    """Unknown sounds."""
    text_words: int = 0
    """Number of words to speak, if the text is longer than any of the training; else 0."""

    def __bool__(self) -> bool:
        """Whether anything lies outside."""
        return bool(self.words or self.sounds or self.text_words)


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Words, sounds and text lengths that a variant knows."""

    words: tuple[str, ...]
    """Words that it can speak, in lower case."""
    sounds: tuple[str, ...]
    """Kinds of sound, such as "a dog barking"."""
    captions: tuple[str, ...] = ()
    """Other descriptions of these sounds that the training used."""
    max_words: int
    """Words of the longest text of the training."""
    letters_per_second: float
    """Usual speaking rate, in letters and digits."""
    max_letters_per_second: float
    """Fastest speaking rate of the training."""
    spells: bool = False
    """Whether it knows every word of the letters a to z, beside `words`, since it reads words
    letter by letter."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        for name in ("words", "sounds", "captions"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, str) for v in values):
                raise InputError(f"The domain's {name} are {values!r:.60}; give a list of texts.")
        for name in ("max_words", "letters_per_second", "max_letters_per_second"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise InputError(f"The domain's {name} is {value!r}; it must be above 0.")

    def outside(self, instruction: str) -> Outside:
        """Find the parts of an instruction that lie outside the domain.

        Args:
            instruction: Instruction with the tags of the task table.
        """
        found = mentions(instruction)
        spoken = [word for text in found.texts for word in split_words(text)]
        unknown = dict.fromkeys(word for word in spoken if not self.knows_word(word))
        sounds = dict.fromkeys(part for phrase in found.sounds for part in self._unknown(phrase))
        return Outside(
            words=tuple(unknown),
            sounds=tuple(sounds),
            text_words=len(spoken) if len(spoken) > self.max_words else 0,
        )

    def knows_word(self, word: str) -> bool:
        """Whether a word in lower case is one that it can speak."""
        return word in self._words or (self.spells and bool(_LETTERS.fullmatch(word)))

    def check_length(self, instruction: str, seconds: float, longest: float) -> None:
        """Refuse a text that the fastest speech of the training could not say in time.

        Args:
            instruction: Instruction with the tags of the task table.
            seconds: Length of the result.
            longest: Longest result of the variant, in seconds.

        Raises:
            InputError: If the text is too long; the message names a duration that suffices.
        """
        texts = mentions(instruction).texts
        letters = sum(len(word) for text in texts for word in split_words(text))
        if letters <= self.max_letters_per_second * seconds:
            return
        usual = math.ceil(10 * letters / self.letters_per_second) / 10
        cure = f"ask for a duration of {min(usual, longest):g} s"
        if letters > self.max_letters_per_second * longest:
            most = math.floor(self.letters_per_second * longest)
            cure = f"shorten it to about {most} letters, which fit into {longest:g} s"
        raise InputError(
            f"The text {' '.join(texts)!r} is too long for {seconds:.2f} s of sound "
            f"({letters} letters, at most {self.max_letters_per_second:g} a second); {cure}."
        )

    def as_json(self) -> dict[str, Any]:
        """The fields as they are stored in config.json."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name != "spells" or value
        }

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _entries(self) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
        """Stems of each known description: those before its first separator, and all."""
        texts = (*self.sounds, *self.captions)
        return tuple({(_stems(_SEPARATOR.split(text)[0]), _stems(text)): None for text in texts})

    def _knows(self, phrase: str) -> bool:
        """Whether one known description holds all words of a phrase, fillers aside.

        At least one of them must stand before its first separator: who knows "birds sing in a
        forest" knows birds, and not the sound of a forest.
        """
        stems = _stems(phrase)
        return not stems or any(stems <= all_ and stems & head for head, all_ in self._entries)

    def _unknown(self, phrase: str) -> list[str]:
        """Unknown sounds of a phrase that may name several."""
        cuts = [(0, 0), *(cut.span() for cut in _SEPARATOR.finditer(phrase))]
        cuts.append((len(phrase), len(phrase)))
        parts = len(cuts) - 1

        def text(first: int, last: int) -> str:
            return " ".join(phrase[cuts[first][1] : cuts[last][0]].split())

        # Some known descriptions contain separators, so runs of parts are tried too: best[k] holds
        # the fewest unknown sounds from part k on.
        best: list[list[str]] = [[] for _ in range(parts + 1)]
        for first in reversed(range(parts)):
            ends = range(first + 1, min(first + MAX_PARTS, parts) + 1)
            ways = [best[last] for last in ends if self._knows(text(first, last))]
            ways.append([text(first, first + 1), *best[first + 1]])
            best[first] = min(ways, key=len)
        return best[0]


def read_domain(values: Any) -> Domain:
    """Read a domain as it is stored in config.json.

    Raises:
        InputError: If its keys or values are not those of `Domain`.
    """
    if not isinstance(values, dict):
        raise InputError(f"The domain is {type(values).__name__}, not an object.")
    known = Domain.__dataclass_fields__.keys()
    wrong = (values.keys() ^ known) - ({"captions", "spells"} - values.keys())
    if wrong:
        raise InputError(
            f"The domain's keys {', '.join(sorted(wrong))} are missing or unknown; the keys are "
            f"{', '.join(known)}."
        )
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Domain(**{**values, **lists})


def extend_domain(
    domain: Domain | None, records: Iterable["ClipRecord"], instructions: Iterable[str] = ()
) -> Domain | None:
    """Add the contents of further training to a domain.

    Args:
        domain: The domain so far.
        records: Records of the clips, whose texts, labels and captions are added.
        instructions: Whole instructions, whose texts and unknown sounds are added.

    Returns:
        The extended domain; None if there was none, since no limit was claimed.
    """
    if domain is None:
        return None
    texts: list[str] = []
    sounds: list[str] = []
    captions: list[str] = []
    for record in records:
        if record.kind == "speech":
            texts.append(record.text)
        else:
            sounds.append(record.label or record.caption.rstrip("."))
            captions.append(record.caption)
    for instruction in instructions:
        found = mentions(instruction)
        texts += found.texts
        sounds += [sound for phrase in found.sounds for sound in domain._unknown(phrase)]
    spoken = [split_words(text) for text in texts]
    known, knows = _joined(domain.sounds, sounds), domain.knows_word
    added = [caption for caption in captions if caption not in known]
    return replace(
        domain,
        words=_joined(domain.words, [w for words in spoken for w in words if not knows(w)]),
        sounds=known,
        captions=_joined(domain.captions, added),
        max_words=max([domain.max_words, *map(len, spoken)]),
    )


def split_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


def _joined(first: Sequence[str], second: Iterable[str]) -> tuple[str, ...]:
    """Both in order, each text once, empty texts left out."""
    return tuple(text for text in dict.fromkeys([*first, *second]) if text.strip())


def _stems(text: str) -> frozenset[str]:
    """Stems of the words of a description that are no fillers or separators."""
    words = (word.removesuffix("'s") for word in split_words(_SEPARATOR.sub(" ", text)))
    return frozenset(
        _stem(word) for word in words if word not in _FILLERS and not word[0].isdigit()
    )


def _stem(word: str) -> str:
    """Strip an English inflection, so that "dogs bark" and "a dog barking" agree.

    Only agreement counts: the stem need not be a word, as long as all forms give the same one.
    """
    word = _IRREGULAR.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif re.search(r"(?:ch|sh|ss|x|z|o)es$", word):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and re.search("[aeiouy]", rest):
            # "chopping" -> "chop", but "falling" -> "fall" and "hissing" -> "hiss".
            word = re.sub(r"([^aeiouylsz])\1$", r"\1", rest)
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
