"""LAION-CLAP (Wu et al. 2023): how well a sound fits a text."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext, windows
from unison_audio.evaluation.models.weights import identity_of, load_part, load_pretrained, name_of

HUB_NAME = "laion/clap-htsat-unfused"

CHECKPOINT = "630k-audioset-best"
"""The checkpoint that the hub's model was converted from, by its authors' name (CLAP's issue
123)."""

SAMPLE_RATE = 48_000

MOST_TOKENS = 77
"""Of a text; what is longer is cut, as in the authors' own code."""

TOLERATED = 0.25
"""Seconds by which a sound may exceed the model's span before a second window is embedded."""

logger = logging.getLogger(__name__)


class Clap:
    """A CLAP model with its tokenizer and its feature extractor, as a metric model.

    Args:
        context: Where the model is: ``clap``, a folder in the hub's layout; else `HUB_NAME`.

    Raises:
        InputError: If it cannot be loaded.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, context: MetricContext) -> None:
        from transformers import ClapModel, ClapProcessor

        source: Path | str = context.path("clap") or HUB_NAME
        processor = load_part(ClapProcessor, source)
        self.net = load_pretrained(ClapModel, source).to(context.device)
        self.device = context.device
        self.extractor, self.tokenizer = processor.feature_extractor, processor.tokenizer
        if self.extractor.sampling_rate != SAMPLE_RATE:
            raise InputError(
                f"The CLAP model of {source} takes {self.extractor.sampling_rate} Hz where "
                f"{SAMPLE_RATE} Hz are expected; give another one"
            )
        checkpoint = f" ({CHECKPOINT})" if source == HUB_NAME else ""
        self.model = f"LAION-CLAP {name_of(source)}{checkpoint}"
        self.identity = identity_of(source, self.net)

    @property
    def span(self) -> int:
        """Samples that the model takes at once."""
        return self.extractor.nb_max_samples

    @torch.inference_mode()
    def embed_audio(self, waveforms: Sequence[np.ndarray]) -> Tensor:
        """Embeds sounds.

        A sound shorter than the model's span (10 s) is repeated a whole number of times and zeros
        follow, as the model was trained. Of a longer one the fewest windows that cover it are
        embedded, evenly spaced, and averaged, where the authors' code takes one at random.

        Args:
            waveforms: (samples,) each at 48 kHz.

        Returns:
            Unit vectors (B, D).
        """
        tolerated = round(TOLERATED * SAMPLE_RATE)
        cut = [windows(waveform, self.span, tolerated=tolerated) for waveform in waveforms]
        inputs = self.extractor(
            [window for own in cut for window in own],
            sampling_rate=SAMPLE_RATE,
            truncation="rand_trunc",  # nothing is left to cut
            padding="repeatpad",
            return_tensors="pt",
        )
        features = inputs["input_features"].float().to(self.device)
        embedded = self.net.get_audio_features(
            input_features=features, is_longer=inputs["is_longer"].to(self.device)
        ).pooler_output.cpu()
        parts = embedded.split([len(own) for own in cut])
        return F.normalize(torch.stack([part.mean(dim=0) for part in parts]), dim=1)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embeds texts; unit vectors (B, D)."""
        if any(len(self.tokenizer(text)["input_ids"]) > MOST_TOKENS for text in texts):
            logger.warning("CLAP reads only the first %d tokens of a caption", MOST_TOKENS)
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
        ).to(self.device)
        embedded = self.net.get_text_features(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).pooler_output
        return F.normalize(embedded.cpu(), dim=1)
