"""Nano's event classifier in place of CLAP, for evaluation without a network."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models.aisfx import SoundEncoder
from unison_audio.nano.event_classifier import EventClassifier, JointEncoder, load_classifier
from unison_audio.nano.packaged_whisper import PackagedWhisper
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup

MINILM_LAYERS = 6


class LabelMatcher:
    """Nano's event classifier and a text encoder, in place of CLAP.

    A sound becomes the mean of the text embeddings of the classifier's labels, weighted by their
    probabilities; a caption is embedded by the same text encoder, all-MiniLM-L6-v2.

    Args:
        context: Where the classifier is: ``classifier``, the folder that nano's evaluation wrote.

    Raises:
        InputError: If it is not there, or a package is missing.
    """

    def __init__(self, context: MetricContext) -> None:
        self.events = event_classifier(context)
        self.text = MiniLmEncoder(TextSetup(picks=(MINILM_LAYERS,)))
        self.sample_rate = self.events.config.sample_rate
        self.model = "event classifier and all-MiniLM-L6-v2 (offline)"
        self.identity = self.events.identity

    @cached_property
    def labels(self) -> Tensor:
        """Embeddings of the classifier's labels, (labels, 384)."""
        return self.embed_text(self.events.config.labels)

    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Unit vectors (B, 384) of sounds (samples,) at the classifier's rate."""
        scores = [
            self.events.scores(torch.from_numpy(waveform)[None], self.sample_rate)
            for waveform in waveforms
        ]
        return F.normalize(torch.cat(scores).softmax(dim=1) @ self.labels, dim=1)

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (B, 384) of texts: the mean of the last layer over their tokens."""
        states = self.text.encode(texts)
        mask = states.mask[..., None].float()
        hidden = states.hidden_states[:, 0].float() * mask
        return F.normalize(hidden.sum(dim=1) / mask.sum(dim=1), dim=1)


def event_encoder() -> JointEncoder:
    """The encoder that event classifiers are trained on: aiSFX beside Whisper tiny.en.

    Raises:
        InputError: If a package is missing.
    """
    return JointEncoder([SoundEncoder(), PackagedWhisper()])


def event_classifier(context: MetricContext) -> EventClassifier:
    """The event classifier in the folder ``classifier``, loaded once for all metrics.

    Raises:
        InputError: If there is none, or a package is missing.
    """

    def load() -> EventClassifier:
        folder = context.path("classifier")
        if folder is None:
            raise InputError(
                "Without CLAP, captions are matched by nano's event classifier; give its folder "
                "as the metric model 'classifier'"
            )
        return load_classifier(folder, event_encoder())

    return context.model("event classifier", load)
