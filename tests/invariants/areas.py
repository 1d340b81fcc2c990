"""The areas: which rows there are, and what of each is recorded."""

import json
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invariants.pins import Area, Found, digest, envelope, significant

TASKS = (
    "tts",
    "zero_shot_tts",
    "t2a",
    "t2a_mix",
    "t2as",
    "timed",
    "edit_add",
    "edit_remove",
    "edit_replace",
    "speech_insert",
    "speech_delete",
    "speech_rewrite",
    "denoise",
    "audio_to_speech",
    "speech_to_audio",
)
VARIANTS = ("d20-44k", "d24-16k", "d24-16k-l", "d24-16k-ol", "s32-16k", "d24-16k-3b", "nano")


def nano_sound(task: str) -> Found:
    """A sound of nano: the waveform, and the file that it becomes."""
    from invariants import adapter

    waveform, file = adapter.nano_sound(task)
    return Found(
        values={"samples": len(waveform), "envelope": envelope(waveform)},
        bits={"waveform": digest(waveform), "file": digest(file)},
    )


def sampling_rows() -> Sequence[str]:
    return [f"{variant} {preset}" for variant in VARIANTS for preset in ("default", "fast")]


def sampling(row: str) -> Found:
    """How each task is sampled."""
    from invariants import adapter

    variant, preset = row.split()
    return Found(values={t: adapter.sampling(variant, preset, t) for t in TASKS}, bits={})


def checkpoint_rows() -> Sequence[str]:
    return ["nano, packaged", *VARIANTS, *(f"{name}, full size" for name in VARIANTS)]


def checkpoint(row: str) -> Found:
    """Keys, shapes and types of a checkpoint's files, and what config.json holds."""
    from invariants import adapter

    if row == "nano, packaged":
        folder = adapter.packaged_files()
        found = {file.name: _layout(file) for file in sorted(folder.iterdir())}
        return Found(values=found, bits={f.name: digest(f.read_bytes()) for f in folder.iterdir()})
    if row.endswith(", full size"):
        shapes = adapter.full_size(row.removesuffix(", full size"))
        return Found(values={"count": len(shapes), "listing": digest(shapes)}, bits={})
    with tempfile.TemporaryDirectory() as place:
        adapter.saved_checkpoint(row, Path(place))
        found = {file.name: _layout(file) for file in sorted(Path(place).iterdir())}
    return Found(values=found, bits={})


def _layout(file: Path) -> Any:
    if file.suffix == ".json":
        return _schema(json.loads(file.read_text("utf-8")))
    head = file.read_bytes()
    (length,) = struct.unpack("<Q", head[:8])
    entries = json.loads(head[8 : 8 + length])
    entries.pop("__metadata__", None)
    return {name: f"{one['dtype']} {one['shape']}" for name, one in sorted(entries.items())}


def _schema(value: Any) -> Any:
    """Keys, and the types of what stands there."""
    if isinstance(value, dict):
        return {key: _schema(one) for key, one in value.items()}
    return type(value).__name__


KINDS = ("speech", "speech_any", "speaker_pairs", "sounds", "noise")


def draw_rows() -> Sequence[str]:
    return [
        *(f"built {task}" for task in TASKS),
        *(f"clips {pools} {kind}" for pools in ("memory", "varied", "stream") for kind in KINDS),
        *(f"batches {name}" for name in ("nano", "paper", "own")),
        *(f"tasks {name}" for name in ("paper", "nano")),
        "segments codec",
    ]


def draw(row: str) -> Found:
    """What a seed draws: instructions and details, envelopes and bits of the waveforms."""
    from invariants import adapter

    what, *names = row.split()
    if what == "tasks":
        return Found(values=adapter.drawn_tasks(*names), bits={})
    if what == "segments":
        segments = adapter.codec_segments()
        return Found(values=envelope(segments), bits={"waves": digest(segments)})
    make = {
        "built": adapter.built,
        "clips": adapter.drawn_clips,
        "batches": adapter.training_batches,
    }
    found = make[what](*names)
    values: list[Any] = []
    bits: dict[str, str] = {}
    for number, one in enumerate(found if isinstance(found, list) else [found]):
        waves = one.pop("waves")
        shapes = {name: list(wave.shape) for name, wave in waves.items()}
        envelopes = {name: envelope(wave) for name, wave in waves.items()}
        values.append({**one, "shapes": shapes, "envelopes": envelopes})
        bits |= {f"{number} {name}": digest(wave) for name, wave in waves.items()}
    return Found(values=values, bits={"waves": digest(bits)})


CODEC_COMMANDS = ("nano-codec", "nano-codec from a codec")
COMMANDS = (
    "nano",
    "backbone base",
    "backbone long-speech",
    "finetune lora",
    "finetune full",
    "finetune lora with a corpus",
    "distill",
    "ablations nano-O",
    "ablations nano-L",
    "ablations nano-OL",
    "ablations nano-S",
    "ablations nano-O-3of6",
)


def training(command: str) -> Found:
    """The first losses of a training command."""
    from invariants import adapter

    lines = adapter.losses(command)
    # The codec's first steps go where rounding leads them: its KL differs by 12 % on another
    # processor, so that only bits hold it.
    names = [n for n in dict.fromkeys(n for line in lines for n in line) if n not in ("kl", "held")]
    columns = {name: [line.get(name) for line in lines] for name in names}
    return Found(
        values={
            name: [significant(v, 6) if isinstance(v, float) else v for v in column]
            for name, column in columns.items()
        },
        bits={"log": digest(lines)},
    )


SOUND = ("fad", "fad_inf", "fd", "kl", "is", "clap", "segment_clap", "lsd")
SPEECH = ("wer", "gender", "removal", "similarity", "similarity_wavlm", "dnsmos", "lsd")
OFFLINE = ("fad", "fd", "kl", "is")


SCORED = ("codec", *TASKS)


def metric_rows() -> Sequence[str]:
    return [
        "signal",
        "cer",
        *(f"sound {name}" for name in SOUND),
        *(f"speech {name}" for name in SPEECH),
        *(f"offline sound {name}" for name in OFFLINE),
        *(f"offline speech {name}" for name in ("wer", "gender")),
    ]


def metric(row: str) -> Found:
    """A metric's figure, its interval and each sample's own."""
    from invariants import adapter

    *kind, name = row.split()
    if row == "signal":
        found = adapter.signal_figures()
    elif row == "cer":
        found = adapter.character_errors()
    else:
        found = adapter.metric_figure(kind[-1], name, offline="offline" in kind)
    return Found(values=_rounded(found), bits={"figures": digest(found)})


def nano_figures(task: str) -> Found:
    """Nano's own figures of a task."""
    from invariants import adapter

    found = adapter.nano_figures(task)
    return Found(values=_rounded(found), bits={"figures": digest(found)})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return significant(value, 6) if isinstance(value, float) else value


AREAS = (
    Area(name="nano_sounds", rows=lambda: TASKS, compute=nano_sound, tolerance=2e-2),
    Area(name="sampling", rows=sampling_rows, compute=sampling, tolerance=0.0),
    Area(name="checkpoints", rows=checkpoint_rows, compute=checkpoint, tolerance=0.0),
    Area(name="draws", rows=draw_rows, compute=draw, tolerance=1e-3),
    Area(name="training", rows=lambda: COMMANDS, compute=training, tolerance=1e-4),
    Area(name="codec_training", rows=lambda: CODEC_COMMANDS, compute=training, tolerance=1e-2),
    Area(name="metrics", rows=metric_rows, compute=metric, tolerance=1e-3),
    Area(name="nano_figures", rows=lambda: SCORED, compute=nano_figures, tolerance=1e-3),
)
