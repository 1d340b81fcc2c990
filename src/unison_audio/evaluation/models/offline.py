"""Sound models from Python packages, for use without a network.

They replace VGGish, Cnn14 and CLAP. Their figures compare only with each other.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext, windows
from unison_audio.evaluation.models.aisfx import JointEncoder, SoundEncoder
from unison_audio.evaluation.models.asr import packaged_whisper
from unison_audio.evaluation.models.event_classifier import EventClassifier, load_classifier
from unison_audio.evaluation.models.weights import file_identity, package_folder, read_pickle
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup

EMBEDDING = 512
"""Width of aiSFX's embedding."""

HEAD = "soundlyTrain"
"""Sound library whose categories are the classes."""

FRAGMENT = 100
"""Frames that aiSFX was trained on: 2.3 s."""

LEAST_FRAMES = 16

MINILM_LAYERS = 6


class AisfxTagger:
    """The tagger aiSFX (Ma and Lerch 2022), by its embedding and one of its own heads.

    Args:
        context: Not used; the model comes with the package aisfx.

    Raises:
        InputError: If the package is missing.
    """

    sample_rate = SoundEncoder.sample_rate
    width = EMBEDDING

    def __init__(self, context: MetricContext) -> None:
        path = package_folder("aisfx") / "models" / "checkpoint.pth"
        weights, heads = read_pickle(path, "aiSFX")
        number, classes = heads[HEAD]
        self.head = nn.Sequential(
            nn.Linear(EMBEDDING, 256),
            nn.ReLU(),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
        prefix = f"fc.{int(number)}."
        self.head.load_state_dict(
            {
                name.removeprefix(prefix): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
        )
        self.head.eval().requires_grad_(False)
        self.encoder = SoundEncoder()
        self.model, self.identity = f"aiSFX, head {HEAD} (offline)", file_identity(path)

    def fragments(self, waveform: np.ndarray) -> Tensor:
        """Embeds each 2.3 s of a sound, each scaled to one peak.

        Args:
            waveform: (samples,) at 44.1 kHz.

        Returns:
            (fragments, 512): what the last layer is at most over a fragment's time. Fragments are
            evenly spaced and cover the sound; a shorter sound is one.

        Raises:
            InputError: If it is too short.
        """
        hop = SoundEncoder.hop
        if len(waveform) < LEAST_FRAMES * hop:
            raise InputError(
                f"{len(waveform) / self.sample_rate:.3f} s are too short for aiSFX, which needs "
                f"{LEAST_FRAMES * hop / self.sample_rate:.3f} s; generate a longer file"
            )
        parts = windows(waveform, FRAGMENT * hop)
        return torch.stack(
            [
                self.encoder.features(torch.from_numpy(part), self.sample_rate)[:EMBEDDING]
                for part in parts
            ]
        )

    def tag(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Embeddings and logits side by side, (512 + 79,) each: the largest over the fragments.

        Args:
            waveforms: (samples,) each, at 44.1 kHz.

        Raises:
            InputError: If one is too short.
        """
        # The largest, since an event that sounds in one fragment alone must count for the whole
        # sound.
        rows = torch.stack([self.fragments(waveform).amax(dim=0) for waveform in waveforms])
        return list(torch.cat([rows, self.head(rows)], dim=1).numpy())


class AisfxEmbedder:
    """The embedder aiSFX, by fragments.

    Args:
        context: Holds the loaded model.

    Raises:
        InputError: If the package is missing.
    """

    sample_rate = SoundEncoder.sample_rate

    def __init__(self, context: MetricContext) -> None:
        self.tagger = packaged_aisfx(context)
        self.model, self.identity = "aiSFX (offline)", self.tagger.identity

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Maps (samples,) at 44.1 kHz to (fragments, 512); raises as `AisfxTagger.fragments`."""
        return self.tagger.fragments(waveform).numpy()


def packaged_aisfx(context: MetricContext) -> AisfxTagger:
    """The one aiSFX, loaded once for all metrics."""
    return context.model("aisfx", lambda: AisfxTagger(context))


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
    return JointEncoder([SoundEncoder(), packaged_whisper()])


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
