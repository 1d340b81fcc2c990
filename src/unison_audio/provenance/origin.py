"""What a mark says of a sound: whether it was generated or edited, and by what."""

import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_SAID = {
    "trainedAlgorithmicMedia": "AI-generated audio, made",
    "compositeWithTrainedAlgorithmicMedia": "Recording edited with AI-generated audio, made",
    "algorithmicallyEnhanced": "Recording cleaned by AI, made",
}
ENHANCING_TASKS = ("denoise",)
"""Tasks that add no generated content to the recording."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a sound comes from."""

    task: str
    """Name of the task that made it."""
    variant: str
    """Name of the variant."""
    edited: bool = False
    """Whether it is an edit of a recording."""
    source: Path | None = None
    """The recording's file, where there is one: its own signed manifest is kept."""

    @classmethod
    def of_edit(cls, task: str, variant: str, source: object) -> "Origin":
        """The origin of a result with a source, and of one without where it is None.

        Args:
            task: Name of the task.
            variant: Name of the variant.
            source: The recording: a path, or anything else for one in memory.
        """
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        return cls(task=task, variant=variant, edited=source is not None, source=path)

    @property
    def source_type(self) -> str:
        """The IPTC digital source type, without its address."""
        if not self.edited:
            return "trainedAlgorithmicMedia"
        if self.task in ENHANCING_TASKS:
            return "algorithmicallyEnhanced"
        return "compositeWithTrainedAlgorithmicMedia"

    @property
    def source_type_url(self) -> str:
        """The IPTC digital source type, as its address."""
        return _TYPES + self.source_type

    @property
    def software(self) -> str:
        """Program and variant, in ASCII."""
        variant = self.variant.encode("ascii", "replace").decode()[:60]
        return f"unison-audio {version('unison-audio')} ({variant})"

    @property
    def comment(self) -> str:
        """The statement of the tags, in ASCII and under 200 bytes.

        WAV comments over 2 kB vanish in silence, and MP3 garbles other letters. The program stands
        here too: MP3's own field for it is LAME's, and M4A has none (libsndfile 1.2.2, FFmpeg 8).
        """
        said = _SAID[self.source_type]
        return f"{said} by {self.software}. digitalSourceType: {self.source_type_url}"


def stated_software(text: str) -> str:
    """Program and variant that a comment of ours names; "" where it names none."""
    found = re.search(r"unison-audio \S+ \([^()]*\)", text)
    return found[0] if found else ""


def stated_source_type(text: str) -> str:
    """The digital source type that a tag names; "" where it names none of ours."""
    return next((one for one in _SAID if _TYPES + one in text), "")
