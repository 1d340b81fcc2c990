"""Every training command takes every prepared corpus, nano's and published ones."""

import json
from pathlib import Path

import pytest
from stream_files import encode, noise
from tiny_unison import TINY_CODEC, tiny_variant
from training.conftest import make_clips

from unison_audio import checkpoint
from unison_audio.cli import main as cli
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.nano.codec_training import CodecRecipe
from unison_audio.nano.corpus import write_index
from unison_audio.nano.recipe import train_nano_codec
from unison_audio.training.batches import buildable_shares, buildable_tasks

RATE = 22_050
"""Of the published corpus: not the model's."""


def put(folder: Path, name: str, row: dict[str, str]) -> dict[str, str]:
    content = encode(noise(name, 0.6, RATE), RATE, Path(name).suffix[1:])
    (folder / name).write_bytes(content)
    return {"audio": name, **row}


def prepare(folder: Path, rows: list[dict[str, str]]) -> Path:
    """A corpus as `unison-audio data folder` writes it."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = folder.with_name(f"{folder.name}-shards")
    words = ["data", "folder", "--root", str(folder), "--out", str(out), "--workers", "1"]
    assert cli.main(words) == 0
    return out


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Speech and captioned sounds without labels."""
    root = tmp_path / "published"
    root.mkdir()
    sounds = [put(root, f"{k}.wav", {"caption": f"Bell {k} rings."}) for k in range(4)]
    voices = [
        put(root, f"v{k}.flac", {"text": "red dog", "speaker": "ann", "gender": "female"})
        for k in range(3)
    ]
    return prepare(root, sounds + voices)


@pytest.fixture
def sounds_only(tmp_path: Path) -> Path:
    root = tmp_path / "sounds"
    root.mkdir()
    return prepare(root, [put(root, f"{k}.wav", {"caption": f"Bell {k}."}) for k in range(4)])


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    folder = tmp_path / "nano"
    name = "train-00.tar"
    write_index(folder, {name: write_shard(folder / name, make_clips(), 16_000)})
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    row = put(tmp_path, "own.wav", {"label": "a kazoo"})
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def tasks_of(run: Path) -> set[str]:
    return {json.loads(line)["task"] for line in (run / "log.jsonl").read_text().splitlines()}


@pytest.mark.usefixtures("stub_text")
@pytest.mark.parametrize("corpus", ["published", "sounds_only", "nano"])
@pytest.mark.filterwarnings("ignore:.*these tasks are left out")
def test_finetune_and_distill_take_every_corpus(
    corpus: str,
    own: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = str(request.getfixturevalue(corpus))
    tuned, distilled = tmp_path / "tuned", tmp_path / "distilled"
    words = [str(own), "--run", str(tuned), "--variant", str(tiny_checkpoint), "--corpus", folder]
    assert cli.main(["finetune", *words, "--steps", "4", "--items", "2", "--rank", "2"]) == 0
    words = [str(tiny_checkpoint), "--corpus", folder, "--run", str(distilled), "--updates", "2"]
    assert cli.main(["train", "distill", *words, "--workers", "0", "--substeps", "1"]) == 0
    for run in (tuned, distilled):
        assert isinstance(checkpoint.load(run / "weights")[1], UnisonBackbone)
        if corpus == "sounds_only":
            assert tasks_of(run) <= {
                "t2a",
                "t2a_mix",
                "timed",
                "edit_add",
                "edit_remove",
                "edit_replace",
            }


def test_the_codec_trains_on_a_published_corpus(published: Path, tmp_path: Path) -> None:
    recipe = CodecRecipe(model=TINY_CODEC, steps=2, encoder_until=1)
    assert (train_nano_codec(published, tmp_path / "run", recipe=recipe)).is_dir()


def test_what_needs_nanos_own_corpus_says_so(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "nano", "--corpus", str(published), "--out", str(tmp_path / "out")]
    assert cli.main(words) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert "needs nano's own corpus" in error
    assert "holds folder" in error
    assert error.count("\n") == 1


def test_tasks_without_clips_are_named_and_the_others_keep_their_proportions() -> None:
    clips = make_clips()
    shares = {"tts": 0.25, "t2a": 0.5, "edit_add": 0.25}
    assert buildable_shares(shares, clips, "it") == shares
    sounds = [clip for clip in clips if clip.record.kind == "sound"]
    assert buildable_tasks(sounds) >= {"t2a", "edit_add"}
    with pytest.warns(UserWarning, match="it has no clips for tts; these tasks are left out"):
        kept = buildable_shares(shares, sounds, "it")
    assert kept == {"t2a": pytest.approx(2 / 3), "edit_add": pytest.approx(1 / 3)}
    with pytest.raises(InputError, match="it has no clips for any of tts"):
        buildable_shares({"tts": 1.0}, sounds, "it")
    assert tiny_variant().sample_rate != RATE
