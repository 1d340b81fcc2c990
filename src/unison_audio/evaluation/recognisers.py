"""The recognisers that the paper's error rates come from: Whisper and Paraformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from unison_audio.audio import SILENCE_RMS, rms
from unison_audio.errors import InputError
from unison_audio.evaluation.model_files import (
    identity_of,
    load_part,
    load_pretrained,
    missing_package,
    name_of,
)
from unison_audio.frozen.quiet import quiet_transformers

SAMPLE_RATE = 16_000
"""What all of them hear."""
WHISPER = "openai/whisper-large-v3"
"""Judge of English words (paper §4.2), on the Hugging Face hub."""
PARAFORMER = "paraformer-zh"
"""Judge of Chinese words (paper §4.2), as funasr names it."""
WHISPER_SECONDS = 30.0
"""Longest recording that Whisper hears at once."""
BATCH = 8
"""Recordings that Whisper hears together."""


class Recognisers(Protocol):
    """What turns recordings into words."""

    model: str
    identity: str

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        ...


class Whisper:
    """Whisper through transformers: greedy, without timestamps, in 32-bit floats.

    Args:
        source: Folder of a model in transformers' layout, or its name on the hub.
        device: On which it runs.
        language: Which it is told to hear; an English-only model is not told.

    Raises:
        InputError: If the model cannot be had.
    """

    def __init__(self, source: Path | str, device: str = "cpu", language: str = "en") -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.processor: Any = load_part(WhisperProcessor, source)
        net = load_pretrained(WhisperForConditionalGeneration, source)
        self.net = net.to(device)
        self.model = f"{name_of(source)} (transformers, greedy)"
        self.identity = f"{self.model} {identity_of(source, net)}"
        told = getattr(net.generation_config, "is_multilingual", True)
        self._told = {"language": language, "task": "transcribe"} if told else {}

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`.

        Raises:
            InputError: If one is longer than `WHISPER_SECONDS`.
        """
        for wave in waves:
            if len(wave) > WHISPER_SECONDS * SAMPLE_RATE:
                raise InputError(
                    f"A recording of {len(wave) / SAMPLE_RATE:.1f} s is longer than the "
                    f"{WHISPER_SECONDS:g} s that Whisper hears at once; judge it by a model in "
                    "faster-whisper's layout"
                )
        texts: list[str] = []
        for start in range(0, len(waves), BATCH):
            features = self.processor(
                list(waves[start : start + BATCH]),
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            ).input_features  # (B, mels, 3000)
            with torch.inference_mode(), quiet_transformers():
                tokens = self.net.generate(
                    features.to(self.net.device), num_beams=1, do_sample=False, **self._told
                )
            texts += self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


class FasterWhisper:
    """Whisper through faster-whisper: greedy, without timestamps and without a second try.

    Args:
        folder: Of a model in CTranslate2's layout.
        device: On which it runs.
        language: Which it is told to hear.

    Raises:
        InputError: If the package is missing.
    """

    def __init__(self, folder: Path, device: str = "cpu", language: str = "en") -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "faster-whisper") from None
        place = torch.device(device)
        self.net = WhisperModel(
            str(folder),
            device=place.type,
            device_index=place.index or 0,
            cpu_threads=torch.get_num_threads(),
        )
        self.language = language
        self.model = f"{name_of(folder)} (faster-whisper, greedy)"
        self.identity = f"{self.model} {identity_of(folder)}"

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            segments, _ = self.net.transcribe(
                wave,
                language=self.language,
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
            )
            texts.append("".join(segment.text for segment in segments).strip())
        return texts


class Paraformer:
    """Paraformer through funasr (1.4): Mandarin, one recording at a time.

    Recordings that are heard together change each other's words a little, so none are.

    Args:
        source: Folder of a model, or its name among funasr's.
        device: On which it runs.

    Raises:
        InputError: If the package is missing or the model cannot be had.
    """

    def __init__(self, source: Path | str = PARAFORMER, device: str = "cpu") -> None:
        try:
            from funasr import AutoModel
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "funasr", "pip install 'funasr[knf]'") from None
        try:
            self.net = AutoModel(
                model=str(source),
                device=device,
                ncpu=torch.get_num_threads(),
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
            )
        except Exception as error:  # funasr raises what its parts raise
            raise InputError(
                f"funasr cannot load {source} ({error or type(error).__name__}); give the folder "
                "of a Paraformer in funasr's layout"
            ) from error
        self.model = f"{name_of(source)} (funasr)"
        folder = source if isinstance(source, Path) else getattr(self.net, "model_path", None)
        stored = identity_of(Path(folder)) if folder and Path(folder).is_dir() else ""
        self.identity = f"{self.model} {stored}"

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            heard = self.net.generate(input=wave, fs=SAMPLE_RATE)
            texts.append(heard[0]["text"] if heard else "")  # empty where it hears no word
        return texts


def load_whisper(source: Path | str, device: str, language: str = "en") -> Recognisers:
    """Loads a Whisper in either layout.

    Args:
        source: Folder in the layout of faster-whisper or transformers, or a name on the hub. Only
            faster-whisper's has a file ``vocabulary.json`` or ``vocabulary.txt``.
        device: On which it runs.
        language: Which it is told to hear.
    """
    if isinstance(source, Path) and any(source.glob("vocabulary.*")):
        return FasterWhisper(source, device, language)
    return Whisper(source, device, language)


def transcripts(recogniser: Recognisers, waves: Sequence[np.ndarray]) -> list[str]:
    """Writes down what is said; digital silence says nothing and is not given to the model."""
    loud = [i for i, wave in enumerate(waves) if not silent(wave)]
    heard = recogniser.transcribe([waves[i] for i in loud]) if loud else []
    said = dict(zip(loud, heard, strict=True))
    return [said.get(i, "") for i in range(len(waves))]


def silent(wave: np.ndarray) -> bool:
    """Whether a waveform (samples,) is digital silence."""
    return float(rms(torch.from_numpy(wave))) < SILENCE_RMS
