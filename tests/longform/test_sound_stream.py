"""What is written as it is made, and subtitles."""

import io
import itertools
import json

import numpy as np
import pytest
import soundfile
import torch

from unison_audio.audio import Audio
from unison_audio.audio_encoder import sample_bytes, wav_header
from unison_audio.errors import InputError
from unison_audio.longform.sound_stream import write_sounds, write_stream
from unison_audio.longform.subtitles import (
    Cue,
    event_cues,
    sentence_cues,
    to_json,
    to_srt,
    to_vtt,
    write_subtitles,
)
from unison_audio.longform.text_windows import cut_text, pace_of
from unison_audio.output_format import OutputFormat
from unison_audio.variants import VARIANTS

CUES = [Cue(start=0.0, end=1.25, text="Hello."), Cue(start=3661.5, end=3662.0, text="a < b & c")]


def sounds(count=3):
    return [Audio(torch.linspace(-1, 1, 1000) * (k + 1) / count, 16_000) for k in range(count)]


def test_a_stream_is_a_wav_that_players_read_to_its_end():
    out = io.BytesIO()
    write_stream(sounds(), out)
    read, rate = soundfile.read(io.BytesIO(out.getvalue()))
    assert rate == 16_000
    expected = torch.cat([sound.waveform for sound in sounds()]).numpy()
    np.testing.assert_allclose(read, expected, atol=1 / 32_000)
    assert out.getvalue()[:44] == wav_header(16_000)


def test_raw_is_the_samples_alone_and_each_piece_is_flushed():
    class Pipe(io.BytesIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    out = Pipe()
    write_stream(sounds(), out, OutputFormat(format="pcm"))
    assert len(out.getvalue()) == 6000
    assert out.flushed == 4  # each piece, and the end
    assert sample_bytes(np.array([-2.0, 0.0, 2.0])) == np.array([-32768, 0, 32767], "<i2").tobytes()


def test_a_file_without_a_buffer_gets_all_bytes():
    class Sips(io.RawIOBase):
        taken = b""

        def writable(self):
            return True

        def write(self, data):
            self.taken += bytes(data[:700])
            return min(700, len(data))

    whole, sips = io.BytesIO(), Sips()
    write_stream(sounds(), whole)
    write_stream(sounds(), sips)
    assert sips.taken == whole.getvalue()
    sips.write = lambda data: None  # a pipe that is full and does not block
    with pytest.raises(BlockingIOError, match="takes no more"):
        write_stream(sounds(), sips)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_pieces_become_one_file(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    write_sounds(path, iter(sounds()))
    assert abs(soundfile.info(path).frames - 3000) < 2500
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failure_on_the_way_leaves_no_file(tmp_path):
    def failing():
        yield sounds()[0]
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        write_sounds(tmp_path / "x.wav", failing())
    with pytest.raises(InputError, match="suffix"):
        write_sounds(tmp_path / "x.aiff", sounds())
    assert not list(tmp_path.iterdir())


def test_sentences_have_times_in_order():
    text = "my dog is big. hello. when the rain stops, we go to the old house and the small school."
    timed, start = [], 0.0
    for window in cut_text(text, pace_of(VARIANTS["nano"]), 2.2):
        timed.append((window, start, start + 1.1 * window.seconds))
        start += 1.1 * window.seconds + 0.1
    cues = sentence_cues(timed)
    assert " ".join(cue.text for cue in cues) == text
    assert len(cues) == 3
    assert cues[0].start == 0
    assert cues[-1].end == pytest.approx(start - 0.1, abs=1e-6)
    for before, after in itertools.pairwise(cues):
        assert before.start < before.end <= after.start


def test_events_of_a_timeline():
    assert event_cues("[Audio] From 0s to 2s, rain. From 2.5s to 4s, a dog barking.") == [
        Cue(start=0.0, end=2.0, text="rain"),
        Cue(start=2.5, end=4.0, text="a dog barking"),
    ]
    assert event_cues("[Audio] Rain from 0s to 1.5s.") == [Cue(start=0.0, end=1.5, text="Rain")]
    assert event_cues("[Audio] rain") == []


def test_formats_of_subtitles(tmp_path):
    assert to_srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello.\n\n2\n01:01:01,500 --> 01:01:02,000\na < b & c\n"
    )
    assert to_vtt(CUES) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello.\n"
        "\n01:01:01.500 --> 01:01:02.000\na &lt; b &amp; c\n"
    )
    assert json.loads(to_json(CUES))[1] == {"start": 3661.5, "end": 3662.0, "text": "a < b & c"}
    for suffix in (".srt", ".vtt", ".json"):
        write_subtitles(tmp_path / f"x{suffix}", CUES)
        assert "Hello." in (tmp_path / f"x{suffix}").read_text()
    with pytest.raises(InputError, match=r"\.srt, \.vtt, \.json"):
        write_subtitles(tmp_path / "x.txt", CUES)
