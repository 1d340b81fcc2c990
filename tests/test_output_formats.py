"""Files and streams of sound in every format: lengths, levels, options, full disks."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from unison_audio import audio, audio_files
from unison_audio.audio import Audio
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file, write_whole
from unison_audio.inputs import SourceFormWarning
from unison_audio.longform.native_audio import open_recording
from unison_audio.longform.sound_stream import write_sounds
from unison_audio.output_format import FORMATS, OutputFormat
from unison_audio.pipeline import Unison

LOSSY = [name for name, info in FORMATS.items() if info.lossy]
AAC_PRIMING = 1024


def sweep(rate: int, seconds: float = 1.3) -> Audio:
    """A chirp with a click in the middle, which shows where a sample has come to lie."""
    t = np.arange(round(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t)
    wave[len(t) // 2] = 0.95
    return Audio(torch.from_numpy(wave).float(), rate)


def loud(rate: int, seconds: float = 1.0) -> Audio:
    """A clipped noise, whose decoded samples exceed those that were coded."""
    noise = np.random.default_rng(0).standard_normal(round(rate * seconds))
    return Audio(torch.from_numpy(noise.clip(-0.99, 0.99)).float(), rate)


def decoded(source: Path | bytes) -> tuple[np.ndarray, int]:
    """Samples of the first channel, decoded by FFmpeg, and the rate."""
    given = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(given) as container:
        planar = av.AudioResampler(format="fltp")
        blocks = [
            block.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for block in planar.resample(frame)
        ]
        return np.concatenate(blocks), int(container.streams.audio[0].rate)


def of_file(path: Path) -> tuple[np.ndarray, int]:
    """Samples and rate of a file, by libsndfile where it can read it."""
    if path.suffix == ".pcm":
        return np.fromfile(path, "<i2") / 32768, 16_000
    if path.suffix in (".m4a", ".aac"):
        return decoded(path)
    return soundfile.read(path)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pcm"])
def test_files_have_the_length_and_the_sound(name: str, rate: int, tmp_path: Path) -> None:
    sound = sweep(rate)
    path = tmp_path / f"x.{name}"
    sound.save(path)
    samples, file_rate = of_file(path)
    assert file_rate == (48_000 if (name, rate) == ("opus", 44_100) else rate)
    wanted = round(len(sound.waveform) * file_rate / rate)
    if name in ("m4a", "aac"):  # whole frames
        first = AAC_PRIMING if name == "aac" else 0
        assert 0 <= len(samples) - first - wanted < 2 * 1024
        samples = samples[first:]
    else:
        assert len(samples) == wanted
    click = wanted // 2
    assert abs(np.abs(samples[click - 200 : click + 200]).argmax() - 200) <= 1
    expected = soxr.resample(sound.waveform.numpy(), rate, file_rate)[: click - 500]
    error = samples[: click - 500] - expected
    assert error.std() < (1e-4 if not FORMATS[name].lossy else 0.2) * expected.std()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_m4a_states_its_length_to_the_sample(tmp_path: Path) -> None:
    sound = sweep(44_100)
    sound.save(tmp_path / "x.m4a")
    with av.open(str(tmp_path / "x.m4a")) as container:
        stream = container.streams.audio[0]
        assert stream.duration * stream.time_base * 44_100 == len(sound.waveform)


def test_a_rate_that_a_format_lacks_becomes_the_next_one(tmp_path: Path) -> None:
    tone = Audio(0.5 * torch.sin(torch.arange(12_345) * 2 * torch.pi * 440 / 12_345), 12_345)
    tone.save(tmp_path / "x.mp3")
    samples, rate = soundfile.read(tmp_path / "x.mp3")
    assert (rate, len(samples)) == (16_000, 16_000)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() == 440
    tone.save(tmp_path / "x.wav", sample_rate=8000)
    assert soundfile.info(tmp_path / "x.wav").samplerate == 8000


@pytest.mark.parametrize(
    ("name", "depth", "subtype", "step"),
    [
        ("wav", 16, "PCM_16", 2**-15),
        ("wav", 24, "PCM_24", 2**-23),
        ("wav", 32, "FLOAT", 0),
        ("flac", 24, "PCM_24", 2**-23),
        ("pcm", 16, "PCM_16", 2**-15),
    ],
)
def test_bit_depths(name: str, depth: Any, subtype: str, step: float, tmp_path: Path) -> None:
    sound = sweep(16_000)
    path = tmp_path / f"x.{name}"
    sound.save(path, bit_depth=depth)
    samples, _ = of_file(path)
    assert np.abs(samples - sound.waveform.numpy()).max() <= step
    if name != "pcm":
        assert soundfile.info(path).subtype == subtype


@pytest.mark.parametrize("name", ["mp3", "opus", "m4a", "aac"])
@pytest.mark.parametrize("bit_rate", [32, 80])
def test_bit_rates(name: str, bit_rate: int, tmp_path: Path) -> None:
    noise = Audio(0.2 * torch.randn(10 * 16_000).clamp(-4, 4), 16_000)
    noise.save(tmp_path / f"x.{name}", bit_rate=bit_rate)
    found = (tmp_path / f"x.{name}").stat().st_size * 8 / 10_000
    assert found == pytest.approx(bit_rate, rel=0.2)


@pytest.mark.parametrize("name", LOSSY)
def test_loud_sounds_stay_within_full_scale(name: str, tmp_path: Path) -> None:
    sound = loud(16_000)
    halves = [Audio(half, 16_000) for half in sound.waveform.chunk(2)]
    sound.save(tmp_path / f"whole.{name}")
    write_sounds(tmp_path / f"pieces.{name}", iter(halves))
    for file in (tmp_path / f"whole.{name}", tmp_path / f"pieces.{name}"):
        samples, _ = of_file(file)
        assert 0.6 < np.abs(samples).max() <= 1.0
    quiet = Audio(0.3 * sound.waveform, 16_000)
    quiet.save(tmp_path / f"quiet.{name}")
    samples, _ = of_file(tmp_path / f"quiet.{name}")
    assert samples.std() == pytest.approx(float(quiet.waveform.std()), rel=0.35)


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.files import check_sound_file, write_whole
from unison_audio.longform.sound_stream import write_sounds
from unison_audio.output_format import FORMATS

folder = Path(sys.argv[1])
sound = Audio(0.2 * torch.randn(80_000).clamp(-4, 4), 16_000)
import av, soundfile
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for name in FORMATS:
    path = folder / f"x.{name}"
    for write in (lambda: sound.save(path), lambda: write_sounds(path, iter([sound, sound]))):
        path.write_bytes(b"old")
        try:
            write()
        except InputError as error:
            assert "File too large" in str(error), (name, str(error))
        else:
            raise AssertionError(f"{name} noticed nothing")
        assert path.read_bytes() == b"old", name
assert sorted(file.name for file in folder.iterdir()) == sorted(f"x.{name}" for name in FORMATS)
"""


def test_a_full_disk_is_noticed_and_an_older_file_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "x.wav"
    os.mkfifo(pipe)
    link = tmp_path / "null.wav"
    link.symlink_to(os.devnull)
    for write in (sweep(16_000).save, lambda path: write_whole(path, b"x"), check_sound_file):
        for path in (pipe, link):
            with pytest.raises(InputError, match=r"a device or a pipe, .* would replace"):
                write(path)
    assert pipe.is_fifo()
    assert Path(os.devnull).is_char_device()
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_without_pyav_one_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    sound = sweep(16_000)
    for name in ("m4a", "aac"):
        with pytest.raises(InputError, match=rf"{name} needs .* 'unison-audio\[formats\]'"):
            sound.save(tmp_path / f"x.{name}")
    for name in ("mp3", "opus", "aac"):
        with pytest.raises(InputError, match=r"unison-audio\[formats\]"):
            AudioEncoder(OutputFormat(format=name), 16_000)  # type: ignore[arg-type]
    sound.save(tmp_path / "x.opus")
    assert [file.name for file in tmp_path.iterdir()] == ["x.opus"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("x.wav", {"format": "flac"}, "name the file x.flac"),
        ("x.aiff", {"format": "flac"}, "the suffix must be one of"),
        ("x", {}, "the suffix must be one of"),
        ("x.flac", {"bit_depth": 32}, "write wav"),
        ("x.mp3", {"bit_depth": 16}, "no bit depth of 16"),
        ("x.wav", {"bit_depth": 12}, "bit depth is 12"),
        ("x.wav", {"bit_rate": 64}, "write mp3, opus, m4a, aac"),
        ("x.ogg", {"bit_rate": 64}, "write mp3, opus, m4a, aac"),
        ("x.mp3", {"bit_rate": 320}, "8 to 160 kbit/s"),
        ("x.m4a", {"bit_rate": 128}, "8 to 96 kbit/s"),
        ("x.opus", {"sample_rate": 44_100}, "use one of 8000"),
        ("x.wav", {"sample_rate": 0}, "sample_rate is 0"),
        ("x.wav", {"bitrate": 64}, "Unknown output option bitrate"),
        ("x.wav", {"format": "aiff"}, "no output format 'aiff'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        sweep(16_000).save(tmp_path / name, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_name_without_suffix_takes_the_format(tmp_path: Path) -> None:
    sweep(16_000).save(tmp_path / "x", OutputFormat(format="flac", bit_depth=24))
    assert soundfile.info(tmp_path / "x").subtype == "PCM_24"


@pytest.mark.parametrize(
    ("coding", "name", "options", "kept"),
    [
        ("PCM_24", "x.flac", {}, "PCM_24"),
        ("PCM_24", "x.wav", {}, "PCM_24"),
        ("FLOAT", "x.wav", {}, "FLOAT"),
        ("PCM_16", "x.wav", {}, "PCM_16"),
        ("PCM_24", "x.wav", {"bit_depth": 16}, "PCM_16"),
        ("FLOAT", "x.flac", {"bit_depth": 24}, "PCM_24"),
        ("PCM_16", "x.wav", {"bit_depth": 32}, "FLOAT"),
    ],
)
def test_recordings_keep_their_depth_unless_asked(
    coding: str, name: str, options: dict[str, Any], kept: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "in.wav", rng.uniform(-0.9, 0.9, (4000, 2)), 48_000, coding)
    open_recording(tmp_path / "in.wav").save(tmp_path / name, **options)
    info = soundfile.info(tmp_path / name)
    assert (info.samplerate, info.channels, info.subtype) == (48_000, 2, kept)
    before, after = (soundfile.read(tmp_path / file)[0] for file in ("in.wav", name))
    if not options:
        assert np.array_equal(before, after)
    else:
        assert np.abs(before - after).max() <= 2.0 ** -({"PCM_16": 15, "PCM_24": 23}.get(kept, 30))


def test_recordings_in_other_formats_and_rates(tmp_path: Path) -> None:
    both = np.stack([sweep(48_000).waveform, -0.5 * sweep(48_000).waveform], axis=1)
    soundfile.write(tmp_path / "in.wav", both, 48_000, "PCM_24")
    recording = open_recording(tmp_path / "in.wav")
    for name in ("ogg", "mp3", "opus", "m4a"):
        recording.save(tmp_path / f"x.{name}")
    for name in ("ogg", "mp3", "opus"):
        info = soundfile.info(tmp_path / f"x.{name}")
        assert (info.channels, info.frames) == (2, len(both))
    with av.open(str(tmp_path / "x.m4a")) as container:
        assert container.streams.audio[0].codec_context.channels == 2
    recording.save(tmp_path / "low.wav", sample_rate=16_000)
    low, rate = soundfile.read(tmp_path / "low.wav")
    assert (rate, soundfile.info(tmp_path / "low.wav").subtype) == (16_000, "PCM_24")
    expected = soxr.resample(both, 48_000, 16_000)
    np.testing.assert_allclose(low[100:-100], expected[100:-100], atol=1e-4)


@pytest.mark.parametrize("block", [100, 3001])
@pytest.mark.parametrize(
    ("name", "priming", "padding"),
    [
        ("wav", 0, 0),
        ("pcm", 0, 0),
        ("flac", 0, 0),
        ("mp3", 1105, 2 * 1152),
        ("opus", 0, 0),
        ("aac", AAC_PRIMING, 1024),
    ],
)
@pytest.mark.parametrize(("rate", "to"), [(16_000, 24_000), (44_100, None)])
def test_streams_have_the_sound_and_come_early(
    name: Any, priming: int, padding: int, rate: int, to: int | None, block: int
) -> None:
    sound = sweep(rate, 2.0)
    encoder = AudioEncoder(OutputFormat(format=name, sample_rate=to), rate)
    parts = [encoder.write(piece) for piece in sound.waveform.split(block)]
    parts.append(encoder.finish())
    assert sum(map(len, parts[: len(parts) // 2])) > 0.2 * sum(map(len, parts))
    data = b"".join(parts)
    if name == "pcm":
        samples, got = np.frombuffer(data, "<i2") / 32768, encoder.sample_rate
    else:
        samples, got = decoded(data)
    wanted = round(len(sound.waveform) * encoder.sample_rate / rate)
    scale = got / encoder.sample_rate  # FFmpeg decodes Opus at 48 kHz
    assert 0 <= len(samples) - scale * (wanted + priming) <= padding
    click = round(scale * (wanted // 2 + priming))
    assert abs(np.abs(samples[click - 200 : click + 200]).argmax() - 200) <= 2
    assert 0.4 < np.abs(samples).max() <= 1.0


def test_stereo_streams() -> None:
    both = np.stack([sweep(48_000).waveform, np.zeros(62_400)], axis=1)
    for name in ("wav", "flac", "mp3", "opus", "aac"):
        encoder = AudioEncoder(OutputFormat(format=name), 48_000, channels=2)  # type: ignore[arg-type]
        data = encoder.write(both) + encoder.finish()
        with av.open(io.BytesIO(data)) as container:
            blocks = [f.to_ndarray() for f in container.decode(audio=0)]
            assert container.streams.audio[0].codec_context.channels == 2
        assert sum(block.size for block in blocks) >= 2 * len(both)


def test_what_cannot_be_streamed_is_refused() -> None:
    for name in ("ogg", "m4a"):
        with pytest.raises(InputError, match=f"{name} cannot be written to a pipe; use one of wav"):
            AudioEncoder(OutputFormat(format=name), 16_000)  # type: ignore[arg-type]


def test_an_edit_keeps_the_depth_and_tells_what_it_does_not_keep(
    tiny: Unison, tmp_path: Path
) -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (48_000, 2))
    soundfile.write(tmp_path / "in.wav", noise, 48_000, "PCM_24")
    told = r"in\.wav has 2 channels at 48000 Hz; the result has one .* the region 0-1\."
    with pytest.warns(SourceFormWarning, match=told):
        edited = tiny.generate("[Edit][Audio] Remove rain", source=tmp_path / "in.wav", steps=1)
    assert len([said for said in edited.warnings if "channels" in said]) == 1
    soundfile.write(tmp_path / "mono.wav", noise[:16_000, 0], tiny.variant.sample_rate, "FLOAT")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SourceFormWarning)
        mono = tiny.generate("[Edit][Audio] Remove rain", source=tmp_path / "mono.wav", steps=1)
    for sound, name, subtype in (
        (edited, "x.wav", "PCM_24"),
        (edited, "x.flac", "PCM_24"),
        (mono, "y.wav", "FLOAT"),
        (mono, "y.flac", "PCM_24"),
    ):
        sound.save(tmp_path / name)
        assert soundfile.info(tmp_path / name).subtype == subtype
    edited.save(tmp_path / "z.wav", bit_depth=16)
    assert soundfile.info(tmp_path / "z.wav").subtype == "PCM_16"


@pytest.mark.parametrize("name", ["m4a", "aac"])
def test_what_only_pyav_reads_is_a_source_too(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"x.{name}"
    time = torch.arange(32_000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)
    audio.save(file, tone, 16_000)
    back = audio.load(file, sample_rate=16_000)
    assert audio_files.seconds(file) == pytest.approx(2.0, abs=0.2)
    assert len(back) / 16_000 == pytest.approx(2.0, abs=0.2)
    middle = back[8_000:24_000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs()
    assert float(spectrum.argmax()) == pytest.approx(440, abs=1)
    assert len(audio.load(file, sample_rate=16_000, longest=0.5)) == 8_000


def test_a_list_of_files_is_no_recording(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    audio.save(secret, torch.full((1600,), 0.1), 16_000)
    for text in (f"#EXTM3U\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        (tmp_path / "x.m4a").write_text(text)
        with pytest.raises(InputError, match="cannot be read as sound"):
            audio.load(tmp_path / "x.m4a", sample_rate=16_000)
