"""Mel spectrograms in decibels, drawn on given axes in one range of colours."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unison_audio.codecs.nano import mel_filters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDS = 96

WINDOW_SECONDS = 0.064
"""Roughly: the window is the nearest power of two, 1024 samples at 16 kHz."""

FLOOR_DB, TOP_DB = -75.0, -5.0
"""Range of the colours, in dB of a full-scale sine."""

COLOURS = "magma"

TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)


def log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mel bands in dB, 0 dB a full-scale sine, a hundred frames a second.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        (bands, frames).
    """
    n_fft = 2 ** round(math.log2(sample_rate * WINDOW_SECONDS))
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        waveform.float(),
        n_fft,
        sample_rate // 100,
        window=window,
        pad_mode="constant",
        return_complex=True,
    )
    magnitude = spectrum.abs() * (2.0 / window.sum())  # (bins, frames)
    bands = mel_filters(sample_rate, n_fft, BANDS) @ magnitude
    return 20.0 * bands.clamp_min(1e-6).log10()


def draw_mel(
    axes: "Axes",
    waveform: Tensor,
    sample_rate: int,
    *,
    ink: str,
    seconds: float | None = None,
    size: float = 8.0,
) -> Any:
    """Draw a mel spectrogram on axes of its own.

    Args:
        axes: Empty axes.
        waveform: (samples,).
        sample_rate: Samples per second; the frequency axis ends at its half.
        ink: Colour of ticks, labels and frame.
        seconds: Where the time axis ends; the sound's own end by default.
        size: Of the letters, in points.

    Returns:
        The image, for a colour bar.
    """
    own = waveform.shape[0] / sample_rate
    image = axes.imshow(
        log_mel(waveform, sample_rate).numpy(),
        origin="lower",
        aspect="auto",
        extent=(0.0, own, 0.0, float(BANDS)),
        vmin=FLOOR_DB,
        vmax=TOP_DB,
        cmap=COLOURS,
        interpolation="nearest",
    )
    axes.set_xlim(0.0, own if seconds is None else seconds)
    ticks = [hertz for hertz in TICKS_HZ if hertz <= sample_rate / 2]
    axes.set_yticks([_band(hertz, sample_rate) for hertz in ticks])
    axes.set_yticklabels([f"{t // 1000}k" if t >= 1000 else str(t) for t in ticks])
    axes.set_xlabel("time (s)", color=ink, fontsize=size + 1)
    axes.set_ylabel("frequency (Hz, mel)", color=ink, fontsize=size + 1)
    axes.tick_params(colors=ink, labelsize=size)
    for spine in axes.spines.values():
        spine.set_color(ink)
    return image


def _band(hertz: float, sample_rate: int) -> float:
    """Where a frequency lies on the axis of bands."""
    return BANDS * math.log10(1.0 + hertz / 700.0) / math.log10(1.0 + sample_rate / 2 / 700.0)
