"""Loudness: against K-weighting and gating computed here, and what is written at a level."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import lfilter, resample_poly

from unison_audio.audio import Audio
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.audio_writer import OutputWarning, SampleLayout, write_audio
from unison_audio.errors import InputError
from unison_audio.longform.native_audio import open_recording
from unison_audio.loudness import MAX_TRUE_PEAK_DB, measure
from unison_audio.output_format import OutputFormat, merge_output

RATE = 16_000

# The two filters of BS.1770 as analog prototypes (center in Hz, quality, gain in dB), which give
# the coefficients that it lists for 48 kHz.
SHELF = (1681.974450955533, 0.7071752369554196, 3.999843853973347)
HIGH_PASS = (38.13547087602444, 0.5003270373238773)


def k_weighted(waves: np.ndarray, rate: int) -> np.ndarray:
    """(samples, channels) through both filters, made by the bilinear transform."""
    center, quality, gain = SHELF
    k, high = math.tan(math.pi * center / rate), 10 ** (gain / 20)
    low = high**0.4996667741545416
    over = 1 + k / quality + k * k
    b = [high + low * k / quality + k * k, 2 * (k * k - high), high - low * k / quality + k * k]
    a = [over, 2 * (k * k - 1), 1 - k / quality + k * k]
    shelved = lfilter(np.array(b) / over, np.array(a) / over, waves, axis=0)
    center, quality = HIGH_PASS
    k = math.tan(math.pi * center / rate)
    over = 1 + k / quality + k * k
    a = [1, 2 * (k * k - 1) / over, (1 - k / quality + k * k) / over]
    return lfilter([1, -2, 1], a, shelved, axis=0)


def lufs(waves: np.ndarray, rate: int) -> float:
    """Gated loudness of BS.1770: blocks of 0.4 s, one every 0.1 s."""
    waves = waves[:, None] if waves.ndim == 1 else waves
    power = np.square(k_weighted(waves, rate)).sum(axis=1)
    step = rate // 10
    blocks = np.array(
        [power[i : i + 4 * step].mean() for i in range(0, len(power) - 4 * step + 1, step)]
    )
    level = -0.691 + 10 * np.log10(blocks + 1e-20)
    kept = blocks[level > -70]
    threshold = -0.691 + 10 * np.log10(kept.mean()) - 10
    return float(-0.691 + 10 * np.log10(blocks[(level > -70) & (level > threshold)].mean()))


def sine(rate: int, seconds: float, db: float, hertz: float = 997.0) -> np.ndarray:
    return 10 ** (db / 20) * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def bursts(rate: int, channels: int = 1) -> np.ndarray:
    """Noise that changes its color and level, with pauses that the gates leave out."""
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((4 * rate, channels))
    noise[rate : 2 * rate] = np.cumsum(noise[rate : 2 * rate], axis=0) / 50
    envelope = np.repeat([0.02, 0.05, 0.0005, 0.01, 0.1, 1e-6, 0.03, 0.002], rate // 2)
    return (noise * envelope[:, None]).clip(-0.9, 0.9)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
def test_the_reference_sine_is_at_its_level(rate: int) -> None:
    """EBU Tech 3341: a stereo sine of 1 kHz at -23 dB of full scale has -23 LUFS."""
    both = np.stack([sine(rate, 2, -23)] * 2, axis=1)
    assert measure([both], rate, 2).integrated == pytest.approx(-23.0, abs=0.1)
    found = measure([both[:, :1]], rate, 1)
    assert found.integrated == pytest.approx(-26.01, abs=0.1)
    assert found.true_peak_db == pytest.approx(-23.0, abs=0.1)
    assert lufs(both, rate) == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1)])
def test_gating_and_weighting_are_those_of_bs_1770(rate: int, channels: int) -> None:
    sound = bursts(rate, channels)
    blocks = np.array_split(sound, 7)
    assert measure(blocks, rate, channels).integrated == pytest.approx(lufs(sound, rate), abs=0.1)
    stored = [(block * 32768).round().astype(np.int16) for block in blocks]
    assert measure(stored, rate, channels).integrated == pytest.approx(lufs(sound, rate), abs=0.1)


def test_the_true_peak_lies_between_the_samples() -> None:
    """A sine at a quarter of the rate whose samples all miss its crests by 3 dB."""
    t = np.arange(RATE)
    between = 0.5 * np.sin(2 * np.pi * t / 4 + np.pi / 4)
    assert np.abs(between).max() < 0.36
    found = measure([between[:, None]], RATE, 1).true_peak_db
    over = 20 * np.log10(np.abs(resample_poly(between, 16, 1))[2000:-2000].max())
    assert over == pytest.approx(20 * math.log10(0.5), abs=0.05)
    assert found == pytest.approx(over, abs=0.3)  # the ends, where the sine begins, swing over


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.ogg", "x.mp3", "x.opus", "x.m4a"])
def test_files_have_the_loudness(name: str, tmp_path: Path) -> None:
    # Tones, since lossy formats cut the highest frequencies of noise off.
    envelope = np.repeat([0.02, 0.2, 0.005, 0.1], RATE)
    tones = envelope * sum(sine(RATE, 4, -8, hertz) for hertz in (300, 997, 2100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Audio(torch.from_numpy(tones).float(), RATE).save(tmp_path / name, loudness=-27)
    if name == "x.m4a":
        from unison_audio import audio

        data, rate = audio.load(tmp_path / name, sample_rate=RATE).numpy(), RATE
    else:
        data, rate = soundfile.read(tmp_path / name)
    assert lufs(data, rate) == pytest.approx(-27, abs=0.2)


def test_without_the_option_nothing_changes(tmp_path: Path) -> None:
    sound = Audio(torch.from_numpy(bursts(RATE)[:, 0]).float(), RATE)
    sound.save(tmp_path / "a.wav")
    sound.save(tmp_path / "b.wav", OutputFormat(loudness=None))
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    soundfile.write(tmp_path / "c.wav", sound.waveform.numpy(), RATE)
    kept = [soundfile.read(tmp_path / name)[0] for name in ("a.wav", "c.wav")]
    assert np.array_equal(*kept)


def test_a_peak_is_not_clipped_and_said(tmp_path: Path) -> None:
    wave = sine(RATE, 2, -40)
    wave[RATE] = 0.5
    with pytest.warns(OutputWarning, match=r"LUFS instead of -16: .* true peak above -1 dB"):
        Audio(torch.from_numpy(wave).float(), RATE).save(tmp_path / "x.wav", loudness=-16)
    data, _ = soundfile.read(tmp_path / "x.wav")
    peak = np.abs(resample_poly(data, 16, 1)).max()
    assert 20 * math.log10(peak) == pytest.approx(MAX_TRUE_PEAK_DB, abs=0.1)
    assert np.corrcoef(data, wave)[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (sine(RATE, 0.39, -20), "shorter than 0.4 s"),
        (np.zeros(RATE), "silent"),
        (sine(RATE, 1, -90), "silent"),
    ],
)
def test_what_has_no_loudness_stays(wave: np.ndarray, words: str, tmp_path: Path) -> None:
    sound = Audio(torch.from_numpy(wave).float(), RATE)
    with pytest.warns(OutputWarning, match=words):
        sound.save(tmp_path / "x.wav", loudness=-23)
    sound.save(tmp_path / "y.wav")
    assert np.array_equal(*(soundfile.read(tmp_path / n)[0] for n in ("x.wav", "y.wav")))


@pytest.mark.parametrize("coding", ["PCM_16", "PCM_24", "FLOAT"])
def test_recordings_keep_their_form_at_a_level(coding: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", bursts(44_100, 2), 44_100, coding)
    open_recording(tmp_path / "in.wav").save(tmp_path / "out.wav", loudness=-30)
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.channels, info.subtype) == (44_100, 2, coding)
    assert lufs(soundfile.read(tmp_path / "out.wav")[0], 44_100) == pytest.approx(-30, abs=0.1)


def test_blocks_of_a_generator_are_measured_first(tmp_path: Path) -> None:
    sound = bursts(RATE).astype(np.float32)
    said: list[str] = []
    blocks = (sound[start : start + 5000] for start in range(0, len(sound), 5000))
    output = OutputFormat(loudness=-25)
    write_audio(tmp_path / "x.wav", blocks, SampleLayout(sample_rate=RATE), output, said.append)
    assert not said
    assert lufs(soundfile.read(tmp_path / "x.wav")[0], RATE) == pytest.approx(-25, abs=0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["x.wav"]


@pytest.mark.parametrize("value", [-71, -4.9, 0, float("nan"), float("inf"), "-16", True, [-16]])
def test_levels_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="give LUFS from -70 to -5"):
        merge_output(None, {"loudness": value})


def test_streams_and_odd_channel_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known only at its end"):
        AudioEncoder(OutputFormat(loudness=-16), RATE)
    soundfile.write(tmp_path / "in.wav", np.zeros((RATE, 3)), RATE)
    with pytest.raises(InputError, match="3 channels is not defined"):
        open_recording(tmp_path / "in.wav").save(tmp_path / "x.wav", loudness=-16)


def test_an_old_or_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import av

    sound = Audio(torch.zeros(RATE), RATE)
    monkeypatch.setattr(av, "AudioFrame", object)
    with pytest.raises(InputError, match=r"from version 18 on.*unison-audio\[loudness\]"):
        sound.save(tmp_path / "x.wav", loudness=-16)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match="The loudness needs the package av"):
        sound.save(tmp_path / "x.wav", loudness=-16)
    assert not list(tmp_path.iterdir())
