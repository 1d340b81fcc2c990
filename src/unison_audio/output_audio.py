"""From sampled latents to the sounds that a user gets: decoding, edits on the source, level."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.codecs.table import AudioCodec
from unison_audio.inputs import FADE_IN_SECONDS, PEAK, Request
from unison_audio.preserve import preserve_source
from unison_audio.tasks.table import Task


@torch.no_grad()
def decode(codec: AudioCodec, z: Tensor) -> Tensor:
    """(B, C, T') -> waveforms (B, samples) on the CPU."""
    return codec.decode(z).float().cpu()


def decode_rows(codec: AudioCodec, z: Tensor, frames: Sequence[int]) -> Iterator[Tensor]:
    """Decode a padded batch, each row at its own length.

    Args:
        codec: The variant's codec.
        z: (B, C, T').
        frames: Frames of each row that count, sorted.

    Yields:
        The waveform of each row, (samples,).
    """
    # Rows are sorted by length, so that rows of equal length are neighbors and are decoded
    # together, without the padding that would change their ends.
    first = 0
    for length, same in groupby(frames):
        last = first + len(list(same))
        yield from decode(codec, z[first:last, :, :length])
        first = last


def apply_edits(task: Task, source: Tensor, decoded_source: Tensor, result: Tensor) -> Tensor:
    """Apply a task's edits to the recordings themselves, so that the rest of them stays as it is.

    Args:
        task: The task of all rows.
        source: (B, samples), at the model's level.
        decoded_source: (B, samples), the sources after the codec.
        result: (B, samples), the edited sounds.

    Returns:
        (B, samples).
    """
    return preserve_source(
        source,
        decoded_source,
        result,
        adds=task.adds,
        removes=task.removes,
        clears_speech=task.clears_speech,
    )


def apply_request(request: Request, decoded_source: Tensor, result: Tensor) -> Tensor:
    """Apply one edit, (samples,), to its source."""
    source = request.layout.source
    if source is None:
        raise AssertionError("an edit has a source")
    length = min(len(source), len(result))
    waves = (wave[None, :length] for wave in (source, decoded_source, result))
    return apply_edits(request.task, *waves)[0]


def finish(request: Request, waveform: Tensor, sample_rate: int) -> Audio:
    """Cut out the result and scale it back to the level of its source.

    Args:
        request: What was asked for.
        waveform: (samples,), decoded.
        sample_rate: Its samples per second.
    """
    layout = request.layout
    cut = waveform[layout.first : layout.first + layout.samples] / layout.gain
    if layout.reference_samples:
        cut = audio.fade(cut, round(FADE_IN_SECONDS * sample_rate), 0)
    peak = float(cut.abs().max())
    return Audio(
        cut * (PEAK / peak) if peak > 1.0 else cut.clone(),
        sample_rate,
        instruction=request.asked,
        task=request.task.name,
        seed=request.seed,
        bit_depth=request.bit_depth,
    )
