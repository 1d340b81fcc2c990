"""The guides docs/training.md and docs/finetune.md: every command, on small corpora and models.

The commands run in their order, in one process, in a folder where the corpora lie in their
published layouts (`data.published`) and the models in theirs, small. `EXECUTED` has a row for each
kind of command and says what differs from a reader's machine:

* `unison-audio data`: one worker process. Nano's corpus, which is made from Debian packages and
  synthetic voices (tests/data/test_nano_corpus.py), is a small one in its format.
* `unison-audio plan`: nothing.
* `unison-audio train backbone`: the variants have three narrow blocks, the small models' channels
  and clips of at most 2 s; 2 steps of 1 clip, no worker processes, the CPU, float32; the samples to
  listen to, which a run ends with, are made by the first run alone and take 2 steps.
* `unison-audio train nano-codec` and `nano`: small models and batches, 2 steps.
* `unison-audio train distill`: 2 updates of batches of nano's small size, no worker processes.
* `unison-audio finetune`: the nano that the guide trains instead of the package's; 2 steps of
  2 clips on the CPU.
* `unison-audio generate`: 2 steps.
* `accelerate launch`: its own options are parsed by accelerate; the command that it would start for
  every device runs once, in this process (tests/training/test_parallel.py starts several).
* `python benchmarks/...`: its options are parsed; the figures in the page are what it printed.

A command without a row fails the test, and so does a row without a command.
"""

import dataclasses
import hashlib
import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts
import published
import pytest
import soundfile
import torch
from accelerate.commands.launch import launch_command_parser
from qwen_files import LAYERS, WIDTH, write_qwen
from tiny_mmaudio import TINY, random_originals
from tiny_unison import RATE, TINY_CODEC, tiny_variant
from training.conftest import make_clips

from unison_audio import checkpoint, variants
from unison_audio.cli import main as cli
from unison_audio.codecs import mmaudio_weights as mmaudio_files
from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.nano import corpus as nano_corpus
from unison_audio.nano import recipe as nano_recipe
from unison_audio.text import qwen
from unison_audio.training import objective, trainer, validation

ROOT = Path(__file__).parents[1]
GUIDES = (ROOT / "docs" / "training.md", ROOT / "docs" / "finetune.md")
"""In the order of reading: fine-tuning uses what training makes."""
LONGEST = 2.0
"""Seconds of the small variants' longest clip."""


def blocks(language: str) -> list[str]:
    text = "\n".join(guide.read_text() for guide in GUIDES)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[list[str]]:
    joined = "".join(blocks("console")).replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines() if line.strip()]


def examples(number: int) -> list[dict[str, str]]:
    """The lines of one of the lists in the guides."""
    return [json.loads(line) for line in blocks("json")[number].splitlines()]


def run(words: list[str]) -> None:
    assert cli.main(words) == 0, " ".join(words)


def with_options(words: list[str], **values: str) -> list[str]:
    """A command with options set to other values; those that are not there are added."""
    words = list(words)
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return words


def out(words: list[str], flag: str) -> Path:
    return Path(words[words.index(flag) + 1])


def data_corpus(words: list[str]) -> None:
    run(with_options(words[1:], workers="1"))
    index = json.loads((out(words, "--out") / "index.json").read_text())
    assert index["corpus"] == words[2]
    assert index["clips"] > 0


def data_nano(words: list[str]) -> None:
    run(words[1:])
    assert (out(words, "--out") / "index.json").is_file()


def plan(words: list[str]) -> None:
    run(words[1:])


def train_backbone(words: list[str]) -> None:
    small = with_options(words[1:], steps="2", items="1", workers="0", mixed_precision="no")
    run([*small, "--cpu"])
    folder = out(words, "--run")
    variant, _ = checkpoint.load(folder / "weights")
    assert variant.name == words[words.index("--variant") + 1]
    batches = 2 * int(words[words.index("--accumulate") + 1]) if "--accumulate" in words else 2
    assert len((folder / "log.jsonl").read_text().splitlines()) == batches
    assert (folder / "validation.jsonl").is_file() is ("--held-out" in words)


def train_nano(words: list[str]) -> None:
    run(with_options(words[1:], steps="2"))
    assert any((out(words, "--run") / "weights").glob("*.safetensors"))


def train_nano_backbone(words: list[str]) -> None:
    run(with_options(words[1:], steps="2", workers="0"))
    checkpoint.load(out(words, "--run") / "weights")


def distill(words: list[str]) -> None:
    run([*with_options(words[1:], updates="2", workers="0"), "--cpu"])
    variant, _ = checkpoint.load(out(words, "--run") / "weights")
    assert (variant.steps, variant.solver, variant.guidance_scale) == (4, "euler-even", 1.0)


def finetune(words: list[str]) -> None:
    variant = out(words, "--variant") if "--variant" in words else "runs/nano/weights"
    run([*with_options(words[1:], steps="2", items="2", variant=str(variant)), "--cpu"])
    checkpoint.load(out(words, "--run") / "weights")


def generate(words: list[str]) -> None:
    run(with_options(words[1:], steps="2"))
    samples, _ = soundfile.read(out(words, "-o"))
    assert 0 < abs(samples).max() <= 1


def accelerate_launch(words: list[str]) -> None:
    given = launch_command_parser().parse_args(words[2:])
    assert given.no_python, "unison-audio is a program, not a Python file"
    assert given.training_script == "unison-audio"
    execute([given.training_script, *given.training_script_args])


def benchmark(words: list[str]) -> None:
    module = importlib.import_module(Path(words[1]).stem)
    app = cyclopts.App(default_command=module.main)
    app.parse_args(words[2:], exit_on_error=False, print_error=False)


EXECUTED: dict[str, Callable[[list[str]], None]] = {
    "unison-audio data nano": data_nano,
    "unison-audio data": data_corpus,
    "unison-audio plan": plan,
    "unison-audio train backbone": train_backbone,
    "unison-audio train nano-codec": train_nano,
    "unison-audio train nano": train_nano_backbone,
    "unison-audio train distill": distill,
    "unison-audio finetune": finetune,
    "unison-audio generate": generate,
    "accelerate launch": accelerate_launch,
    "python benchmarks/": benchmark,
}
"""How a command begins -> what runs it; the first that fits."""


def kind_of(words: list[str]) -> str:
    line = " ".join(words)
    kinds = [kind for kind in EXECUTED if line.startswith(kind if kind[-1] == "/" else f"{kind} ")]
    assert kinds, f"The guides have a command that this test does not know: {line}"
    return kinds[0]


def execute(words: list[str]) -> None:
    EXECUTED[kind_of(words)](words)


def small(variant: variants.Variant) -> variants.Variant:
    """A variant of the same kind with small sizes everywhere."""
    codec = TINY[variant.codec]
    return dataclasses.replace(
        variant,
        backbone=dataclasses.replace(
            variant.backbone,
            latent_channels=codec.latent_channels,
            dim=64,
            heads=2,
            rope_dim=24,
            blocks=3,
            text_dim=WIDTH,
        ),
        text_layers=LAYERS,
        sample_rate=codec.sample_rate,
        hop=codec.frame_hop,
        default_seconds=0.5,
        zero_shot_seconds=0.5,
        max_seconds=LONGEST,
    )


def write_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models where downloads would come from, and small variants and recipes."""
    for name, tiny in TINY.items():
        monkeypatch.setitem(CONFIGS, name, tiny)
        found = []
        vae, vocoder = random_originals(tiny)
        for one, state in zip(
            mmaudio_files.ORIGINALS[name], (vae, {"generator": vocoder}), strict=True
        ):
            path = folder / "originals" / one.name
            path.parent.mkdir(exist_ok=True)
            torch.save(state, path)
            sums = {
                kind: getattr(one, kind) and hashlib.new(kind, path.read_bytes()).hexdigest()
                for kind in ("md5", "sha256")
            }
            found.append(dataclasses.replace(one, url=path.as_uri(), **sums))
        monkeypatch.setitem(mmaudio_files.ORIGINALS, name, tuple(found))
    write_qwen(folder / "qwen")
    monkeypatch.setattr(qwen, "download", lambda name: folder / "qwen")
    for name, variant in variants.VARIANTS.items():
        tiny_one = tiny_variant() if name == "nano" else small(variant)
        monkeypatch.setitem(variants.VARIANTS, name, tiny_one)
    codec = dataclasses.replace(
        nano_recipe.NANO_CODEC, model=TINY_CODEC, encoder_until=1, batch=2, segment_frames=4
    )
    monkeypatch.setattr(nano_recipe, "NANO_CODEC", codec)
    monkeypatch.setattr(objective, "SAMPLE_STEPS", 2)
    write_samples, made = validation.write_samples, []

    def write_once(*args: Any) -> None:
        if not made:
            made.append(write_samples(*args))

    monkeypatch.setattr(trainer, "write_samples", write_once)
    monkeypatch.setattr(
        nano_recipe, "NANO", dataclasses.replace(nano_recipe.NANO, frames_per_batch=80)
    )


def write_corpora(folder: Path) -> None:
    """The corpora under the names that the guide gives them, as published."""
    published.wavcaps(folder / "WavCaps", zipped=True)
    published.audioset(folder / "audioset")
    published.vggsound(folder / "VGGSound", (".wav", published.encoded(2, 16_000)))
    published.audiocaps(folder / "AudioCaps")
    published.libritts(folder / "LibriTTS")
    published.wenetspeech(folder / "WenetSpeech")
    published.emilia(folder / "Emilia")
    # Zero-shot needs speakers with several utterances that fit into a short clip in pairs.
    for subset, speaker, chapter in (("train-clean-100", 19, 198), ("dev-clean", 84, 121123)):
        for number in range(3):
            stem = f"{speaker}_{chapter}_0001{number}_000000"
            path = folder / f"LibriTTS/LibriTTS/{subset}/{speaker}/{chapter}/{stem}.wav"
            published.put(path, published.encoded(0.61 + 0.03 * number, 24_000, take=number))
            published.put(path.with_suffix(".normalized.txt"), f"Sentence number {number}.")
    for number, row in enumerate(examples(0)):
        path = folder / "recordings" / row["audio"]
        container = path.suffix[1:].upper()
        published.put(path, published.encoded(1.0, 24_000, container, take=number))
    published.put(folder / "recordings/metadata.jsonl", blocks("json")[0])


def write_own_clips(folder: Path) -> None:
    """The page's list of own clips, and the clips."""
    published.put(folder / "EXAMPLES.jsonl", blocks("json")[1])
    names = {row[key] for row in examples(1) for key in ("audio", "source") if key in row}
    for number, name in enumerate(sorted(names)):
        container = Path(name).suffix[1:].upper()
        seconds = 0.6 if name.startswith("me-") else 1.6
        published.put(folder / name, published.encoded(seconds, RATE, container, take=number))


def write_nano_corpus(folder: Path, **options: object) -> Path:
    """Stands for `nano_corpus.build`: a corpus of its format."""
    name = "train-00.tar"
    return nano_corpus.write_index(folder, {name: write_shard(folder / name, make_clips(), RATE)})


@pytest.mark.usefixtures("stub_text")
@pytest.mark.filterwarnings("ignore::unison_audio.data.stream.SkippedClipsWarning")
def test_every_command_of_the_guide_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(nano_corpus, "build", write_nano_corpus)
    write_models(tmp_path, monkeypatch)
    write_corpora(tmp_path)
    write_own_clips(tmp_path)
    for words in commands():
        try:
            execute(words)
        except (AssertionError, cyclopts.CycloptsError) as error:
            pytest.fail(f"{' '.join(words)}\n{error}\n{capsys.readouterr().err}")


def test_the_guide_trains_every_variant_and_reads_every_corpus() -> None:
    from unison_audio.data.corpora import CORPORA

    lines = commands()
    trained = {out(words, "--variant").name for words in lines if "backbone" in words}
    assert trained | {"nano"} == set(variants.VARIANTS)
    assert {words[2] for words in lines if words[1] == "data"} == {*CORPORA, "nano"}
    used = {kind_of(words) for words in lines}
    assert used == set(EXECUTED), "a row without a command"


def test_an_unknown_command_is_noticed() -> None:
    for line in ("unison-audio evaluate nano", "rm -r shards", "unison-audio dataset x"):
        with pytest.raises(AssertionError, match="does not know"):
            kind_of(line.split())
