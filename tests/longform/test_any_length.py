"""Any length on the command line: texts, regions, pipes, subtitles, and what is refused."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from unison_audio.cli import main as cli

MALE = "[Speech] A male voice"
REMOVE = "[Edit][Audio] Remove a dog barking"
TEXT = "The red bird is on the water. My dog is big.\n\nWe see the small green tree. " * 3


def run(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def weights(tiny_checkpoint: Path, stub_text: None) -> tuple[Any, ...]:
    return ("--variant", tiny_checkpoint, "--steps", 2)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal(0, 0.1, (12 * 24_000, 2)).clip(-0.9, 0.9)
    soundfile.write(tmp_path / "in.wav", values, 24_000, "PCM_24")
    return tmp_path / "in.wav"


def test_a_text_file_is_spoken_with_subtitles(weights: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    out, subtitles = tmp_path / "out.flac", tmp_path / "out.json"
    flags = ("--text-file", tmp_path / "text.txt", "--subtitles", subtitles)
    assert run("generate", MALE, "-o", out, *flags, *weights) == 0
    cues = json.loads(subtitles.read_text())
    assert " ".join(cue["text"] for cue in cues) == " ".join(TEXT.split())
    assert cues[-1]["end"] == pytest.approx(soundfile.info(out).duration, abs=0.01)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_long_instruction_needs_no_flag_and_a_duration_keeps_it_whole(
    weights: Any, tmp_path: Path
) -> None:
    instruction = f'{MALE} saying "{" ".join(TEXT.split())}"'
    assert run("generate", instruction, "-o", tmp_path / "long.wav", *weights) == 0
    assert soundfile.info(tmp_path / "long.wav").duration > 5.12


class Stdout:
    """Standard output with its bytes."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize("instruction", [MALE, "[Audio] a dog barking"])
def test_standard_output_gets_the_same_sound(
    instruction: str, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--text-file", "-") if instruction == MALE else ("--duration", 1)

    def stdin() -> None:
        data = SimpleNamespace(buffer=io.BytesIO(TEXT.encode()))
        monkeypatch.setattr(sys, "stdin", data)

    stdin()
    assert run("generate", instruction, "-o", tmp_path / "x.wav", *flags, *weights) == 0
    expected = soundfile.read(tmp_path / "x.wav")[0]
    for raw in ((), ("--raw",)):
        out = Stdout()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            stdin()
            assert run("generate", instruction, "-o", "-", *flags, *weights, *raw) == 0
        data = out.buffer.getvalue()
        data = data if raw else data[data.index(b"data") + 8 :]  # after the tags
        assert np.abs(np.frombuffer(data, "<i2") / 32768 - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["mp3", "opus", "aac", "flac"])
def test_standard_output_takes_other_formats(
    name: str, weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Stdout()
    given = ("generate", "[Audio] rain", "--duration", 1, *weights)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert run(*given, "-o", "-", "--format", name, "--sample-rate", 24_000) == 0
    with av.open(io.BytesIO(out.buffer.getvalue())) as container:
        stream = container.streams.audio[0]
        frames = sum(frame.samples for frame in container.decode(stream))
        assert stream.codec_context.name.startswith(name)
        assert 1.0 <= frames / stream.rate < 1.2


def test_a_pipe_that_closes_ends_the_command_quietly(tiny_checkpoint: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "unison_audio.cli.main", "generate", "[Audio] rain"]
    done = subprocess.run(
        [*command, "-o", "-", "--variant", str(tiny_checkpoint), "--duration", "1"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_ends_a_stream_with_one_sentence(tiny_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "unison_audio.cli.main", "generate", "[Audio] rain"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "-o", "-", "--variant", str(tiny_checkpoint), "--duration", "1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("unison-audio: Standard output cannot be written (No space left")
    assert len(done.stderr.splitlines()) == 1


def test_regions_leave_the_rest_as_it_is(weights: Any, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    flags = ("--region", "0:01-2.5 s", "--region", "10-12")
    assert run("generate", REMOVE, "-o", out, "--source", noise, *flags, *weights) == 0
    before, after = (soundfile.read(path, dtype="int32")[0] for path in (noise, out))
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 2, "PCM_24")
    same = (before == after).all(axis=1)
    assert same[:24_000].all()
    assert same[60_000:240_000].all()
    assert not same[24_000:60_000].all()
    assert not same[240_000:].all()


def test_what_a_removal_takes_away(weights: Any, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    flags = ("--region", "1-2", "--extract")
    assert run("generate", REMOVE, "-o", out, "--source", noise, *flags, *weights) == 0
    taken = soundfile.read(out, dtype="int32")[0]
    assert not taken[:24_000].any()
    assert not taken[48_000:].any()
    assert taken[24_000:48_000].any()


def test_gaps_are_filled_and_recordings_extended(weights: Any, noise: Path, tmp_path: Path) -> None:
    before = soundfile.read(noise, dtype="int32")[0]
    out, rain = tmp_path / "out.wav", ["[Audio] rain", "-o", tmp_path / "out.wav"]
    flags = ("--source", noise, "--inpaint", "0:01-2.5 s", "--inpaint", "10-11")
    assert run("generate", *rain, *flags, *weights) == 0
    after = soundfile.read(out, dtype="int32")[0]
    inside = np.zeros(len(before), dtype=bool)
    inside[24_000:60_000] = inside[240_000:264_000] = True
    assert np.array_equal(before[~inside], after[~inside])
    assert (before != after)[inside].any(axis=1).mean() > 0.9
    flags = ("--source", noise, "--extend-after", "1.5 s", "--extend-before", 1)
    assert run("generate", *rain, *flags, *weights) == 0
    after = soundfile.read(out, dtype="int32")[0]
    assert soundfile.info(out).subtype == "PCM_24"
    assert len(after) == len(before) + 60_000
    assert np.array_equal(after[24_000:-36_000], before)
    assert after[:24_000].any()
    assert after[-36_000:].any()


def test_what_an_instruction_names_is_extracted(weights: Any, noise: Path, tmp_path: Path) -> None:
    for name, instruction, flag in (
        ("a.wav", "[Audio] a dog barking", "--extract"),
        ("b.wav", REMOVE, "--extract"),
    ):
        arguments = (instruction, "-o", tmp_path / name, "--source", noise, "--region", "1-2")
        assert run("generate", *arguments, flag, *weights) == 0
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_a_long_recording_is_edited_throughout(weights: Any, noise: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.flac"
    assert run("generate", REMOVE, "-o", out, "--source", noise, *weights) == 0
    before, after = (soundfile.read(path, dtype="int32")[0] for path in (noise, out))
    assert before.shape == after.shape
    assert (before != after).any(axis=1).mean() > 0.5


def test_a_timeline_has_subtitles(weights: Any, tmp_path: Path) -> None:
    timeline = "[Audio] From 0s to 1s, rain. From 1s to 2s, a dog barking."
    flags = ("-o", tmp_path / "x.wav", "--subtitles", tmp_path / "x.vtt", "--duration", 2)
    assert run("generate", timeline, *flags, *weights) == 0
    assert "00:00:01.000 --> 00:00:02.000\na dog barking\n" in (tmp_path / "x.vtt").read_text()


@pytest.mark.parametrize("head", ["", "[Audio] "])
def test_a_named_timeline_may_be_longer_than_a_window(
    head: str, weights: Any, tmp_path: Path
) -> None:
    timeline = f"{head}From 0s to 1s, rain. From 6s to 7s, a dog barking."
    out = tmp_path / "x.wav"
    assert run("generate", timeline, "-o", out, "--task", "timed", *weights) == 0
    assert soundfile.info(out).duration == pytest.approx(7.0, abs=0.01)
    free = "rain between the second and the third second"
    assert run("generate", free, "-o", out, "--task", "timed", *weights) == 0
    assert soundfile.info(out).duration < 5.12


def refusals(folder: Path, source: Path) -> list[tuple[str, list[Any]]]:
    (folder / "empty.txt").write_text(" \n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with (folder / "big.txt").open("wb") as file:
        file.write(b"a" * 10_000_000)
    out = ["-o", folder / "out.wav"]
    speak = [MALE, *out, "--text-file"]
    edit = [REMOVE, *out, "--source", source, "--region"]
    fill = ["[Audio] rain", *out, "--source", source, "--inpaint"]
    return [
        ("is empty", [*speak, folder / "empty.txt"]),
        ("not UTF-8", [*speak, folder / "binary.txt"]),
        ("more than 8,000,000 bytes", [*speak, folder / "big.txt"]),
        ("cannot be read", [*speak, folder / "missing.txt"]),
        ("reversed", [*edit, "2-1"]),
        ("past the end of the recording, 12.0 s", [*edit, "1-12.5"]),
        ("negative", [*edit, "-1-2"]),
        ("not understood", [*edit, "noon"]),
        ("overlap", [*edit, "1-3", "--region", "2-4"]),
        ("leave it out", [*edit, "1-2", "--duration", 3]),
        ("give a file", [REMOVE, "-o", "-", "--source", source, "--region", "1-2"]),
        ("takes nothing away", ["[Edit][Audio] Add rain", *out, "--source", source, "--extract"]),
        ("with --source", [MALE, *out, "--region", "1-2"]),
        ("write a .wav", [REMOVE, "-o", folder / "x.mp3", "--source", source, "--region", "1-2"]),
        ("leave --subtitles out", ["[Audio] rain", *out, "--subtitles", folder / "x.srt"]),
        (".srt, .vtt, .json", [MALE, *out, "--subtitles", folder / "x.txt"]),
        ("standard output", ["[Audio] rain", *out, "--raw"]),
        ("needs a recording", ["[Audio] rain", *out, "--inpaint", "1-2"]),
        ("reversed", ["[Audio] rain", *out, "--source", source, "--inpaint", "2-1"]),
        ("negative", ["[Audio] rain", *out, "--source", source, "--extend-after", "-1"]),
        ("do not go together", [*fill, "1-2", "--extend-after", "1"]),
        ("--region does not go with", [*fill, "1-2", "--region", "1-2"]),
        ("needs a source", [REMOVE, *out, "--source", source, "--inpaint", "1-2"]),
        ("write a .wav", ["[Audio] rain", "-o", folder / "x.mp3", *fill[3:], "1-2"]),
    ]


def test_what_is_refused_with_one_sentence(
    weights: Any, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = refusals(tmp_path, noise)
    files = sorted(tmp_path.iterdir())
    for message, arguments in cases:
        code = run("generate", *arguments, *weights)
        captured = capsys.readouterr()
        assert code == 2, (message, captured.err)
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert message in lines[0], lines[0]
        assert sorted(tmp_path.iterdir()) == files, message


def test_jobs_take_texts_and_regions(
    tiny_checkpoint: Path, stub_text: None, noise: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    jobs = [
        {"instruction": MALE, "text_file": "text.txt", "subtitles": "a.srt", "output": "a.flac"},
        {"instruction": REMOVE, "source": "in.wav", "region": "1-2", "output": "b.wav"},
        {"instruction": REMOVE, "source": "in.wav", "region": ["1-2", "3-4"], "output": "c.wav"},
        {"instruction": REMOVE, "source": "in.wav", "output": "d.m4a", "bit_rate": 96},
        {"instruction": "[Audio] rain", "duration": 1, "format": "flac", "bit_depth": 24},
        {"instruction": "[Audio] rain", "source": "in.wav", "inpaint": "1-2", "output": "e.wav"},
        {"instruction": "[Audio] rain", "source": "in.wav", "extend_after": 2, "output": "f.wav"},
    ]
    lines = [json.dumps({**job, "steps": 1}) + "\n" for job in jobs]
    (tmp_path / "jobs.jsonl").write_text("".join(lines))
    out = tmp_path / "out"
    weights = ("--variant", tiny_checkpoint)
    assert run("batch", tmp_path / "jobs.jsonl", "-o", out, *weights) == 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["task"] for row in results] == ["tts", *["edit_remove"] * 3, *["t2a"] * 3]
    assert [row["seconds"] for row in results[1:]] == [12.0] * 3 + [1.0, 12.0, 14.0]
    assert soundfile.info(out / "0005.flac").subtype == "PCM_24"
    with av.open(str(out / "d.m4a")) as container:
        assert float(container.streams.audio[0].duration) / 24_000 == pytest.approx(12.0)
    assert (out / "a.srt").read_text().startswith("1\n00:00:00,000")
    assert soundfile.info(out / "b.wav").subtype == "PCM_24"


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"instruction": REMOVE, "source": "in.wav", "region": "2-1"}, "reversed"),
        ({"instruction": REMOVE, "source": "in.wav", "region": [1, 2]}, "region is"),
        ({"instruction": REMOVE, "source": "in.wav", "extract": 1}, "extract is"),
        ({"instruction": "[Audio] rain", "source": "in.wav", "inpaint": 2}, "inpaint is"),
        ({"instruction": "[Audio] rain", "source": "in.wav", "extend_after": []}, "give seconds"),
        ({"instruction": "[Audio] rain", "format": "mp3", "bit_depth": 16}, "no bit depth"),
        ({"instruction": "[Audio] rain", "format": "mp3", "output": "x.wav"}, "x.mp3"),
        ({"instruction": MALE, "text_file": "none.txt"}, "cannot be read"),
        ({"instruction": MALE, "text_file": "t.txt", "subtitles": "../a.srt"}, "leads out"),
    ],
)
def test_jobs_that_are_refused_before_any_runs(
    job: dict[str, Any],
    message: str,
    weights: Any,
    noise: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job) + "\n")
    code = run("batch", tmp_path / "jobs.jsonl", "-o", tmp_path / "out", *weights[:2])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
