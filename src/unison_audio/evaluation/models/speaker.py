"""Models of voices: gender classification and speaker similarity."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import rms, trim_silence
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import gender_of, median_f0
from unison_audio.evaluation.models.weights import (
    identity_of,
    load_part,
    load_pretrained,
    name_of,
    package_folder,
)
from unison_audio.spectrogram import stft

SAMPLE_RATE = 16_000
"""Sample rate of all of them in Hz."""

GENDER_MODEL = "alefiury/wav2vec2-large-xlsr-53-gender-recognition-librispeech"
"""The paper's classifier of gender (footnote 1), on the Hugging Face hub."""

SPEAKER_MODEL = "microsoft/wavlm-base-plus-sv"
"""On the Hugging Face hub."""

F0_THRESHOLD = 150.0
"""Hz of median F0 above which `PitchGender` calls a voice female. Utterances of nano's male voices
reach up to 138 Hz, those of its female ones down to 163 Hz; what is learned from its training
voices lies at 147 Hz."""

GENDERS = {"female": "female", "male": "male", "f": "female", "m": "male"}
"""Names that classifiers give the genders -> ours."""

BATCH = 8
"""Recordings of equal length in one batch."""


class _HubModel:
    """A model of transformers with its feature extractor.

    Args:
        kind: Class of the network.
        source: Folder in transformers' layout, or name on the hub.
        device: Device of the model.

    Raises:
        InputError: If the model is not available, or takes another sample rate.
    """

    def __init__(self, kind: Any, source: Path | str, device: str) -> None:
        from transformers import AutoFeatureExtractor

        self._extractor: Any = load_part(AutoFeatureExtractor, source)
        if self._extractor.sampling_rate != SAMPLE_RATE:
            raise InputError(
                f"The model of {source} takes {self._extractor.sampling_rate} Hz where "
                f"{SAMPLE_RATE} Hz are expected; give another one"
            )
        self.net = load_pretrained(kind, source).to(device)
        self.model = name_of(source)
        self.identity = identity_of(source, self.net)

    def answer(
        self, waves: Sequence[np.ndarray], read: Callable[[Any], list[Any]], silence: Any
    ) -> list[Any]:
        """Runs waveforms of equal length in batches, so that no padding changes a result.

        Args:
            waves: (samples,) each.
            read: From the network's output of a batch to its answers.
            silence: The answer for digital silence.
        """
        answers: list[Any] = [silence] * len(waves)
        groups: dict[int, list[int]] = {}
        for i, wave in enumerate(waves):
            if float(rms(torch.from_numpy(wave))) >= SILENCE_RMS:
                groups.setdefault(len(wave), []).append(i)
        for group in groups.values():
            for start in range(0, len(group), BATCH):
                chosen = group[start : start + BATCH]
                # Each waveform is normalized if the model's configuration says so.
                inputs = self._extractor(
                    [waves[i] for i in chosen], sampling_rate=SAMPLE_RATE, return_tensors="pt"
                )["input_values"]
                with torch.inference_mode():
                    found = read(self.net(inputs.to(self.net.device)))
                for i, one in zip(chosen, found, strict=True):
                    answers[i] = one
        return answers


class Wav2Vec2Gender(_HubModel):
    """A wav2vec 2.0 fine-tuned to classify gender.

    Args:
        source: Folder in transformers' layout, or name on the hub. The labels are those of its
            configuration (``id2label``).
        device: Device of the model.

    Raises:
        InputError: If the model is not available, or its labels are not female and male.
    """

    def __init__(self, source: Path | str = GENDER_MODEL, device: str = "cpu") -> None:
        from transformers import Wav2Vec2ForSequenceClassification

        super().__init__(Wav2Vec2ForSequenceClassification, source, device)
        names = self.net.config.id2label
        self.labels = [
            GENDERS.get(str(names[k]).strip().lower(), "")
            for k in range(self.net.config.num_labels)
        ]
        if {"female", "male"} - set(self.labels):
            raise InputError(
                f"The classifier of {source} tells {', '.join(map(str, names.values()))} where "
                "female and male are needed; give one that was trained for genders"
            )

    def genders(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Names the gender in waveforms (samples,) at `SAMPLE_RATE`; "" of digital silence."""
        return self.answer(
            waves, lambda out: [self.labels[k] for k in out.logits.argmax(1).tolist()], ""
        )


class PitchGender:
    """Classifies gender by the median pitch of the voiced frames.

    Args:
        threshold: Hz above which a voice is female.
    """

    def __init__(self, threshold: float = F0_THRESHOLD) -> None:
        self.threshold = threshold
        self.model = self.identity = f"median F0, {threshold:g} Hz"

    def genders(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Names the gender in waveforms (samples,) at `SAMPLE_RATE`; "" where none is voiced."""
        return [
            gender_of(median_f0(torch.from_numpy(wave), SAMPLE_RATE), self.threshold)
            for wave in waves
        ]


class WavLmSpeaker(_HubModel):
    """WavLM with an x-vector head, fine-tuned for speaker verification.

    Args:
        source: Folder in transformers' layout, or name on the hub.
        device: Device of the model.

    Raises:
        InputError: If the model is not available.
    """

    def __init__(self, source: Path | str = SPEAKER_MODEL, device: str = "cpu") -> None:
        from transformers import WavLMForXVector

        super().__init__(WavLMForXVector, source, device)

    def embed(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Embeds voices as unit vectors (D,); digital silence as 0."""
        silence = torch.zeros(self.net.config.xvector_output_dim)
        return self.answer(
            waves, lambda out: list(F.normalize(out.embeddings, dim=1).cpu()), silence
        )


class ResemblyzerNet(nn.Module):
    """The speaker encoder of Wan et al. (2018) in Resemblyzer's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        """Maps mel powers (B, T, 40) to unit vectors (B, 256)."""
        _, (hidden, _) = self.lstm(mel)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


class Resemblyzer:
    """Resemblyzer (Wan et al. 2018), out of its package; loaded when it is first used."""

    model = identity = "Resemblyzer"
    frames, step = 160, 77
    """Frames of 10 ms in one window, and between the starts of two windows."""
    least_rms = 10 ** (-30 / 20)
    """Softer recordings are raised to this level."""

    @cached_property
    def _net(self) -> ResemblyzerNet:
        stored = torch.load(
            package_folder("resemblyzer") / "pretrained.pt",
            map_location="cpu",
            weights_only=True,
        )["model_state"]
        net = ResemblyzerNet()
        net.load_state_dict({name: stored[name] for name in net.state_dict()})
        return net.eval().requires_grad_(False)

    def embed(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Embeds voices as unit vectors (256,); digital silence as 0."""
        return [self._embed(torch.from_numpy(wave)) for wave in waves]

    def _embed(self, waveform: Tensor) -> Tensor:
        wave = trim_silence(waveform, SAMPLE_RATE)
        if len(wave) == 0:
            return torch.zeros(256)
        # As the package does: soft recordings are raised, loud ones are left.
        wave = wave * max(1.0, self.least_rms / float(rms(wave)))
        mel = _voice_mel(wave)  # (T, 40)
        # As the package cuts: a last window that is less than three quarters full is dropped.
        count = 1 + max(0, math.ceil((len(mel) - 0.75 * self.frames) / self.step) - 1)
        needed = (count - 1) * self.step + self.frames
        mel = F.pad(mel, (0, 0, 0, max(0, needed - len(mel))))
        parts = mel.unfold(0, self.frames, self.step)[:count].transpose(1, 2)
        with torch.no_grad():
            return F.normalize(self._net(parts).mean(dim=0), dim=0)


def _voice_mel(waveform: Tensor) -> Tensor:
    """Mel powers as librosa computes them by default: (samples,) -> (T, 40)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        201, 40, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    spectrum = stft(waveform, 400, 160, padding="zeros")
    return spectrum.abs().square().T @ torch.from_numpy(np.asarray(filters)).float()


GenderClassifier: TypeAlias = Wav2Vec2Gender | PitchGender
"""Names the gender in waveforms (samples,) at `SAMPLE_RATE`; "" where there is no voice."""

SpeakerEncoder: TypeAlias = Resemblyzer | WavLmSpeaker
"""Embeds voices as unit vectors; the cosine of two is their similarity."""
