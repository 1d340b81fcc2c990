"""Faster and slower speech at the same pitch, by FFmpeg's `atempo` filter."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from unison_audio.audio import Audio
from unison_audio.output_format import require_av

_LEAST = 0.5
"""Slowest factor of one `atempo` filter; slower speech passes two."""


def at_speed(sounds: Iterable[Audio], speed: float) -> Iterator[Audio]:
    """Play sounds faster or slower.

    Args:
        sounds: Of one sample rate, one after the other.
        speed: Factor on the tempo, 0.25 to 4.

    Yields:
        As many sounds, each as far as the filter has got.
    """
    if speed == 1.0:
        yield from sounds
        return
    graph: Any = None
    last: Audio | None = None
    position = 0
    for sound in sounds:
        if graph is None:
            graph = _graph(sound.sample_rate, speed)
        frame = _frame(sound, position)
        position += len(sound.waveform)
        graph.push(frame)
        last = sound
        yield replace(sound, waveform=_pull(graph))
    # The filter holds back up to a window of samples until its input ends.
    if last is not None:
        graph.push(None)
        yield replace(last, waveform=_pull(graph))


def _graph(rate: int, speed: float) -> Any:
    av = require_av("The field speed")
    graph = av.filter.Graph()
    nodes = [
        graph.add_abuffer(
            format="fltp", sample_rate=rate, layout="mono", time_base=Fraction(1, rate)
        )
    ]
    factors = [speed] if speed >= _LEAST else [_LEAST, speed / _LEAST]
    nodes += [graph.add("atempo", f"{factor:.6f}") for factor in factors]
    nodes.append(graph.add("abuffersink"))
    graph.link_nodes(*nodes)
    graph.configure()
    return graph


def _frame(sound: Audio, position: int) -> Any:
    av = require_av("The field speed")
    samples = np.ascontiguousarray(sound.waveform.numpy(), np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = sound.sample_rate, position
    frame.time_base = Fraction(1, sound.sample_rate)
    return frame


def _pull(graph: Any) -> torch.Tensor:
    """All samples that the filter has ready, (samples,)."""
    av = require_av("The field speed")
    found = []
    while True:
        try:
            found.append(graph.pull().to_ndarray()[0])
        except (av.BlockingIOError, av.EOFError):
            break
    # Where the filter overlaps stretches, their sum can exceed full scale.
    joined = np.concatenate(found) if found else np.zeros(0, np.float32)
    return torch.from_numpy(joined.copy()).clamp(-1, 1)
