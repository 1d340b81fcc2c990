"""Words of a reference that an ASR model finds: a small stand-in, and a real Whisper."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import soundfile
import torch
from tiny_unison import StubEncoder, random_backbone, random_codec, tiny_variant
from torch import Tensor

import unison_audio
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.inputs import ShortenedWarning, TranscribedWarning
from unison_audio.pipeline import Unison
from unison_audio.transcription import (
    ENVIRONMENT,
    PACKAGES,
    find_asr,
    has_asr,
    packaged_model,
    spoken_beginning,
)

INPUTS = Path(unison_audio.__file__).parent / "demo" / "inputs"
CLONE = "[Speech with voice] go home"
SENTENCE = "We play in the storm in August"
RATE = 16_000

needs_whisper = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="the extra asr is not installed"
)


class Heard:
    """An ASR model that hears the same whatever is said, and counts."""

    def __init__(self, words: str) -> None:
        self.words, self.given = words, []

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        self.given.append(len(waveform) / sample_rate)
        return self.words


class NotedEncoder(StubEncoder):
    """Notes what the model reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def encode(self, instructions):  # type: ignore[no-untyped-def]
        self.read += instructions
        return super().encode(instructions)


@pytest.fixture
def unison(monkeypatch: pytest.MonkeyPatch) -> Unison:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    variant = tiny_variant()
    return Unison(variant, random_backbone(variant), random_codec(), NotedEncoder())


def voice(words: int = 1) -> Tensor:
    """`SENTENCE` as often as asked for, with pauses between, in which the cut at 3 s falls."""
    spoken = torch.from_numpy(soundfile.read(INPUTS / "zero_shot_tts.flac", dtype="float32")[0])
    return torch.cat([spoken, *[torch.zeros(round(1.3 * RATE)), spoken] * (words - 1)])


def read(unison: Unison) -> list[str]:
    assert isinstance(unison.text_encoder, NotedEncoder)
    return unison.text_encoder.read


def clone(unison: Unison, reference: Tensor, text: str | None, **more: object) -> None:
    unison.generate(
        CLONE,
        reference=(reference, RATE),
        reference_text=text,
        duration=0.5,
        steps=1,
        num_candidates=1,
        **more,
    )


def test_a_missing_text_is_transcribed(unison: Unison) -> None:
    asr = Heard(" The fire. ")
    with pytest.warns(TranscribedWarning, match="heard to say 'The fire.'"):
        clone(unison, voice(), None, asr=asr)
    assert read(unison) == ["[Speech with voice] The fire, go home"]
    # What is transcribed is what the model reads: the recording without silence around it.
    assert asr.given == pytest.approx([2.2], abs=0.2)


def test_a_text_that_goes_on_after_the_cut_is_shortened(unison: Unison) -> None:
    asr = Heard("we play in the storm in autumn")
    with pytest.warns(TranscribedWarning, match=f"{SENTENCE!r} was heard") as seen:
        clone(unison, voice(2), f"{SENTENCE}. {SENTENCE}.", asr=asr)
    assert read(unison) == [f"[Speech with voice] {SENTENCE}, go home"]
    assert max(asr.given) <= 3.1 + 0.064  # the silence behind it, to a whole frame
    notes = [str(one.message) for one in seen if one.category is ShortenedWarning]
    assert len(notes) == 1
    assert notes[0].endswith("s of the recording.")


@pytest.mark.parametrize("heard", ["", "something else entirely", SENTENCE])
def test_a_text_that_was_not_heard_or_ends_at_the_cut_stays(unison: Unison, heard: str) -> None:
    with pytest.warns(ShortenedWarning, match="must be what is said up to there"):
        clone(unison, voice(2), SENTENCE, asr=Heard(heard))
    assert read(unison) == [f"[Speech with voice] {SENTENCE}, go home"]


def test_a_whole_reference_with_its_text_needs_no_model(unison: Unison) -> None:
    asr = Heard("nothing of the kind")
    clone(unison, voice(), SENTENCE, asr=asr)
    assert not asr.given


def test_without_a_model_the_user_is_asked(unison: Unison, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(ShortenedWarning, match=r"up to 3\.\d\d s.*said up to there"):
        clone(unison, voice(2), f"{SENTENCE}. {SENTENCE}.", asr="none")
    assert read(unison) == [f"[Speech with voice] {SENTENCE}. {SENTENCE}, go home"]
    with pytest.raises(InputError, match=r"give them with --reference-text, or install"):
        clone(unison, voice(), None, asr="none")
    monkeypatch.setattr("unison_audio.transcription.find_spec", lambda name: None)
    assert not has_asr(None, (CLONE,))
    assert has_asr("base", (CLONE,))
    with pytest.raises(InputError, match="No words were recognized"):
        clone(unison, voice(), None, asr=Heard("  "))
    with pytest.raises(InputError, match="asr is a int"):
        clone(unison, voice(), None, asr=3)


def test_long_speech_passes_the_model_on(unison: Unison) -> None:
    asr = Heard("the fire")
    with pytest.warns(TranscribedWarning):
        list(
            unison.stream(
                CLONE, reference=(voice(), RATE), asr=asr, steps=1, num_candidates=1, strict=False
            )
        )
    assert read(unison) == ["[Speech with voice] the fire, go home"]


@pytest.mark.parametrize(
    ("text", "heard", "beginning"),
    [
        ("One, two; three.", "one two", "One, two"),
        ("One two three.", "one too", "One two"),
        ("it's ten o'clock, isn't it?", "its ten o clock", "it's ten o'clock"),
        ("去掉狗叫声，然后再加上雨声。", "去掉狗叫升", "去掉狗叫声"),
        ("One two.", "one two", "One two."),
        ("One two three.", "", None),
        ("One two three.", "completely different words", None),
        ("...", "one", None),
    ],
)
def test_the_beginning_that_was_heard(text: str, heard: str, beginning: str | None) -> None:
    assert spoken_beginning(text, heard) == beginning


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be loaded"):
        find_asr(tmp_path, ())
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(InputError, match=r"needs the package faster-whisper"):
        find_asr(str(tmp_path / "other"), ())


@needs_whisper
def test_a_real_whisper_finds_the_words_in_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert not has_asr(None, ("[Speech with voice] 回家",))  # tiny.en knows English alone
    soundfile.write(tmp_path / "long.wav", voice(2).numpy(), RATE)
    command = ["generate", CLONE, "--reference", str(tmp_path / "long.wav")]
    command += ["--steps", "1", "--num-candidates", "1", "--duration", "0.5"]
    assert cli.main([*command, "-o", str(tmp_path / "a.wav")]) == 0
    note = capsys.readouterr().err
    assert "The reference is 5." in note
    assert SENTENCE.lower() in note.lower()
    text = f"{SENTENCE}. {SENTENCE}."
    named = ["--reference-text", text, "--asr", str(packaged_model())]
    assert cli.main([*command, *named, "-o", str(tmp_path / "b.wav")]) == 0
    assert f"{SENTENCE!r} was heard" in capsys.readouterr().err
    # The same words by hand give the same sound, also from a jobs file.
    job = {"instruction": CLONE, "reference": "long.wav", "reference_text": SENTENCE, "steps": 1}
    job |= {"num_candidates": 1, "duration": 0.5, "asr": "none"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job) + "\n")
    assert cli.main(["batch", str(tmp_path / "jobs.jsonl"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "0001.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
