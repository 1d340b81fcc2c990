"""Texts of any English words: the most frequent ones, and natural sentences over them.

Words are the most frequent of English (package wordfreq) that an American dictionary has (Debian
package scowl); sentences are the examples of use in WordNet (Debian package wordnet-base). Some are
held out, to measure words and sentences that training never said.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.nano.debian import fetch, read_members
from unison_audio.nano.vocabulary import VOCABULARY

SCOWL = tuple(
    f"usr/share/dict/scowl/{spelling}-{kind}.{size}"
    for spelling in ("english", "american")
    for kind in ("words", "contractions")
    for size in (10, 20, 35, 40, 50)
)
"""Word lists of the dictionary, inside its package."""
WORDNET = tuple(f"usr/share/wordnet/data.{kind}" for kind in ("adj", "adv", "noun", "verb"))
"""Files of WordNet, inside its package."""
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


@lru_cache(maxsize=1)
def open_texts(packages: Path) -> Texts:
    """Makes the texts; the same packages give the same texts.

    Args:
        packages: Folder of the `.deb` files; missing ones are downloaded.

    Raises:
        InputError: If wordfreq is missing or a package cannot be downloaded.
    """
    lists = read_members(fetch("scowl", packages), SCOWL)
    dictionary = {word for _, content in lists for word in content.decode("latin-1").split()}
    words = frequent_words(WORDS, dictionary)
    files = sorted(read_members(fetch("wordnet-base", packages), WORDNET))
    lines = [line for _, content in files for line in content.decode("latin-1").splitlines()]
    return split_texts(words, example_sentences(lines, set(words)))


def frequent_words(count: int, dictionary: set[str]) -> list[str]:
    """The most frequent words of English that a dictionary has in lower case.

    Args:
        count: How many.
        dictionary: Its words.

    Raises:
        InputError: If wordfreq is missing.
    """
    try:
        from wordfreq import top_n_list
    except ModuleNotFoundError as error:
        raise InputError(
            "The package wordfreq is missing; install the corpus tools with: "
            "pip install 'unison-audio[corpus]'"
        ) from error
    ranked = top_n_list("en", 4 * count)
    fits = re.compile(r"a|i|[a-z]+('?[a-z])+")
    return [word for word in ranked if word in dictionary and fits.fullmatch(word)][:count]


def example_sentences(lines: Iterable[str], words: set[str]) -> list[str]:
    """WordNet's examples of use over some words: lower case, apostrophes as the only marks.

    Args:
        lines: Of WordNet's files.
        words: What the examples may say.
    """
    found = []
    for line in lines:
        gloss = "" if line.startswith("  ") else line.partition(" | ")[2]
        for example in re.findall(r'"([^"]+)"', gloss):
            text = example.lower().replace("`", "'").strip(" .!?;,")
            if re.fullmatch(r"[a-z' ,;-]+", text):
                found.append(re.sub(r"[,;-]", " ", text).split())
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
    held_out = {"unseen_words": texts.unseen_words, "unseen_sentences": texts.unseen_sentences}
    if kind in held_out:
        return held_out[kind][part * count : (part + 1) * count]
    if kind != "sentences":
        raise InputError(f"There is no kind of texts {kind!r}; use one of {', '.join(KINDS)}.")
    total = len(texts.sentences)
    return [texts.sentences[index % total] for index in range(part * count, (part + 1) * count)]


KINDS = ("words", "sequences", "sentences", "unseen_words", "unseen_sentences")
"""Kinds of texts; the last two are held out."""
