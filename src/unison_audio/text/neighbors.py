"""Finds the known texts that are nearest to another text, by a text encoder's own states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unison_audio.text.states import TextEncoder


class NearestTexts:
    """Nearest neighbors among known texts, by the cosine of mean states.

    The known texts are encoded at the first question, and only then.

    Args:
        known: The known texts.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self.known = list(known)
        self._embeddings: Tensor | None = None

    def find(self, encoder: TextEncoder, text: str, count: int = 3) -> list[str]:
        """Find the nearest known texts, nearest first.

        Args:
            encoder: The text encoder, always the same one.
            text: The other text.
            count: Number of texts to find.
        """
        if not self.known:
            return []
        if self._embeddings is None:
            self._embeddings = _embed(encoder, self.known)  # (known, text_dim)
        cosines = self._embeddings @ _embed(encoder, [text])[0]
        nearest = cosines.topk(min(count, len(self.known))).indices.tolist()
        return [self.known[place] for place in nearest]


def _embed(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    """Mean state of the last layer over real tokens, of length 1, (B, text_dim)."""
    text = encoder.encode(texts)
    states = text.hidden_states[:, -1] if text.hidden_states.shape[1] else text.penultimate
    if states is None:
        raise ValueError("the encoder gives no states")
    weights = text.mask[:, :, None].float()  # (B, N, 1)
    mean = (states.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=1)
