"""PerTh's watermark: equal to the wheel's own encoder and detector, at any length and rate."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unison_audio.errors import InputError
from unison_audio.provenance import perth, perth_weights
from unison_audio.provenance.watermark import (
    WatermarkStream,
    find_watermark,
    limited,
    mark_blocks,
)

RATE = 16_000

# The wheel's own classes, with torch's STFT in place of torchaudio's (the same transform) and
# setuptools' resource lookup, which setuptools no longer has.
REFERENCE = """
import sys, types
import numpy as np, torch

class Spectrogram(torch.nn.Module):
    def __init__(self, n_fft, win_length, power, hop_length, window_fn, normalized):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop_length
        self.register_buffer("window", window_fn(win_length))
    def forward(self, x):
        return torch.stft(x, self.n_fft, self.hop, window=self.window, return_complex=True)

class InverseSpectrogram(Spectrogram):
    def __init__(self, n_fft, win_length, hop_length, window_fn, normalized):
        super().__init__(n_fft, win_length, None, hop_length, window_fn, normalized)
    def forward(self, x):
        return torch.istft(x, self.n_fft, self.hop, window=self.window)

class TimeStretch(torch.nn.Module):
    def __init__(self, n_freq, hop_length):
        super().__init__()
        self.register_buffer("phase_advance", torch.zeros(n_freq, 1))

def module(name, **names):
    made = types.ModuleType(name)
    for key, value in names.items():
        setattr(made, key, value)
    sys.modules[name] = made

module("torchaudio")
module("torchaudio.transforms", Spectrogram=Spectrogram, InverseSpectrogram=InverseSpectrogram,
       TimeStretch=TimeStretch)
module("librosa", resample=None)
module("pkg_resources", resource_filename=lambda package, name: sys.argv[1] + "/" + name)
from perth.perth_net.perth_net_implicit.perth_watermarker import PerthImplicitWatermarker

wave = np.load(sys.argv[2])
maker = PerthImplicitWatermarker()
marked = maker.apply_watermark(wave, 32000)
scores = [float(maker.get_watermark(one, 32000, round=False)) for one in (wave, marked)]
np.savez(sys.argv[3], marked=marked, scores=scores)
"""


def voice(seconds: float, rate: int = RATE) -> Tensor:
    """A sound of a voice's kind: harmonics that glide and pause, in noise; (samples,)."""
    time = torch.arange(round(seconds * rate)) / rate
    pitch = 130 + 25 * torch.sin(2 * torch.pi * 0.7 * time)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / rate
    wave = sum(torch.sin(k * phase) / k for k in range(1, 25))
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    loud = torch.sin(2 * torch.pi * 1.3 * time).clamp_min(0.05)
    return 0.15 * loud * wave + 0.004 * noise


def set_watermark(waveform: Tensor, sample_rate: int) -> tuple[Tensor, str]:
    """Mark a whole sound, (samples,) or (channels, samples); with the stream's note."""
    rows = waveform.reshape(-1, waveform.shape[-1])
    stream = WatermarkStream(sample_rate, len(rows))
    marked = np.concatenate(list(mark_blocks([rows.numpy().T], stream)))
    return torch.from_numpy(marked.T).reshape(waveform.shape), stream.note


def test_the_wheels_own_classes_agree(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("perth")
    assert spec is not None
    assert spec.origin is not None
    net = Path(spec.origin).parent / "perth_net"
    wave = 0.5 * voice(3.0, 32_000)
    np.save(tmp_path / "wave.npy", wave.numpy())
    subprocess.run(
        [sys.executable, "-c", REFERENCE, net, tmp_path / "wave.npy", tmp_path / "out.npz"],
        check=True,
        capture_output=True,
    )
    theirs = np.load(tmp_path / "out.npz")
    ours, note = set_watermark(wave, 32_000)
    assert note == ""
    reference = torch.from_numpy(theirs["marked"])
    apart = (ours[: len(reference)] - reference).square().sum()
    agreement = 10 * torch.log10(reference.square().sum() / apart)
    assert agreement > 80
    with torch.no_grad():
        scores = [float(perth.load_perth().score(one[None])) for one in (wave, reference)]
    assert scores == pytest.approx(theirs["scores"], abs=1e-3)
    assert scores[0] < 0.05 < 0.95 < scores[1]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_any_rate_and_channel_count(rate: int) -> None:
    mono = 0.5 * voice(1.7, rate)
    stereo = torch.stack([mono, 0.3 * mono])
    for wave in (mono, stereo):
        marked, _ = set_watermark(wave, rate)
        assert marked.shape == wave.shape
        assert float(marked.abs().amax()) <= 1.0
        change = (marked - wave).square().sum() / wave.square().sum()
        assert 10 * torch.log10(change) < -12
        if rate > 8_000:  # a telephone's band is one on which the detector is not trusted
            assert find_watermark(wave, rate).verdict == "not found"
            assert find_watermark(marked, rate).verdict == "found"


def test_a_long_recording_is_marked_in_blocks_as_in_one() -> None:
    wave = 0.5 * voice(25.0, 32_000)[: 32_000 * 25 - 123]
    marked, _ = set_watermark(wave, 32_000)
    with torch.no_grad():
        whole = perth.load_perth().mark(wave[None])[0]
    assert marked.shape == wave.shape
    apart = (marked - whole).square().sum() / whole.square().sum()
    assert 10 * torch.log10(apart) < -60
    assert find_watermark(marked, 32_000).verdict == "found"


def test_sounds_that_cannot_carry_a_mark_stay_as_they_are() -> None:
    short = voice(0.05)
    silent = torch.zeros(RATE)
    for wave, word in ((short, "too short"), (silent, "silent")):
        marked, note = set_watermark(wave, RATE)
        assert torch.equal(marked, wave)
        assert word in note


def test_a_loud_sound_stays_within_full_scale() -> None:
    wave = voice(1.5)
    wave = wave / wave.abs().max()
    marked, note = set_watermark(wave, RATE)
    assert note == ""
    assert float(marked.abs().max()) <= 1.0
    quiet, _ = set_watermark(0.5 * wave, RATE)
    # Away from the peaks the marked sound is that of a quiet one, turned up.
    apart = (marked - 2 * quiet).abs() > 1e-3
    assert float(apart.float().mean()) < 0.1
    assert find_watermark(marked, RATE).verdict == "found"


def test_the_limiter_never_passes_its_height() -> None:
    wave = torch.randn(20_000, generator=torch.Generator().manual_seed(3)).numpy()
    assert np.abs(limited(wave, RATE)).max() <= 0.9901
    below = wave / np.abs(wave).max()
    assert limited(below, RATE) is below


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_a_stream_is_marked_as_a_whole_is(rate: int) -> None:
    wave = 0.5 * voice(3.3, rate)
    whole, _ = set_watermark(wave, rate)
    stream = WatermarkStream(rate)
    pieces, at = [], 0
    for size in (700, 20_000, 1, 40_000, 10**6):
        pieces.append(stream.write(wave[at : at + size].numpy()))
        at += size
    first = len(pieces[0]) + len(pieces[1]) + len(pieces[2]) + len(pieces[3])
    assert first > 0
    pieces.append(stream.finish())
    marked = torch.from_numpy(np.concatenate(pieces)[:, 0])
    assert marked.shape == wave.shape
    apart = (marked - whole).square().sum() / (whole - wave).square().sum()
    assert 10 * torch.log10(apart) < -20


def test_the_verdict_is_careful() -> None:
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(3 * RATE) / RATE)
    for wave, rate, word in (
        (torch.zeros(2 * RATE), RATE, "silent"),
        (voice(0.6), RATE, "0.60 s"),
        (voice(2.0, 8_000), 8_000, "above 4 kHz"),
        (tone + 1e-4 * torch.randn(3 * RATE), RATE, "tones"),
    ):
        result = find_watermark(wave, rate)
        assert result.verdict == "unknown"
        assert word in result.reason


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perth_weights, "find_spec", lambda name: None)
    perth.load_perth.cache_clear()
    with pytest.raises(InputError, match="pip install --no-deps resemble-perth"):
        set_watermark(voice(1.0), RATE)
    perth.load_perth.cache_clear()
