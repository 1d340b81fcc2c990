"""Samples as files store them: their number types, and the way between them and floats."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.generic]
"""(samples, channels) in the recording's own number type."""

LOSSLESS: dict[str, tuple[str, int]] = {
    "PCM_U8": ("int16", 1 << 8),
    "PCM_S8": ("int16", 1 << 8),
    "PCM_16": ("int16", 1),
    "PCM_24": ("int32", 1 << 8),
    "PCM_32": ("int32", 1),
    "FLOAT": ("float32", 0),
    "DOUBLE": ("float64", 0),
}
"""Coding of libsndfile -> the type that holds its samples exactly, and the step between two of
them; 0 for floats. What is coded otherwise (ogg, mp3) counts as 16 bit once decoded."""


def to_float(samples: Samples) -> NDArray[np.float64]:
    """Stored samples as numbers within -1..1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    return samples.astype(np.float64) / (1 << (8 * samples.dtype.itemsize - 1))


def from_float(values: NDArray[np.float64], coding: str) -> Samples:
    """Numbers within -1..1 as samples that a coding stores; what exceeds it is limited."""
    dtype, step = LOSSLESS[coding]
    if step == 0:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # 8- and 24-bit samples fill the upper bytes of their number type: only multiples of `step`
    # exist.
    steps = np.round(values * (-float(limits.min) / step))
    return (steps.clip(limits.min / step, limits.max // step) * step).astype(dtype)
