import dataclasses
import json
import signal

import pytest
import torch
from training.conftest import RATE, HashedWords, make_variant

from unison_audio.errors import InputError, TextError
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.tasks.curriculum import default_stages
from unison_audio.training.batches import BatchStream, CorpusInMemory
from unison_audio.training.checkpoints import load_checkpoint
from unison_audio.training.loop import train_backbone
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.trainer import BackboneTrainer, NotFiniteError
from unison_audio.variants import VARIANTS

STEPS = 24
STAGE1, STAGE2 = (stage.probabilities for stage in default_stages())
RECIPE = BackboneRecipe(
    phases=(
        Phase(until_step=4, probabilities={"tts": 1.0}, seconds={"": (1.28,)}, max_words=1),
        Phase(until_step=8, probabilities=STAGE1, seconds={"": (1.28, 2.56)}),
        Phase(until_step=None, probabilities=STAGE2, seconds={"": (2.56,)}),
    ),
    frames_per_batch=80,
    steps=STEPS,
    peak_lr=1e-3,
    warmup=4,
    cooldown=6,
    checkpoint_every=5,
    sample_every=1000,
)


def make_trainer(clips, codec, recipe=RECIPE):
    source = CorpusInMemory(clips, RATE)
    return BackboneTrainer(BatchStream(make_variant(), recipe, source, codec, HashedWords()))


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_workers_make_the_same_batches_as_no_worker(clips, codec, tmp_path):
    train_backbone(make_trainer(clips, codec), tmp_path / "none", workers=0)
    train_backbone(make_trainer(clips, codec), tmp_path / "one", workers=1)
    assert len(losses(tmp_path / "none")) == STEPS
    assert losses(tmp_path / "none") == losses(tmp_path / "one")


def test_sounds_are_played_at_the_recipes_speed_and_named_voices_as_they_are(clips, codec):
    def windows(speed, task, name):
        recipe = dataclasses.replace(RECIPE, speed=speed)
        batch = make_trainer(clips, codec, recipe).stream.build(10, task)
        found = [detail[name] for detail in batch.details]
        return [w if name == "speech_window" else w[0] for w in found]

    for task, name, factor in (("t2a", "windows", 2), ("tts", "speech_window", 1)):
        usual, slow = windows(None, task, name), windows((0.5, 0.5), task, name)
        for (start, end), (slow_start, slow_end) in zip(usual, slow, strict=True):
            assert slow_end - slow_start == pytest.approx(factor * (end - start), abs=1e-3)


def test_a_resumed_run_equals_one_run_to_the_bit(clips, codec, tmp_path):
    whole = train_backbone(make_trainer(clips, codec), tmp_path / "whole")
    stopped = make_trainer(clips, codec)
    part = tmp_path / "part"
    steps_done = 0
    original = stopped.step

    def until_ten(step, examples):
        nonlocal steps_done
        if step == 10:
            raise KeyboardInterrupt
        steps_done += 1
        return original(step, examples)

    stopped.step = until_ten
    with pytest.raises(KeyboardInterrupt):
        train_backbone(stopped, part)
    assert steps_done == 10
    resumed = train_backbone(make_trainer(clips, codec), part)
    assert losses(part) == losses(tmp_path / "whole")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_sigterm_saves_and_stops(clips, codec, tmp_path):
    trainer = make_trainer(clips, codec)
    original = trainer.step

    def ask_to_stop(step, examples):
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        return original(step, examples)

    trainer.step = ask_to_stop
    with pytest.raises(KeyboardInterrupt, match="saved at step 7"):
        train_backbone(trainer, tmp_path)
    assert load_checkpoint(tmp_path)["step"] == 7
    assert len(losses(tmp_path)) == 7


def test_training_brings_the_loss_down_on_a_few_batches(clips, codec):
    recipe = dataclasses.replace(
        RECIPE,
        phases=(Phase(until_step=None, probabilities={"tts": 1.0}, seconds={"": (1.28,)}),),
        frames_per_batch=160,
        warmup=10,
        cooldown=None,
        steps=150,
        peak_lr=3e-3,
    )
    trainer = make_trainer(clips, codec, recipe)
    examples = [trainer.stream.encode(trainer.stream.build(step, "tts")) for step in range(3)]
    first = [trainer.step(step, [examples[step % 3]])[0]["loss"] for step in range(12)]
    for step in range(12, 138):
        trainer.step(step, [examples[step % 3]])
    last = [trainer.step(step, [examples[step % 3]])[0]["loss"] for step in range(138, 150)]
    assert sum(last) < 0.8 * sum(first)


def test_the_reference_is_tagged_two_and_outside_the_loss(clips, codec):
    trainer = make_trainer(clips, codec)
    example = trainer.stream.encode(trainer.stream.build(20, "zero_shot_tts"))
    given = example.condition
    reference = given.m == 2
    assert reference.any()
    assert ((given.m == 0) | reference).all()
    assert torch.equal(given.loss_mask, (~reference).float())
    assert (given.z_s * ~reference == 0).all()
    assert (given.z_s * reference).abs().sum() > 0

    def loss_with(z):
        changed = dataclasses.replace(example, z=z)
        torch.nn.init.normal_(trainer.backbone.head.linear.weight)
        trainer.backbone.head.linear.weight.data.fill_(0.0)
        return trainer.loss(changed, torch.Generator().manual_seed(0), 20)

    moved = example.z + 100.0 * reference
    # With a zero head the velocity is zero, so only counted frames can change the loss.
    assert torch.equal(loss_with(example.z), loss_with(moved))
    assert not torch.equal(loss_with(example.z), loss_with(example.z + 1.0))


def test_edits_are_tagged_one_and_generation_has_no_source(clips, codec):
    trainer = make_trainer(clips, codec)
    edit = trainer.stream.encode(trainer.stream.build(20, "edit_add")).condition
    assert (edit.m == 1).all()
    assert (edit.loss_mask == 1).all()
    assert edit.z_s.abs().sum() > 0
    generation = trainer.stream.encode(trainer.stream.build(20, "t2as")).condition
    assert (generation.m == 0).all()
    assert (generation.z_s == 0).all()


def test_phases_set_tasks_lengths_and_words(clips, codec):
    trainer = make_trainer(clips, codec)
    batch = trainer.stream.build(0, trainer.stream.sampler.draw(0))
    assert batch.task == "tts"
    assert batch.target.shape == (4, 1.28 * 16_000)
    assert all(len(detail["text"].split()) == 1 for detail in batch.details)
    tasks = {trainer.stream.sampler.draw(step) for step in range(4, 8) for _ in range(50)}
    assert tasks == {name for name, share in STAGE1.items() if share > 0}


def test_a_loss_that_is_not_finite_stops_the_run(clips, codec):
    trainer = make_trainer(clips, codec)
    example = trainer.stream.encode(trainer.stream.build(0, "tts"))
    broken = dataclasses.replace(example, z=example.z * float("nan"))
    before = {n: p.detach().clone() for n, p in trainer.backbone.named_parameters()}
    with pytest.raises(NotFiniteError, match=r"nan \(tts\) at step 3"):
        trainer.step(3, [broken])
    assert all(torch.equal(p, before[n]) for n, p in trainer.backbone.named_parameters())


def test_the_batch_behind_a_loss_that_is_not_finite_is_kept(clips, codec, tmp_path):
    trainer = make_trainer(clips, codec)
    encode = trainer.stream.encode

    def broken_later(batch, seconds=None, **options):
        example = encode(batch, seconds, **options)
        return dataclasses.replace(example, z=example.z / 0) if example_count() == 7 else example

    made = iter(range(1000))
    example_count = made.__next__
    trainer.stream.encode = broken_later
    with pytest.raises(NotFiniteError, match="step 7"):
        train_backbone(trainer, tmp_path)
    # Training flushes denormal numbers; afterwards the caller has them again.
    assert float(torch.tensor([5e-324], dtype=torch.float64) * 1.0) > 0.0
    kept = torch.load(tmp_path / "not-finite-00000007-0.pt", weights_only=True)
    assert not kept[0]["z"].isfinite().all()
    assert load_checkpoint(tmp_path)["step"] == 5


def test_a_waveform_that_is_not_finite_differs_from_a_loss_that_diverges(clips, codec, tmp_path):
    broken = clips[25].waveform.clone()  # a sound: the first steps train on speech alone
    broken[700] = torch.nan
    spoilt = [*clips[:25], dataclasses.replace(clips[25], waveform=broken), *clips[26:]]
    with pytest.raises(
        NotFiniteError, match=r"at step \d+; the output of the clips, .* saved batch"
    ):
        train_backbone(make_trainer(spoilt, codec), tmp_path)
    (kept,) = tmp_path.glob("not-finite-*-0.pt")
    step = int(kept.stem.split("-")[2])
    assert step >= 4  # the first step that trains on sounds
    saved = load_checkpoint(tmp_path)
    assert saved is None or saved["step"] == step - step % 5


def test_weights_that_are_not_finite_are_not_blamed_on_the_clips(clips, codec):
    trainer = make_trainer(clips, codec)
    example = trainer.stream.encode(trainer.stream.build(0, "tts"))
    with torch.no_grad():
        trainer.backbone.get_parameter("head.linear.weight").fill_(torch.nan)
    with pytest.raises(
        NotFiniteError, match=r"nan \(tts\) at step 3; resume from .* lower learning"
    ):
        trainer.step(3, [example])


def test_a_failed_step_names_its_finite_losses(clips, codec):
    example = make_trainer(clips, codec).stream.encode
    batch = make_trainer(clips, codec).stream.build(0, "tts")
    error = NotFiniteError(3, [example(batch)], [0.5])
    assert "0.5 (tts) here and not finite on another process" in str(error)


def test_the_average_moves_every_tenth_step(clips, codec):
    trainer = make_trainer(clips, codec)
    assert trainer.recipe.ema_every == 10
    example = trainer.stream.encode(trainer.stream.build(0, "tts"))
    name = "head.linear.weight"
    weight = trainer.backbone.get_parameter(name)
    expected = weight.detach().clone()
    for step in range(20):
        trainer.step(step, [example])
        if step in (9, 19):
            updates = (step + 1) // 10
            decay = min(trainer.recipe.ema_decay, (1 + updates) / (10 + updates))
            expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(trainer.ema.values[name], expected)
    assert not torch.equal(expected, weight)


def test_weights_decay_and_biases_do_not(clips, codec):
    trainer = make_trainer(clips, codec)
    decayed, kept = (group["params"] for group in trainer.optimizer.param_groups)
    assert [g["weight_decay"] for g in trainer.optimizer.param_groups] == [0.01, 0.0]
    assert {p.ndim for p in kept} == {1}
    assert min(p.ndim for p in decayed) == 2
    trained = [p for p in trainer.backbone.parameters() if p.requires_grad]
    assert {*map(id, decayed), *map(id, kept)} == {*map(id, trained)}


def test_a_fresh_run_can_start_from_other_weights(clips, codec):
    trained = make_trainer(clips, codec)
    for value in trained.backbone.parameters():
        torch.nn.init.normal_(value)
    fresh = make_trainer(clips, codec)
    fresh.start_from(trained.backbone)
    for name, value in trained.backbone.named_parameters():
        assert torch.equal(dict(fresh.backbone.named_parameters())[name], value)
        assert torch.equal(fresh.ema.values[name], value)
    with pytest.raises(InputError, match="choose a checkpoint of that"):
        fresh.start_from(UnisonBackbone(VARIANTS["nano"].backbone))


class Forgetful(HashedWords):
    """Cannot read some instructions."""

    def __init__(self, unreadable: str) -> None:
        self.unreadable = unreadable

    def encode(self, instructions):
        if any(self.unreadable in text for text in instructions):
            raise TextError(f"cannot read {self.unreadable}")
        return super().encode(instructions)


def test_a_batch_with_an_instruction_that_cannot_be_read_is_drawn_anew(clips, codec):
    trainer = make_trainer(clips, codec)
    stream = trainer.stream
    first = stream.build(0, "t2a").instructions
    again = stream.build(0, "t2a", attempt=1).instructions
    only_first = next(text for text in first if text not in again)
    stream.text_encoder = Forgetful(only_first)
    example = stream.make(0, 0, "t2a")
    assert example.redraws == 1
    expected = stream.encode(stream.build(0, "t2a", attempt=1))
    assert torch.equal(example.text.hidden_states, expected.text.hidden_states)
    trainer.step(0, [example])
    assert trainer.skipped == {"whole batches with an instruction that cannot be read": 1}
    stream.text_encoder = Forgetful("[Audio]")
    with pytest.raises(InputError, match=r"10 batches of t2a in a row .* filter the captions"):
        stream.make(0, 0, "t2a")
