"""The one place where the recorded figures meet the package's interface.

When a module moves or an interface changes, this file changes with it; what was recorded does not.
Everything is imported where it is used, so that one broken area does not hide the others.
"""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


@cache
def _nano() -> Any:
    from unison_audio.pipeline import Unison

    return Unison.from_pretrained("nano", device="cpu")


def nano_sound(task: str) -> tuple[np.ndarray, bytes]:
    """What nano makes of the demo's example of a task, and the WAV file that holds it."""
    from unison_audio.app.examples import packaged_inputs

    folder = packaged_inputs()
    jobs = {job["task"]: job for job in json.loads((folder / "jobs.json").read_text("utf-8"))}
    job = jobs[task]
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
        sound.save(path)
        return sound.waveform.numpy(), path.read_bytes()


def sampling(variant: str, preset: str, task: str) -> dict[str, Any]:
    """How a task is sampled when nothing else is asked for."""
    from unison_audio.settings import sampling_for
    from unison_audio.tasks.table import TASKS
    from unison_audio.variants import find_variant

    found = sampling_for(find_variant(variant), preset=preset)
    pace = found.pace(TASKS[task])
    return {
        "steps": pace.steps,
        "solver": found.solver,
        "guidance_scale": float(pace.guidance.scale),
        "guidance_interval": [float(end) for end in pace.guidance.interval],
        "guidance_rescale": float(pace.guidance.rescale),
        "num_candidates": pace.candidates,
        "temperature": float(pace.temperature),
        "preserve_source": found.keeps(TASKS[task]),
    }
