"""Training, validation and fine-tuning of imported weights read what generation reads.

The checkpoint has the config that the import stores: one length, the release's level, dither.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from test_pipeline import RATE, noise
from test_release_inputs import FloorCodec, released
from tiny_unison import StubEncoder, random_backbone
from torch import Tensor

from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.pipeline import Unison
from unison_audio.tasks.table import TaskBatch
from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.clip_list import OwnClipStream, read_own_clips
from unison_audio.training.configs import FinetuneConfig
from unison_audio.training.finetune import finetune
from unison_audio.training.objective import FlowMatching
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.run import RunOutput
from unison_audio.training.validation import Validation, write_samples

REMOVE = "[Edit][Audio] Remove the buzz"
WHOLE = 2 * RATE  # the one length of `released`
FRAMES = 31


def write(folder: Path, rows: list[tuple[str, Tensor]], instruction: dict[str, str]) -> Path:
    for name, wave in rows:
        soundfile.write(folder / name, wave.numpy(), RATE, subtype="FLOAT")
    path = folder / "own.jsonl"
    path.write_text(json.dumps(instruction) + "\n")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """An edit whose source has a click: at RMS 0.1 its peak is far above 1."""
    source, target = noise(1.1, rms=0.01, seed=1), noise(0.9, rms=0.02, seed=2)
    source[9000] = 0.9
    row = {"audio": "after.wav", "source": "before.wav", "instruction": REMOVE}
    return write(tmp_path, [("before.wav", source), ("after.wav", target)], row)


def recipe(task: str) -> BackboneRecipe:
    return BackboneRecipe(
        phases=(Phase(until_step=None, probabilities={task: 1.0}, seconds={"": (0.7,)}),),
        frames_per_batch=2 * FRAMES,
        steps=1,
    )


def test_a_pair_is_encoded_as_generation_encodes_its_source(pair: Path) -> None:
    variant = released()
    own = read_own_clips(pair, variant, 1024)
    codec = FloorCodec()
    stream = OwnClipStream(
        own.pairs, variant, recipe("edit_remove"), CorpusInMemory((), RATE), codec, StubEncoder()
    )
    encoded = stream.make(0, 0, "edit_remove")
    assert encoded.z.shape == encoded.condition.z_s.shape == (2, 1024, FRAMES)
    target, source = codec.encoded
    assert target.shape == source.shape == (2, WHOLE)
    # 1. The same source as in generation with the same seed of the dither, click and all.
    unison = Unison(variant, random_backbone(variant), FloorCodec(), StubEncoder())
    unison.generate(REMOVE, source=pair.parent / "before.wav", seed=stream.recipe.seed, steps=1)
    assert isinstance(unison.codec, FloorCodec)
    assert torch.equal(unison.codec.encoded[0][0], source[0])
    assert float(source[0].max()) > 2.0
    assert not torch.equal(source[0], source[1])  # the dither of an item is its own
    # 2. The target has the gain of its source, and then near silence.
    before, after = (
        torch.from_numpy(soundfile.read(pair.parent / name, dtype="float32")[0])
        for name in ("before.wav", "after.wav")
    )
    scaled = after * (0.1 / before.square().mean().sqrt())
    loud = scaled.abs() > 1e-3
    torch.testing.assert_close(target[0, : len(after)][loud], scaled[loud])
    assert float(target[0, len(after) :].std()) == pytest.approx(1e-4, rel=0.05)
    assert not torch.equal(target[0, -RATE // 2 :], source[0, -RATE // 2 :])


def test_built_clips_have_the_one_length_and_the_level_in_training_and_validation() -> None:
    variant, codec = released(), FloorCodec()
    clips = [
        Clip(
            record=ClipRecord(
                key=label,
                kind="sound",
                split="train",
                seconds=1.0,
                licence="",
                source="made by the test",
                label=label,
                caption=label,
            ),
            waveform=noise(1.0, seed=seed),
        )
        for seed, label in enumerate(("a beep", "a buzz", "rain"))
    ]
    corpus = CorpusInMemory(clips, RATE)
    stream = BatchStream(variant, recipe("edit_add"), corpus, codec, StubEncoder())
    batch = stream.build(0, "edit_add")
    assert batch.target.shape == (2, WHOLE)  # whatever length the recipe names
    stream.encode(batch)
    target, source = codec.encoded
    assert batch.source is not None
    gains = 0.1 / batch.source.square().mean(dim=1, keepdim=True).sqrt()
    for seen, built in ((source, batch.source), (target, batch.target)):
        loud = built.abs() > 1e-2
        torch.testing.assert_close(seen[loud], (built * gains)[loud])
    codec.encoded.clear()
    Validation(stream, corpus, batches=1)
    assert [one.shape for one in codec.encoded] == [(2, WHOLE)] * 2
    level = codec.encoded[1].square().mean(dim=1).sqrt()
    torch.testing.assert_close(level, torch.full((2,), 0.1), rtol=1e-3, atol=0)


def test_without_the_fields_a_batch_is_encoded_as_it_was_built() -> None:
    variant = released(sample_seconds=0.0, source_rms=0.0, dither=0.0)
    codec, source = FloorCodec(), noise(1.0)[None]
    stream = BatchStream(
        variant, recipe("edit_add"), CorpusInMemory((), RATE), codec, StubEncoder()
    )
    stream.encode(
        TaskBatch(
            task="edit_add",
            instructions=["[Edit][Audio] Add rain"],
            target=source,
            source=source,
            reference_samples=None,
            details=[{}],
        )
    )
    assert all(torch.equal(seen, source) for seen in codec.encoded)


def test_a_longer_clip_than_the_one_length_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [("a.wav", noise(2.2))], {"audio": "a.wav", "caption": "rain"})
    with pytest.raises(InputError, match=r"2\.20 s long where nano takes at most 2\.0 s"):
        read_own_clips(path, released(max_seconds=3.0), 1024)


def test_fine_tuning_an_imported_checkpoint_end_to_end(
    pair: Path, tiny_checkpoint: Path, stub_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = shutil.copytree(tiny_checkpoint, pair.parent / "imported")
    config = json.loads((imported / "config.json").read_text())
    fields = {"sample_seconds": 2.0, "max_seconds": 2.0, "source_rms": 0.1, "dither": 1e-4}
    fields |= {"default_seconds": 2.0, "zero_shot_seconds": 2.0, "wording": "release"}
    (imported / "config.json").write_text(json.dumps(config | fields))
    streams: list[BatchStream] = []
    frames: set[int] = set()
    encode = BatchStream.encode

    def noted(self: BatchStream, *batch, **more):  # type: ignore[no-untyped-def]
        encoded = encode(self, *batch, **more)
        streams.append(self)
        frames.add(encoded.z.shape[-1])
        return encoded

    monkeypatch.setattr(BatchStream, "encode", noted)
    run = RunOutput(folder=pair.parent / "run")
    weights = finetune(str(imported), pair, run, config=FinetuneConfig(steps=2, items=2, rank=2))
    tuned = Unison.from_pretrained(weights)
    assert frames == {tuned.codec.frames(2.0)}
    assert (tuned.variant.sample_seconds, tuned.variant.source_rms) == (2.0, 0.1)
    # Samples to listen to have the one length too.
    fast = dataclasses.replace(FlowMatching().sample_config(tuned.variant), steps=1)
    write_samples(tuned.backbone, streams[0], pair.parent / "samples", 0, fast)
    (written,) = (pair.parent / "samples").glob("*.wav")
    assert frames == {tuned.codec.frames(2.0)}
    assert soundfile.info(written).duration == pytest.approx(2.0, abs=0.1)
