"""Fine-tuning on a user's own clips: the list, the adapters, the checkpoint that comes out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_unison import RATE, random_backbone, tiny_variant

from unison_audio import checkpoint
from unison_audio.data.pools import MemoryPools
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.pipeline import Unison
from unison_audio.tasks.clips import ClipLimits
from unison_audio.tasks.table import TASKS
from unison_audio.training.adapters import add_adapters, merge_adapters
from unison_audio.training.clip_lengths import TaskPlan, plan_tasks
from unison_audio.training.clip_list import OwnClips, read_own_clips
from unison_audio.training.configs import FinetuneConfig
from unison_audio.training.finetune import finetune, item_lengths, prepare_data
from unison_audio.training.run import RunOutput


def tone(folder: Path, name: str, pitch: float, seconds: float = 0.6) -> str:
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(folder / name, 0.2 * np.sin(2 * np.pi * pitch * time), RATE)
    return name


def write_list(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two sounds, two utterances of one speaker, an edit."""
    return write_list(
        tmp_path,
        [
            {"audio": tone(tmp_path, "a.wav", 440), "caption": "A theremin plays."},
            {"audio": tone(tmp_path, "b.flac", 660), "label": "a kazoo"},
            {
                "audio": tone(tmp_path, "c.wav", 220),
                "text": "red dog",
                "gender": "male",
                "speaker": "me",
            },
            {
                "audio": tone(tmp_path, "d.wav", 200),
                "text": "go",
                "gender": "male",
                "speaker": "me",
            },
            {
                "audio": tone(tmp_path, "e.wav", 330, 0.5),
                "source": tone(tmp_path, "f.wav", 350, 0.7),
                "instruction": "[Edit] [Audio] Remove the buzz",
            },
        ],
    )


def test_a_list_may_begin_with_a_byte_order_mark(own: Path) -> None:
    plain = read_own_clips(own, tiny_variant(), 1024)
    own.write_text("\ufeff" + own.read_text().replace("\n", "\r\n"), "utf-8", newline="")
    found = read_own_clips(own, tiny_variant(), 1024)
    assert [clip.record for clip in found.clips] == [clip.record for clip in plain.clips]
    assert len(found.pairs) == len(plain.pairs) == 1


def test_what_a_list_gives(own: Path) -> None:
    found = read_own_clips(own, tiny_variant(), 1024)
    assert [clip.record.label for clip in found.clips] == ["a theremin plays", "a kazoo", "", ""]
    assert found.clips[0].record.caption == "A theremin plays."
    (pair,) = found.pairs
    assert (pair.task, pair.instruction) == ("edit_remove", "[Edit][Audio] Remove the buzz")
    assert pair.source is not None
    assert pair.target.shape == pair.source.shape == (11 * 1024,)
    assert float(pair.source[: round(0.7 * RATE)].square().mean().sqrt()) == pytest.approx(
        0.1, rel=1e-3
    )
    assert not pair.target[round(0.5 * RATE) :].any()
    tasks = found.tasks()
    assert sum(tasks.values()) == pytest.approx(1.0)
    assert {"tts", "zero_shot_tts", "t2a", "edit_remove", "speech_rewrite"} <= tasks.keys()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_task_that_is_named_can_be_built(own: Path, count: int) -> None:
    clips = read_own_clips(own, tiny_variant(), 1024).clips
    sounds = [
        dataclasses.replace(clip, record=dataclasses.replace(clip.record, label=f"kind {i}"))
        for i, clip in enumerate(clips[:1] * count)
    ]
    tasks = OwnClips(clips=sounds + clips[2:], pairs=[]).tasks()
    pools = MemoryPools(sounds + clips[2:], RATE)
    assert len(tasks) == {1: 8, 2: 12, 3: 15, 5: 15}[count]
    for seed in range(3):
        for name in tasks:
            generator = torch.Generator().manual_seed(seed)
            TASKS[name].build(pools, 4, 2.56, RATE, generator)


def test_one_kind_of_sound_trains_only_that(tmp_path: Path) -> None:
    rows = [{"audio": tone(tmp_path, f"{i}.wav", 400 + i), "label": "a kazoo"} for i in range(3)]
    found = read_own_clips(write_list(tmp_path, rows), tiny_variant(), 1024)
    assert found.tasks() == {"t2a": 1.0}


def test_one_pair_alone_trains(tiny_checkpoint: Path, stub_text: None, tmp_path: Path) -> None:
    path = write_list(
        tmp_path,
        [
            {
                "audio": tone(tmp_path, "e.wav", 330),
                "source": tone(tmp_path, "f.wav", 350),
                "instruction": "[Edit] [Audio] Remove the buzz",
            }
        ],
    )
    config = FinetuneConfig(steps=2, items=1, rank=2)
    weights = finetune(str(tiny_checkpoint), path, RunOutput(folder=tmp_path / "r"), config=config)
    assert (weights / "model.safetensors").is_file()
    log = (tmp_path / "r" / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["task"] for line in log} == {"edit_remove"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption": "x"}, "line 1: There is no audio"),
        ({"audio": "a.wav"}, "Give a caption"),
        ({"audio": "a.wav", "caption": "x", "text": "y"}, "one of them"),
        ({"audio": "a.wav", "text": "y", "gender": "x"}, "gender is 'x'; give male or female, or"),
        ({"audio": "a.wav", "captoin": "x"}, "Unknown: captoin"),
        ({"audio": "none.wav", "caption": "x"}, r"none\.wav"),
        ({"audio": "long.wav", "caption": "x"}, r"6\.00 s long where nano takes at most 5\.12"),
        ({"audio": "a.wav", "instruction": "sing"}, "does not begin with a tag"),
        ({"audio": "a.wav", "instruction": "[Edit][Audio] Remove rain"}, "needs a source"),
        ({"audio": "a.wav", "caption": ""}, "caption is ''"),
    ],
)
def test_lines_that_cannot_be_used(row: dict[str, str], message: str, tmp_path: Path) -> None:
    tone(tmp_path, "a.wav", 440)
    tone(tmp_path, "long.wav", 440, 6.0)
    with pytest.raises(InputError, match=message):
        read_own_clips(write_list(tmp_path, [row]), tiny_variant(), 1024)


def tiny_backbone(fusion: str) -> UnisonBackbone:
    torch.manual_seed(0)
    backbone = UnisonBackbone(
        BackboneConfig(
            latent_channels=4, dim=32, heads=2, rope_dim=8, blocks=2, text_dim=8, fusion=fusion
        )
    )
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return backbone


@pytest.mark.parametrize("fusion", FUSIONS)
def test_merged_adapters_compute_the_same(fusion: str) -> None:
    backbone = tiny_backbone(fusion)
    names = set(backbone.state_dict())
    given = {
        "x": torch.randn(2, 9, 11),
        "t": torch.rand(2),
        "hidden_states": torch.randn(2, 2, 5, 8),
        "text_mask": torch.ones(2, 5, dtype=torch.bool),
        "penultimate": torch.randn(2, 5, 8),
    }
    before = backbone(**given)
    add_adapters(backbone, rank=4)
    torch.testing.assert_close(backbone(**given), before)  # adapters begin at zero
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    backbone(**given).square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = backbone(**given)
    assert not torch.allclose(adapted, before, atol=1e-3)
    merge_adapters(backbone)
    assert set(backbone.state_dict()) == names
    torch.testing.assert_close(backbone(**given), adapted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_result_is_an_ordinary_checkpoint(
    method: str, own: Path, tiny_checkpoint: Path, stub_text: None, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = FinetuneConfig(method=method, steps=6, items=2, rank=2)
    weights = finetune(str(tiny_checkpoint), own, RunOutput(folder=run), config=config)
    tuned, before = checkpoint.load(weights)[1], random_backbone(tiny_variant())
    changed = [
        name
        for name, value in before.state_dict().items()
        if not torch.equal(value, tuned.state_dict()[name])
    ]
    if method == "lora":
        assert changed
        assert all(name.startswith("blocks.") and "modulation" not in name for name in changed)
    else:
        assert {"embed.conv.weight", "head.linear.weight"} <= set(changed)
    sound = Unison.from_pretrained(weights).generate("[Audio] a kazoo", duration=1.0)
    assert sound.seconds == 1.0
    tasks = {json.loads(line)["task"] for line in (run / "log.jsonl").read_text().splitlines()}
    assert tasks <= read_own_clips(own, tiny_variant(), 1024).tasks().keys()


def test_invalid_settings_are_refused(own: Path, tiny_checkpoint: Path, stub_text: None) -> None:
    run = RunOutput(folder=own.parent / "run")
    for wrong, message in (
        ({"method": "magic"}, "method is 'magic'; use one of lora, full"),
        ({"rank": 0}, "rank is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"items": 0}, "items is 0"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(str(tiny_checkpoint), own, run, config=FinetuneConfig(**wrong))
    with pytest.raises(InputError, match="type is 'int8'; use one of float32"):
        RunOutput(folder=own.parent, dtype="int8")


def utterance(folder: Path, name: str, seconds: float) -> dict[str, str]:
    audio = tone(folder, name, 200, seconds)
    return {"audio": audio, "text": "red dog", "gender": "male", "speaker": "me"}


def planned(path: Path) -> TaskPlan:
    clips = read_own_clips(path, tiny_variant(), 1024)
    lengths = item_lengths(clips, tiny_variant(), 1024)
    return prepare_data(clips, path, FinetuneConfig(), lengths)[1]


def build_all(path: Path, plan: TaskPlan) -> set[str]:
    """Builds every task of a plan; returns their names."""
    clips = read_own_clips(path, tiny_variant(), 1024).clips
    pools = MemoryPools(clips, RATE)
    for task in plan.shares:
        (seconds,) = plan.seconds.get(task, plan.seconds[""])
        for seed in range(3):
            TASKS[task].build(pools, 4, seconds, RATE, torch.Generator().manual_seed(seed))
    return set(plan.shares)


def test_one_sentence_as_long_as_an_item_trains(tmp_path: Path) -> None:
    sound = {"audio": tone(tmp_path, "a.wav", 440), "label": "a kazoo"}
    path = write_list(tmp_path, [sound, utterance(tmp_path, "b.wav", 2.56)])
    plan = planned(path)
    assert {"tts", "t2as", "denoise", "t2a"} <= build_all(path, plan)
    # The onset of up to 0.15 s comes before the sentence.
    assert plan.seconds == {"": (2.56,), "tts": (2.71,), "t2as": (2.71,)}


def test_a_pair_gets_items_in_which_both_utterances_fit(tmp_path: Path) -> None:
    rows = [utterance(tmp_path, "a.wav", 1.5), utterance(tmp_path, "b.wav", 2.0)]
    path = write_list(tmp_path, [{"audio": tone(tmp_path, "c.wav", 440), "label": "bell"}, *rows])
    plan = planned(path)
    assert {"zero_shot_tts", "speech_rewrite"} <= build_all(path, plan)
    # Both of 2 s, the silence of 0.1 s, and a latent frame of slack.
    (seconds,) = plan.seconds["zero_shot_tts"]
    assert seconds == pytest.approx(2 * 2.0 + 0.1 + 1024 / RATE, abs=0.011)
    assert plan.seconds.keys() == {"", "zero_shot_tts"}


@pytest.mark.usefixtures("stub_text")
def test_sentences_too_long_for_cloning_train_the_rest(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = write_list(tmp_path, [utterance(tmp_path, f"{i}.wav", 4.0) for i in range(4)])
    run = RunOutput(folder=tmp_path / "run")
    said = r'of at most 2\.48 s, as zero_shot_tts needs, .*two shorter ones.*leave out "speaker"\.$'
    with pytest.warns(UserWarning, match=said):
        finetune(str(tiny_checkpoint), path, run, config=FinetuneConfig(steps=2, items=1, rank=2))
    samples = {sample.name for sample in (run.folder / "samples").glob("*.wav")}
    assert samples == {"00000002-tts.wav", "00000002-denoise.wav"}
    with pytest.warns(UserWarning, match="No speaker"):
        plan = planned(path)
    assert plan.shares == {"tts": pytest.approx(0.15 / 0.19), "denoise": pytest.approx(0.04 / 0.19)}


def test_clips_that_fit_no_task_are_refused(tmp_path: Path) -> None:
    path = write_list(tmp_path, [utterance(tmp_path, f"{i}.wav", 5.1) for i in range(2)])
    clips = read_own_clips(path, tiny_variant(), 1024)
    lengths = item_lengths(clips, tiny_variant(), 1024)
    said = r"No task is left to train\. No utterance in it is at most 4\.97 s long, as tts needs"
    with pytest.raises(InputError, match=said):
        plan_tasks({"tts": 1.0}, clips.clips, [], lengths, "it")


def test_a_corpus_serves_where_the_own_clips_are_too_long(tmp_path: Path) -> None:
    own = [utterance(tmp_path, f"{i}.wav", 4.0) for i in range(2)]
    others = [utterance(tmp_path, f"other{i}.wav", 0.5) for i in range(2)]
    mine = read_own_clips(write_list(tmp_path, own), tiny_variant(), 1024)
    theirs = read_own_clips(write_list(tmp_path, others), tiny_variant(), 1024)
    lengths = item_lengths(mine, tiny_variant(), 1024)
    shares = {"tts": 0.5, "zero_shot_tts": 0.5}
    plan = plan_tasks(shares, mine.clips, theirs.clips, lengths, "it")
    assert plan.shares == shares
    assert plan.seconds == {"": (4.0,), "tts": (4.15,)}


def test_utterances_of_unknown_speakers_are_no_pair(own: Path) -> None:
    clips = read_own_clips(own, tiny_variant(), 1024).clips
    unnamed = [
        dataclasses.replace(clip, record=dataclasses.replace(clip.record, speaker=""))
        for clip in clips
        if clip.record.kind == "speech"
    ]
    pools = MemoryPools(unnamed + clips, RATE)
    where = ClipLimits(max_seconds=1.0)
    drawn = pools.draw("speaker_pair", 50, where, torch.Generator().manual_seed(0))
    assert {clip.record.speaker for clip in drawn} == {"me"}
