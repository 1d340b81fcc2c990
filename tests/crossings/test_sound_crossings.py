"""Where sound files, resamplers and codecs meet: faults that would be heard, not reported."""

import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.errors import InputError
from unison_audio.input_audio import read_sound

RATE = 16_000


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(rate * seconds))


@pytest.mark.parametrize(("before", "after"), [(16_000, 44_100), (44_100, 16_000), (48_000, 8_000)])
def test_one_nan_would_spoil_hundreds_of_samples(before: int, after: int) -> None:
    wave = noise(1.0, before).astype(np.float32)
    wave[before // 2] = np.nan
    assert np.isnan(soxr.resample(wave, before, after)).sum() > 300


def test_one_nan_is_refused_with_its_place(tmp_path: Path) -> None:
    wave = noise(1.0).astype(np.float32)
    wave[4_000] = np.nan
    place = re.escape("the first at 0.250 s (sample 4000); give a clean recording")
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=place):
        audio.load(tmp_path / "a.wav", sample_rate=44_100)
    with pytest.raises(InputError, match=place):
        read_sound((torch.from_numpy(wave), RATE), "source", 44_100)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("seconds", [0.37, 1.3, 2.0])
def test_two_decoders_agree_on_the_length_of_our_mp3(
    rate: int, seconds: float, tmp_path: Path
) -> None:
    """Editors decode MP3 with FFmpeg or libsndfile: both must show the length that was written."""
    wave = noise(seconds, rate)
    wave[len(wave) // 2] = 0.9
    Audio(torch.from_numpy(wave).float(), rate).save(tmp_path / "a.mp3")
    by_libsndfile, _ = soundfile.read(tmp_path / "a.mp3")
    with av.open(str(tmp_path / "a.mp3")) as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        stated = container.streams.audio[0]
        shown = float(stated.duration * stated.time_base)
    by_ffmpeg = np.concatenate(blocks)
    assert len(by_libsndfile) == len(wave)
    # FFmpeg rounds the end up to whole frames of 576 samples where the encoder's padding is short.
    assert 0 <= len(by_ffmpeg) - len(wave) < 1152
    assert shown == pytest.approx(seconds, abs=1152 / rate)
    same = slice(0, len(wave) - 1200)
    assert np.abs(by_libsndfile[same] - by_ffmpeg[: len(wave)][same]).max() < 1e-3
    assert abs(int(np.abs(by_libsndfile).argmax()) - len(wave) // 2) <= 1


def test_an_mp3_for_a_sink_that_cannot_go_back_would_be_a_part() -> None:
    """Why MP3 is written to memory or a file first: its length stands in its first frame."""

    class Sink(io.BytesIO):
        def seekable(self) -> bool:
            return False

    sink, whole = Sink(), io.BytesIO()
    for out in (sink, whole):
        with av.open(out, "w", format="mp3") as container:
            stream = container.add_stream("libmp3lame", rate=24_000, layout="mono")
            samples = (noise(2.0, 24_000) * 32767).astype(np.int16)[None]
            for start in range(0, samples.shape[1], 1152):
                block = samples[:, start : start + 1152]
                frame = av.AudioFrame.from_ndarray(block, "s16p", "mono")
                frame.sample_rate, frame.pts = 24_000, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    lengths = [len(soundfile.read(io.BytesIO(out.getvalue()))[0]) for out in (whole, sink)]
    assert lengths[0] == 48_000
    assert lengths[1] == 48_000 + 1_536  # neither the encoder's delay nor its padding is marked


def test_flac_clips_without_an_error_and_we_refuse(tmp_path: Path) -> None:
    loud = torch.full((1_000,), 1.5)
    soundfile.write(tmp_path / "theirs.flac", loud.numpy(), RATE)
    assert soundfile.read(tmp_path / "theirs.flac")[0].max() < 1.0  # clipped, in silence
    with pytest.raises(InputError, match=r"peak is 1\.500 and would be clipped"):
        Audio(loud, RATE).save(tmp_path / "ours.flac")
    assert not (tmp_path / "ours.flac").exists()
