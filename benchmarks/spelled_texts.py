"""Texts of the experiment with spelled transcripts: words, sentences and what is held out.

Words are the most frequent of English (package wordfreq) that an American dictionary has (Debian
package scowl); sentences are the examples of use in WordNet (Debian package wordnet-base).
"""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.nano.vocabulary import VOCABULARY
from unison_audio.text.spelling import letters

SCOWL = Path("/usr/share/dict/scowl")
WORDNET = Path("/usr/share/wordnet")
WORDS = 10_000
"""Most frequent words that texts are made of."""
HELD_OUT_WORDS = 500
"""Of these, words that training never says."""
COMMONEST = 200
"""Words so frequent that none of them is held out: few sentences can do without them."""
HELD_OUT_SENTENCES = 200
"""Sentences in each of the two held-out sets."""
SENTENCE_WORDS = (3, 10)
"""Fewest and most words of a sentence."""
ENDINGS = ("'s", "ings", "ing", "ers", "er", "ies", "ied", "ed", "es", "s", "ly", "y", "e", "d")
"""What `family` cuts off."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What may be said in training, and what is kept for the evaluation."""

    trained: list[str]
    """Words of training."""
    held_out: list[str]
    """Words that training never says, nor any word of their families."""
    sentences: list[str]
    """Natural sentences over the words of training."""
    unseen_words: list[str]
    """Natural sentences with one held-out word or more; their other words are trained."""
    unseen_sentences: list[str]
    """Natural sentences over the words of training that training does not say."""


TRANSCRIPTS = {"spelled": letters, "wordpieces": str}
"""How the text encoder reads a transcript, by name."""


def family(word: str) -> str:
    """What a word shares with its inflections: "walked" and "walking" -> "walk"."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 4 and word[-1] == word[-2] else word


def split_texts(words: Sequence[str], sentences: Iterable[str], seed: int = 0) -> Texts:
    """Divides words and sentences into those of training and those that are held out.

    No held-out word shares its family with a word of training; families of the commonest words
    and of nano's own vocabulary, which its weights were trained on, are never held out.

    Args:
        words: The most frequent first.
        sentences: Over these words.
        seed: Of the draw.
    """
    rng = random.Random(f"spelled texts {seed}")
    known = {family(word) for word in (*words[:COMMONEST], *VOCABULARY)}
    candidates = [word for word in words[COMMONEST:] if family(word) not in known]
    held_out = sorted(rng.sample(candidates, min(HELD_OUT_WORDS, len(candidates) // 4)))
    families = {family(word) for word in held_out}
    trained = [word for word in words if family(word) not in families]
    plain, strange = set(trained), set(held_out)
    common, unseen = [], []
    for sentence in sorted(set(sentences)):
        said = set(sentence.split())
        if said <= plain:
            common.append(sentence)
        elif said <= plain | strange:
            unseen.append(sentence)
    rng.shuffle(common)
    rng.shuffle(unseen)
    count = min(HELD_OUT_SENTENCES, len(common) // 4)
    return Texts(
        trained=trained,
        held_out=held_out,
        sentences=common[count:],
        unseen_words=unseen[:count],
        unseen_sentences=common[:count],
    )


def read_texts(path: Path) -> Texts:
    """Reads what `write_texts` wrote.

    Raises:
        InputError: If there is no such file.
    """
    try:
        return Texts(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; write it with the command 'data'.") from error


def write_texts(path: Path) -> Texts:
    """Reads the texts in ``path``, or makes and writes them."""
    if path.exists():
        return read_texts(path)
    words = frequent_words(WORDS)
    texts = split_texts(words, example_sentences(set(words)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(texts)), "utf-8")
    return texts


def frequent_words(count: int) -> list[str]:
    """The most frequent words of English that the dictionary has in lower case.

    Raises:
        InputError: If wordfreq or scowl is missing.
    """
    try:
        from wordfreq import top_n_list
    except ModuleNotFoundError as error:
        raise InputError("wordfreq is missing; install it with: pip install wordfreq") from error
    files = [
        SCOWL / f"{spelling}-{kind}.{size}"
        for spelling in ("english", "american")
        for kind in ("words", "contractions")
        for size in (10, 20, 35, 40, 50)
    ]
    known = {word for file in files if file.exists() for word in file.read_text("latin-1").split()}
    if not known:
        raise InputError(f"{SCOWL} is missing; install it with: apt-get install scowl")
    ranked = top_n_list("en", 4 * count)
    fitting = [w for w in ranked if w in known and re.fullmatch(r"a|i|[a-z]+('?[a-z])+", w)]
    return fitting[:count]


def example_sentences(words: set[str]) -> list[str]:
    """WordNet's examples of use over some words: lower case, apostrophes as the only marks.

    Raises:
        InputError: If WordNet is missing.
    """
    found = []
    for file in sorted(WORDNET.glob("data.*")):
        for line in file.read_text("latin-1").splitlines():
            gloss = "" if line.startswith("  ") else line.partition(" | ")[2]
            for example in re.findall(r'"([^"]+)"', gloss):
                text = example.lower().replace("`", "'").strip(" .!?;,")
                if re.fullmatch(r"[a-z' ,;-]+", text):
                    found.append(re.sub(r"[,;-]", " ", text).split())
    if not found:
        raise InputError(f"{WORDNET} is missing; install it with: apt-get install wordnet-base")
    fewest, most = SENTENCE_WORDS
    return [" ".join(said) for said in found if fewest <= len(said) <= most and set(said) <= words]


def draw_texts(texts: Texts, kind: str, part: int, count: int) -> list[str]:
    """Draws the texts of one part of the data; the same arguments give the same texts.

    Args:
        texts: What may be said.
        kind: "words" (one or two), "sequences" (two to seven words), "sentences", or one of the
            held-out sets, "unseen_words" and "unseen_sentences".
        part: Number of the part. Parts of "sentences" go through all sentences in turn.
        count: How many.

    Raises:
        InputError: If there is no such kind.
    """
    rng = random.Random(f"{kind} {part}")
    if kind in ("words", "sequences"):
        low, high = (1, 2) if kind == "words" else (2, 7)
        return [" ".join(rng.sample(texts.trained, rng.randint(low, high))) for _ in range(count)]
    if kind in ("unseen_words", "unseen_sentences"):
        return getattr(texts, kind)[part * count : (part + 1) * count]
    if kind != "sentences":
        raise InputError(f"There is no kind of texts {kind!r}; use one of {', '.join(KINDS)}.")
    total = len(texts.sentences)
    return [texts.sentences[index % total] for index in range(part * count, (part + 1) * count)]


KINDS = ("words", "sequences", "sentences", "unseen_words", "unseen_sentences")
"""Kinds of texts; the last two are held out."""
