"""The demo's examples: one a task, drawn by seed from held-out recordings that are free to share.

They come with the package; `benchmarks/demo_inputs.py` made them once, from a corpus of
`unison-audio data nano`.
"""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

JOBS = "jobs.json"


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example of a task, as `jobs.json` has it."""

    task: str
    """A key of `TASKS`."""
    instruction: str
    """What is asked for."""
    source: str | None = None
    """File of the recording to edit."""
    reference: str | None = None
    """File of the recording whose voice is to speak."""
    reference_text: str | None = None
    """The words of the reference."""
    duration: float | None = None
    """Seconds of the result."""
    seed: int = 0
    """Of the noise."""
    holds: str = ""
    """What is heard in the source or the reference."""
    credits: tuple[str, ...] = ()
    """Origin and licence of every recording in the source or the reference."""


def packaged_inputs() -> Path:
    """The folder of the examples that come with the package."""
    return Path(str(resources.files("unison_audio.demo"))) / "inputs"


def read_examples(folder: Path) -> list[Example]:
    """Read the examples of a folder of demo inputs, in the order of the task table."""
    values = json.loads((folder / JOBS).read_text("utf-8"))
    return [Example(**{**value, "credits": tuple(value["credits"])}) for value in values]
