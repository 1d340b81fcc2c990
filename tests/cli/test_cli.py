"""The command line: what it prints, writes and refuses."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_unison import RATE, tone_file

from unison_audio import audio, audio_files, checkpoint, checkpoint_files
from unison_audio.cli import main as cli
from unison_audio.cli import start
from unison_audio.cli.job_file import KEYS
from unison_audio.cli.options import rename_flags
from unison_audio.cli.start import WAIT_POLICY
from unison_audio.errors import InputError
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import OPTIONS
from unison_audio.tasks.table import TASKS
from unison_audio.variants import VARIANTS

TTS = '[Speech] A male voice saying "red dog"'
DELETE = "[Edit][Speech] Remove the speech"
CLONE = "[Speech with voice] red dog"


def run(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line on stderr of a command that was refused."""
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("unison-audio: ")
    return lines[0]


def test_the_whole_command_with_the_real_text_encoder(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "speech.wav"
    command = [sys.executable, "-m", "unison_audio.cli.main", "generate", TTS, "-o", str(out)]
    done = subprocess.run(
        [*command, "--variant", str(tiny_checkpoint), "--duration", "1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: tts, 1.00 s, seed 0\n"
    assert audio_files.seconds(out) == 1.0


def test_a_named_task_takes_free_wording(
    tiny: Unison, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    free, source = "I never want to hear rain again", tone_file(tmp_path / "source.wav", 1.0, RATE)
    job = {"instruction": free, "source": source.name, "task": "edit_remove", "steps": 2}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job) + "\n")
    weights = ("--variant", tiny_checkpoint)
    out = tmp_path / "x.wav"
    given = ("--source", source, "--steps", 2, "-o", out)
    assert run("generate", free, *given, *weights) == 2
    assert run("generate", free, *given, *weights, "--task", "edit_remove") == 0
    assert run("batch", tmp_path / "jobs.jsonl", "-o", tmp_path / "all", *weights) == 0
    expected = tiny.generate(free, source=source, steps=2, task="edit_remove")
    for file in (out, tmp_path / "all" / "0001.wav"):
        written = audio.load(file, sample_rate=RATE)
        np.testing.assert_allclose(written, expected.waveform, atol=1e-4)


def test_only_folders_of_what_is_written_are_made(
    tiny_checkpoint: Path, stub_text: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = ("[Speech] A male voice", "--text-file", "text.txt", "--variant", tiny_checkpoint)
    Path("text.txt").write_text("go home. red dog.")
    out = Path("passed/../../new/x.wav")
    assert run("generate", *text, "-o", out, "--subtitles", "passed/../../srt/x.srt") == 0
    made = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")}
    assert made == {"here", "here/text.txt", "new", "new/x.wav", "srt", "srt/x.srt"}

    def fail(*given: Any, **more: Any) -> None:
        raise InputError("This recording cannot be decoded.")

    monkeypatch.setattr(Unison, "generate", fail)
    for output in ("a/b/y.wav", "../new/b/y.wav"):
        assert run("generate", TTS, "-o", output, "--variant", tiny_checkpoint) == 2
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")} == made


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_generate_writes_what_the_library_gives(
    suffix: str, tiny: Unison, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    out = tmp_path / f"x{suffix}"
    options = ("--steps", 2, "--guidance-scale", 2.0, "--seed", 3, "--duration", 1.0)
    assert run("generate", TTS, "-o", out, "--variant", tiny_checkpoint, *options) == 0
    expected = tiny.generate(TTS, steps=2, guidance_scale=2.0, seed=3, duration=1.0)
    written = audio.load(out, sample_rate=RATE)
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(written, expected.waveform, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("command", ["generate", "batch", "demo"])
def test_the_config_is_read_once(
    command: str,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files: list[Path] = []
    read = checkpoint_files.read_config
    monkeypatch.setattr(
        checkpoint_files, "read_config", lambda path: (files.append(path), read(path))[1]
    )
    monkeypatch.setattr(checkpoint, "read_config", checkpoint_files.read_config)
    jobs = write_jobs(tmp_path / "jobs.jsonl", {"instruction": TTS})
    first = {"generate": (TTS,), "batch": (jobs,), "demo": ()}[command]
    out = tmp_path / ("x.wav" if command == "generate" else "out")
    assert run(command, *first, "-o", out, "--variant", tiny_checkpoint) == 0
    assert files == [tiny_checkpoint / "config.json"]


def test_generate_with_inputs(
    tiny: Unison, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    source = tone_file(tmp_path / "source.flac", 1.3, 44_100)
    weights = ("--variant", tiny_checkpoint)
    edited = tmp_path / "edited.wav"
    assert run("generate", DELETE, "-o", edited, "--source", source, *weights) == 0
    assert audio_files.seconds(edited) == pytest.approx(1.3, abs=1e-3)
    cloned = tmp_path / "cloned.wav"
    given = ("--reference", source, "--reference-text", "go home")
    assert run("generate", CLONE, "-o", cloned, *given, *weights) == 0
    assert audio_files.seconds(cloned) == 2.56


def test_a_cut_reference_is_reported_in_one_line(
    tiny_checkpoint: Path, stub_text: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tone_file(tmp_path / "long.wav", 4.0, RATE)
    given = ("--reference", reference, "--reference-text", "go home")
    out = tmp_path / "x.wav"
    assert run("generate", CLONE, "-o", out, *given, "--variant", tiny_checkpoint) == 0
    err = capsys.readouterr().err
    assert err.startswith("unison-audio: note: The reference is 4.00 s long")
    assert err.count("\n") == 1


@pytest.mark.parametrize("written", [("--candidates", "2"), ("--candidates=2",)])
def test_old_flags_still_work_and_say_so(
    written: tuple[str, ...],
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = ("--variant", tiny_checkpoint, "--duration", 0.5)
    old, new = tmp_path / "old.wav", tmp_path / "new.wav"
    assert run("generate", TTS, "-o", old, *weights, *written, "--no-keep-source") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "unison-audio: note: --candidates is now called --num-candidates",
        "unison-audio: note: --no-keep-source is now called --no-preserve-source",
    ]
    assert run("generate", TTS, "-o", new, *weights, "--num-candidates", 2) == 0
    assert capsys.readouterr().err == ""
    assert old.read_bytes() == new.read_bytes()


def test_what_follows_two_dashes_is_no_flag() -> None:
    assert rename_flags(["generate", "--", "--guidance"]) == ["generate", "--", "--guidance"]


def bad_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.wav" for name in ("empty", "text", "silent", "nan", "cut")}
    files["empty"].touch()
    files["text"].write_text("not a sound")
    soundfile.write(files["silent"], np.zeros(RATE), RATE)
    soundfile.write(files["nan"], np.full(RATE, np.nan), RATE, "FLOAT")
    whole = tone_file(folder / "whole.wav", 1.0, RATE).read_bytes()
    files["cut"].write_bytes(whole[: len(whole) // 2])
    files["missing"] = folder / "missing.wav"
    files["folder"] = folder
    return files


@pytest.mark.parametrize("name", ["empty", "text", "silent", "nan", "cut", "missing", "folder"])
def test_bad_sources_are_refused(
    name: str,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = bad_files(tmp_path)[name]
    out = tmp_path / "out.wav"
    for option in ("--source", "--reference"):
        instruction = (DELETE,) if option == "--source" else (CLONE, "--reference-text", "go")
        code = run("generate", *instruction, option, path, "-o", out, "--variant", tiny_checkpoint)
        assert str(path) in refused(capsys, code)
        assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "requires an argument|required"),
        ((TTS,), "generate needs a file to write; add -o FILE"),
        ((TTS, "-o", "x.txt"), "suffix must be one of .wav"),
        ((TTS, "-o", "."), "suffix|folder"),
        ((TTS, "-o", "x.wav", "--steps", "many"), "--steps"),
        ((TTS, "-o", "x.wav", "--steps", "0"), "steps is 0"),
        ((TTS, "-o", "x.wav", "--seed", "-1"), "seed is -1"),
        ((TTS, "-o", "x.wav", "--duration", "9"), "duration is 9"),
        ((TTS, "-o", "x.wav", "--colour", "red"), "Unknown option"),
        ((TTS, "more", "-o", "x.wav"), "more"),
        (("a dog", "-o", "x.wav"), "does not begin with a tag"),
        (("[Edit][Speech] Dance", "-o", "x.wav"), "not understood"),
        ((DELETE, "-o", "x.wav"), "needs a source"),
        ((TTS, "-o", "x.wav", "--variant", "nothing"), "no folder 'nothing'"),
        ((TTS, "-o", "x.wav", "--variant", "d20-44k"), "weights of d20-44k do not come"),
        ((TTS, "-o", "file/x.wav"), "folder file cannot be made"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...],
    message: str,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    weights = () if "--variant" in arguments else ("--variant", str(tiny_checkpoint))
    line = refused(capsys, run("generate", *arguments, *weights))
    assert any(part in line for part in message.split("|")), line
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("generatee",), 'Did you mean "generate"'),
        (("train", "nano-codec"), "corpus"),
        (("train", "nano-codec", "--corpus", "x", "--run", "r", "--steps", "0"), "steps is 0"),
        (("train", "nano-codec", "--corpus", "x", "--run", "r"), "There is no index x/index.json"),
        (("data", "nano", "--out", "x", "--scale", "0"), "scale is 0"),
        (("evaluate", "nano", "--corpus", "x", "--out", "y", "--items", "0"), "items is 0"),
        (("batch", "nothing.jsonl", "-o", "out"), "no file nothing.jsonl"),
    ],
)
def test_mistakes_in_other_commands(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, run(*arguments))
    assert not list(tmp_path.iterdir())


def test_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tasks") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(TASKS)
    for line, (name, task) in zip(lines[2:], TASKS.items(), strict=True):
        assert line.split()[0] == name
        assert line.endswith(task.templates[0])
        assert f"{task.stage2_probability:.1%}" in line
    assert "21.4%" in lines[2]  # 0.15 of the 0.70 of generation
    assert "reference + reference text" in lines[3]


def test_tasks_are_listed_in_the_wording_of_a_variant(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_checkpoint / "config.json"
    values = json.loads(config.read_text())
    try:
        changed = {**values, "wording": "release", "edit_tag_spelling": "[Edit] [Audio]"}
        config.write_text(json.dumps(changed))
        assert run("tasks", "--variant", tiny_checkpoint) == 0
    finally:
        config.write_text(json.dumps(values, indent=2) + "\n")
    listed = capsys.readouterr().out
    for wording in (
        "[Edit] [Audio] Mix in the sound of {Event}.",
        "[Edit] [Audio] Eliminate the sound of {Old}. [Edit] [Audio] Add {New}.",
        "[Edit] [Speech] Denoise the record.",
        '[Edit] [Speech] Change speech to "{new}"',
    ):
        assert f"  {wording}\n" in listed
    assert run("tasks", "--variant", "nano") == 0
    nano = capsys.readouterr().out
    assert run("tasks") == 0
    assert capsys.readouterr().out == nano


def test_variants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("variants") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(VARIANTS)
    table = {line.split()[0]: line for line in lines}
    assert "620,775,464" in table["d20-44k"]
    assert "mmaudio-44k" in table["d20-44k"]
    assert "1,062,777,876" in table["d24-16k-ol"]
    assert "15.625" in table["nano"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",), ("generate", "--help"), ("train", "--help")):
        assert run(*arguments) == 0
    out = capsys.readouterr().out
    for command in ("generate", "batch", "tasks", "variants", "train", "data", "evaluate", "demo"):
        assert command in out
    assert run("--version") == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unison_audio.cli.listings.tasks_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("tasks")


def test_an_interrupt_is_quiet(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.wav"
    command = [sys.executable, "-m", "unison_audio.cli.main", "generate", TTS, "-o", str(out)]
    process = subprocess.Popen(
        [*command, "--variant", str(tiny_checkpoint), "--steps", "1000", "--duration", "5.12"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    mapped = Path(f"/proc/{process.pid}/maps")
    while "tokenizers" not in mapped.read_text():  # torch, which must not be cut off, is there
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    # Python ends by the signal itself, which shells call 130 too, if it came while some
    # source was run by exec, as when a dataclass is made.
    assert process.returncode in (130, -signal.SIGINT)
    assert not out.exists()


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "unison_audio.cli.main", "tasks"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def write_jobs(path: Path, *jobs: Any) -> Path:
    lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
    path.write_text("\n".join(lines) + "\n")
    return path


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_batch(
    tiny: Unison,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tone_file(tmp_path / "source.wav", 1.0, RATE)
    jobs = [
        {"instruction": TTS, "duration": 1, "seed": 4, "output": "words/a.flac"},
        "",
        {"instruction": DELETE, "source": "source.wav", "steps": 2, "guidance_scale": 1.5},
        {"instruction": CLONE, "reference": "source.wav", "reference_text": "go", "source": None},
    ]
    path, out = write_jobs(tmp_path / "jobs.jsonl", *jobs), tmp_path / "new" / "out"
    command = ("batch", path, "-o", out, "--variant", tiny_checkpoint)
    assert run(*command) == 0
    made = {str(file.relative_to(out)) for file in out.rglob("*.*")}
    assert made == {"words/a.flac", "0003.wav", "0004.wav", "results.jsonl"}
    expected = tiny.generate(TTS, duration=1, seed=4)
    written = audio.load(out / "words" / "a.flac", sample_rate=RATE)
    np.testing.assert_allclose(written, expected.waveform, atol=1e-4)
    noted = results(out)
    assert [result["task"] for result in noted] == ["tts", "speech_delete", "zero_shot_tts"]
    assert [result["output"] for result in noted] == ["words/a.flac", "0003.wav", "0004.wav"]

    # A second run makes only what is gone or has changed, also after a cut-off note.
    (out / "0004.wav").unlink()
    jobs[0]["seed"] = 5  # type: ignore[index]
    with (out / "results.jsonl").open("a") as notes:
        notes.write('{"output": "0003.w')
    write_jobs(path, *jobs)
    asked: list[str] = []
    generate = Unison.generate
    monkeypatch.setattr(
        Unison,
        "generate",
        lambda self, text, **o: (asked.append(text), generate(self, text, **o))[1],
    )
    assert run(*command) == 0
    assert asked == [TTS, CLONE]
    assert len(results(out)) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"instruction": "[Audio] rain", "seed": 1, "seed": 2}', "'seed' is there twice"),
        ({}, "no instruction"),
        ({"instruction": 3}, "instruction is 3"),
        ({"instruction": TTS, "speed": 2}, "Unknown: speed; the keys are instruction, source"),
        ({"instruction": TTS, "guidance_interval": 0.5}, "guidance_interval is 0.5; give two"),
        ({"instruction": TTS, "steps": 3, "preset": "slow"}, "no preset 'slow'"),
        ({"instruction": TTS, "output": "x.txt"}, "the suffix must be one of"),
        ({"instruction": TTS, "output": "../x.wav"}, "leads out"),
        ({"instruction": TTS, "output": "/x.wav"}, "leads out"),
        ({"instruction": TTS, "output": "0001.wav"}, "also that of line 1"),
        ({"instruction": TTS, "duration": 60}, "duration is 60"),
        ({"instruction": TTS, "steps": "3"}, "steps is '3'"),
        ({"instruction": TTS, "seed": 1.5}, "seed is 1.5"),
        ({"instruction": DELETE}, "needs a source"),
        ({"instruction": DELETE, "source": "gone.wav"}, "gone.wav"),
        ({"instruction": CLONE, "reference": "source.wav"}, "words of the reference"),
    ],
)
def test_a_bad_line_stops_all(
    line: Any,
    message: str,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tone_file(tmp_path / "source.wav", 1.0, RATE)
    path = write_jobs(tmp_path / "jobs.jsonl", {"instruction": TTS}, line)
    code = run("batch", path, "-o", tmp_path / "out", "--variant", tiny_checkpoint)
    said = refused(capsys, code)
    assert "line 2: " in said
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_job_that_fails_does_not_stop_the_others(
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [{"instruction": TTS, "seed": seed, "duration": 0.5} for seed in (1, 2, 3)]
    path, out = write_jobs(tmp_path / "jobs.jsonl", *jobs), tmp_path / "out"
    generate = Unison.generate

    def failing(self: Unison, text: str, **options: Any) -> Any:
        if options["seed"] == 2:
            raise RuntimeError("no memory\nleft")
        return generate(self, text, **options)

    monkeypatch.setattr(Unison, "generate", failing)
    command = ("batch", path, "-o", out, "--variant", tiny_checkpoint)
    assert run(*command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Line 2 (0002.wav): RuntimeError")
    assert "1 of 3 jobs failed" in lines[1]
    assert sorted(file.name for file in out.glob("*.wav")) == ["0001.wav", "0003.wav"]
    assert ["error" in result for result in results(out)] == [False, True, False]
    monkeypatch.setattr(Unison, "generate", generate)
    assert run(*command) == 0
    assert not any("error" in result for result in results(out))


def test_one_class_gives_flags_job_keys_and_keywords(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(OPTIONS) < set(KEYS)
    assert not {"candidates", "guidance", "keep_source"} & set(KEYS)
    assert run("generate", "--help") == 0
    page = capsys.readouterr().out
    for name in OPTIONS:
        assert f"--{name.replace('_', '-')}" in page
    assert "--candidates" not in page
    assert "--empty-guidance-interval" not in page
    assert run("batch", "--help") == 0
    page = "".join(capsys.readouterr().out.split())
    assert ",".join(KEYS) in page


def test_old_keys_of_jobs_still_work_and_say_so(
    tiny: Unison,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = {"instruction": TTS, "duration": 0.5, "candidates": 2, "guidance": 3}
    path = write_jobs(tmp_path / "jobs.jsonl", job, job)
    out = tmp_path / "out"
    assert run("batch", path, "-o", out, "--variant", tiny_checkpoint) == 0
    notes = [line.split(";")[0] for line in capsys.readouterr().err.splitlines()]
    assert set(notes) == {
        "unison-audio: note: candidates is now called num_candidates",
        "unison-audio: note: guidance is now called guidance_scale",
    }
    expected = tiny.generate(TTS, duration=0.5, num_candidates=2, guidance_scale=3)
    written = audio.load(out / "0002.wav", sample_rate=RATE)
    np.testing.assert_allclose(written, expected.waveform, atol=1e-4)
    write_jobs(path, job | {"guidance_scale": 2})
    code = run("batch", path, "-o", out, "--variant", tiny_checkpoint)
    assert "guidance is the old name of guidance_scale; give only" in refused(capsys, code)


def test_an_empty_jobs_file(
    tiny_checkpoint: Path, stub_text: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jobs(tmp_path / "jobs.jsonl")
    code = run("batch", path, "-o", tmp_path / "out", "--variant", tiny_checkpoint)
    assert "holds no jobs" in refused(capsys, code)


@pytest.mark.parametrize("name", ["rain.wav", "./here/../rain.wav", "link.wav"])
def test_an_output_never_replaces_its_source(name: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "here").mkdir()
    source = tmp_path / "rain.wav"
    audio.save(source, torch.rand(8000) - 0.5, 16_000)
    (tmp_path / "link.wav").symlink_to(source)
    before = source.read_bytes()
    words = ["generate", "[Edit][Audio] Add rain", "--source", str(source)]
    assert cli.main([*words, "-o", str(tmp_path / name)]) == cli.BAD_INPUT
    assert "another name" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_no_job_replaces_a_recording_of_another(tmp_path: Path, capsys: Any) -> None:
    audio.save(tmp_path / "rain.wav", torch.rand(8000) - 0.5, 16_000)
    jobs = tmp_path / "jobs.jsonl"
    rows = [
        {"instruction": "[Audio] thunder", "output": "rain.wav"},
        {"instruction": "[Edit][Audio] Add thunder", "source": "rain.wav"},
    ]
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (tmp_path / "rain.wav").read_bytes()
    for flags in ((), ("--overwrite",)):
        assert cli.main(["batch", str(jobs), "-o", str(tmp_path), *flags]) == cli.BAD_INPUT
        assert "line 1" in capsys.readouterr().err
        assert (tmp_path / "rain.wav").read_bytes() == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_cut_standard_output_is_noticed(
    unbuffered: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    sound = ("generate", TTS, "-o", "-", "--duration", "2", "--variant", str(tiny_checkpoint))
    for words, most in ((sound, 20_000), (("tasks",), 1000)):
        command = [sys.executable, "-m", "unison_audio.cli.main", *words]
        with (tmp_path / "out").open("wb") as out:
            done = subprocess.run(
                command,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                preexec_fn=lambda most=most: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (most, most)
                ),
            )
        assert done.returncode == cli.BAD_INPUT
        assert "File too large" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_full_standard_output_is_one_sentence() -> None:
    command = [sys.executable, "-m", "unison_audio.cli.main", "tasks"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == cli.BAD_INPUT
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "closed", "said"),
    [
        (["[Audio] rain", "-o", "-"], "stdout", "Standard output is closed"),
        (["[Speech]", "--text-file", "-", "-o", "x.wav"], "stdin", "Standard input is empty"),
    ],
)
def test_a_closed_standard_stream_is_one_sentence(
    flags: list[str], closed: str, said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, closed, None)  # what Python gives where a shell closed it
    assert said in refused(capsys, cli.main(["generate", *flags]))


@pytest.mark.parametrize("rate", ["nan", "0", "-1", "inf"])
def test_a_rate_that_trains_nothing_is_refused(rate: str, tmp_path: Path, capsys: Any) -> None:
    words = ["finetune", str(tmp_path / "no.jsonl"), "--run", str(tmp_path / "run")]
    assert cli.main([*words, f"--learning-rate={rate}"]) == cli.BAD_INPUT
    assert "learning_rate" in capsys.readouterr().err.replace("-", "_")


def test_threads_wait_asleep_unless_told_otherwise(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unison-audio", "--version"])
    monkeypatch.setenv(WAIT_POLICY, "active")
    assert start.main() == 0
    assert os.environ[WAIT_POLICY] == "active"
    monkeypatch.delenv(WAIT_POLICY)
    assert start.main() == 0
    assert os.environ[WAIT_POLICY] == "passive"
