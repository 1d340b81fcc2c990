"""Waveforms: files, resampling, levels, fades, silence, and `Audio`, the result of a request.

A waveform is a float tensor whose last dimension is time; leading dimensions are a batch.
"""

import base64
import html
import io
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from unison_audio.audio_files import (
    MAX_HOURS,
    SILENCE_RMS,
    require_file,
    require_finite,
    stated_frames,
    unreadable,
)
from unison_audio.audio_writer import SampleLayout, write_audio
from unison_audio.av_audio import container_of, decode_blocks
from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat, merge_output
from unison_audio.provenance.file_tags import write_tags
from unison_audio.provenance.origin import Origin
from unison_audio.values import require_path

CANCELED = 1e-4
"""Peak of the mean of channels, relative to theirs, below which only rounding noise is left."""

_BLOCK = 1 << 16

_READ_AT_ONCE = 1 << 26
"""Samples of all channels that are decoded in one call."""


def load(path: str | os.PathLike[str], *, sample_rate: int, longest: float | None = None) -> Tensor:
    """Read a sound file as mono at a sample rate.

    Channels are averaged. All formats of libsndfile are read: wav, flac, ogg, mp3 and others; m4a
    and aac with PyAV.

    Args:
        path: The file.
        sample_rate: Samples per second of the result.
        longest: Seconds after which decoding stops, whatever the header says; None for no limit.

    Returns:
        The waveform, (samples,), float32.

    Raises:
        InputError: The file is missing, empty, cut short, not a sound file, or holds values that
            are not finite, or channels that cancel.
    """
    name = require_file(path)
    try:
        with soundfile.SoundFile(name) as file:
            file_rate, frames = file.samplerate, stated_frames(file, name)
            if longest is not None:
                frames = min(frames, math.ceil(longest * file_rate))
            data = _decode(file, frames)
    except (soundfile.SoundFileError, TypeError, OSError, ValueError) as error:
        container = None if isinstance(error, InputError) else container_of(name)
        if container is None:
            raise unreadable(name, error) from error
        data, file_rate = _decode_other(name, container, longest)
        frames = len(data)
    if len(data) == 0:
        raise InputError(f"{name} holds no sound (0 samples); give a file that does.")
    if len(data) < frames:
        raise InputError(
            f"{name} is cut short ({len(data)} of {frames} samples); give the whole file."
        )
    require_finite(data, file_rate, name)
    mono = to_mono(torch.from_numpy(data), 1, name)  # (samples,)
    mono = resample(mono, file_rate, sample_rate)
    if mono.numel() == 0:
        raise InputError(f"{name} is too short: less than one sample at {sample_rate} Hz.")
    return mono


def _decode(file: soundfile.SoundFile, frames: int) -> np.ndarray:
    """The first samples of an open file, (samples, channels); fewer where it has fewer."""
    if frames * file.channels <= _READ_AT_ONCE:
        return file.read(frames, dtype="float32", always_2d=True)
    # soundfile allocates as many samples as the header claims, and a header can claim 2^36. In
    # blocks, the memory is that of the samples which are there.
    blocks = []
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            break
        blocks.append(block)
        frames -= len(block)
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels), np.float32)


def to_mono(waveform: Tensor, dim: int, name: str) -> Tensor:
    """Average the channels.

    Args:
        waveform: (samples, channels) or (channels, samples).
        dim: Dimension of the channels.
        name: Name of the recording in the message.

    Raises:
        InputError: If the channels cancel: one is the other with its sign reversed, and the mean
            holds only rounding noise.
    """
    mono = waveform.mean(dim=dim)
    if waveform.shape[dim] > 1:
        loud, left = float(waveform.abs().max()), float(mono.abs().max())
        if left < CANCELED * loud:
            raise InputError(
                f"The channels of {name} cancel, since one is the other with its sign reversed; "
                "give one channel, or correct the phase."
            )
    return mono


def save(
    path: str | os.PathLike[str],
    waveform: Tensor,
    sample_rate: int,
    output: OutputFormat | None = None,
    *,
    origin: Origin | None = None,
) -> None:
    """Write a mono waveform atomically.

    Args:
        path: The file; its folder must exist.
        waveform: (samples,), within -1..1.
        sample_rate: Samples per second.
        output: Format and options; by default the suffix decides.
        origin: Where the sound comes from; None for sound that this program did not make.

    Raises:
        InputError: The suffix is unknown, the folder is missing, the format lacks an option, or the
            waveform is empty, not finite, or exceeds +-1 and so would be clipped.
    """
    if waveform.ndim != 1 or waveform.numel() == 0:
        raise InputError(
            f"Cannot write {path}: a waveform of shape (samples,) with at least one sample was "
            f"expected, got {tuple(waveform.shape)}."
        )
    data = waveform.detach().to("cpu", torch.float32).numpy()
    peak = float(np.abs(data).max())
    if not math.isfinite(peak):
        raise InputError(f"Cannot write {path}: the waveform holds values that are not finite.")
    if peak > 1.0:
        raise InputError(
            f"Cannot write {path}: the waveform's peak is {peak:.3f} and would be clipped; "
            "scale it to within -1..1."
        )
    layout = SampleLayout(sample_rate=sample_rate, origin=origin)
    write_audio(path, [data[:, None]], layout, output)


def _decode_other(
    name: str, container: str, longest: float | None
) -> tuple[NDArray[np.float32], int]:
    """Samples, (samples, channels), and rate of a recording that only PyAV reads."""
    most = MAX_HOURS * 3600 if longest is None else longest
    blocks: list[NDArray[np.float32]] = []
    samples, rate = 0, 1
    try:
        for block, rate in decode_blocks(name, f"The recording {name}", container):
            blocks.append(block)
            samples += len(block)
            if samples >= most * rate:
                break
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from error
    if not blocks:
        return np.zeros((0, 1), np.float32), rate
    limit = samples if longest is None else math.ceil(longest * rate)
    return np.concatenate(blocks)[:limit], rate


def require_sound(waveform: Tensor, name: str) -> None:
    """Refuse a waveform that is digital silence.

    Args:
        waveform: (samples,).
        name: Name of the recording in the message, such as its path.

    Raises:
        InputError: Its RMS is below `SILENCE_RMS`.
    """
    if waveform.numel() == 0 or float(rms(waveform)) < SILENCE_RMS:
        raise InputError(f"{name} is silent; give a recording that holds sound.")


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with soxr (high quality).

    Args:
        waveform: (..., samples).
        from_rate: Its samples per second.
        to_rate: The result's.

    Returns:
        (..., samples'), on the same device; the same tensor where the rates are equal.
    """
    if from_rate == to_rate:
        return waveform
    lead = waveform.shape[:-1]
    flat = waveform.detach().to("cpu", torch.float32).reshape(-1, waveform.shape[-1])
    rows = [torch.from_numpy(soxr.resample(row.numpy(), from_rate, to_rate)) for row in flat]
    return torch.stack(rows).reshape(*lead, -1).to(waveform.device)


def rms(waveform: Tensor) -> Tensor:
    """Root mean square over time: (..., samples) -> (...)."""
    return waveform.square().mean(dim=-1).sqrt()


def level_db(waveform: Tensor, other: Tensor) -> float:
    """Level of a sound relative to another in dB, each (samples,); silence counts as -180 dBFS."""
    return float(20 * (rms(waveform).clamp_min(1e-9) / rms(other).clamp_min(1e-9)).log10())


def normalize_rms(waveform: Tensor, target: float = 0.1) -> Tensor:
    """Scale to an RMS of `target` (paper §3.6); silence stays silence.

    Args:
        waveform: (..., samples); each item is scaled by itself.
        target: The RMS to reach.

    Returns:
        The same shape.
    """
    level = rms(waveform).unsqueeze(-1)
    gain = torch.where(level > SILENCE_RMS, target / level.clamp_min(SILENCE_RMS), 1.0)
    return waveform * gain


def fade(waveform: Tensor, fade_in: int, fade_out: int) -> Tensor:
    """Fade both ends with raised cosines.

    Args:
        waveform: (..., samples).
        fade_in: Samples of the rise; at most half of the waveform is used.
        fade_out: Samples of the fall; at most half of the waveform is used.

    Returns:
        The same shape.
    """
    length = waveform.shape[-1]
    window = torch.ones(length, dtype=waveform.dtype, device=waveform.device)
    rise, fall = (min(fade_in, length // 2), min(fade_out, length // 2))
    if rise > 0:
        window[:rise] = raised_cosine(rise).to(window)
    if fall > 0:
        window[length - fall :] = raised_cosine(fall).flip(0).to(window)
    return waveform * window


def raised_cosine(length: int) -> Tensor:
    """A rise from 0 to 1, (length,); it and its mirror image add up to 1."""
    phase = (torch.arange(length, dtype=torch.float64) + 0.5) / max(length, 1)
    return (0.5 - 0.5 * torch.cos(math.pi * phase)).float()


def frame_levels(waveform: Tensor, frame: int) -> Tensor:
    """Level of each full frame of `frame` samples in dB of full scale: (samples,) -> (frames,).

    The last frame may be shorter; its level is its own samples'.
    """
    count = -(-waveform.shape[-1] // frame)
    padded = torch.nn.functional.pad(waveform.square(), (0, count * frame - waveform.shape[-1]))
    energy = padded.reshape(count, frame).sum(dim=1)  # (frames,)
    sizes = torch.full((count,), float(frame), device=waveform.device)
    if count:
        sizes[-1] = waveform.shape[-1] - (count - 1) * frame
    return 10.0 * torch.log10((energy / sizes).clamp_min(1e-20))


def sound_span(waveform: Tensor, sample_rate: int, threshold_db: float = -40.0) -> tuple[int, int]:
    """Find the first and the last sample that are not silence.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second; the level is measured over frames of 10 ms.
        threshold_db: What counts as silence, relative to the loudest frame.

    Returns:
        Start and end of the stretch from the first to the last frame above the threshold; (0, 0)
        for a waveform that is silent throughout.
    """
    if waveform.numel() == 0 or float(rms(waveform)) < SILENCE_RMS:
        return 0, 0
    frame = max(1, round(0.01 * sample_rate))
    levels = frame_levels(waveform, frame)
    loud = torch.nonzero(levels >= levels.max() + threshold_db).flatten()
    return int(loud[0]) * frame, min((int(loud[-1]) + 1) * frame, waveform.shape[0])


def trim_silence(waveform: Tensor, sample_rate: int, threshold_db: float = -40.0) -> Tensor:
    """Cut silence off both ends, as `sound_span` finds them.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.
        threshold_db: What counts as silence, relative to the loudest frame.

    Returns:
        The stretch between; nothing, (0,), of a waveform that is silent throughout.
    """
    start, end = sound_span(waveform, sample_rate, threshold_db)
    return waveform[start:end]


@dataclass(frozen=True, eq=False)
class Audio:
    """A generated sound. A notebook shows it as a player."""

    waveform: Tensor
    """(samples,) float32 on the CPU, within -1..1."""
    sample_rate: int
    """Samples per second."""
    instruction: str = ""
    """The instruction."""
    task: str = ""
    """Name of the task, a key of `TASKS`."""
    seed: int | None = None
    """Seed of the noise."""
    warnings: tuple[str, ...] = ()
    """Warnings about the request, such as a word outside the variant's domain."""
    bit_depth: int = 16
    """Bit depth of the source of an edit, which `save` keeps where the format has it."""
    origin: Origin | None = None
    """Where the sound comes from, as its marks state it; None for sound that is not generated."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[-1] / self.sample_rate

    def save(
        self, path: str | os.PathLike[str], output: OutputFormat | None = None, **options: Any
    ) -> None:
        """Write a file atomically.

        Args:
            path: The file; its suffix selects the format.
            output: Format and options; by default the suffix decides.
            **options: Fields of `OutputFormat`, such as `bit_rate=96`, over those of `output`.

        Raises:
            InputError: The name or an option does not fit, or the file cannot be written.
        """
        chosen = merge_output(output, options).of_file(require_path(path, "The output"))
        depths = [depth for depth in chosen.info.bit_depths if depth <= self.bit_depth]
        if depths and chosen.bit_depth is None:
            chosen = merge_output(chosen, {"bit_depth": max(depths)})
        save(path, self.waveform, self.sample_rate, chosen, origin=self.origin)

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        samples = self.waveform.detach().cpu().numpy()
        with soundfile.SoundFile(file, "w", self.sample_rate, 1, "PCM_16", format="WAV") as sound:
            if self.origin is not None and OutputFormat().marks("metadata"):
                write_tags(sound, self.origin)
            sound.write(samples)
        data = base64.b64encode(file.getvalue()).decode()
        said = f"<div>{html.escape(self.instruction)}</div>" if self.instruction else ""
        return f'{said}<audio controls src="data:audio/wav;base64,{data}"></audio>'
