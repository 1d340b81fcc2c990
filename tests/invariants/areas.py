"""The areas: which rows there are, and what of each is recorded."""

from collections.abc import Sequence

from invariants.pins import Area, Found, digest, envelope

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


AREAS = (
    Area(name="nano_sounds", rows=lambda: TASKS, compute=nano_sound, tolerance=2e-2),
    Area(name="sampling", rows=sampling_rows, compute=sampling, tolerance=0.0),
)
