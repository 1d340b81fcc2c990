"""The payload: hidden and found at any rate and length, in pieces as in one, never by chance."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from marking import transcoded
from torch import Tensor

from unison_audio.audio import Audio, load
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.cli.main import main
from unison_audio.demo.examples import packaged_inputs
from unison_audio.errors import InputError
from unison_audio.output_format import MARKS_VARIABLE, OutputFormat, merge_output
from unison_audio.provenance.inspection import inspect_file
from unison_audio.provenance.origin import Origin
from unison_audio.provenance.payload import FOUND_Z, PayloadStream, find_payload, hidden
from unison_audio.provenance.payload_networks import load_payload_net
from unison_audio.provenance.payload_pattern import codebook, correlators, tile
from unison_audio.provenance.watermark import mark_blocks

ORIGIN = Origin(task="t2a", variant="tiny")
NUMBER = 51_966


@pytest.fixture(scope="module")
def recordings() -> list[Tensor]:
    """The demo's recordings, now and when the invariants were written down, at 16 kHz."""
    folders = (packaged_inputs(), Path(__file__).parents[1] / "invariants" / "inputs")
    files = [file for folder in folders for file in sorted(folder.glob("*.flac"))]
    return [load(file, sample_rate=16_000) for file in files]


def hide(waveform: Tensor, rate: int = 16_000, payload: int = NUMBER, block: int = 0) -> Tensor:
    """(samples,) or (channels, samples), in blocks of so many samples."""
    rows = waveform.reshape(-1, waveform.shape[-1]).numpy().T
    stream = PayloadStream(rate, rows.shape[1], payload)
    parts = [rows[i : i + block] for i in range(0, len(rows), block)] if block else [rows]
    made = np.concatenate(list(mark_blocks(parts, stream)))
    return torch.from_numpy(made.T).reshape(waveform.shape)


def test_words_of_the_code_differ_in_24_places() -> None:
    words = codebook()
    weights = (64 - words.sum(dim=1)) / 2  # a linear code: distances are weights
    assert words.shape == (65_536, 64)
    assert int(weights[0]) == 0
    assert int(weights[1:].min()) == 24


def test_numbers_are_read_back(recordings: list[Tensor]) -> None:
    numbers = (0, 1, 65_535, NUMBER)
    told = 0
    for wave, number in itertools.product(recordings, numbers):
        result = find_payload(hide(wave, payload=number), 16_000)
        assert result.payload in (number, None)  # a number that is not sure is not told
        told += result.payload is not None
    # One of the fourteen is a short cry in silence, where there is too little sound for a number.
    assert told >= 0.9 * len(recordings) * len(numbers)


def test_nothing_is_found_in_plain_recordings(recordings: list[Tensor]) -> None:
    assert {find_payload(wave, 16_000).verdict for wave in recordings} == {"not found"}


def test_a_weak_mark_is_found_and_its_number_not_told(recordings: list[Tensor]) -> None:
    """The bits of half of the coded cells turned over: the known cells still find the tile."""
    wave = max(recordings, key=len)
    cells = tile(NUMBER).flatten().clone()
    coded = (correlators()[:, 1:] != 0).any(dim=1).nonzero()[:, 0]
    cells[coded[::2]] *= -1
    made = hidden(load_payload_net(), wave, cells.reshape(tile(0).shape), strength=4.0)
    result = find_payload(made, 16_000)
    assert result.verdict == "found"
    assert result.payload is None
    assert "cannot be read for sure" in result.reason


def test_codecs_speed_and_cuts(recordings: list[Tensor]) -> None:
    wave = max(recordings, key=len)
    marked = hide(wave)
    faster = torch.from_numpy(soxr.resample(marked.numpy(), 16_000 * 1.05, 16_000))
    slower = torch.from_numpy(soxr.resample(marked.numpy(), 16_000 * 0.92, 16_000))
    for name, changed in {
        "opus": transcoded(marked, 16_000, "opus 24k"),
        "mp3": transcoded(marked, 16_000, "mp3 64k"),
        "faster": faster,
        "cut": marked[7_001:],
        "quiet": 0.05 * marked,
    }.items():
        assert find_payload(changed, 16_000).payload == NUMBER, name
    found = find_payload(slower, 16_000)
    assert found.payload == NUMBER
    assert found.speed == pytest.approx(0.92, abs=0.011)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_any_rate_and_channel_count(rate: int, recordings: list[Tensor]) -> None:
    wave = torch.from_numpy(soxr.resample(max(recordings, key=len).numpy(), 16_000, rate))
    both = torch.stack([wave, 0.5 * wave])
    marked = hide(both, rate)
    assert marked.shape == both.shape
    assert find_payload(marked, rate).payload == NUMBER
    assert float((marked - both).square().sum() / both.square().sum()) < 0.02


def test_a_long_recording_is_marked_in_pieces(recordings: list[Tensor]) -> None:
    wave = torch.cat(recordings)
    wave = wave.repeat(1 + 40 * 16_000 // len(wave))[: 40 * 16_000]
    marked = hide(wave, block=5_000)
    assert len(marked) == len(wave)
    assert torch.equal(marked, hide(wave))  # whatever the blocks
    for start in (0, 15, 30):  # each part by itself carries it
        part = marked[16_000 * start : 16_000 * (start + 10)]
        assert find_payload(part, 16_000).payload == NUMBER
    # No step where one piece gives way to the next: the change there is as elsewhere.
    change = (marked - wave).diff().abs()
    for piece in (1, 2):
        seam = round(10.24 * 16_000 * piece)
        around = change[seam - 16_000 : seam + 16_000]
        assert change[seam - 600 : seam + 600].max() <= 1.5 * around.quantile(0.999) + 1e-4


def test_sounds_that_cannot_carry_a_number(tmp_path: Path) -> None:
    silent = torch.zeros(16_000)
    assert torch.equal(hide(silent), silent)
    assert find_payload(silent, 16_000).verdict == "unknown"
    short = 0.1 * torch.randn(800, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hide(short), short)
    assert find_payload(short, 16_000).verdict == "unknown"
    with pytest.warns(UserWarning, match="too short for a payload"):
        Audio(short, 16_000, origin=ORIGIN).save(tmp_path / "short.wav", payload=1)


def test_files_and_inspect(
    tmp_path: Path,
    recordings: list[Tensor],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    # The environment's watermark gives way to a number that is asked for.
    monkeypatch.setenv(MARKS_VARIABLE, "metadata,watermark")
    wave = max(recordings, key=len)
    sound = Audio(wave / wave.abs().max(), 16_000, origin=ORIGIN)
    for name in ("wav", "mp3", "opus"):
        sound.save(f"x.{name}", payload=NUMBER)
        found = inspect_file(Path(f"x.{name}"))
        assert (found.payload_verdict, found.payload) == ("found", NUMBER)
        assert found.watermark != "found"
        assert found.payload_score is not None
        assert found.payload_score >= FOUND_Z
    samples, _ = soundfile.read("x.wav")
    assert len(samples) == len(wave)
    assert np.abs(samples).max() <= 1.0
    capsys.readouterr()
    assert main(["inspect", "x.wav"]) == 0
    assert str(NUMBER) in capsys.readouterr().out


def test_refusals() -> None:
    for wrong in (-1, 65_536, True, 1.5, "7"):
        with pytest.raises(InputError, match="give a whole number from 0 to 65535"):
            merge_output(None, {"payload": wrong})
    with pytest.raises(InputError, match="leave one of them out"):
        OutputFormat(payload=1, watermark=True)
    with pytest.raises(InputError, match="A stream cannot carry a payload"):
        AudioEncoder(OutputFormat(format="wav", payload=1), 16_000, origin=ORIGIN)
