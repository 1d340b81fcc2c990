"""The names that clients send: OpenAI's thirteen voices and its speech models."""

from dataclasses import dataclass
from typing import Literal

from unison_audio.longform.edit_windows import derive_seed


@dataclass(frozen=True, kw_only=True)
class BuiltinVoice:
    """What one of OpenAI's voices means here."""

    name: str
    """OpenAI's name."""
    gender: Literal["male", "female"]
    """Gender in the instruction."""
    number: int
    """Selects the seed: the timbre follows the noise, so each name has noise of its own."""

    def seed(self, seed: int) -> int:
        """The seed of the noise for a request's seed."""
        return derive_seed(seed, self.number)


_MALE = frozenset({"ash", "ballad", "echo", "fable", "onyx", "verse", "cedar"})

_NAMES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)

BUILTIN_VOICES: dict[str, BuiltinVoice] = {
    name: BuiltinVoice(name=name, gender="male" if name in _MALE else "female", number=number)
    for number, name in enumerate(_NAMES)
}
"""Name -> voice; the genders are those of the originals."""

MODEL_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
"""Names of OpenAI's models that mean the variant that runs."""
