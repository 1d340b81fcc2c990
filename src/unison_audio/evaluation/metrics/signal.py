"""Measures computed from waveforms and texts alone: distances, word error rates, pitch."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.audio import rms
from unison_audio.audio_files import SILENCE_RMS
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.text import seed_tts
from unison_audio.evaluation.models.weights import missing_package
from unison_audio.spectrogram import mel_filters, stft

LSD_N_FFT = 2048

LSD_EPS = 1e-12

MEL_RESOLUTIONS: tuple[tuple[int, int], ...] = ((512, 32), (1024, 64), (2048, 96))
"""(n_fft, mel bands) of `mel_distance`; the hop is a quarter of n_fft."""

F0_RANGE = (60.0, 400.0)
"""Hz between which `median_f0` looks."""


def lsd(reference: Tensor, estimate: Tensor, sample_rate: int, *, eps: float = LSD_EPS) -> Tensor:
    """Log-spectral distance (paper §4.2).

    The mean over frames of the root of the mean over bins of `log10(ref^2 / est^2)^2`: n_fft 2048,
    a Hann window, a hop of 10 ms, `eps` added to both powers. The paper measures at 44.1 kHz.

    Args:
        reference: (B, samples).
        estimate: (B, samples).
        sample_rate: In Hz.
        eps: Power of a bin that is next to silence.

    Returns:
        (B,); 0 for equal waveforms.
    """
    _require_equal_shapes(reference, estimate)
    log_powers = [_power(wave, LSD_N_FFT, sample_rate // 100) for wave in (reference, estimate)]
    a, b = ((power + eps).log10() for power in log_powers)  # (B, bins, T)
    return (a - b).square().mean(dim=1).sqrt().mean(dim=1)


def distance_where_equal(
    one: Tensor, other: Tensor, estimate: Tensor, sample_rate: int, *, eps: float = LSD_EPS
) -> Tensor:
    """How far a waveform is from two others where these are alike.

    The root of the mean of `log10(one^2 / est^2)^2` over all bins and frames in which the powers of
    the two differ by less than half a decibel, with the spectra of `lsd`.

    Args:
        one: (B, samples).
        other: (B, samples).
        estimate: (B, samples).
        sample_rate: In Hz.
        eps: Power of a bin that is next to silence.

    Returns:
        (B,); NaN where the two are nowhere alike.
    """
    _require_equal_shapes(one, other)
    _require_equal_shapes(one, estimate)
    a, b, c = (
        (_power(wave, LSD_N_FFT, sample_rate // 100) + eps).log10()
        for wave in (one, other, estimate)
    )
    # Half a decibel, in log10 of power.
    alike = ((a - b).abs() < 0.05).to(a.dtype)
    return (((a - c).square() * alike).sum(dim=(1, 2)) / alike.sum(dim=(1, 2))).sqrt()


def mel_distance(reference: Tensor, estimate: Tensor, sample_rate: int) -> Tensor:
    """Multi-resolution log-mel distance: mean absolute difference of natural-log mel magnitudes.

    Args:
        reference: (B, samples).
        estimate: (B, samples).
        sample_rate: In Hz.

    Returns:
        (B,), the mean over `MEL_RESOLUTIONS`; magnitudes below 1e-3 count as 1e-3.
    """
    _require_equal_shapes(reference, estimate)
    total = torch.zeros(len(reference))
    for n_fft, mels in MEL_RESOLUTIONS:
        filters = mel_filters(sample_rate, n_fft, mels)
        a, b = (
            (filters @ _power(wave, n_fft, n_fft // 4).sqrt()).clamp_min(1e-3).log()
            for wave in (reference, estimate)
        )
        total += (a - b).abs().mean(dim=(1, 2))
    return total / len(MEL_RESOLUTIONS)


def si_sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), means removed.

    Args:
        reference: (B, samples).
        estimate: (B, samples).

    Returns:
        (B,).
    """
    _require_equal_shapes(reference, estimate)
    s = reference - reference.mean(dim=-1, keepdim=True)
    x = estimate - estimate.mean(dim=-1, keepdim=True)
    scale = (s * x).sum(dim=-1, keepdim=True) / s.square().sum(dim=-1, keepdim=True).clamp_min(
        1e-12
    )
    projected = scale * s
    error = (x - projected).square().sum(dim=-1).clamp_min(1e-12)
    return 10.0 * (projected.square().sum(dim=-1).clamp_min(1e-12) / error).log10()


def word_error_rate(reference: str, hypothesis: str, language: str = "en") -> float:
    """Word error rate of one utterance: substitutions, deletions and insertions over its words.

    Both texts are normalized by `seed_tts` first; in Chinese the words are characters. The rate
    can exceed 1. Rates of a set are averaged over its utterances, as Seed-TTS does.

    Args:
        reference: The requested text.
        hypothesis: The transcript.
        language: Language of both texts, ``en`` or ``zh``.

    Raises:
        InputError: If the reference holds no word, the language is another one, or the package
            jiwer is missing.
    """
    return _aligned(reference, hypothesis, language).wer


def word_recall(reference: str, hypothesis: str) -> float:
    """Share of the reference's words that the hypothesis has in the same order.

    Raises:
        InputError: As `word_error_rate`.
    """
    aligned = _aligned(reference, hypothesis)
    return aligned.hits / (aligned.hits + aligned.substitutions + aligned.deletions)


def median_f0(waveform: Tensor, sample_rate: int) -> float:
    """Median pitch of the voiced frames, by YIN (de Cheveigné and Kawahara 2002).

    Args:
        waveform: (samples,).
        sample_rate: In Hz.

    Returns:
        Hz; NaN where no frame is voiced.
    """
    lowest, highest = F0_RANGE
    longest = math.ceil(sample_rate / lowest)
    window, hop = 2 * longest, sample_rate // 100
    if waveform.shape[0] < window + longest or float(rms(waveform)) < SILENCE_RMS:
        return math.nan
    frames = waveform.double().unfold(0, window + longest, hop)  # (T, window + longest)
    size = 1 << (window + 2 * longest - 1).bit_length()
    spectrum = torch.fft.rfft(frames, size)
    head = torch.fft.rfft(frames[:, :window], size)
    # YIN's difference is d(lag) = r(0) + r_lag(0) - 2 r(lag), its equation 7; one FFT gives r of
    # all lags.
    products = torch.fft.irfft(head.conj() * spectrum, size)[:, : longest + 1]  # (T, lags)
    energy = F.pad(frames.square().cumsum(dim=1), (1, 0))
    energies = energy[:, window : window + longest + 1] - energy[:, : longest + 1]
    difference = (energies[:, :1] + energies - 2 * products).clamp_min(0)  # (T, lags)
    # Equation 8: divided by the mean over all shorter lags, a dip has the same depth anywhere.
    mean = difference[:, 1:].cumsum(dim=1) / torch.arange(1, longest + 1)
    normal = difference[:, 1:] / mean.clamp_min(1e-12)  # (T, lags from 1 on)
    shortest = math.floor(sample_rate / highest)
    # 30 dB below the loudest frame there are breath and pauses, whose pitch is chance.
    loud = energies[:, 0] > 1e-3 * energies[:, 0].max()
    pitches = []
    for row in normal[loud].tolist():
        lag = _first_dip(row, shortest)
        if lag is not None:
            pitches.append(sample_rate / lag)
    return float(torch.tensor(pitches).median()) if pitches else math.nan


def _first_dip(
    row: Sequence[float], shortest: int, periodic: float = 0.15, noisy: float = 0.45
) -> float | None:
    """Finds YIN's lag: the bottom of the first deep dip, refined by a parabola.

    Args:
        row: Normalized differences; entry k is lag k + 1.
        shortest: Least lag.
        periodic: A dip below this is deep.
        noisy: Where no dip is deep, the deepest one counts if it is below this.
    """
    # The first deep dip, not the deepest: twice the period fits as well, an octave too low.
    k = shortest - 1
    while k < len(row) - 1 and row[k] >= periodic:
        k += 1
    while k < len(row) - 1 and row[k + 1] < row[k]:
        k += 1
    if row[k] >= periodic:
        k = min(range(shortest - 1, len(row)), key=row.__getitem__)
    if row[k] >= noisy or k == 0 or k == len(row) - 1:
        return None
    before, here, after = row[k - 1 : k + 2]
    bend = before - 2 * here + after
    return k + 1 + (0.5 * (before - after) / bend if bend > 0 else 0.0)


def gender_of(pitch: float, threshold: float) -> str:
    """Names the gender of a median F0; empty where the pitch is unknown."""
    if not math.isfinite(pitch):
        return ""
    return "female" if pitch > threshold else "male"


def energy_inside(waveform: Tensor, windows: Sequence[tuple[float, float]], rate: int) -> float:
    """Share of a waveform's energy that lies inside windows.

    Args:
        waveform: (samples,).
        windows: Seconds from and to; they may overlap.
        rate: Sample rate in Hz.
    """
    inside = torch.zeros_like(waveform, dtype=torch.bool)
    for start, end in windows:
        inside[round(start * rate) : round(end * rate)] = True
    energy = waveform.double().square()
    return float(energy[inside].sum() / energy.sum().clamp_min(1e-12))


def window_contrasts(
    waveform: Tensor, windows: Sequence[tuple[float, float]], rate: int, floor_dbfs: float
) -> list[float]:
    """Measures the level of each window over that outside all windows, in dB.

    A noise floor is added to both, so that digital silence is no lower than a recording's.

    Args:
        waveform: (samples,).
        windows: Seconds from and to; they may overlap.
        rate: Sample rate in Hz.
        floor_dbfs: Level of the noise floor.

    Returns:
        One figure a window; none where the windows leave less than a tenth of a second.
    """
    power = waveform.double().square() + 10 ** (floor_dbfs / 10)
    outside = torch.ones_like(power, dtype=torch.bool)
    spans = [(round(start * rate), round(end * rate)) for start, end in windows]
    for start, end in spans:
        outside[start:end] = False
    if int(outside.sum()) < rate // 10:
        return []
    ground = power[outside].mean()
    return [float(10 * (power[a:b].mean() / ground).log10()) for a, b in spans]


def _power(waveform: Tensor, n_fft: int, hop: int) -> Tensor:
    """Power spectrogram (B, bins, T), frames centered, zeros beyond the ends."""
    return stft(waveform, n_fft, hop, padding="zeros").abs().square()


def _require_equal_shapes(reference: Tensor, estimate: Tensor) -> None:
    if reference.shape != estimate.shape or reference.ndim != 2:
        raise InputError(
            "Two batches (B, samples) of equal shape are compared, not "
            f"{tuple(reference.shape)} and {tuple(estimate.shape)}; cut them to the same length"
        )


def _aligned(reference: str, hypothesis: str, language: str = "en") -> Any:
    try:
        import jiwer
    except ModuleNotFoundError:
        raise missing_package("jiwer") from None
    words = seed_tts(reference, language)
    if not words:
        raise InputError(f"The reference text {reference!r} holds no word; give what is said")
    return jiwer.process_words(words, seed_tts(hypothesis, language))
