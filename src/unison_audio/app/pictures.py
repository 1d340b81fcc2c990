"""Mel-spectrogram pictures, all in one colour range, readable on light and dark pages."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unison_audio.evaluation.spectrograms import draw_mel

GREY = "#8a8f98"


def mel_picture(waveform: Tensor, sample_rate: int) -> bytes:
    """Draw the log-mel spectrogram of a sound.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(5.6, 2.3), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    draw_mel(figure.add_subplot(), waveform, sample_rate, ink=GREY)
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return file.getvalue()
