"""Mel-spectrogram pictures, all in one colour range, readable on light and dark pages."""

import io

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unison_audio.frozen.nano_codec import mel_filters

N_FFT, HOP, BANDS = 1024, 160, 96
FLOOR_DB, TOP_DB = -75.0, -5.0
"""Range of the colours, in dB of a full-scale sine."""
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)
GREY = "#8a8f98"


def mel_picture(waveform: Tensor, sample_rate: int) -> bytes:
    """Draw the log-mel spectrogram of a sound.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        A PNG file.
    """
    levels = log_mel(waveform, sample_rate)  # (bands, frames)
    seconds = waveform.shape[0] / sample_rate
    figure = Figure(figsize=(5.6, 2.3), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.imshow(
        levels.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, 0.0, float(BANDS)),
        vmin=FLOOR_DB,
        vmax=TOP_DB,
        cmap="magma",
        interpolation="nearest",
    )
    ticks = [hertz for hertz in TICKS_HZ if hertz <= sample_rate / 2]
    axes.set_yticks([_band(hertz, sample_rate) for hertz in ticks])
    axes.set_yticklabels([f"{t // 1000}k" if t >= 1000 else str(t) for t in ticks])
    axes.set_xlabel("time (s)", color=GREY, fontsize=9)
    axes.set_ylabel("frequency (Hz, mel)", color=GREY, fontsize=9)
    axes.tick_params(colors=GREY, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return file.getvalue()


def log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mel bands in dB, 0 dB a full-scale sine: (samples,) -> (bands, frames)."""
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(
        waveform.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True
    )
    magnitude = spectrum.abs() * (2.0 / window.sum())  # (bins, frames)
    bands = mel_filters(sample_rate, N_FFT, BANDS) @ magnitude
    return 20.0 * bands.clamp_min(1e-6).log10()


def _band(hertz: float, sample_rate: int) -> float:
    """Where a frequency lies on the axis of bands."""
    mel, top = (torch.log10(torch.tensor(1.0 + f / 700.0)) for f in (hertz, sample_rate / 2))
    return float(BANDS * mel / top)
