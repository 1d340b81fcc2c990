import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from unison_audio import audio, audio_files
from unison_audio.data.records import Recording, UnreadableAudioError
from unison_audio.errors import InputError
from unison_audio.longform.native_audio import open_recording


def tone(frequency, sample_rate, seconds=0.5, amplitude=0.5):
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float()


def dominant(waveform, sample_rate):
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform))).abs()
    return float(spectrum.argmax()) * sample_rate / len(waveform)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 2e-2),
        ("wav", "PCM_16", 1e-3),
        ("wav", "PCM_24", 1e-4),
        ("wav", "FLOAT", 1e-6),
        ("wav", "DOUBLE", 1e-6),
        ("flac", "PCM_16", 1e-3),
        ("flac", "PCM_24", 1e-4),
        ("ogg", "VORBIS", 5e-2),
        ("mp3", "MPEG_LAYER_III", 5e-2),
    ],
)
def test_every_format_gives_the_same_sound(tmp_path, suffix, subtype, tolerance):
    sound = tone(440, 16000)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound.numpy(), 16000, subtype=subtype)
    loaded = audio.load(path, sample_rate=16000)
    assert loaded.dtype == torch.float32
    assert loaded.ndim == 1
    if suffix == "mp3":  # the coder may add a delay
        assert abs(dominant(loaded, 16000) - 440) < 3
        assert abs(float(audio.rms(loaded)) - float(audio.rms(sound))) < tolerance
    else:
        assert len(loaded) == len(sound)
        assert (loaded - sound).abs().max() < tolerance
    assert audio_files.seconds(path) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_becomes_mono_at_the_asked_rate(tmp_path, rate, channels):
    sound = tone(440, rate)
    data = np.stack([sound.numpy()] + [np.zeros(len(sound))] * (channels - 1), axis=1)
    soundfile.write(tmp_path / "a.wav", data, rate, subtype="FLOAT")
    loaded = audio.load(tmp_path / "a.wav", sample_rate=16000)
    assert abs(len(loaded) - 8000) <= 1
    expected = tone(440, 16000)[: len(loaded)] / channels
    inner = slice(500, 7500)  # the filter rings at the ends
    assert (loaded[: len(expected)][inner] - expected[inner]).abs().max() < 2e-3 / channels


def test_a_high_tone_does_not_alias():
    high = audio.resample(tone(11000, 48000), 48000, 16000)
    assert float(audio.rms(high[500:-500])) < 1e-3


def test_resample_keeps_leading_dimensions():
    batch = torch.randn(2, 3, 4800)
    out = audio.resample(batch, 48000, 16000)
    assert out.shape == (2, 3, 1600)
    assert torch.equal(out[1, 2], audio.resample(batch[1, 2], 48000, 16000))
    assert audio.resample(batch, 16000, 16000) is batch


def write_wav(path, frames=8000):
    soundfile.write(path, tone(440, 16000)[:frames].numpy(), 16000, subtype="PCM_16")
    return path


def missing(folder):
    return folder / "none.wav", "no file"


def directory(folder):
    return folder, "not a file"


def empty(folder):
    (folder / "a.wav").write_bytes(b"")
    return folder / "a.wav", "empty"


def no_samples(folder):
    soundfile.write(folder / "a.wav", np.zeros(0), 16000)
    return folder / "a.wav", "0 samples"


def renamed_text(folder):
    (folder / "a.wav").write_text("this is no sound\n" * 50)
    return folder / "a.wav", "cannot be read as sound"


def headless(folder):
    (folder / "a.raw").write_bytes(bytes(1000))
    return folder / "a.raw", "cannot be read as sound"


def truncated_wav(folder):
    path = write_wav(folder / "a.wav")
    path.write_bytes(path.read_bytes()[:-4001])
    return path, "cut short"


def truncated_header(folder):
    path = write_wav(folder / "a.wav")
    path.write_bytes(path.read_bytes()[:20])
    return path, "cannot be read as sound"


def truncated_flac(folder):
    path = folder / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    path.write_bytes(path.read_bytes()[:9000])
    return path, "cut short|cannot be read as sound"


def not_a_number(folder):
    data = tone(440, 16000).numpy().copy()
    data[100] = np.nan
    soundfile.write(folder / "a.wav", data, 16000, subtype="FLOAT")
    return folder / "a.wav", r"not finite \(NaN or infinity\): the first at 0.006 s \(sample 100\);"


def infinite(folder):
    data = tone(440, 16000).double().numpy().copy()
    data[[100, 200]] = np.inf
    soundfile.write(folder / "a.wav", data, 16000, subtype="DOUBLE")
    return folder / "a.wav", r"sample 100\), and 1 more after it;"


@pytest.mark.parametrize(
    "make",
    [
        missing,
        directory,
        empty,
        no_samples,
        renamed_text,
        headless,
        truncated_wav,
        truncated_header,
        truncated_flac,
        not_a_number,
        infinite,
    ],
)
def test_an_unusable_file_is_refused_in_one_sentence(tmp_path, make):
    path, words = make(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        audio.load(path, sample_rate=16000)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")


def test_a_streamed_wav_is_read_to_its_end(tmp_path):
    path = write_wav(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)  # as a pipe leaves it
    path.write_bytes(data)
    assert len(audio.load(path, sample_rate=16000)) == 8000


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".WAV"])
def test_save_and_load_give_the_sound_back(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    audio.save(path, tone(440, 16000), 16000)
    loaded = audio.load(path, sample_rate=16000)
    assert abs(dominant(loaded, 16000) - 440) < 3
    assert float(audio.rms(loaded)) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_save_of_a_long_ogg_does_not_crash(tmp_path):
    audio.save(tmp_path / "a.ogg", tone(100, 16000, seconds=100), 16000)
    assert audio_files.seconds(tmp_path / "a.ogg") == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    ("name", "waveform", "rate", "words"),
    [
        ("a.txt", torch.zeros(10), 16000, "suffix"),
        ("none/a.wav", torch.zeros(10), 16000, "no folder"),
        ("a.wav", torch.zeros(0), 16000, "at least one sample"),
        ("a.wav", torch.zeros(2, 10), 16000, "shape"),
        ("a.wav", torch.full((10,), 1.01), 16000, "clipped"),
        ("a.wav", torch.tensor([0.0, float("nan")]), 16000, "not finite"),
    ],
)
def test_save_refuses_and_leaves_the_old_file_alone(tmp_path, name, waveform, rate, words):
    (tmp_path / "a.wav").write_bytes(b"old")
    with pytest.raises(InputError, match=words):
        audio.save(tmp_path / name, waveform, rate)
    assert (tmp_path / "a.wav").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_save_follows_the_umask(tmp_path):
    audio.save(tmp_path / "a.wav", torch.zeros(10), 16000)
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o666 & ~umask


def test_require_sound():
    audio.require_sound(torch.full((10,), 1e-4), "a.wav")
    with pytest.raises(InputError, match=r"a\.wav is silent"):
        audio.require_sound(torch.zeros(10), "a.wav")


def test_normalize_rms():
    batch = torch.stack([torch.full((100,), 0.5), torch.zeros(100), -torch.full((100,), 1e-3)])
    out = audio.normalize_rms(batch, 0.1)
    assert out[0].tolist() == pytest.approx([0.1] * 100)
    assert torch.equal(out[1], torch.zeros(100))
    assert out[2].tolist() == pytest.approx([-0.1] * 100)


def test_fade():
    out = audio.fade(torch.ones(2, 100), 10, 20)
    assert float(out[0, 0]) == pytest.approx(0.5 - 0.5 * math.cos(math.pi / 20), abs=1e-6)
    assert torch.equal(out[0, 10:80], torch.ones(70))
    assert (out[0, :10].diff() > 0).all()
    assert (out[0, 80:].diff() < 0).all()
    assert torch.allclose(out[0, :10] + out[0, :10].flip(0), torch.ones(10))
    assert torch.isfinite(audio.fade(torch.ones(5), 100, 100)).all()
    assert torch.equal(audio.fade(torch.ones(5), 0, 0), torch.ones(5))


def test_trim_silence():
    sound = torch.cat([torch.zeros(1600), torch.ones(3200), torch.full((1600,), 1e-3)])
    assert torch.equal(audio.trim_silence(sound, 16000), torch.ones(3200))
    assert len(audio.trim_silence(torch.zeros(100), 16000)) == 0
    assert len(audio.trim_silence(sound, 16000, threshold_db=-70.0)) == 4800


@pytest.fixture
def streamed_flac(tmp_path: Path) -> Path:
    """A FLAC whose header states no length, as an encoder writes it into a pipe."""
    path = tmp_path / "streamed.flac"
    soundfile.write(path, np.zeros(8000, np.float32) + 0.1, 16_000)
    content = bytearray(path.read_bytes())
    # STREAMINFO begins at byte 8; its 36 bits of total samples end at byte 18 of it. 0 is unknown.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(bytes(content))
    return path


def test_a_streamed_flac_is_refused_in_one_sentence(streamed_flac: Path) -> None:
    assert soundfile.info(streamed_flac).frames > 1 << 60
    with pytest.raises(InputError, match="states no length"):
        audio.load(streamed_flac, sample_rate=16_000)
    with pytest.raises(InputError, match="states no length"):
        open_recording(streamed_flac)
    with pytest.raises(InputError, match="states no length"):
        audio_files.seconds(streamed_flac)
    with pytest.raises(UnreadableAudioError, match="states no length"):
        Recording(streamed_flac, "streamed.flac")
