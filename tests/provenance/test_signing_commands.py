"""Signing from the command line: what `inspect` then says, and what is refused before any work."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unison_audio.cli.main import main
from unison_audio.output_format import FORMATS
from unison_audio.pipeline import Unison
from unison_audio.provenance.manifests import MIME_TYPES

GENERATED = "trainedAlgorithmicMedia"
SIGNABLE = sorted(suffix[1:] for suffix in MIME_TYPES)


@pytest.fixture
def command(
    authority: Path,
    tiny_checkpoint: Path,
    stub_text: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """Flags of a signed generation by the tiny checkpoint, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    pair = ["--sign-cert", str(authority / "ec-chain.pem"), "--sign-key", str(authority / "ec.key")]
    return ["--variant", str(tiny_checkpoint), *pair]


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["inspect", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_format_that_can_be_signed(
    command: list[str], authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"x.{name}" for name in SIGNABLE]
    for file in files:
        assert main(["generate", "[Audio] rain", "-o", file, *command]) == 0
    trusting = inspected(capsys, *files, "--trust", str(authority / "ca.pem"))
    for found, plain in zip(trusting, inspected(capsys, *files), strict=True):
        manifest, alone = found["manifest"], plain["manifest"]
        assert isinstance(manifest, dict)
        assert isinstance(alone, dict)
        assert (manifest["state"], alone["state"]) == ("trusted", "untrusted")
        assert manifest["source_types"] == [GENERATED]
        assert manifest["issuer"] == "Maker"
        assert found["source_type"] == GENERATED
    assert main(["inspect", "x.flac"]) == 0
    assert f"untrusted: {GENERATED}, signed by Maker" in capsys.readouterr().out


def test_a_signature_changes_no_sample(command: list[str]) -> None:
    unsigned = command[:2]
    for name in SIGNABLE:
        if name == "m4a":
            continue  # soundfile does not read it
        assert main(["generate", "[Audio] rain", "-o", f"signed.{name}", *command]) == 0
        assert main(["generate", "[Audio] rain", "-o", f"plain.{name}", *unsigned]) == 0
        signed, plain = (soundfile.read(f"{one}.{name}")[0] for one in ("signed", "plain"))
        assert np.array_equal(signed, plain)


def test_saving_again_is_told(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "[Audio] rain", "-o", "x.wav", *command]) == 0
    whole = Path("x.wav").read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b"data") + 1000] ^= 1
    Path("changed.wav").write_bytes(changed)
    samples, rate = soundfile.read("x.wav", dtype="int16")
    soundfile.write("again.wav", samples, rate)
    states = [found["manifest"] for found in inspected(capsys, "changed.wav", "again.wav")]
    assert [one["state"] for one in states if isinstance(one, dict)] == ["invalid", "none"]


def test_an_edit_of_a_signed_file(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "[Audio] rain", "-o", "x.wav", *command]) == 0
    edit = ["[Edit][Audio] Remove the rain", "--source", "x.wav"]
    assert main(["generate", *edit, "-o", "edit.flac", *command]) == 0
    (found,) = inspected(capsys, "edit.flac")
    manifest = found["manifest"]
    assert isinstance(manifest, dict)
    assert manifest["state"] == "untrusted"
    assert manifest["source_types"] == ["compositeWithTrainedAlgorithmicMedia"]
    # The source's own manifest stays inside: its claim stands beside the edit's.
    assert Path("edit.flac").read_bytes().count(b"c2pa.claim.v2") >= 2


def test_a_batch_signs(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [{"instruction": "[Audio] rain", "output": name} for name in ("a.wav", "b.mp3")]
    Path("jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    assert main(["batch", "jobs.jsonl", "-o", "made", *command]) == 0
    for found in inspected(capsys, "made/a.wav", "made/b.mp3"):
        manifest = found["manifest"]
        assert isinstance(manifest, dict)
        assert manifest["state"] == "untrusted"


def test_refused_before_any_work(
    command: list[str],
    authority: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("nothing is generated")

    monkeypatch.setattr(Unison, "generate", no_work)

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
        assert not list(Path().glob("*.*"))
        return told.err

    request = ("generate", "[Audio] rain", "-o")
    unsignable = sorted(set(FORMATS) - set(SIGNABLE))
    assert unsignable == ["aac", "ogg", "opus", "pcm"]
    for name in unsignable:
        said = refused(*request, f"x.{name}", *command)
        assert f".{name} cannot hold a signed manifest; write one of .wav, .flac" in said
    assert "A stream cannot be signed" in refused(*request, "-", *command)
    assert "sign_key is missing" in refused(*request, "x.wav", *command[:4])
    wrong = [*command[:4], "--sign-key", str(authority / "ca.key")]
    assert "The sound cannot be signed" in refused(*request, "x.wav", *wrong)
    alone = str(authority / "ca.pem")  # a root signs certificates, and no sound
    own = [*command[:2], "--sign-cert", alone, "--sign-key", str(authority / "ca.key")]
    assert "give a certificate chain" in refused(*request, "x.wav", *own)
