"""Figures made of class posteriors: divergence of pairs and the inception score of a set."""

import numpy as np

KL_EPS = 1e-6
IS_SPLITS = 10
IS_SEED = 2020
"""Of the order in which samples fall into splits."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Posteriors over the last dimension, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(target: np.ndarray, output: np.ndarray, eps: float = KL_EPS) -> float:
    """KL(target || output) in nats, `eps` added to the output's posteriors.

    Args:
        target: (classes,).
        output: (classes,).
        eps: Keeps it finite where the output excludes a class.
    """
    told = target > 0
    return float((target[told] * (np.log(target[told]) - np.log(output[told] + eps))).sum())


def inception_score(posteriors: np.ndarray, splits: int = IS_SPLITS, seed: int = IS_SEED) -> float:
    """Inception score (Salimans et al. 2016): mean over splits of exp(mean KL(p || mean p)).

    Args:
        posteriors: (n, classes).
        splits: Into how many parts the set, in random order, is cut; one a sample where there are
            fewer samples. The score cannot exceed the number of samples in a part.
        seed: Of the order.

    Returns:
        From 1 to the number of classes.
    """
    count = len(posteriors)
    splits = min(splits, count)
    order = np.random.RandomState(seed).permutation(count)
    shuffled = posteriors[order].astype(np.float64)
    scores = []
    for k in range(splits):
        part = shuffled[k * count // splits : (k + 1) * count // splits]
        mean = part.mean(axis=0)
        told = part > 0
        terms = np.where(told, np.log(np.where(told, part, 1.0)), 0.0) - np.log(
            np.where(mean > 0, mean, 1.0)
        )
        scores.append(np.exp((part * terms).sum(axis=1).mean()))
    return float(np.mean(scores))
