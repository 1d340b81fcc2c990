"""Judges of voices: of which gender one is, and how alike two are."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.audio import SILENCE_RMS, rms
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import gender_of, median_f0
from unison_audio.evaluation.models.speech_quality import VoiceListener
from unison_audio.evaluation.models.weights import identity_of, load_part, load_pretrained, name_of

SAMPLE_RATE = 16_000
"""What all of them hear."""

GENDER_MODEL = "alefiury/wav2vec2-large-xlsr-53-gender-recognition-librispeech"
"""The paper's judge of gender (footnote 1), on the Hugging Face hub."""

SPEAKER_MODEL = "microsoft/wavlm-base-plus-sv"
"""On the Hugging Face hub."""

F0_THRESHOLD = 150.0
"""Hz of median F0 above which `PitchGender` calls a voice female. Utterances of nano's male voices
reach up to 138 Hz, those of its female ones down to 163 Hz; what is learned from its training
voices lies at 147 Hz."""

GENDERS = {"female": "female", "male": "male", "f": "female", "m": "male"}
"""Names that classifiers give the genders -> ours."""

BATCH = 8
"""Recordings of equal length that a model hears together."""


class Genders(Protocol):
    """What names the gender of voices."""

    model: str
    identity: str

    def genders(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Names the gender in waveforms (samples,) at `SAMPLE_RATE`; "" where there is no voice."""
        ...


class Wav2Vec2Gender:
    """A wav2vec 2.0 that was fine-tuned to tell genders.

    Args:
        source: Folder in transformers' layout, or name on the hub. The labels are those of its
            configuration (``id2label``).
        device: On which it runs.

    Raises:
        InputError: If the model cannot be had, or does not tell female from male.
    """

    def __init__(self, source: Path | str = GENDER_MODEL, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, Wav2Vec2ForSequenceClassification

        self.extractor: Any = load_part(AutoFeatureExtractor, source)
        _require_rate(self.extractor, source)
        self.net = load_pretrained(Wav2Vec2ForSequenceClassification, source).to(device)
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
        self.model = name_of(source)
        self.identity = identity_of(source, self.net)

    def genders(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Names the gender in waveforms (samples,) at `SAMPLE_RATE`; "" of digital silence."""

        def judged(group: Tensor) -> list[str]:
            best = self.net(_extracted(self.extractor, group).to(self.net.device)).logits.argmax(1)
            return [self.labels[k] for k in best.tolist()]

        return _by_length(waves, judged, "")


class PitchGender:
    """Tells genders by the median pitch of the voiced frames.

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


class Voices(Protocol):
    """What describes voices by vectors whose cosine tells how alike they are."""

    model: str
    identity: str

    def embed(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Describes the voices in waveforms (samples,) at `SAMPLE_RATE` by unit vectors."""
        ...


class WavLMVoices:
    """WavLM with an x-vector head, fine-tuned for speaker verification.

    Args:
        source: Folder in transformers' layout, or name on the hub.
        device: On which it runs.

    Raises:
        InputError: If the model cannot be had.
    """

    def __init__(self, source: Path | str = SPEAKER_MODEL, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, WavLMForXVector

        self.extractor: Any = load_part(AutoFeatureExtractor, source)
        _require_rate(self.extractor, source)
        self.net = load_pretrained(WavLMForXVector, source).to(device)
        self.model = name_of(source)
        self.identity = identity_of(source, self.net)

    def embed(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Describes voices by unit vectors (D,); digital silence by 0."""

        def judged(group: Tensor) -> list[Tensor]:
            inputs = _extracted(self.extractor, group).to(self.net.device)
            return list(F.normalize(self.net(inputs).embeddings, dim=1).cpu())

        return _by_length(waves, judged, torch.zeros(self.net.config.xvector_output_dim))


class ResemblyzerVoices:
    """Resemblyzer, out of its package."""

    def __init__(self) -> None:
        self.listener = VoiceListener()
        self.listener.embed(torch.ones(SAMPLE_RATE), SAMPLE_RATE)  # loads it
        self.model = self.identity = self.listener.name

    def embed(self, waves: Sequence[np.ndarray]) -> list[Tensor]:
        """Describes voices by unit vectors (256,); digital silence by 0."""
        return [self.listener.embed(torch.from_numpy(wave), SAMPLE_RATE) for wave in waves]


def _by_length(
    waves: Sequence[np.ndarray], judged: Callable[[Tensor], list[Any]], silence: Any
) -> list[Any]:
    """Judges waveforms of equal length together, so that padding plays no part.

    Args:
        waves: (samples,) each.
        judged: Answers for (B, samples).
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
            with torch.inference_mode():
                said = judged(torch.from_numpy(np.stack([waves[i] for i in chosen])))
            for i, answer in zip(chosen, said, strict=True):
                answers[i] = answer
    return answers


def _extracted(extractor: Any, group: Tensor) -> Tensor:
    """What a model takes, (B, samples): each waveform normalised if its configuration says so."""
    return extractor(list(group.numpy()), sampling_rate=SAMPLE_RATE, return_tensors="pt")[
        "input_values"
    ]


def _require_rate(extractor: Any, source: Path | str) -> None:
    if extractor.sampling_rate != SAMPLE_RATE:
        raise InputError(
            f"The model of {source} hears at {extractor.sampling_rate} Hz where {SAMPLE_RATE} Hz "
            "are expected; give another one"
        )
