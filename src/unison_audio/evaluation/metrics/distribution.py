"""Frechet distances between sets of vectors, and their extrapolation to infinite sets."""

import numpy as np

from unison_audio.errors import InputError

STEPS = 25
"""Sizes at which `frechet_infinity` measures."""

LEAST = 500
"""The smallest of them, where the set has twice as many vectors."""


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance between the normal distributions fitted to two sets.

    That is `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))` with the covariances over n - 1. The
    trace of the root is the sum of the singular values of X1 X2' / sqrt((n1 - 1) (n2 - 1)), X being
    the sets less their means: no root of a D x D matrix is taken, which fails where it is singular.

    Args:
        first: (n1, D), at least two vectors.
        second: (n2, D), at least two vectors.

    Returns:
        At least 0, up to rounding; 0 for equal sets.

    Raises:
        InputError: If a set has fewer than two vectors.
    """
    return _between(_moments(first), _moments(second))


def frechet_infinity(
    measured: np.ndarray, reference: np.ndarray, *, steps: int = STEPS, seed: int = 0
) -> float:
    """Frechet distance extrapolated to an infinite set from the distribution of `measured`.

    The distance to the whole reference is measured for random subsets of `steps` sizes N, drawn
    without replacement, and a line over 1 / N is followed to 0 (Chong and Forsyth 2020; Gui et al.
    2024). Subsets have from `LEAST`, or from half of the vectors where these are fewer than
    2 `LEAST`, to all of them. Small sets bias the distance upwards; this takes the part of the bias
    away that comes from the measured set.

    Args:
        measured: (n, D), at least four vectors.
        reference: (n2, D), at least two.
        steps: Number of sizes.
        seed: Of the subsets.

    Returns:
        The intercept; it can be negative where there are few vectors.

    Raises:
        InputError: If a set has too few vectors.
    """
    count = len(measured)
    if count < 4:
        raise InputError(
            f"FAD-infinity needs at least 4 vectors, not {count}; measure more or longer files"
        )
    rng = np.random.default_rng(seed)
    least = LEAST if count >= 2 * LEAST else count // 2
    sizes = np.unique(np.linspace(least, count, steps).round().astype(int))
    fixed = _moments(reference)
    distances = [
        _between(_moments(measured[rng.permutation(count)[:size]]), fixed) for size in sizes
    ]
    # The bias of a set of N is proportional to 1 / N, so the intercept of the line has none.
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])


def _moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (D,) of vectors (n, D) and R (min(n, D), D) with R' R the covariance."""
    if vectors.ndim != 2 or len(vectors) < 2:
        raise InputError(
            f"A Frechet distance needs two sets of at least 2 vectors, not {vectors.shape}; "
            "measure more files"
        )
    # Squared deviations of hundreds of dimensions are subtracted from each other below; float32
    # would leave noise in place of small distances.
    vectors = vectors.astype(np.float64)
    mean = vectors.mean(axis=0)
    centered = (vectors - mean) / np.sqrt(len(vectors) - 1)
    # Only R' R matters, and R of the QR decomposition has the same with D rows instead of n.
    if len(centered) > centered.shape[1]:
        centered = np.linalg.qr(centered, mode="r")
    return mean, centered


def _between(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    """The distance between two normal distributions, each given as by `_moments`."""
    (mean_1, root_1), (mean_2, root_2) = first, second
    shift = mean_1 - mean_2
    # tr((C1 C2)^(1/2)) = nuclear norm of R1 R2': real and stable even if a covariance is singular,
    # where the usual matrix root returns complex numbers or fails.
    overlap = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    return float(shift @ shift + np.square(root_1).sum() + np.square(root_2).sum() - 2.0 * overlap)


KL_EPS = 1e-6

IS_SPLITS = 10

IS_SEED = 2020
"""Seed of the order in which samples are split."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Posteriors over the last dimension, in float64."""
    # Less the largest logit, which cancels: exp never overflows.
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(target: np.ndarray, output: np.ndarray, eps: float = KL_EPS) -> float:
    """KL(target || output) in nats, `eps` added to the output's posteriors.

    Args:
        target: (classes,).
        output: (classes,).
        eps: Keeps it finite where the output excludes a class.
    """
    present = target > 0
    return float(
        (target[present] * (np.log(target[present]) - np.log(output[present] + eps))).sum()
    )


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
        present = part > 0
        terms = np.where(present, np.log(np.where(present, part, 1.0)), 0.0) - np.log(
            np.where(mean > 0, mean, 1.0)
        )
        scores.append(np.exp((part * terms).sum(axis=1).mean()))
    return float(np.mean(scores))
