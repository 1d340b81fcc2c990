"""Reads a user's recordings: files, `Audio` and waveforms in memory, checked."""

import math
import os
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unison_audio import audio, audio_files
from unison_audio.audio import Audio
from unison_audio.checks import check_length
from unison_audio.errors import InputError
from unison_audio.values import as_whole, shown

MAX_PEAK = 1e6
"""Largest sample of a user's recording: 16-bit values in place of +-1 are still read."""

INTEGER_SCALES = {torch.int16: 32768.0, torch.int32: 2147483648.0}
"""Types of whole samples -> their full scale, as sound files and sound devices give them."""

Sound: TypeAlias = str | os.PathLike[str] | Audio | tuple[Tensor | np.ndarray, int]
"""A file's path, an `Audio`, or (waveform, sample_rate) with (samples,) or (channels, samples)."""


def read_sound(given: Sound, what: str, sample_rate: int, longest: float | None = None) -> Tensor:
    """Read a user's recording as mono at a sample rate.

    Args:
        given: The recording.
        what: Name of the recording in messages, such as "source".
        sample_rate: Samples per second of the result.
        longest: Maximum length in seconds; None for no limit.

    Returns:
        Waveform, (samples,).

    Raises:
        InputError: If it is missing, unreadable, empty, silent, not finite, or too long.
    """
    if isinstance(given, Audio):
        given = (given.waveform, given.sample_rate)
    if isinstance(given, str | os.PathLike):
        name = f"The {what} {os.fspath(given)}"
        if longest is not None:  # from the header, so that hours of sound are not decoded first
            check_length(audio_files.seconds(given), longest, name)
        # A header may claim less than the file holds; one second more tells that there is more.
        bound = None if longest is None else longest + 1.0
        waveform = audio.load(given, sample_rate=sample_rate, longest=bound)
    else:
        name = f"The {what}"
        waveform = _from_memory(given, name, sample_rate, longest)
    if longest is not None:
        check_length(waveform.shape[0] / sample_rate, longest, name)
    audio.require_sound(waveform, name)
    peak = float(waveform.abs().max())
    if peak > MAX_PEAK:  # powers of such samples overflow float32, and the result would be NaN
        raise InputError(
            f"{name} has samples of {peak:.3g}, where full scale is 1; scale the waveform to +-1."
        )
    return waveform


def source_form(source: Sound | None, sample_rate: int) -> tuple[str, int]:
    """A warning about what the result does not have of a source's file, and its bit depth."""
    if isinstance(source, Audio):
        return "", source.bit_depth
    if not isinstance(source, str | os.PathLike):
        return "", 16
    form = audio_files.form_of(source)
    if form.channels == 1 and form.sample_rate == sample_rate:
        return "", form.bit_depth
    channels = "one channel" if form.channels == 1 else f"{form.channels} channels"
    seconds = math.floor(100 * audio_files.seconds(source)) / 100
    reduced = (
        f"The source {os.fspath(source)} has {channels} at {form.sample_rate} Hz; the result has "
        f"one channel at {sample_rate} Hz. To keep them, name the region 0-{seconds:g}."
    )
    return reduced, form.bit_depth


def _as_tensor(values: "Tensor | np.ndarray") -> Tensor:
    """Samples on the CPU; arrays may be of either byte order, and run backwards."""
    if isinstance(values, Tensor):
        return values.detach().cpu().contiguous()
    return torch.from_numpy(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))


def _from_memory(given: object, name: str, sample_rate: int, longest: float | None) -> Tensor:
    """Convert (waveform, sample_rate) to mono at a sample rate."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(
            f"{name} is a {type(given).__name__}; give a path, an Audio, or "
            "(waveform, sample_rate)."
        )
    values, rate = given[0], as_whole(given[1])
    if rate is None or not 0 < rate <= audio_files.MAX_RATE:
        raise InputError(
            f"{name} has the sample rate {shown(given[1])}; give samples per second, above 0 and "
            f"at most {audio_files.MAX_RATE:,}."
        )
    if not isinstance(values, Tensor | np.ndarray):
        raise InputError(f"{name}'s waveform is a {type(values).__name__}; give a tensor or array.")
    if np.ma.is_masked(values):  # what lies under the mask would be read as samples
        raise InputError(
            f"{name}'s waveform has {np.ma.count_masked(values)} masked samples; fill them, such "
            "as with waveform.filled(0.0)."
        )
    try:
        waveform = _as_tensor(values)
    # RuntimeError: tensors that are sparse, or on the meta device
    except (TypeError, ValueError, RuntimeError) as error:
        kind = values.layout if isinstance(values, Tensor) and values.is_sparse else values.dtype
        where = f" on the device {values.device}" if isinstance(values, Tensor) else ""
        raise InputError(
            f"{name}'s waveform is of {kind}{where}; give floats within -1..1, or int16, in an "
            "array or a dense tensor."
        ) from error
    if waveform.dtype in INTEGER_SCALES:
        waveform = waveform.double() / INTEGER_SCALES[waveform.dtype]
    if not waveform.is_floating_point():
        raise InputError(
            f"{name}'s waveform is {waveform.dtype}; give floats within -1..1, or int16."
        )
    if waveform.ndim == 2 and waveform.shape[0] <= waveform.shape[1]:
        waveform = audio.to_mono(waveform, 0, name)
    if waveform.ndim != 1 or waveform.numel() == 0:
        raise InputError(
            f"{name}'s waveform has the shape {tuple(waveform.shape)}; give (samples,) or "
            "(channels, samples), with at least one sample."
        )
    if longest is not None:  # before hours of samples are made of a rate that is too low
        check_length(waveform.shape[0] / rate, longest, name)
    audio_files.require_finite(waveform.float().cpu().numpy(), rate, name)
    resampled = audio.resample(waveform.float(), rate, sample_rate)
    if resampled.numel() == 0:
        raise InputError(f"{name} is too short: less than one sample at {sample_rate} Hz.")
    return resampled
