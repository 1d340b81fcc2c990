"""Ablations: what differs, that all else is equal, resuming, and the rows of Table 8."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from tiny_unison import StubEncoder, random_codec, tiny_variant

from unison_audio import checkpoint
from unison_audio.checkpoint_files import CODEC_FILES
from unison_audio.cli import main as cli
from unison_audio.cli import train_ablations as ablation_command
from unison_audio.cli.train_flags import AblationFlags, NanoAblationFlags
from unison_audio.errors import InputError
from unison_audio.evaluation.report.layouts import paper_results
from unison_audio.evaluation.report.tables import fill_tables
from unison_audio.tasks.curriculum import STAGE1_STEPS, default_stages
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.training import ablations, objective, trainer
from unison_audio.training.ablation_report import error_table, mean_and_error
from unison_audio.training.ablation_table import FULL, NANO_FAMILY, choose
from unison_audio.training.ablations import keep_settings, nano_recipe, train_family
from unison_audio.training.configs import RecipeChanges
from unison_audio.training.run import RunData

RECIPE = dataclasses.replace(
    nano_recipe(3, 40), phases=(nano_recipe(3).phases[0],), checkpoint_every=1
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(objective, "SAMPLE_STEPS", 1)
    monkeypatch.setitem(TEXT_ENCODERS, "minilm", StubEncoder)


def tiny(name):
    """An ablation of the family with tiny sizes."""
    full = NANO_FAMILY[name]
    small = dataclasses.replace(tiny_variant().backbone, fusion=full.variant.backbone.fusion)
    return dataclasses.replace(full, variant=dataclasses.replace(full.variant, backbone=small))


def run(out, clips, names, **options):
    asked = []

    def read(split):
        asked.append(split)
        return [
            dataclasses.replace(clip, record=dataclasses.replace(clip.record, split=split))
            for clip in (clips if split == "train" else clips[::2])
        ]

    rows = train_family(
        [tiny(name) for name in names],
        read,
        random_codec(),
        out,
        recipe=RECIPE,
        batches=2,
        **options,
    )
    return rows, asked


def test_the_families_are_those_of_the_paper() -> None:
    said = {(row.system, row.metric): row.value for row in paper_results() if row.table == 8}
    for name, ablation in FULL.items():
        for fact, text in ablation.about.items():
            if fact != "parameters":
                assert said[name, fact] == text
    fusions = [ablation.variant.backbone.fusion for ablation in FULL.values()]
    assert fusions == ["O", "L", "OL", "S", "O"]
    assert [a.variant.backbone.fusion for a in NANO_FAMILY.values()] == fusions
    assert ablations.PAPER_STEPS < STAGE1_STEPS


def test_nano_differs_in_nothing_else() -> None:
    nano = NANO_FAMILY["nano-O"].variant
    for ablation in NANO_FAMILY.values():
        variant = ablation.variant
        same = dataclasses.replace(
            variant,
            name=nano.name,
            text_layers=nano.text_layers,
            backbone=dataclasses.replace(variant.backbone, fusion="O"),
        )
        assert same == nano
    assert NANO_FAMILY["nano-O-3of6"].variant.read_layers == (1, 1, 1, 2, 2, 2, 3)
    assert NANO_FAMILY["nano-L"].variant.read_layers == ()
    assert NANO_FAMILY["nano-L"].variant.reads_penultimate
    parameters = {name: ablation.parameters for name, ablation in NANO_FAMILY.items()}
    assert parameters == {
        "nano-O": "13.4M",
        "nano-L": "18.8M",
        "nano-OL": "19.5M",
        "nano-S": "9.7M",
        "nano-O-3of6": "13.4M",
    }


def test_recipe_has_the_first_stage_alone() -> None:
    recipe = nano_recipe(200, 320)
    assert (recipe.steps, recipe.frames_per_batch, recipe.warmup, recipe.cooldown) == (
        200,
        320,
        20,
        40,
    )
    assert recipe.phase(199).probabilities == default_stages()[0].probabilities
    assert nano_recipe(100_000).warmup == 300


def test_the_stored_settings_keep_their_keys(tmp_path, monkeypatch) -> None:
    """A folder of version 0.1.0 must stay resumable."""
    codec = SimpleNamespace(channels=8, sample_rate=16_000)
    monkeypatch.setattr(ablations, "load_nano_codec", lambda folder: codec)
    monkeypatch.setattr(ablations, "train_family", lambda *args, **options: [])
    with pytest.raises(InputError, match=r"8 channels .* takes 32"):
        ablations.train_nano_ablations(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPE)
    assert not list(tmp_path.iterdir())
    codec.channels = 32
    ablations.train_nano_ablations(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPE)
    stored = json.loads((tmp_path / "out" / "ablations.json").read_text())
    (tmp_path / "out" / "content.json").unlink()  # as that version leaves it
    ablations.train_nano_ablations(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPE)
    assert set(stored) == {"recipe", "corpus", "codec", "batches"}
    assert set(stored["recipe"]) == {
        "phases",
        "frames_per_batch",
        "batches_per_step",
        "steps",
        "peak_lr",
        "warmup",
        "cooldown",
        "weight_decay",
        "clip_norm",
        "ema_decay",
        "ema_every",
        "text_dropout",
        "first_template_probability",
        "floor_dbfs",
        "speed",
        "mixed_precision",
        "gradient_checkpointing",
        "seed",
        "checkpoint_every",
        "keep_checkpoints",
        "validate_every",
        "sample_every",
    }


def test_other_weights_of_the_codec_are_noticed(tmp_path, monkeypatch) -> None:
    """Their config.json is the same."""
    codec = SimpleNamespace(channels=32, sample_rate=16_000)
    monkeypatch.setattr(ablations, "load_nano_codec", lambda folder: codec)
    monkeypatch.setattr(ablations, "train_family", lambda *args, **options: [])
    weights = tmp_path / "codec.safetensors"
    weights.write_bytes(b"some")
    for _ in range(2):
        ablations.train_nano_ablations(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPE)
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match="ablations of another content of the codec; all"):
        ablations.train_nano_ablations(tmp_path, tmp_path, tmp_path / "out", recipe=RECIPE)


def test_names_are_checked() -> None:
    assert [a.name for a in choose(FULL, ["S32-O", "D24-O", "S32-O"])] == ["S32-O", "D24-O"]
    with pytest.raises(InputError, match="no ablation 'D24'; use D24-O"):
        choose(FULL, ["D24"])


def test_a_folder_takes_one_kind_of_run(tmp_path) -> None:
    keep_settings(tmp_path, {"steps": 3, "seconds": (1.0, 2.0)})
    keep_settings(tmp_path, {"steps": 3, "seconds": (1.0, 2.0)})
    with pytest.raises(InputError, match="another steps; all variants"):
        keep_settings(tmp_path, {"steps": 4, "seconds": (1.0, 2.0)})


def test_variants_are_trained_and_measured_alike(clips, tmp_path) -> None:
    rows, _ = run(tmp_path, clips, list(NANO_FAMILY))
    tasks = set(default_stages()[0].probabilities)
    assert {row["task"] for row in rows} == tasks
    logs = {}
    for name in NANO_FAMILY:
        variant, backbone = checkpoint.load(tmp_path / name / "weights")
        assert variant == tiny(name).variant
        assert backbone.config.fusion == tiny(name).variant.backbone.fusion
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        logs[name] = [(row["task"], row["items"]) for row in map(json.loads, lines)]
        assert len(logs[name]) == RECIPE.steps
    assert all(log == logs["nano-O"] for log in logs.values())  # the same tasks in each step
    table = error_table(rows)
    assert len(table.splitlines()) == 2 + len(NANO_FAMILY)
    assert "| nano-OL | OL (deep + penultimate, MiniLM) | D7 |" in table


def test_a_killed_run_resumes(clips, tmp_path, monkeypatch) -> None:
    whole, _ = run(tmp_path / "whole", clips, ["nano-O", "nano-L"])
    names = ["nano-O", "nano-L"]
    original = trainer.BackboneTrainer.step
    taken = []

    def step(self, number, examples):
        if len(taken) == RECIPE.steps + 2:  # in the second variant, after two steps
            taken.append(None)
            raise KeyboardInterrupt
        taken.append(number)
        return original(self, number, examples)

    monkeypatch.setattr(trainer.BackboneTrainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", clips, names)
    rows, _ = run(tmp_path / "part", clips, names)
    assert taken == [0, 1, 2, 0, 1, None, 2]
    assert rows == whole
    again, asked = run(tmp_path / "part", clips, names)
    assert again == whole
    assert asked == []  # nothing is left to do, so nothing is read


def test_held_out_errors_are_means_over_fixed_batches(clips, tmp_path) -> None:
    rows, _ = run(tmp_path, clips, ["nano-O"])
    saved = json.loads((tmp_path / "nano-O" / "held-out.json").read_text())
    for row in rows:
        score = row["scores"]["error"]
        assert score["items"] == saved[row["task"]]
        assert score["value"] == pytest.approx(sum(score["items"]) / 2)
        half = 1.96 * abs(score["items"][0] - score["items"][1]) / 2  # s / sqrt(2) of two values
        assert score["high"] - score["value"] == pytest.approx(half)
        assert 0.1 < score["value"] < 10
    assert math.isnan(mean_and_error([1.0])[1])


def test_evaluated_rows_fill_table_8(clips, tmp_path) -> None:
    asked = []

    def evaluate(name, weights, out):
        asked.append((name, weights.is_dir(), out.parent.name))
        score = {"value": 0.25, "low": 0.2, "high": 0.3, "count": 4, "failed": [], "model": "toy"}
        return [
            {"set": "audiocaps", "task": "t2a", "language": "", "scores": {"clap": score}},
            {"set": "seed-tts", "task": "tts", "language": "en", "scores": {"wer": score}},
        ]

    rows, _ = run(tmp_path, clips, ["nano-O", "nano-S"], evaluate=evaluate)
    assert run(tmp_path, clips, ["nano-O", "nano-S"], evaluate=evaluate)[0] == rows
    assert asked == [("nano-O", True, "nano-O"), ("nano-S", True, "nano-S")]
    evaluated = [row for row in rows if row["set"] != "held-out"]
    (table,) = (t for t in fill_tables([], ablations=evaluated) if t.number == 8)
    here = {line.system: line for line in table.lines if line.origin == "here"}
    assert set(here) == {"nano-O", "nano-S"}
    assert here["nano-S"].facts["architecture"] == "S7"
    assert {c.metric: cell.value for c, cell in here["nano-S"].cells.items()} == {
        "clap": 0.25,
        "wer": 25.0,
    }


def test_full_size_asks_for_equal_steps(tmp_path, monkeypatch) -> None:
    """Each of the paper's variants by name, with the same recipe, steps and batches; once."""
    calls = []

    def train(name, data, output, parallel, **options):
        calls.append((name, data, options))
        output.weights.mkdir(parents=True)

    monkeypatch.setattr(ablations, "train_variant", train)

    class Alone:
        main, world = True, 1

        def wait(self):
            pass

    index = tmp_path / "a" / "index.json"
    index.parent.mkdir()
    index.write_text("{}")
    data = RunData(corpora=[str(index.parent)])
    for _ in range(2):
        ablations.train_full_ablations(data, tmp_path, Alone(), changes=RecipeChanges(items=4))
    assert [name for name, *_ in calls] == [
        "d24-16k",
        "d24-16k-l",
        "d24-16k-ol",
        "s32-16k",
        "d24-16k-3b",
    ]
    same = {"changes": RecipeChanges(steps=80_000, items=4), "files": None}
    assert all(rest == [data, same] for _, *rest in calls)
    stored = json.loads((tmp_path / "ablations.json").read_text())
    assert stored == {
        "corpora": [str(index.parent)],
        "recipe": "base",
        "steps": 80_000,
        "items": 4,
        "accumulate": 1,
        "processes": 1,
    }
    changes = RecipeChanges(items=4, steps=3)
    with pytest.raises(InputError, match="another steps"):
        ablations.train_full_ablations(data, tmp_path, Alone(), changes=changes)
    index.write_text("{ }")  # another corpus under the same name
    with pytest.raises(InputError, match="ablations of another content of the corpora; all"):
        ablations.train_full_ablations(data, tmp_path, Alone(), changes=RecipeChanges(items=4))


def write_corpus_and_codec(folder) -> None:
    """The files that the command looks for before anything is trained."""
    shard = {"name": "a.tar", "clips": 1}
    index = {"format": 1, "corpus": "nano", "shards": [shard]}
    (folder / "index.json").write_text(json.dumps(index))
    for name in CODEC_FILES:
        (folder / name).write_text("{}")


def test_the_command_prints_and_writes_the_table(clips, tmp_path, monkeypatch, capsys) -> None:
    write_corpus_and_codec(tmp_path)

    def trained(corpus, codec, out, *, recipe, names, **options):
        assert (recipe.steps, recipe.frames_per_batch) == (3, 40)
        return run(out, clips, names)[0]

    monkeypatch.setattr(ablations, "train_nano_ablations", trained)

    def command(**changed):
        which = {"recipe": "nano", "steps": 3, "variants": ["nano-O"]}
        nano = {"corpus": tmp_path, "codec": tmp_path, "frames": 40, "batches": 4}
        ablation_command.train_ablations(
            out=tmp_path,
            which=AblationFlags(**{name: changed.get(name, which[name]) for name in which}),
            nano=NanoAblationFlags(**{name: changed.get(name, nano[name]) for name in nano}),
        )

    command()
    assert "| nano-O | O (deep fusion, MiniLM) | D7 |" in capsys.readouterr().out
    assert "nano-O" in (tmp_path / "ablations.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())[0]["system"] == "nano-O"
    for wrong, message in (
        ({"steps": 0}, "steps is 0"),
        ({"batches": 1}, "at least 2"),
        ({"corpus": None}, "give --corpus"),
        ({"recipe": "base"}, "give --corpora"),
    ):
        with pytest.raises(InputError, match=message):
            command(**wrong)


@pytest.mark.parametrize("flag", ["--evaluate", "--judged"])
def test_the_old_name_of_evaluate_is_accepted(flag, monkeypatch, tmp_path) -> None:
    found = []
    write_corpus_and_codec(tmp_path)

    def train(corpus, codec, out, *, evaluate, **options):
        found.append(evaluate)
        out.mkdir()
        return []

    monkeypatch.setattr(ablations, "train_nano_ablations", train)
    words = ["train", "ablations", "--out", str(tmp_path / "out"), "--corpus", str(tmp_path)]
    assert cli.main([*words, "--codec", str(tmp_path), flag]) == 0
    assert callable(found[0])
