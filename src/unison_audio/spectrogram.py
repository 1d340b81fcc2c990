"""The project's short-time Fourier transform and mel bands, and a drawn mel spectrogram.

Codecs, losses, metrics and figures all frame their waveforms with one of the two functions here:

| function | frames | used by |
|---|---|---|
| `stft` | centered on multiples of the hop | losses, metrics, figures |
| `framed_magnitude` | exactly `samples / hop` frames | codecs |

The Slaney mel bands of other people's networks come from `transformers.audio_utils`.
"""

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BANDS = 96

WINDOW_SECONDS = 0.064
"""Approximate length of a window; the nearest power of two is used, 1024 samples at 16 kHz."""

FLOOR_DB, TOP_DB = -75.0, -5.0
"""Range of the colors, in dB of a full-scale sine."""

COLORMAP = "magma"

TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)


def stft(
    waveform: Tensor,
    n_fft: int,
    hop: int,
    *,
    window: Tensor | None = None,
    padding: Literal["reflect", "zeros"] = "reflect",
) -> Tensor:
    """Computes a short-time Fourier transform with centered frames.

    Args:
        waveform: (samples,) or (B, samples).
        n_fft: Samples of a frame and of its window.
        hop: Samples between two frames.
        window: (n_fft,); a Hann window by default.
        padding: What continues the waveform by half a frame at both ends. "reflect" needs more
            samples than that half frame.

    Returns:
        (..., n_fft // 2 + 1, 1 + samples // hop), complex.
    """
    if window is None:
        window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    return torch.stft(
        waveform,
        n_fft,
        hop,
        window=window,
        pad_mode="constant" if padding == "zeros" else padding,
        return_complex=True,
    )


def istft(spectrum: Tensor, hop: int, length: int) -> Tensor:
    """Inverts `stft` for a Hann window.

    Args:
        spectrum: (..., n_fft // 2 + 1, frames), complex.
        hop: Samples between two frames.
        length: Samples of the result.

    Returns:
        (..., length).
    """
    n_fft = 2 * (spectrum.shape[-2] - 1)
    window = torch.hann_window(n_fft, device=spectrum.device)
    return torch.istft(spectrum, n_fft, hop, window=window, length=length)


def framed_magnitude(waveform: Tensor, window: Tensor, hop: int) -> Tensor:
    """Computes the magnitudes that vocoders are trained on: one frame for each hop.

    Args:
        waveform: (B, samples), a multiple of `hop`.
        window: (n_fft,).
        hop: Samples between two frames.

    Returns:
        (B, n_fft // 2 + 1, samples // hop).
    """
    n_fft = len(window)
    # Padding by (n_fft - hop) / 2 gives samples / hop frames. Centered frames would be one more,
    # and a codec's latent frames would no longer be whole multiples of the hop.
    pad = (n_fft - hop) // 2
    padded = F.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)
    # The square root has an infinite slope at 0, so silence needs the 1e-9. It stands inside the
    # root because the pretrained MMAudio VAE was trained on exactly this formula.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


def mel_filters(sample_rate: int, n_fft: int, mels: int) -> Tensor:
    """Builds triangular mel filters (HTK scale, unit peak).

    Returns:
        (mels, n_fft // 2 + 1).
    """
    top = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, mels + 2, dtype=torch.float64) / 2595.0) - 1)
    bins = torch.linspace(0.0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


def log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Computes mel bands in dB for a figure, with a hundred frames a second.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        (bands, frames); 0 dB is a full-scale sine.
    """
    n_fft = 2 ** round(math.log2(sample_rate * WINDOW_SECONDS))
    spectrum = stft(waveform.float(), n_fft, sample_rate // 100, padding="zeros")
    # A sine of amplitude 1 has the magnitude sum(window) / 2 in its bin.
    magnitude = spectrum.abs() * (2.0 / torch.hann_window(n_fft).sum())  # (bins, frames)
    bands = mel_filters(sample_rate, n_fft, BANDS) @ magnitude
    return 20.0 * bands.clamp_min(1e-6).log10()


def draw_mel(
    axes: "Axes",
    waveform: Tensor,
    sample_rate: int,
    *,
    label_color: str,
    seconds: float | None = None,
    size: float = 8.0,
) -> Any:
    """Draws a mel spectrogram in decibels.

    Args:
        axes: Empty axes.
        waveform: (samples,).
        sample_rate: Samples per second; the frequency axis ends at half of it.
        label_color: Color of ticks, labels and frame.
        seconds: End of the time axis; the end of the sound by default.
        size: Font size of the tick labels, in points.

    Returns:
        The image, for a color bar.
    """
    own = waveform.shape[0] / sample_rate
    image = axes.imshow(
        log_mel(waveform, sample_rate).numpy(),
        origin="lower",
        aspect="auto",
        extent=(0.0, own, 0.0, float(BANDS)),
        vmin=FLOOR_DB,  # a fixed range, so that figures side by side can be compared
        vmax=TOP_DB,
        cmap=COLORMAP,
        interpolation="nearest",
    )
    axes.set_xlim(0.0, own if seconds is None else seconds)
    ticks = [hertz for hertz in TICKS_HZ if hertz <= sample_rate / 2]
    axes.set_yticks([_band(hertz, sample_rate) for hertz in ticks])
    axes.set_yticklabels([f"{t // 1000}k" if t >= 1000 else str(t) for t in ticks])
    axes.set_xlabel("time (s)", color=label_color, fontsize=size + 1)
    axes.set_ylabel("frequency (Hz, mel)", color=label_color, fontsize=size + 1)
    axes.tick_params(colors=label_color, labelsize=size)
    for spine in axes.spines.values():
        spine.set_color(label_color)
    return image


def _band(hertz: float, sample_rate: int) -> float:
    """Position of a frequency on the axis of bands."""
    return BANDS * math.log10(1.0 + hertz / 700.0) / math.log10(1.0 + sample_rate / 2 / 700.0)
