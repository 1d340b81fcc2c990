"""The one place where the recorded figures meet the package's interface.

When a module moves or an interface changes, this file changes with it; what was recorded does not.
Everything is imported where it is used, so that one broken area does not hide the others.
"""

import atexit
import contextlib
import dataclasses
import functools
import io
import json
import math
import shutil
import tarfile
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


@cache
def _nano() -> Any:
    from unison_audio.pipeline import Unison

    return Unison.from_pretrained("nano", device="cpu")


def nano_sound(task: str) -> tuple[np.ndarray, bytes]:
    """What nano makes of an example of a task, and the WAV file that holds it.

    The examples are those of the demo when the bits were written down; of tasks for which the demo
    plays others now, they are kept beside the tests.
    """
    from unison_audio.demo.examples import packaged_inputs

    folder, job = next(
        (folder, job)
        for folder in (Path(__file__).parent / "inputs", packaged_inputs())
        for job in json.loads((folder / "jobs.json").read_text("utf-8"))
        if job["task"] == task
    )
    files = {name: folder / job[name] for name in ("source", "reference") if job[name]}
    sound = _nano().generate(
        job["instruction"],
        **files,
        reference_text=job["reference_text"],
        duration=job["duration"],
        seed=job["seed"],
    )
    assert sound.task == task
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "sound.wav")
        sound.save(path, metadata=False)  # what is pinned is the sound
        return sound.waveform.numpy(), path.read_bytes()


def sampling(variant: str, preset: str, task: str) -> dict[str, Any]:
    """How a task is sampled when nothing else is asked for."""
    from unison_audio.sampling_params import merge_options, resolve_sampling
    from unison_audio.tasks.table import TASKS
    from unison_audio.variants import find_variant

    params = merge_options(None, {"preset": preset})
    found = resolve_sampling(find_variant(variant), params).for_task(TASKS[task])
    return {
        "steps": found.steps,
        "solver": found.solver,
        "guidance_scale": float(found.guidance.scale),
        "guidance_interval": [float(end) for end in found.guidance.interval],
        "guidance_rescale": float(found.guidance.rescale),
        "num_candidates": found.num_candidates,
        "temperature": float(found.temperature),
        "preserve_source": found.preserve_source,
    }


# The material: a corpus on disk, tiny models, a text encoder that needs no model.

RATE = 16_000
WORDS = ("red", "blue", "dog", "cat", "stop")
LABELS = ("a beep", "a buzz", "rain", "a horn", "wind blowing")


def _waveform(number: int, seconds: float) -> np.ndarray:
    """A tone that beats, in noise; another one for each number."""
    rng = np.random.default_rng(number)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (110 + 37 * number) * time) * (1.2 + np.sin(2 * np.pi * 3 * time))
    return (0.1 * tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def _sound_file(waveform: np.ndarray) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, "PCM_16", format="FLAC")
    return file.getvalue()


def _record(number: int, seconds: float) -> dict[str, Any]:
    spoken = number % 2 == 0
    words = [WORDS[(number // 2 + k) % len(WORDS)] for k in range(1 + number // 2 % 3)]
    label = LABELS[number // 2 % len(LABELS)]
    about = (
        {"text": " ".join(words), "speaker": f"speaker-{number // 2 % 2}"}
        | {"gender": ("male", "female")[number // 2 % 2], "language": "en"}
        if spoken
        else {"label": label, "caption": f"Somewhere there is {label}, number {number}."}
    )
    return {
        "key": f"clip-{number:03d}",
        "kind": "speech" if spoken else "sound",
        "split": "heldout" if number >= 40 else "train",
        "seconds": seconds,
        "licence": "CC0-1.0",
        "source": f"made by the test, {number}",
        "sample_rate": RATE,
        **about,
    }


@cache
def _corpus() -> Path:
    """Shards of 20 utterances and 20 sounds for training, and 20 clips held out."""
    folder = Path(_scratch(), "corpus")
    folder.mkdir()
    entries = []
    for kind in ("speech", "sound"):
        path = folder / f"made-{kind}-000000.tar"
        clips = 0
        with tarfile.open(path, "w") as shard:
            for number in range(60):
                seconds = 0.35 + 0.015 * number
                record = _record(number, seconds)
                if record["kind"] != kind:
                    continue
                sound = _sound_file(_waveform(number, seconds))
                told = json.dumps(record).encode()
                for suffix, content in (("flac", sound), ("json", told)):
                    entry = tarfile.TarInfo(f"{record['key']}.{suffix}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
                clips += 1
        entries.append({"name": path.name, "clips": clips, "kinds": [kind]})
    index = {"format": 1, "corpus": "made", "shards": entries}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@cache
def _own_clips() -> Path:
    """A user's list: two sounds, two utterances, an edit."""
    folder = Path(_scratch(), "own")
    folder.mkdir()
    lengths = {"a": 0.6, "b": 0.7, "c": 0.5, "d": 0.6, "e": 0.5, "f": 0.7}
    for number, (name, seconds) in enumerate(lengths.items()):
        (folder / f"{name}.flac").write_bytes(_sound_file(_waveform(100 + number, seconds)))
    spoken = {"gender": "male", "speaker": "me"}
    rows = [
        {"audio": "a.flac", "caption": "A theremin plays."},
        {"audio": "b.flac", "label": "a kazoo"},
        {"audio": "c.flac", "text": "red dog", **spoken},
        {"audio": "d.flac", "text": "stop", **spoken},
        {"audio": "e.flac", "source": "f.flac", "instruction": "[Edit][Audio] Remove the buzz"},
    ]
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@cache
def _scratch() -> str:
    """A folder for what is made once."""
    folder = tempfile.mkdtemp(prefix="invariants-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Words:
    """A text encoder whose states follow from each word and layer alone."""

    width = 12

    def __init__(self, setup: Any) -> None:
        self.picks, self.penultimate = setup.picks, setup.penultimate

    def encode(self, instructions: Any) -> Any:
        import torch

        from unison_audio.text.states import TextStates

        texts = [text.split() for text in instructions]
        lengths = torch.tensor([len(words) for words in texts])
        layers = (*self.picks, -2)
        states = np.zeros((len(texts), len(layers), int(lengths.max()), self.width), np.float32)
        for row, words in enumerate(texts):
            for place, word in enumerate(words):
                states[row, :, place] = [self._state(word, layer) for layer in layers]
        found = torch.from_numpy(states)
        return TextStates(
            hidden_states=found[:, :-1],
            mask=torch.arange(states.shape[2])[None] < lengths[:, None],
            penultimate=found[:, -1] if self.penultimate else None,
        )

    def _state(self, word: str, layer: int) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(f"{word} {layer}".encode())).standard_normal(
            self.width
        )


def _tiny_codec() -> Any:
    """Of nano's kind, random."""
    import torch

    from unison_audio.codecs.nano import NanoCodec

    torch.manual_seed(1)
    return NanoCodec(_tiny_codec_config()).eval().requires_grad_(False)


def _tiny_codec_config() -> Any:
    from unison_audio.codecs.nano import NanoCodecConfig

    return NanoCodecConfig(
        latent_channels=4,
        mels=20,
        widths=(8, 8, 8),
        encoder_blocks=(1, 1, 1),
        decoder_widths=(8, 8, 8),
        decoder_blocks=(1, 1, 1),
    )


def _tiny_variant(name: str) -> Any:
    """A variant with a very small backbone; its fusion and the rest are its own."""
    from unison_audio.variants import VARIANTS

    return _shrunk(VARIANTS[name])


def _shrunk(variant: Any) -> Any:
    sizes = {"dim": 32, "heads": 2, "rope_dim": 12, "blocks": 2, "text_dim": _Words.width}
    backbone = dataclasses.replace(variant.backbone, latent_channels=4, **sizes)
    return dataclasses.replace(variant, backbone=backbone)


def _tiny_backbone(variant: Any) -> Any:
    """All weights random, also those that begin at zero, so that every input matters."""
    import torch

    from unison_audio.model.backbone import UnisonBackbone

    torch.manual_seed(0)
    backbone = UnisonBackbone(variant.backbone)
    with torch.no_grad():
        for weight in backbone.parameters():
            if not weight.any():
                weight.normal_(std=0.1)
    return backbone.eval()


@cache
def _tiny_checkpoint() -> Path:
    """Nano's kind, random."""
    from unison_audio import checkpoint
    from unison_audio.codecs.table import save_nano_codec

    folder = Path(_scratch(), "checkpoint")
    variant = _tiny_variant("nano")
    checkpoint.save(folder, variant, _tiny_backbone(variant))
    save_nano_codec(folder, _tiny_codec())
    return folder


# Checkpoints.


def packaged_files() -> Path:
    """The folder of nano's weights in the package."""
    from importlib import resources

    return Path(str(resources.files("unison_audio"))) / "weights" / "nano"


def saved_checkpoint(variant: str, folder: Path) -> None:
    """Saves a tiny checkpoint of a variant's kind, read back to be sure that it can be."""
    from unison_audio import checkpoint

    tiny = _tiny_variant(variant)
    checkpoint.save(folder, tiny, _tiny_backbone(tiny))
    assert checkpoint.load(folder)[0] == tiny
    (folder / "README.md").unlink()  # the model card is prose, not a stored format


def full_size(variant: str) -> dict[str, list[int]]:
    """Names and shapes of a variant's weights, as a checkpoint has them."""
    import torch

    from unison_audio.model.backbone import UnisonBackbone
    from unison_audio.variants import find_variant

    with torch.device("meta"):
        backbone = UnisonBackbone(find_variant(variant).backbone)
    return {name: list(value.shape) for name, value in backbone.state_dict().items()}


# Draws. What a builder made: instructions, details, waveforms by name.

Built = dict[str, Any]


@cache
def _memory_pools() -> Any:
    from unison_audio.data.pools import MemoryPools
    from unison_audio.data.shards import read_corpus

    return MemoryPools(read_corpus(_corpus(), RATE, split="train"), RATE)


def _stream_pools() -> Any:
    from unison_audio.data.stream import StreamConfig
    from unison_audio.data.stream_pools import StreamPools

    config = StreamConfig(sample_rate=RATE, max_seconds=1.0, seed=5)
    return StreamPools([_corpus()], config, pair_seconds=0.3, held_seconds=8.0)


def _built(batch: Any) -> Built:
    waves = {"target": batch.target, "source": batch.source}
    edges = batch.reference_samples
    return {
        "task": batch.task,
        "instructions": batch.instructions,
        "details": batch.details,
        "reference_samples": None if edges is None else edges.tolist(),
        "waves": {name: wave.numpy() for name, wave in waves.items() if wave is not None},
    }


def built(task: str) -> Built:
    """A batch of a task, with noise under edits, and what the backbone reads of it."""
    import torch

    from unison_audio.tasks.conditioning import condition
    from unison_audio.tasks.draw import BuilderConfig
    from unison_audio.tasks.table import TASKS

    generator = torch.Generator().manual_seed(11)
    config = BuilderConfig(hop=1024, noise_floor_dbfs=(-85.0, -55.0))
    batch = TASKS[task].build(_memory_pools(), 3, 2.56, RATE, generator, config=config)
    codec = _tiny_codec()
    frames = codec.encode(batch.target).shape[-1]
    given = condition(codec, TASKS[task], frames, 3, batch.source, batch.reference_samples)
    found = _built(batch)
    found["waves"] |= {
        "z_s": given.z_s.numpy(),
        "m": given.m.numpy(),
        "loss_mask": given.loss_mask.numpy(),
    }
    return found


_DRAWS = {
    "speech": ("speech", 6, ("text", "gender", "speaker")),
    "speech_any": ("speech_any", 6, ("text", "gender", "speaker")),
    "speaker_pairs": ("speaker_pair", 3, ("text", "gender", "speaker")),
    "sounds": ("sound", 6, ("label", "caption")),
    "noise": ("noise", 6, ()),
}
"""Recorded kind -> the pools' kind, how many, what is recorded of each clip."""


def drawn_clips(pools: str, kind: str) -> list[Built]:
    """Six clips of a kind, from a corpus in memory or from a stream, or played at other speeds."""
    import torch

    from unison_audio.data.pools import VariedPools
    from unison_audio.tasks.clips import ClipLimits

    source = _stream_pools() if pools == "stream" else _memory_pools()
    if pools == "varied":
        source = VariedPools(source, RATE, (0.87, 1.15))
    generator = torch.Generator().manual_seed(3)
    limits = ClipLimits(
        max_seconds=0.5 if kind == "noise" else 0.9,
        exclude_labels=[{"rain"}] * 6 if kind == "sounds" else (),
    )
    kind, count, told = _DRAWS[kind]
    return [
        {
            **{name: getattr(clip.record, name) for name in told},
            "waves": {"waveform": clip.waveform.numpy()},
        }
        for clip in source.draw(kind, count, limits, generator)
    ]


def training_batches(name: str) -> list[Built]:
    """The first batches of a run: nano's recipe, the paper's over a stream, or a user's clips."""
    from unison_audio.data.shards import read_corpus
    from unison_audio.tasks.curriculum import default_stages
    from unison_audio.text.states import TextSetup
    from unison_audio.training.batches import BatchStream, CorpusInMemory
    from unison_audio.training.clip_list import OwnClipStream, read_own_clips
    from unison_audio.training.recipes import Phase, base_recipe

    codec = _tiny_codec()
    variant = _tiny_variant("nano" if name != "paper" else "d24-16k")
    text = _Words(TextSetup(picks=variant.read_layers))
    if name == "nano":
        clips = read_corpus(_corpus(), RATE, split="train")
        source = CorpusInMemory(clips, RATE)
        stream = BatchStream(variant, _short_nano(), source, codec, text)
    elif name == "paper":
        recipe = base_recipe(variant, codec.frames)
        ends = (4, None)
        stages = zip(ends, default_stages(), strict=True)
        phases = tuple(
            Phase(until_step=end, probabilities=stage.probabilities, seconds={"": (1.0,)})
            for end, stage in stages
        )
        recipe = dataclasses.replace(recipe, phases=phases, frames_per_batch=48)
        stream = BatchStream(variant, recipe, _stream_pools(), codec, text)
    else:
        own = read_own_clips(_own_clips(), variant, codec.hop)
        phase = Phase(until_step=None, probabilities=own.tasks(), seconds={"": (2.56,)})
        # Fine-tuning leaves these three of nano's recipe out.
        plain = {"speed": None, "edit_speech_probability": 0.0, "absent_target_probability": 0.0}
        recipe = dataclasses.replace(_short_nano(), phases=(phase,), **plain)
        source = CorpusInMemory(own.clips, RATE)
        stream = OwnClipStream(own.pairs, variant, recipe, source, codec, text)
    return [
        _built(stream.build(step, task, number))
        for step in range(10)
        for number, task in enumerate(stream.draw_tasks(step))
    ]


def _short_nano() -> Any:
    """Nano's recipe with its three phases in a few steps, and little in a batch."""
    from unison_audio.nano.recipe import NANO

    phases = tuple(
        dataclasses.replace(phase, until_step=end)
        for phase, end in zip(NANO.phases, (5, 10, None), strict=True)
    )
    short = {"frames_per_batch": 120, "warmup": 3, "cooldown": 10, "ema_every": 1}
    return dataclasses.replace(NANO, phases=phases, **short)


def drawn_tasks(curriculum: str) -> list[str]:
    """The tasks of 60 batches, 20 of them in the paper's first stage; or of nano's phases."""
    from unison_audio.tasks.curriculum import Stage, TaskSampler, default_stages

    stages = default_stages(20)
    if curriculum == "nano":
        stages = tuple(
            Stage(until_step=phase.until_step, probabilities=dict(phase.probabilities))
            for phase in _short_nano().phases
        )
    sampler = TaskSampler(stages, seed=2)
    return [sampler.draw(step) for step in range(60)]


def codec_segments() -> np.ndarray:
    """What the codec is trained on."""
    import torch

    from unison_audio.data.shards import read_corpus
    from unison_audio.nano.codec_segments import draw_segments

    clips = read_corpus(_corpus(), RATE, split="train")
    kinds = [
        [clip.waveform for clip in clips if clip.record.kind == kind]
        for kind in ("speech", "sound")
    ]
    return draw_segments(*kinds, 6, 16_384, torch.Generator().manual_seed(4)).numpy()


# Training: every command, on tiny models and a few clips.


def losses(command: str) -> list[dict[str, Any]]:
    """The lines of the log of a run of 20 steps: the task, if there is one, and every loss."""
    run = Path(tempfile.mkdtemp(prefix="run-", dir=_scratch()))
    corpus, steps = str(_corpus()), ["--steps", "20"]
    where = ["--run", str(run)]
    tiny = str(_tiny_checkpoint())
    here = ["--cpu", "--workers", "0"]
    plain = ["--mixed-precision", "no"]
    logs = run / "log.jsonl"
    if command == "nano-codec":
        words = ["train", "nano-codec", "--corpus", corpus, *where, *steps]
    elif command == "nano-codec from a codec":
        words = ["train", "nano-codec", "--corpus", corpus, *where, *steps, "--init", tiny]
    elif command == "nano":
        words = ["train", "nano", "--corpus", corpus, "--codec", tiny, *where, *steps]
        words += ["--workers", "0", *plain]
    elif command.startswith("backbone"):
        words = ["train", "backbone", "--variant", "d24-16k", "--corpora", corpus, *where, *steps]
        words += [*here, *plain, "--items", "2"]
        if command == "backbone long-speech":
            words += ["--recipe", "long-speech", "--accumulate", "2"]
    elif command.startswith("finetune"):
        words = ["finetune", str(_own_clips()), "--variant", tiny, *where, *steps, "--cpu"]
        words += ["--items", "2", "--method", command.split()[1]]
        if command.endswith("with a corpus"):
            words += ["--corpus", corpus]
    elif command == "distill":
        words = ["train", "distill", tiny, "--corpus", corpus, *where, *here, *plain]
        words += ["--updates", "20", "--substeps", "2"]
    else:
        name = command.removeprefix("ablations ")
        words = ["train", "ablations", "--corpus", corpus, "--codec", tiny, "--out", str(run)]
        words += [*steps, "--frames", "96", "--batches", "2", "--variants", name]
        logs = run / name / "log.jsonl"
    _command(words)
    lines = [json.loads(line) for line in logs.read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    kept: tuple[str, ...] = ("task", "loss", "norm")
    if command.startswith("nano-codec"):
        kept = ("mel", "stft", "kl", "anchor")
    return [{name: line[name] for name in kept if name in line} for line in lines]


def _command(words: list[str]) -> None:
    """Runs a command on tiny variants."""
    from unison_audio.cli import main as cli
    from unison_audio.codecs import table as codec
    from unison_audio.nano import recipe as nano_recipe
    from unison_audio.nano.codec_training import CodecRecipe
    from unison_audio.text import table as text_table
    from unison_audio.training import ablations as ablation_families
    from unison_audio.training import objective, recipes
    from unison_audio.variants import VARIANTS

    tiny = {name: _tiny_variant(name) for name in ("nano", "d24-16k")}
    lengths = {"max_seconds": 2.5, "default_seconds": 1.0, "zero_shot_seconds": 1.0}
    tiny["d24-16k"] = dataclasses.replace(tiny["d24-16k"], hop=1024, **lengths)
    family = {
        name: dataclasses.replace(one, variant=_shrunk(one.variant))
        for name, one in ablation_families.NANO_FAMILY.items()
    }
    short_codec = CodecRecipe(
        model=_tiny_codec_config(),
        steps=20,
        encoder_until=12,
        batch=2,
        segment_frames=4,
        warmup=3,
    )
    plans = {
        name: functools.partial(_with_short_warmup, plan)
        for name, plan in recipes.FULL_RECIPES.items()
    }
    encoders = {"minilm": _Words, "qwen2.5-omni-7b": _Words}
    codecs = {"mmaudio-16k": lambda checkpoint, files: _tiny_codec()}
    with contextlib.ExitStack() as changed:
        for table, rows in (
            (VARIANTS, tiny),
            (ablation_families.NANO_FAMILY, family),
            (text_table.TEXT_ENCODERS, encoders),
            (codec.CODECS, codecs),
            (recipes.FULL_RECIPES, plans),
        ):
            changed.enter_context(mock.patch.dict(table, rows))
        for where, name, value in (
            (nano_recipe, "NANO", _short_nano()),
            (nano_recipe, "NANO_CODEC", short_codec),
            (recipes, "STAGE1_STEPS", 8),
            (objective, "SAMPLE_STEPS", 1),
        ):
            changed.enter_context(mock.patch.object(where, name, value))
        assert cli.main(words) == 0


def _with_short_warmup(plan: Any, *sizes: Any) -> Any:
    """A recipe of the paper's whose first steps already move the weights."""
    return dataclasses.replace(plan(*sizes), warmup=3)


# Metrics: fixed sounds, tiny models in the published layouts, and those that come with packages.

FIXTURES = Path(__file__).parents[1] / "fixtures"
SPOKEN = {
    "male": ("rms-please-open-the-black-door", "please open the black door"),
    "female": ("slt-july-wait-thursday", "july wait thursday"),
}


def _recording(name: str) -> np.ndarray:
    import soundfile

    waveform, rate = soundfile.read(FIXTURES / f"{name}.flac", dtype="float32")
    assert rate == RATE
    return waveform


def _written(name: str, waveform: np.ndarray) -> Path:
    path = Path(_scratch(), f"{name}.flac")
    path.write_bytes(_sound_file(waveform))
    return path


@cache
def _samples(kind: str) -> list[Any]:
    """Twenty pairs of noisy tones with timelines, or six utterances with sources and references."""
    from unison_audio.evaluation.test_sets.manifest import EvaluationSample, Event, TestItem

    samples = []
    if kind == "sound":
        events = (
            Event(caption="low tone", start=0.0, end=1.0),
            Event(caption="high tone", start=1.0, end=2.0),
        )
        for number in range(20):
            about = {
                "caption": f"tone {'abcdefghijklmnopqrst'[number]}",
                "seconds": 2.0,
                "events": events,
            }
            item = TestItem(id=f"s{number}", set="made", task="timed", instruction="tones", **about)
            paths = {
                "output": _written(f"sound-{number}", _waveform(number, 2.0)),
                "target": _written(f"target-{number}", _waveform(70 + number, 2.0)),
            }
            samples.append(EvaluationSample(item=item, source=None, **paths))
        return samples
    pause = np.zeros(RATE, np.float32)
    for gender, (name, text) in SPOKEN.items():
        voice = _recording(name)
        noise = 0.02 * np.random.default_rng(9).standard_normal(len(voice)).astype(np.float32)
        scene = np.concatenate([pause, voice, pause, voice, pause])
        half = np.concatenate([pause, voice, pause, 0 * voice, pause])
        other = _recording(SPOKEN["female" if gender == "male" else "male"][0])
        for version, output, source, target in (
            ("clean", voice, scene, voice),
            ("noisy", voice + noise, voice, voice),
            ("half", half, scene, scene),
        ):
            key = f"{gender}-{version}"
            item = TestItem(
                id=key,
                set="made",
                task="tts",
                instruction="",
                seconds=2.0,
                text=text,
                gender="male" if version == "half" else gender,
            )
            waves = {"output": output, "source": source, "target": target, "reference": other}
            paths = {role: _written(f"{key}-{role}", wave) for role, wave in waves.items()}
            samples.append(EvaluationSample(item=item, **paths))
    return samples


@cache
def _metric_models(*, offline: bool) -> Any:
    from tiny_sound_models import write_clap, write_cnn14, write_vggish
    from tiny_speech_models import write_gender, write_voices, write_whisper

    from unison_audio.evaluation.metrics.metric import MetricContext

    if offline:
        return MetricContext(offline=True)
    folder = Path(_scratch(), "metric-models")
    paths = {
        "vggish": write_vggish(folder),
        "cnn14": write_cnn14(folder),
        "clap": write_clap(folder / "clap"),
        "whisper": write_whisper(folder / "whisper", "Please open the door."),
        "gender": write_gender(folder / "gender", "male"),
        "wavlm": write_voices(folder / "wavlm"),
    }
    return MetricContext(paths=paths)


def metric_figure(kind: str, name: str, *, offline: bool) -> dict[str, Any]:
    """A metric over the samples of a kind."""
    from unison_audio.evaluation.metrics.measure import measure
    from unison_audio.evaluation.metrics.table import METRICS

    score = measure(METRICS[name], _samples(kind), _metric_models(offline=offline), bootstrap=10)
    return {
        "value": score.value,
        "interval": [score.low, score.high],
        "count": score.count,
        "failed": list(score.failed),
        "per_item": score.per_item,
    }


def character_errors() -> dict[str, Any]:
    """Error rates of Mandarin, of given transcripts."""
    from unison_audio.evaluation.metrics.measure import measure
    from unison_audio.evaluation.metrics.metric import MetricContext
    from unison_audio.evaluation.metrics.speech import CharacterErrorRate
    from unison_audio.evaluation.models.asr import Asr
    from unison_audio.evaluation.test_sets.manifest import EvaluationSample, TestItem

    class Hears(Asr):
        model = identity = "said"

        def transcribe(self, waves: Any) -> list[str]:
            return ["今天天氣 很好"] * len(waves)

    texts = ("今天天气很好。", "今天天气好", "明天")
    output = _samples("sound")[0].output
    samples = [
        EvaluationSample(
            item=TestItem(
                id=text, set="s", task="tts", instruction="", seconds=1.0, text=text, language="zh"
            ),
            output=output,
            target=None,
            source=None,
        )
        for text in texts
    ]
    context = MetricContext(models={"paraformer": Hears()})
    score = measure(CharacterErrorRate, samples, context, bootstrap=0)
    return {"value": score.value, "per_item": list((score.per_item or {}).values())}


def signal_figures() -> dict[str, Any]:
    """Measures of waveforms, texts and sets of vectors."""
    import torch

    from unison_audio.evaluation.metrics import distribution as frechet
    from unison_audio.evaluation.metrics import distribution as posteriors
    from unison_audio.evaluation.metrics import signal as metrics
    from unison_audio.nano.event_model import gender_threshold

    first = torch.from_numpy(np.stack([_waveform(k, 1.0) for k in range(3)]))
    second = torch.from_numpy(np.stack([_waveform(k, 1.0) for k in range(1, 4)]))
    second = 0.5 * second + 0.5 * first
    voices = [torch.from_numpy(_recording(name)) for name, _ in SPOKEN.values()]
    said = "please open the black door, it's 5 o'clock"
    heard = "please open a black door its five o clock now"
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((400, 6)), 0.5 + 1.2 * rng.standard_normal((400, 6))
    chances = posteriors.softmax(3 * rng.standard_normal((40, 5)))
    pitches = [metrics.median_f0(voice, RATE) for voice in voices]
    threshold = gender_threshold(pitches, ["male", "female"])
    return {
        "lsd": metrics.lsd(first, second, RATE).tolist(),
        "mel_distance": metrics.mel_distance(first, second, RATE).tolist(),
        "si_sdr": metrics.si_sdr(first, second).tolist(),
        "word_error_rate": float(metrics.word_error_rate(said, heard)),
        "character_error_rate": float(metrics.word_error_rate("今天很好", "今天好吗", "zh")),
        "word_recall": float(metrics.word_recall(said, heard)),
        "median_f0": pitches,
        "gender_threshold": threshold,
        "energy_inside": metrics.energy_inside(first[0], [(0.1, 0.3), (0.2, 0.6)], RATE),
        "frechet_distance": float(frechet.frechet_distance(a, b)),
        "frechet_infinity": float(frechet.frechet_infinity(a, b)),
        "divergence": float(posteriors.divergence(chances[0], chances[1])),
        "inception_score": float(posteriors.inception_score(chances)),
    }


class _Stub:
    """Stands in for nano's metric models: each answer follows from where a sound is loud."""

    model = identity = "stub"
    seconds = 9.01

    def transcribe(self, waves: Any) -> list[str]:
        return [self._words(wave) for wave in _tensors(waves)]

    def _words(self, waveform: Any) -> str:
        return " ".join(WORDS[place % len(WORDS)] for place in self._loudest(waveform)[:2])

    def overall(self, waveform: Any, sample_rate: int) -> float:
        return 1.0 + float(waveform.square().mean().sqrt())

    def speech_seconds(self, waveform: Any, sample_rate: int) -> float:
        return float((waveform.abs() > 0.05).sum()) / sample_rate

    def embed(self, waves: Any) -> Any:
        return [self.features(wave, RATE)[:8] for wave in _tensors(waves)]

    def features(self, waveform: Any, sample_rate: int) -> Any:
        import torch

        spectrum = torch.fft.rfft(waveform, 16_384).abs()[:8000].view(8, -1)
        return (spectrum.square().mean(dim=1) + 1e-6).log()

    def _loudest(self, waveform: Any) -> list[int]:
        parts = [part.square().sum() for part in waveform.chunk(7)]
        return sorted(range(len(parts)), key=lambda place: -float(parts[place]))


def _tensors(waves: Any) -> list[Any]:
    import torch

    return [torch.from_numpy(wave) for wave in waves]


def nano_figures(task: str) -> dict[str, Any]:
    """The rows of nano's own evaluation of a task, with stubs for all metric models.

    A row that was added since has tests of its own.
    """
    import torch

    from unison_audio.evaluation.metrics.measure import measure
    from unison_audio.evaluation.metrics.metric import MetricContext
    from unison_audio.evaluation.models.speaker import PitchGender
    from unison_audio.evaluation.test_sets.manifest import EvaluationSample, TestItem
    from unison_audio.nano import bars, results
    from unison_audio.nano.event_classifier import (
        ClassifierConfig,
        ClassifierNet,
        EventClassifier,
    )
    from unison_audio.nano.metrics import NANO_METRICS
    from unison_audio.nano.vocabulary_asr import NanoAsr
    from unison_audio.tasks.draw import BuilderConfig
    from unison_audio.tasks.table import TASKS

    generator = torch.Generator().manual_seed(21)
    config = BuilderConfig(hop=1024, noise_floor_dbfs=(-70.0, -70.0))
    row = TASKS["tts" if task == "codec" else task]
    batch = row.build(_memory_pools(), 5, 2.56, RATE, generator, config=config)
    noise = 0.01 * torch.randn(batch.target.shape, generator=generator)
    start = batch.target if batch.source is None else batch.source
    waves = {
        results.MODEL: 0.8 * batch.target + 0.1 * start + noise,
        results.TRUTH: batch.target,
        results.CODEC: 0.95 * batch.target.roll(3, 1) + 0.3 * noise,
    }
    if row.needs == ("source",):
        waves[results.SOURCE] = batch.source
        waves[results.SOURCE_CODEC] = 0.95 * batch.source.roll(3, 1)
    torch.manual_seed(5)
    shape = ClassifierConfig(labels=LABELS, widths=(4,) * 6, features=8, hidden=6)
    stub = _Stub()
    asr = object.__new__(NanoAsr)
    asr.sentences = asr.sequences = stub
    from unison_audio.nano.vocabulary import IsSentence

    asr.is_sentence = IsSentence()
    models = {
        "event classifier": EventClassifier(shape, ClassifierNet(shape), encoder=stub),
        "nano gender": PitchGender(150.0),
        "nano asr": asr,
        **dict.fromkeys(("dnsmos", "silero", "resemblyzer"), stub),
    }
    context = MetricContext(offline=True, models=models)
    samples: dict[str, list[Any]] = {system: [] for system in waves}
    with tempfile.TemporaryDirectory() as place:

        def write(name: str, wave: Any) -> Path:
            import soundfile

            path = Path(place, f"{name}.wav")
            soundfile.write(path, wave.numpy(), RATE, "FLOAT")
            return path

        for i, detail in enumerate(batch.details):
            item = TestItem(
                id=str(i),
                set="made",
                task=batch.task,
                instruction=batch.instructions[i],
                text=detail.get("text", ""),
                gender=detail.get("gender", ""),
                seconds=2.56,
                reference_text=detail.get("reference_text", ""),
                details=detail,
            )
            edge = 0 if batch.reference_samples is None else int(batch.reference_samples[i])
            files = {
                system: write(f"{system}-{i}", torch.nn.functional.pad(wave[i, edge:], (0, edge)))
                for system, wave in waves.items()
            }
            reference = write(f"reference-{i}", batch.target[i, :edge]) if edge else None
            for system, path in files.items():
                samples[system].append(
                    EvaluationSample(
                        item=item,
                        output=path,
                        target=files[results.TRUTH],
                        source=files.get(results.SOURCE),
                        reference=reference,
                    )
                )
        names = {name for spec in results.FIGURES[task] for name in spec.metrics}
        scores = results.SetScores(
            scores={
                system: {
                    name: measure(NANO_METRICS[name], own, context, bootstrap=0) for name in names
                }
                for system, own in samples.items()
            },
            texts={sample.item.id: sample.item.text for sample in samples[results.MODEL]},
        )
    found = {}
    for one in results.rows_of(task, scores):
        if one.measure == bars.ADDED_AND_KEPT:
            continue
        columns = {name: getattr(one, name) for name in ("value", "truth", "codec", "source")}
        known = {name: v for name, v in columns.items() if v is not None and not math.isnan(v)}
        found[one.measure] = {"items": one.items, **known}
    return found
