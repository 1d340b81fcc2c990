import math

import numpy as np
import pytest
import soundfile
import torch
from stream_files import encode, noise

from unison_audio.data.records import BrokenClipError, decode


def sine(frequency, rate, seconds=1.0, level=0.5):
    return level * np.sin(2 * math.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "error"),
    [
        ("wav", "PCM_16", 44_100, 2e-4),
        ("wav", "PCM_24", 48_000, 1e-4),
        ("wav", "FLOAT", 22_050, 1e-4),
        ("flac", "PCM_16", 24_000, 2e-4),
        ("ogg", "VORBIS", 44_100, 0.03),
        ("mp3", "MPEG_LAYER_III", 44_100, 0.03),
    ],
)
def test_channels_are_averaged_and_the_rate_is_the_codecs(suffix, subtype, rate, error):
    left, right = sine(300.0, rate), sine(700.0, rate, level=0.3)
    content = encode(np.stack([left, right], axis=1), rate, suffix, subtype)
    waveform = decode(content, suffix, 16_000)
    expected = (sine(300.0, 16_000) + sine(700.0, 16_000, level=0.3)) / 2
    assert waveform.dtype == torch.float32
    assert abs(len(waveform) - 16_000) <= 1
    inside = slice(800, 15_200)  # the ends ring
    assert np.abs(waveform.numpy()[inside] - expected[inside]).max() < error


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_plain_wav_is_what_libsndfile_reads_to_the_bit(tmp_path, channels):
    samples = noise("wav", 0.2 * channels, 16_000).reshape(-1, channels)
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, 16_000, "PCM_16")
    theirs, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert np.array_equal(decode(path.read_bytes(), "wav", 16_000).numpy(), theirs.mean(axis=1))
    # Anything before the samples, of an odd length, is passed over.
    content = path.read_bytes()
    content = content[:36] + b"LIST\x03\x00\x00\x00abc\x00" + content[36:]
    assert np.array_equal(decode(content, "wav", 16_000).numpy(), theirs.mean(axis=1))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_crop_is_the_stretch_itself(suffix):
    whole = noise("crop", 3.0, 16_000)
    content = encode(whole, 16_000, suffix, "PCM_16")
    for place, start in ((0.0, 0), (0.5, 16_000), (1.0, 32_000)):
        cut = decode(content, suffix, 16_000, crop_seconds=1.0, draw=lambda place=place: place)
        assert len(cut) == 16_000
        assert np.abs(cut.numpy() - whole[start : start + 16_000]).max() < 1e-4


def test_a_crop_of_mp3_is_in_its_place():
    whole = sine(440.0, 16_000, 3.0) * np.linspace(0.0, 1.0, 48_000)
    content = encode(whole, 16_000, "mp3")
    cut = decode(content, "mp3", 16_000, crop_seconds=1.0, draw=lambda: 0.5)
    assert np.abs(cut.numpy() - whole[16_000:32_000]).max() < 0.02


def test_only_what_is_wanted_is_decoded(monkeypatch):
    read = []
    plain = soundfile.SoundFile.read

    def counting(self, frames=-1, *rest, **options):
        read.append(frames)
        return plain(self, frames, *rest, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    content = encode(noise("long", 20.0, 16_000), 16_000, "flac")
    cut = decode(content, "flac", 8000, crop_seconds=0.5, draw=lambda: 0.9)
    assert len(cut) == 4000
    assert read == [8000]


def test_short_clips_are_not_cropped():
    content = encode(noise("short", 0.5, 16_000), 16_000, "flac")
    assert len(decode(content, "flac", 16_000, crop_seconds=1.0, draw=lambda: 1 / 0)) == 8000


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        (b"", "wav", "broken sound"),
        (b"RIFF\x00\x00\x00\x00WAVE", "wav", "broken sound"),
        (encode(noise("cut", 1.0), suffix="wav")[:4000], "wav", "broken sound"),
        (encode(noise("cut", 1.0), suffix="flac")[:4000], "flac", "broken sound"),
        (encode(noise("cut", 8.0), suffix="mp3")[:200], "mp3", "broken sound"),
        (encode(np.array([0.1, np.nan]), 8000, "wav", "FLOAT"), "wav", "samples that are not"),
        (encode(np.array([0.1, -np.inf]), 8000, "wav", "FLOAT"), "wav", "samples that are not"),
        (encode(np.zeros(100)), "flac", "silence"),
    ],
)
def test_what_cannot_be_used_says_why(content, suffix, reason):
    with pytest.raises(BrokenClipError) as found:
        decode(content, suffix, 16_000)
    assert found.value.reason.startswith(reason)
