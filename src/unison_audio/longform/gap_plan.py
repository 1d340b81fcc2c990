"""Checks what fills a recording's gaps, and lays the gaps out: inside it, behind it, before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.longform.native_audio import NativeAudio, Source, open_recording
from unison_audio.provenance.origin import Origin
from unison_audio.tasks.clauses import with_tags
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.table import TASKS, Task
from unison_audio.tasks.times import LEAST_REGION_SECONDS, Region, check_regions
from unison_audio.values import as_real, check_seed, require_text, shown
from unison_audio.variants import Variant

CONTEXT_SHARE = 0.4
"""Share of the longest sound that a window knows before its gap, and after it, where there is so
much."""

LEAST_CONTEXT_SHARE = 0.15
"""Share down to which both are cut so that a gap fits into one window."""

LONGEST_EXTENSION_SECONDS = 3600.0
"""Seconds that are put behind a recording, or before it, at once."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """Seconds that a recording grows."""

    before: float = 0.0
    """Seconds before its start."""
    after: float = 0.0
    """Seconds after its end."""


@dataclass(frozen=True, kw_only=True)
class GapFilling:
    """What fills which gaps of a recording, checked."""

    instruction: str
    """With the tags of the task table."""
    task: Task
    """Task of the instruction, one that takes no recording."""
    recording: NativeAudio
    """The recording."""
    result: NativeAudio
    """Rate, channels, coding and length of the result; it holds no samples."""
    offset: int
    """Sample of the result where the recording begins."""
    gaps: list[tuple[int, int]]
    """First sample of each gap in the result, and the one after its last, in order."""
    seed: int
    """Seed that the windows' seeds are derived from."""


@dataclass(frozen=True, kw_only=True)
class GapWindow:
    """One stretch that is sampled at once; all positions are samples at the model's rate."""

    start: int
    """First sample that the model is given."""
    stop: int
    """The sample after the last one."""
    begin: int
    """First sample that is filled."""
    end: int
    """The sample after the last one that is filled."""


def plan_inpainting(
    variant: Variant,
    instruction: str,
    source: Source,
    regions: Sequence[Region],
    seed: int = 0,
    *,
    task: str | None = None,
) -> GapFilling:
    """Check regions that are to be filled with something new.

    Args:
        variant: What will run it.
        instruction: What the regions are to hold, with a tag such as `[Audio]`.
        source: The recording, of any length, rate and number of channels.
        regions: Seconds, from and to, whose samples are replaced.
        seed: Seed of the noise.
        task: The task, where the user names it.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    recording = open_recording(source)
    if not regions:
        raise InputError("No region is given; name at least one, such as 3.2-7.5.")
    rate, frames = recording.sample_rate, recording.frames
    checked = check_regions(regions, recording.seconds)
    gaps: list[tuple[int, int]] = []
    for start, stop in checked:
        begin, end = round(start * rate), min(frames, round(stop * rate))
        if gaps and gaps[-1][1] >= begin:  # regions that touch are one gap
            begin = gaps.pop()[0]
        gaps.append((begin, end))
    if sum(stop - start for start, stop in gaps) >= frames:
        raise InputError(
            f"The regions are all of {recording.name}, so that nothing is known around them; leave "
            "a part of it, or generate the sound without a source."
        )
    return _plan(variant, instruction, recording, (0, frames, gaps), seed, task)


def plan_extension(
    variant: Variant,
    instruction: str,
    source: Source,
    extension: Extension,
    seed: int = 0,
    *,
    task: str | None = None,
) -> GapFilling:
    """Check how a recording is to go on.

    Args:
        variant: What will run it.
        instruction: What the new parts are to hold, with a tag such as `[Audio]`.
        source: The recording, of any length, rate and number of channels.
        extension: Seconds before and after it.
        seed: Seed of the noise.
        task: The task, where the user names it.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    lengths = []
    for given in (extension.before, extension.after):
        seconds = as_real(given)
        if seconds is None or not 0 <= seconds <= LONGEST_EXTENSION_SECONDS:
            raise InputError(
                f"A recording cannot be extended by {shown(given)} s; give a number of at most "
                f"{LONGEST_EXTENSION_SECONDS:g}."
            )
        lengths.append(seconds)
        if 0 < seconds < LEAST_REGION_SECONDS:
            raise InputError(
                f"An extension of {seconds:g} s is shorter than {LEAST_REGION_SECONDS} s; make it "
                "longer."
            )
    if not any(lengths):
        raise InputError("No extension is given; name the seconds before or after the recording.")
    recording = open_recording(source)
    before, after = (round(seconds * recording.sample_rate) for seconds in lengths)
    end = before + recording.frames
    gaps = [(start, stop) for start, stop in ((0, before), (end, end + after)) if stop > start]
    return _plan(variant, instruction, recording, (before, end + after, gaps), seed, task)


def plan_gap_windows(sides: tuple[int, int], gap: int, longest: int, hop: int) -> list[GapWindow]:
    """Cut one gap into windows, each of which knows what the ones before it filled.

    Args:
        sides: Known samples before the gap, where the positions begin, and after it.
        gap: Samples of the gap.
        longest: Samples that the variant takes at once.
        hop: Samples of a latent frame.

    Returns:
        The windows in the order of sampling: from the end to the start where only what comes after
        the gap is known, else from the start.
    """
    before, after = sides
    total, context = before + gap + after, int(CONTEXT_SHARE * longest)
    windows: list[GapWindow] = []
    if not before and after:  # the same backward: the positions are counted from the end
        for mirrored in plan_gap_windows((after, 0), gap, longest, hop):
            windows.append(
                GapWindow(
                    start=total - mirrored.stop,
                    stop=total - mirrored.start,
                    begin=total - mirrored.end,
                    end=total - mirrored.begin,
                )
            )
        return windows
    begin, end = before, before + gap
    while begin < end:
        room = longest - (end - begin)
        side = min(context, room // 2)
        fits = side >= int(LEAST_CONTEXT_SHARE * longest)
        # Whole frames before the gap: a frame that lies on its edge would be sampled too.
        start = begin - min(before, side if fits else context) // hop * hop
        last = end + min(after, room - (begin - start) if fits else context)
        if last - start <= longest:
            stop = min(last, end + context)
            windows.append(GapWindow(start=start, stop=stop, begin=begin, end=end))
            break
        # Where the gap would fit without what comes after it, the last window is to know that too.
        half = begin + (end - begin + 1) // 2
        stop = half if end - start <= longest else start + longest
        windows.append(GapWindow(start=start, stop=stop, begin=begin, end=stop))
        begin = before = stop
    return windows


def _plan(
    variant: Variant,
    instruction: str,
    recording: NativeAudio,
    layout: tuple[int, int, list[tuple[int, int]]],
    seed: int,
    task: str | None,
) -> GapFilling:
    """Check the instruction against the gaps; the layout is offset, frames and gaps."""
    require_text(instruction, "The instruction")
    row = TASKS[read_instruction(instruction, False, False, task).task]
    if task is not None:
        instruction = with_tags(instruction, task)
    seed = check_seed(seed)
    if row.name == "timed":
        raise InputError(
            f"The instruction {instruction!r} has times, and the gap says when; leave the times "
            "out, such as [Audio] rain."
        )
    offset, frames, gaps = layout
    for start, stop in gaps:
        seconds = (stop - start) / recording.sample_rate
        most = (1 - CONTEXT_SHARE) * variant.max_seconds
        # Words that are cut into windows would be said in each of them.
        if row.group != "sound" and seconds > most:
            raise InputError(
                f"A gap of {seconds:.2f} s is to be filled with speech, for which at most "
                f"{most:.2f} s fit beside what is known around it; make it shorter."
            )
    result = NativeAudio(
        sample_rate=recording.sample_rate,
        channels=recording.channels,
        frames=frames,
        coding=recording.coding,
        name="The result",
        origin=Origin(
            task=row.name,
            variant=variant.name,
            edited=True,
            source=Path(recording.file) if recording.file else None,
        ),
    )
    return GapFilling(
        instruction=instruction,
        task=row,
        recording=recording,
        result=result,
        offset=offset,
        gaps=gaps,
        seed=seed,
    )
