"""Levels, frequencies and axes of the drawn mel spectrograms."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from unison_audio.spectrogram import BANDS, draw_mel, log_mel


def tone(hertz: float, sample_rate: int) -> torch.Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(sample_rate) / sample_rate)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_a_tone_lies_in_its_band_at_its_level(sample_rate: int) -> None:
    levels = log_mel(tone(1000, sample_rate), sample_rate)
    assert levels.shape == (BANDS, 101)  # a hundred frames a second at every rate
    middle = levels[:, 50]
    mel = 2595 * math.log10(1 + 1000 / 700)
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    assert int(middle.argmax()) == pytest.approx(mel / top * (BANDS + 1) - 1, abs=1.0)
    assert float(middle.max()) == pytest.approx(0.0, abs=4.0)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_no_band_is_empty_and_silence_is_the_lowest_level(sample_rate: int) -> None:
    noise = torch.randn(sample_rate, generator=torch.Generator().manual_seed(0))
    assert float(log_mel(noise, sample_rate).median(dim=1).values.min()) > -60.0
    assert float(log_mel(torch.zeros(sample_rate), sample_rate).max()) == -120.0


def test_axes_are_in_seconds_and_hertz() -> None:
    axes = Figure().add_subplot()
    draw_mel(axes, tone(440, 16_000), 16_000, label_color="black", seconds=2.5)
    assert axes.get_xlim() == (0.0, 2.5)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["250", "500", "1k", "2k", "4k", "8k"]
    assert axes.get_yticks()[-1] == pytest.approx(BANDS)  # half the sample rate is the top
