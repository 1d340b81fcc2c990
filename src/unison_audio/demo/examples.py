"""The demo's examples: one for each task, drawn by seed from held-out, freely licensed recordings.

They are part of the package. `benchmarks/demo_draws.py` chose them among draws from a corpus of
`unison-audio data nano`.
"""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

JOBS = "jobs.json"


@dataclass(frozen=True, kw_only=True)
class DemoExample:
    """One example of a task, as `jobs.json` has it."""

    task: str
    """A key of `TASKS`."""
    instruction: str
    """The instruction."""
    source: str | None = None
    """File of the recording to edit."""
    reference: str | None = None
    """File of the recording of the voice to speak in."""
    reference_text: str | None = None
    """The words of the reference."""
    duration: float | None = None
    """Seconds of the result."""
    seed: int = 0
    """Seed of the noise, and of the draw."""
    passing: str = ""
    """Of how many draws it was chosen, and how many of them pass nano's bars: "7 of 10"."""
    holds: str = ""
    """Contents of the source or the reference."""
    credits: tuple[str, ...] = ()
    """Origin and licence of every recording in the source or the reference."""


def packaged_inputs() -> Path:
    """The folder of the examples that come with the package."""
    return Path(str(resources.files("unison_audio.demo"))) / "inputs"


def read_examples(folder: Path) -> list[DemoExample]:
    """Read the examples of a folder of demo inputs, in the order of the task table."""
    values = json.loads((folder / JOBS).read_text("utf-8"))
    return [DemoExample(**{**value, "credits": tuple(value["credits"])}) for value in values]
