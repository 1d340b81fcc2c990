"""Whether a recording holds speech, from pitch and rhythm alone, without a model.

Speech alternates between voiced and unvoiced sound a few times a second, its pitch moves slowly
from frame to frame, and its spectrum changes with every syllable. A logistic regression weighs nine
such numbers. It was fitted to 500 recordings with speech and 500 without, made of nano's training
clips; `docs/editing.md` has its error rates.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio import audio

RATE = 8000
"""Sample rate of the analysis; pitch and the first formants lie below 4 kHz."""

WINDOW, HOP = 320, 80
"""Samples of a frame (40 ms, three periods of the lowest pitch) and between two frames (10 ms)."""

PITCH_HZ = (75.0, 400.0)
"""Lowest and highest pitch."""

VOICED = 0.5
"""Normalized autocorrelation from which a frame is voiced."""

ACTIVE_DB = 30.0
"""Frames this far below the loudest are pauses."""

BANDS = 12
"""Bands of the coarse spectrum."""

LEAST_SECONDS = 0.3
"""Shorter recordings have no rhythm to judge."""

# Mean and standard deviation of the features over the clips of the fit, and the regression's
# coefficients, in the order of `speech_features`.
CENTER = (0.627, 0.646, 2.227, 0.423, 6.307, 4.689, 0.519, 0.638, 6.229)
SCALE = (0.311, 0.262, 0.847, 0.185, 2.352, 1.381, 0.247, 0.213, 2.266)
WEIGHTS = (0.548, 0.943, -0.234, 0.379, 2.622, -0.648, -0.828, 0.702, 0.449)
BIAS = -0.232


def speech_probability(waveform: Tensor, sample_rate: int) -> float:
    """Estimate the probability that a recording holds speech, alone or over other sounds.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        0 to 1; 0 for recordings that are silent or shorter than `LEAST_SECONDS`.
    """
    if len(waveform) < LEAST_SECONDS * sample_rate or float(audio.rms(waveform)) < 1e-5:
        return 0.0
    features = speech_features(waveform, sample_rate)
    scaled = (features - torch.tensor(CENTER)) / torch.tensor(SCALE)
    return float(torch.sigmoid((scaled * torch.tensor(WEIGHTS)).sum() + BIAS))


def voiced_frames(waveform: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Find the voiced frames of a recording.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        The strength of the pitch in each frame of `HOP` samples at `RATE`, -1 to 1, and its
        frequency in Hz or a whole fraction of it, both (frames,).
    """
    frames = _frames(audio.resample(waveform, sample_rate, RATE))
    spectrum = torch.fft.rfft(frames * torch.hann_window(WINDOW), n=2 * WINDOW)
    own = torch.fft.irfft(spectrum.abs().square())  # (frames, lags)
    taper = torch.fft.irfft(torch.fft.rfft(torch.hann_window(WINDOW), n=2 * WINDOW).abs().square())
    # Divided by the window's own autocorrelation, or a long period would count less.
    shortest, longest = round(RATE / PITCH_HZ[1]), round(RATE / PITCH_HZ[0])
    lags = slice(shortest, longest + 1)
    relative = own[:, lags] / own[:, :1].clamp_min(1e-9) * (taper[0] / taper[lags])
    strength, place = relative.max(dim=1)
    return strength.clamp(-1, 1), RATE / (place + shortest).float()


def speech_features(waveform: Tensor, sample_rate: int) -> Tensor:
    """Describe a recording by the nine numbers of the regression, (9,)."""
    low = audio.normalize_rms(audio.resample(waveform, sample_rate, RATE))
    strength, pitch = voiced_frames(low, RATE)
    frames = _frames(low)
    power = torch.fft.rfft(frames * torch.hann_window(WINDOW)).abs().square()  # (frames, 161)
    level = 10 * power.sum(dim=1).clamp_min(1e-9).log10()
    active = level > level.max() - ACTIVE_DB
    voiced = (strength > VOICED) & active
    count = active.sum().clamp_min(1)
    both = voiced[1:] & voiced[:-1]
    jumps = (pitch[1:].log2() - pitch[:-1].log2()).abs()
    steady = (both & (jumps < 0.08)).sum() / both.sum().clamp_min(1)
    seconds = len(level) * HOP / RATE
    switches = (voiced[1:] != voiced[:-1]).sum() / seconds
    bands = _bands(power)[active]  # (active, BANDS) in dB
    shape = bands - bands.mean(dim=1, keepdim=True)
    moving = (shape[4:] - shape[:-4]).abs().mean() if len(shape) > 4 else shape.new_zeros(())
    heard = pitch[voiced].log2() if voiced.any() else pitch.new_zeros(1)
    return torch.stack(
        [
            voiced.sum() / count,
            steady,
            switches.log1p(),
            _syllables(level),
            shape.std(dim=0, unbiased=False).mean(),
            moving,
            heard.std(unbiased=False),
            (power[:, 8:40].sum() / power.sum().clamp_min(1e-9)).sqrt(),  # 200 to 1000 Hz
            level[active].std(unbiased=False),
        ]
    ).float()


def _frames(low: Tensor) -> Tensor:
    """(samples,) at `RATE` -> (frames, WINDOW)."""
    return F.pad(low, (0, max(0, WINDOW - len(low)))).unfold(0, WINDOW, HOP)


def _bands(power: Tensor) -> Tensor:
    """Level of bands that widen with frequency, in dB: (frames, bins) -> (frames, BANDS)."""
    edges = torch.logspace(0.5, 2.2, BANDS + 1).round().long().clamp(max=power.shape[1])
    columns = [power[:, a : max(a + 1, int(b))].mean(dim=1) for a, b in pairwise(edges)]
    return 10 * torch.stack(columns, dim=1).clamp_min(1e-9).log10()


def _syllables(level: Tensor) -> Tensor:
    """Share of the level's modulation that lies from 2 to 8 Hz, the rate of syllables."""
    clipped = level.clamp_min(float(level.max()) - ACTIVE_DB)
    moved = torch.fft.rfft(clipped - clipped.mean(), n=max(512, len(level))).abs().square()
    hertz = torch.arange(len(moved)) * (RATE / HOP) / max(512, len(level))
    inside = moved[(hertz >= 2) & (hertz <= 8)].sum()
    return inside / moved[(hertz >= 0.5) & (hertz <= 25)].sum().clamp_min(1e-9)
