"""Subtitles of sentences or events with their times, as SubRip, WebVTT or JSON."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.files import folder_of, resolved, write_whole
from unison_audio.longform.text_windows import TextWindow, join_texts
from unison_audio.tasks.clauses import split_clauses
from unison_audio.tasks.instructions import read_instruction


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One subtitle."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""
    text: str
    """A sentence, or the name of an event."""


def sentence_cues(timed: Iterable[tuple[TextWindow, float, float]]) -> list[Cue]:
    """The sentences of a long text with their times.

    The length of a window is divided among its sentences by their estimated lengths.

    Args:
        timed: The windows, and the seconds when each begins and ends.
    """
    found: dict[int, Cue] = {}
    for window, start, stop in timed:
        # The pauses inside are the model's own: they scale with the speech around them.
        scale = (stop - start) / max(window.seconds, 1e-9)
        time = start
        for piece in window.pieces:
            end = time + piece.seconds * scale
            before = found.get(piece.sentence)
            found[piece.sentence] = Cue(
                start=before.start if before else time,
                end=end,
                text=join_texts(before.text, piece.text) if before else piece.text,
            )
            time = end + piece.pause * scale
    return list(found.values())


def event_cues(instruction: str) -> list[Cue]:
    """The events of a timeline with their windows.

    Args:
        instruction: Such as `[Audio] From 0s to 2s, rain. From 2s to 4s, thunder.`.

    Returns:
        One cue for each event; none if the instruction is no timeline.

    Raises:
        InputError: Its times are not understood.
    """
    if [clause.tags for clause in split_clauses(instruction)] != ["audio"]:
        return []
    events = read_instruction(instruction, False, False).events
    return [Cue(start=event.start, end=event.end, text=event.text) for event in events]


def to_srt(cues: Iterable[Cue]) -> str:
    """SubRip text of the cues."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues, start=1)
    )


def to_vtt(cues: Iterable[Cue]) -> str:
    """WebVTT. The characters &, < and > are escaped, since they are markup there."""

    def safe(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{safe(cue.text)}\n" for cue in cues
    )


def to_json(cues: Iterable[Cue]) -> str:
    """A list of objects with start, end and text; times in seconds."""
    rows = [
        {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(cue).items()}
        for cue in cues
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


WRITERS: dict[str, Callable[[Iterable[Cue]], str]] = {
    ".srt": to_srt,
    ".vtt": to_vtt,
    ".json": to_json,
}
"""Suffix -> function that formats the cues."""


def check_subtitles(path: Path) -> None:
    """Check the name of a file of subtitles.

    Raises:
        InputError: The suffix is none of `WRITERS`, or it is a folder.
    """
    if path.suffix.lower() not in WRITERS or path.is_dir():
        raise InputError(
            f"Cannot write subtitles to {path}; give a file that ends in {', '.join(WRITERS)}."
        )


def write_subtitles(path: Path, cues: Iterable[Cue]) -> None:
    """Write a file of subtitles; the suffix says the format.

    Raises:
        InputError: It cannot be written.
    """
    check_subtitles(path)
    with folder_of(path):
        write_whole(resolved(path), WRITERS[path.suffix.lower()](cues))


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"
