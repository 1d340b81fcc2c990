"""Every route by which a generated sound leaves states its origin, and none goes round the door."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import unison_audio
from unison_audio.audio import Audio
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.av_audio import decode_blocks
from unison_audio.cli.main import main
from unison_audio.demo.demo import make_demo
from unison_audio.errors import InputError
from unison_audio.longform.sound_stream import write_sounds
from unison_audio.output_format import FORMATS, MARKS_VARIABLE, OutputFormat, needs_av
from unison_audio.pipeline import Unison
from unison_audio.provenance.file_tags import read_tags
from unison_audio.provenance.inspection import inspect_file
from unison_audio.provenance.origin import Origin

SOURCE = Path(unison_audio.__file__).parent
DOOR = {"audio_writer.py", "audio_encoder.py", "av_audio.py"}
NO_OUTPUT = {
    "audio.py": "the notebook's player, which sets the tags itself",
    "data/prepare/shard_writer.py": "training clips",
    "data/prepare/clip.py": "training clips",
    "server/uploads.py": "uploads that FFmpeg has decoded",
}
"""Other files that write sound, and why no output of the program leaves by them."""
GENERATED = "trainedAlgorithmicMedia"
TAGGED = [name for name in FORMATS if name not in ("pcm", "aac")]
ORIGIN = Origin(task="t2a", variant="tiny")


def wave(seconds: float = 1.0) -> torch.Tensor:
    return 0.1 * torch.randn(round(16_000 * seconds), generator=torch.Generator().manual_seed(1))


def writes_sound(tree: ast.AST) -> bool:
    """Whether code opens a sound file for writing, by soundfile or PyAV."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            modes = [ast.unparse(one) for one in node.args[1:2]]
            if name == "soundfile.write" or (
                name in ("soundfile.SoundFile", "av.open", "self._av.open")
                and any(mode in ("'w'", "'x'") for mode in modes)
            ):
                return True
    return False


def test_no_code_writes_sound_round_the_door() -> None:
    found = {
        str(file.relative_to(SOURCE))
        for file in SOURCE.rglob("*.py")
        if writes_sound(ast.parse(file.read_text("utf-8")))
    }
    assert found == DOOR | set(NO_OUTPUT)


@pytest.mark.parametrize("name", TAGGED)
def test_files_of_every_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"x.{name}"
    Audio(wave(), 16_000, task="t2a", origin=ORIGIN).save(file)
    found = inspect_file(file)
    assert found.source_type == GENERATED
    assert "unison-audio" in found.software
    assert "(tiny)" in found.software
    Audio(wave(), 16_000, task="t2a", origin=ORIGIN).save(file, metadata=False)
    assert inspect_file(file).source_type == ""


@pytest.mark.parametrize("name", [name for name in TAGGED if FORMATS[name].streams])
def test_streams_of_every_format(tmp_path: Path, name: str) -> None:
    encoder = AudioEncoder(OutputFormat(format=name), 16_000, origin=ORIGIN)
    file = tmp_path / f"x.{name}"
    file.write_bytes(encoder.write(wave()) + encoder.finish())
    assert GENERATED in " ".join(read_tags(file).values())
    seconds = sum(len(block) / rate for block, rate in decode_blocks(str(file), name))
    assert abs(seconds - 1.0) < 0.2


def test_the_command_line_and_batches(
    tmp_path: Path, tiny_checkpoint: Path, stub_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variant = ["--variant", str(tiny_checkpoint)]
    assert main(["generate", "[Audio] rain", "-o", "a.wav", *variant]) == 0
    Path("jobs.jsonl").write_text(
        json.dumps({"instruction": "[Audio] rain", "output": "b.flac"})
        + "\n"
        + json.dumps({"instruction": "[Audio] rain", "output": "c.flac", "metadata": False})
    )
    assert main(["batch", "jobs.jsonl", "-o", "made", *variant]) == 0
    bare = ["batch", "jobs.jsonl", "-o", "bare", "--no-metadata", *variant]
    assert main(bare) == 0
    assert inspect_file(Path("bare/b.flac")).source_type == ""
    assert inspect_file(Path("a.wav")).source_type == GENERATED
    assert inspect_file(Path("made/b.flac")).source_type == GENERATED
    assert inspect_file(Path("made/c.flac")).source_type == ""


def test_edits_say_that_they_are_edits(tmp_path: Path, tiny: Unison) -> None:
    source = tmp_path / "source.wav"
    soundfile.write(source, wave().numpy(), 16_000)
    whole = tiny.generate("[Edit][Audio] Remove the rain", source=source)
    region = tiny.edit("[Edit][Audio] Remove the rain", source, regions=[(0.2, 0.6)])
    in_memory = tiny.edit("[Edit][Audio] Remove the rain", (wave(), 16_000), regions=[(0.2, 0.6)])
    cleaned = tiny.generate("[Edit][Speech] Denoise the speech", source=source, task="denoise")
    for sound, kind in (
        (whole, "compositeWithTrainedAlgorithmicMedia"),
        (region, "compositeWithTrainedAlgorithmicMedia"),
        (in_memory, "compositeWithTrainedAlgorithmicMedia"),
        (cleaned, "algorithmicallyEnhanced"),
    ):
        sound.save(tmp_path / "edit.wav")
        assert inspect_file(tmp_path / "edit.wav").source_type == kind


def test_long_speech_the_demo_and_the_notebook(tmp_path: Path, tiny: Unison) -> None:
    pieces = tiny.stream("[Speech] A male voice", text="one two. three four. five six.")
    write_sounds(tmp_path / "long.wav", pieces)
    assert inspect_file(tmp_path / "long.wav").source_type == GENERATED
    sound = tiny.generate("[Audio] rain")
    embedded = re.search(r"base64,([^\"]+)", sound._repr_html_())
    assert embedded is not None
    player = base64.b64decode(embedded[1])
    with soundfile.SoundFile(io.BytesIO(player)) as file:
        assert GENERATED in file.comment
    made = make_demo(tiny, tmp_path / "demo")
    outputs = [file for file in made.parent.rglob("*.wav") if "t2a" in file.name]
    assert outputs
    assert all(inspect_file(file).source_type == GENERATED for file in outputs)


def test_with_everything_off_the_bits_are_those_without_marks(tmp_path: Path) -> None:
    for name in FORMATS:
        plain, off = tmp_path / f"plain.{name}", tmp_path / f"off.{name}"
        Audio(wave(), 16_000).save(plain)  # without an origin nothing is ever marked
        Audio(wave(), 16_000, origin=ORIGIN).save(off, metadata=False)
        if name in ("ogg", "opus"):  # libsndfile gives each Ogg stream a random number
            first, second = (soundfile.read(file)[0] for file in (plain, off))
            assert np.array_equal(first, second)
            assert plain.stat().st_size == off.stat().st_size
        else:
            assert plain.read_bytes() == off.read_bytes()


def test_the_watermark_in_files_and_streams(tmp_path: Path) -> None:
    from test_watermark import voice

    sound = Audio(0.5 * voice(2.0), 16_000, origin=ORIGIN)
    for name in ("wav", "mp3"):
        sound.save(tmp_path / f"x.{name}", watermark=True)
        assert inspect_file(tmp_path / f"x.{name}").watermark == "found"
    encoder = AudioEncoder(OutputFormat(format="wav", watermark=True), 16_000, origin=ORIGIN)
    blocks = [encoder.write(part) for part in sound.waveform.split(5_000)]
    (tmp_path / "stream.wav").write_bytes(b"".join(blocks) + encoder.finish())
    assert inspect_file(tmp_path / "stream.wav").watermark == "found"
    samples, _ = soundfile.read(tmp_path / "stream.wav")
    assert len(samples) == len(sound.waveform)
    with pytest.warns(UserWarning, match="too short for a watermark"):
        Audio(wave(0.05), 16_000, origin=ORIGIN).save(tmp_path / "short.wav", watermark=True)


def test_the_environment_sets_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Audio(wave(), 16_000, origin=ORIGIN)
    monkeypatch.setenv(MARKS_VARIABLE, "none")
    sound.save(tmp_path / "none.wav")
    assert inspect_file(tmp_path / "none.wav").source_type == ""
    sound.save(tmp_path / "asked.wav", metadata=True)
    assert inspect_file(tmp_path / "asked.wav").source_type == GENERATED
    monkeypatch.setenv(MARKS_VARIABLE, "tags")
    with pytest.raises(InputError, match="UNISON_AUDIO_MARKS is 'tags'"):
        sound.save(tmp_path / "wrong.wav")
    assert not (tmp_path / "wrong.wav").exists()


def test_every_format_is_walked() -> None:
    # A format that is added later belongs to one of the two lists above.
    assert set(TAGGED) | {"pcm", "aac"} == set(FORMATS)
    assert needs_av(OutputFormat(format="m4a"), stream=False)
    assert np.isfinite(wave().numpy()).all()
