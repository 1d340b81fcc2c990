"""Frechet distances against scipy's root, closed forms, and a limit that is known."""

import numpy as np
import pytest
import scipy.linalg

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.distribution import frechet_distance, frechet_infinity


def by_root(first: np.ndarray, second: np.ndarray) -> float:
    """The textbook's way."""
    covariances = [np.cov(vectors, rowvar=False) for vectors in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root.real))


@pytest.mark.parametrize(("count", "other", "width"), [(60, 80, 12), (300, 200, 40), (9, 300, 8)])
def test_agrees_with_scipy(count: int, other: int, width: int) -> None:
    rng = np.random.default_rng(count)
    mixing = rng.normal(size=(width, width))
    first = rng.normal(size=(count, width)) @ mixing + 0.3
    second = rng.normal(size=(other, width)) * rng.uniform(0.5, 2, width)
    assert frechet_distance(first, second) == pytest.approx(by_root(first, second), abs=1e-6)


def test_closed_form_of_independent_dimensions() -> None:
    # Columns made orthogonal, so that covariances are exactly diagonal.
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(50, 5))
    basis = np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(49)
    basis -= basis.mean(axis=0)
    deviations, others = np.array([1.0, 2, 3, 0.5, 0]), np.array([2.0, 2, 1, 1, 1])
    shift = np.array([1.0, 0, 0, -2, 0])
    expected = (shift**2).sum() + ((deviations - others) ** 2).sum()
    found = frechet_distance(basis * deviations, basis[::-1] * others + shift)
    # The reversed basis has the same covariance.
    assert found == pytest.approx(expected, abs=1e-9)


def test_fewer_vectors_than_dimensions() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(6, 200)), rng.normal(size=(9, 200)) + 0.1
    found = frechet_distance(first, second)
    # The root's trace by eigenvalues of the small matrix with the same ones other than 0.
    a, b = (x - x.mean(axis=0) for x in (first, second))
    small = (a @ b.T) @ (b @ a.T) / (5 * 8)
    trace = np.sqrt(np.linalg.eigvalsh(small).clip(0)).sum()
    shift = first.mean(axis=0) - second.mean(axis=0)
    expected = shift @ shift + (a**2).sum() / 5 + (b**2).sum() / 8 - 2 * trace
    assert found == pytest.approx(expected, abs=1e-6)  # the root of a rounded 0 is 1e-8


def test_no_distance_to_itself() -> None:
    vectors = np.random.default_rng(2).normal(size=(20, 64)).astype(np.float32)
    assert frechet_distance(vectors, vectors) == pytest.approx(0, abs=1e-9)
    constant = np.ones((3, 4))
    assert frechet_distance(constant, constant + 2) == pytest.approx(16)


def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 vectors"):
        frechet_distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(InputError, match="at least 4 vectors, not 3"):
        frechet_infinity(np.zeros((3, 4)), np.zeros((5, 4)))


def test_infinity_takes_the_bias_of_few_vectors_away() -> None:
    # Both sets are drawn from one distribution: the distance of endless sets is 0.
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(5000, 8))
    plain, endless = [], []
    for _ in range(8):
        measured = rng.normal(size=(120, 8))
        plain.append(frechet_distance(measured, reference))
        endless.append(frechet_infinity(measured, reference))
    assert np.mean(plain) > 0.1
    assert abs(np.mean(endless)) < 0.2 * np.mean(plain)
    assert frechet_infinity(measured, reference) == endless[-1]  # the same subsets each time
