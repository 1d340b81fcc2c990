"""Speech recognition models: Whisper and Paraformer, which the paper's error rates come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unison_audio.audio import rms
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.errors import InputError
from unison_audio.evaluation.models.weights import (
    identity_of,
    load_part,
    load_pretrained,
    missing_package,
    name_of,
)
from unison_audio.hub import quiet_transformers

SAMPLE_RATE = 16_000
"""Sample rate of all of them in Hz."""

WHISPER = "openai/whisper-large-v3"
"""The paper's English ASR model (§4.2), a name on the Hugging Face hub."""

PARAFORMER = "paraformer-zh"
"""The paper's Chinese ASR model (§4.2), a name in funasr."""

LANGUAGE = "en"
"""Language that Whisper transcribes; an English-only model ignores it."""

WHISPER_SECONDS = 30.0
"""Longest recording that Whisper accepts, in seconds."""

BATCH = 8
"""Batch size of Whisper."""


class Asr(ABC):
    """A speech recognition model."""

    model: str
    """Name of the model and of the checkpoint."""
    identity: str
    """Identity of the model among those of the same name."""

    @abstractmethod
    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE`."""

    def transcript_pairs(
        self, waves: Sequence[np.ndarray], texts: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Reference and transcript of each waveform, ready to compare.

        Digital silence has an empty transcript and is not given to the model, which would invent
        words.

        Args:
            waves: (samples,) at `SAMPLE_RATE`.
            texts: Expected words of each.
        """
        loud = [i for i, wave in enumerate(waves) if not is_silent(wave)]
        found = self.transcribe([waves[i] for i in loud]) if loud else []
        transcripts = dict(zip(loud, found, strict=True))
        return [(text, transcripts.get(i, "")) for i, text in enumerate(texts)]


class TransformersWhisper(Asr):
    """Whisper through transformers: greedy, without timestamps, in 32-bit floats.

    Args:
        source: Folder of a model in transformers' layout, or its name on the hub.
        device: Device of the model.

    Raises:
        InputError: If the model is not available.
    """

    def __init__(self, source: Path | str, device: str = "cpu") -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.processor: Any = load_part(WhisperProcessor, source)
        net = load_pretrained(WhisperForConditionalGeneration, source)
        self.net = net.to(device)
        self.model = f"{name_of(source)} (transformers, greedy)"
        self.identity = f"{self.model} {identity_of(source, net)}"
        # An English-only checkpoint refuses a language argument. Old generation configs lack the
        # field, and those are multilingual.
        multilingual = vars(net.generation_config).get("is_multilingual", True)
        self._prompt = {"language": LANGUAGE, "task": "transcribe"} if multilingual else {}

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE`.

        Raises:
            InputError: If one is longer than `WHISPER_SECONDS`.
        """
        for wave in waves:
            if len(wave) > WHISPER_SECONDS * SAMPLE_RATE:
                raise InputError(
                    f"A recording of {len(wave) / SAMPLE_RATE:.1f} s is longer than the "
                    f"{WHISPER_SECONDS:g} s that Whisper takes at once; use a model in "
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
                    features.to(self.net.device), num_beams=1, do_sample=False, **self._prompt
                )
            texts += self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


class FasterWhisper(Asr):
    """Whisper through faster-whisper: greedy, without timestamps and without a second try.

    The model is loaded when it is first used.

    Args:
        folder: Of a model in CTranslate2's layout.
        device: Device of the model.
        compute_type: Type of CTranslate2's arithmetic.
        threads: Of the processor; torch's if None.
        max_tokens: Most tokens of a transcript.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        *,
        compute_type: str = "default",
        threads: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.folder, self.device = folder, torch.device(device)
        self.compute_type, self.threads, self.max_tokens = compute_type, threads, max_tokens
        self.model = f"{name_of(folder)} (faster-whisper, greedy)"
        self.identity = f"{self.model} {identity_of(folder)}"

    @cached_property
    def net(self) -> Any:
        """The model.

        Raises:
            InputError: The package faster-whisper is missing.
        """
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "faster-whisper") from None
        return WhisperModel(
            str(self.folder),
            device=self.device.type,
            device_index=self.device.index or 0,
            compute_type=self.compute_type,
            cpu_threads=self.threads or torch.get_num_threads(),
        )

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            segments, _ = self.net.transcribe(
                wave,
                language=LANGUAGE,
                beam_size=1,
                # With a list of temperatures, doubtful texts are sampled again at random, and the
                # figure would change from run to run.
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
                max_new_tokens=self.max_tokens,
            )
            texts.append("".join(segment.text for segment in segments).strip())
        return texts


class Paraformer(Asr):
    """Paraformer through funasr (1.4): Mandarin, one recording at a time.

    Recordings in one batch change each other's words a little, so each is transcribed alone.

    Args:
        source: Folder of a model, or its name among funasr's.
        device: Device of the model.

    Raises:
        InputError: If the package is missing or the model is not available.
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
        folder = source if isinstance(source, Path) else vars(self.net).get("model_path")
        stored = identity_of(Path(folder)) if folder and Path(folder).is_dir() else ""
        self.identity = f"{self.model} {stored}"

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            found = self.net.generate(input=wave, fs=SAMPLE_RATE)
            texts.append(found[0]["text"] if found else "")  # it gives no row for no words
        return texts


def load_whisper(source: Path | str, device: str) -> Asr:
    """Loads a Whisper in either layout.

    Args:
        source: Folder in the layout of faster-whisper or transformers, or a name on the hub. Only
            faster-whisper's has a file ``vocabulary.json`` or ``vocabulary.txt``.
        device: Device of the model.
    """
    if isinstance(source, Path) and any(source.glob("vocabulary.*")):
        return FasterWhisper(source, device)
    return TransformersWhisper(source, device)


def is_silent(wave: np.ndarray) -> bool:
    """Whether a waveform (samples,) is digital silence."""
    return float(rms(torch.from_numpy(wave))) < SILENCE_RMS
