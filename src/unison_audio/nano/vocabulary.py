"""The closed vocabulary of nano's speech, and random texts over it."""

import random
import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORD_GROUPS: dict[str, tuple[str, ...]] = {
    "number": _words(
        "zero one two three four five six seven eight nine ten eleven twelve twenty hundred"
    ),
    "color": _words("red blue green yellow orange black white pink brown purple"),
    "day": _words("monday tuesday wednesday thursday friday saturday sunday"),
    "month": _words("january march april may june july august october december"),
    "animal": _words("dog cat horse cow bird fish mouse lion tiger sheep"),
    "weather": _words("rain snow wind storm sun cloud"),
    "command": _words("stop go start open close turn left right up down wait play"),
    "greeting": _words("hello goodbye please thank you good morning night yes no"),
    "thing": _words("house door water fire tree car music train ball school"),
    "quality": _words("big small new old hot cold happy"),
    "time": _words("today tomorrow"),
    "function": _words("the is in on and my we see at has to under it are our not"),
}
"""About 120 words by kind. One-letter words are left out: ASR models fail on them alone."""

VOCABULARY: tuple[str, ...] = tuple(word for group in WORD_GROUPS.values() for word in group)

LETTERS_PER_SECOND, MAX_LETTERS_PER_SECOND = 10.0, 16.0
"""Median over 1,000 random texts of the corpus' flite voices, without silent ends, and a limit
above the fastest of them, which has 15.2."""

_SENTENCES: tuple[tuple[str, int], ...] = (
    ("the {color} {animal} is in the {place}", 6),
    ("the {quality} {animal} is under the {thing}", 5),
    ("my {animal} is {quality}", 3),
    ("our {color} {thing} is {quality}", 3),
    ("we see {number} and {number}", 2),
    ("we see the {quality} {animal}", 4),
    ("please open the {color} door", 2),
    ("please close the door {time}", 1),
    ("it is {temperature} {time}", 2),
    ("the {weather} is {temperature}", 2),
    ("hello and good morning", 1),
    ("thank you and good night", 1),
    ("goodbye and thank you", 1),
    ("turn {side} at the {place}", 3),
    ("stop the {vehicle} at the {place}", 3),
    ("go to the {place} on {day}", 4),
    ("start the music on {day}", 2),
    ("the {animal} and the {animal} are {quality}", 3),
    ("we play in the {weather} in {month}", 3),
    ("our train is at the {place}", 2),
    ("{day} is not {temperature}", 2),
    ("wait in the {vehicle} {time}", 2),
    ("the {thing} is on the {side}", 2),
    ("my {animal} has the {color} ball", 3),
)

_SLOTS: dict[str, tuple[str, ...]] = {
    **WORD_GROUPS,
    "place": _words("house school water tree car train"),
    "temperature": _words("hot cold good"),
    "side": _words("left right"),
    "vehicle": _words("car train"),
}


def random_sequence(rng: random.Random, words: int) -> str:
    """Draws a sequence of different words, e.g. ``"orange cat twelve"``.

    Args:
        rng: Source of randomness.
        words: How many words.
    """
    return " ".join(rng.sample(VOCABULARY, words))


def random_sentence(rng: random.Random) -> str:
    """Draws a natural sentence over the vocabulary, e.g. ``"the red dog is in the house"``."""
    patterns, weights = zip(*_SENTENCES, strict=True)
    pattern = rng.choices(patterns, weights)[0]
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(_SLOTS[slot.group(1)]), pattern)


def random_text(rng: random.Random, sentence_share: float = 0.4) -> str:
    """Draws the text of a training utterance: a sentence, or a sequence of 1 to 6 words."""
    if rng.random() < sentence_share:
        return random_sentence(rng)
    return random_sequence(rng, rng.randint(1, 6))


def held_out_texts(seed: int = 0, sequences: int = 400, sentences: int = 160) -> list[str]:
    """Draws the texts that are kept out of training; the same seed gives the same list."""
    rng = random.Random(f"held-out {seed}")
    chosen: dict[str, None] = {}
    for i in range(sequences):
        chosen[random_sequence(rng, 1 + i % 6) if i % 6 else rng.choice(VOCABULARY)] = None
    singles = [text for text in chosen if " " not in text]
    for text in singles[len(VOCABULARY) // 10 :]:  # most single words must be in training
        del chosen[text]
    while sum(1 for text in chosen) < sequences:
        chosen[random_sequence(rng, rng.randint(2, 6))] = None
    total = len(chosen) + sentences
    while len(chosen) < total:
        chosen[random_sentence(rng)] = None
    return list(chosen)


class IsSentence:
    """Distinguishes natural sentences from random sequences of words."""

    def __init__(self) -> None:
        self.sequences = set(held_out_texts(sentences=0))

    def __call__(self, text: str) -> bool:
        """Whether a held-out text is a natural sentence."""
        return text not in self.sequences
