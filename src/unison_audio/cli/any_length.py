"""The part of `generate` for any length: long texts and recordings, regions, pipes, subtitles."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unison_audio.checks import FileInputs, check_files
from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat, needs_av, require_av
from unison_audio.provenance.marks import check_marks

if TYPE_CHECKING:
    from unison_audio.audio import Audio
    from unison_audio.longform.long_speech import SpokenWindow
    from unison_audio.pipeline import Unison
    from unison_audio.variants import Variant

STDOUT = Path("-")
"""Output name that stands for standard output."""

Show = Callable[[int, int], None]
"""Called with the windows done and the windows in all."""

Run = Callable[["Unison", Mapping[str, Any], Show], tuple[str, float]]
"""Does what was planned: called with the model, the options of sampling, and progress. Returns the
task's name and the seconds of sound."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LengthFlags:
    """Any length: texts from files, regions, pipes, subtitles."""

    region: Annotated[
        list[str] | None, Parameter(negative="", allow_leading_hyphen=True, consume_multiple=False)
    ] = None
    """Edit only between these times, such as 3.2-7.5 or 0:01.5-1:05; may be given several times.
    All other samples stay as they are, at the recording's own rate, channels and depth."""
    inpaint: Annotated[
        list[str] | None, Parameter(negative="", allow_leading_hyphen=True, consume_multiple=False)
    ] = None
    """Replace these times of the source by what the instruction names, such as [Audio] rain; may
    be given several times. All other samples stay as they are."""
    extend_after: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Let the source go on for so long after its end, with what the instruction names."""
    extend_before: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """Let the source begin so much earlier, with what the instruction names."""
    extract: Annotated[bool, Parameter(negative="")] = False
    """Write only what the instruction names of the source, such as [Audio] rain or [Speech]; of a
    removal, what it takes away."""
    text_file: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None
    """Speak a text of any length from this file, or from standard input for -."""
    subtitles: Path | None = None
    """Also write the times of sentences, or of a timeline's events: .srt, .vtt or .json."""
    raw: bool = False
    """With -o -: write 16-bit samples without a WAV header, as --format pcm does."""

    @property
    def fills(self) -> tuple[str, ...]:
        """The flags given that fill a gap inside the source, or beside it."""
        given = {
            "--inpaint": self.inpaint,
            "--extend-after": self.extend_after,
            "--extend-before": self.extend_before,
        }
        return tuple(flag for flag, value in given.items() if value)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the sound goes, and how it is coded."""

    path: Path
    """The file, or `STDOUT`."""
    form: OutputFormat
    """Format and options."""


def plan_any_length(
    variant: Variant,
    instruction: str,
    output: Output,
    inputs: FileInputs,
    flags: LengthFlags | None,
    clean: bool,
) -> Run | None:
    """Check a request that needs several calls of the model, or an output other than a file.

    Args:
        variant: The variant that will run it.
        instruction: With the tags of the task table.
        output: The file or standard output, and the format.
        inputs: The other inputs.
        flags: The flags of any length.
        clean: Whether numbers and abbreviations in a long text become words.

    Returns:
        What does it, or None for a request that `generate` handles in one call.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    flags = flags or LengthFlags()
    output = _checked_output(output, flags)
    if flags.fills:
        return _plan_filling(variant, instruction, output, inputs, flags)
    if flags.region or flags.extract or _is_long_recording(variant, inputs.source):
        return _plan_edit(variant, instruction, output, inputs, flags)
    from unison_audio.longform.text_windows import is_long
    from unison_audio.tasks.clauses import with_tags

    cloned = inputs.reference is not None
    source = inputs.source
    speaks = inputs.task in (None, "tts", "zero_shot_tts")
    if inputs.task is not None and speaks:
        instruction = with_tags(instruction, inputs.task)
    if flags.text_file is not None or (
        source is None
        and speaks
        and is_long(variant, instruction, inputs.duration, cloned, inputs.task)
    ):
        return _plan_speech(variant, instruction, output, inputs, flags, clean)
    timed = source is None and not cloned and inputs.task is None
    if timed and _is_long_timeline(variant, instruction):
        return _plan_timeline(variant, instruction, output, inputs, flags)
    if output.path == STDOUT or flags.subtitles is not None:
        return _plan_one(variant, instruction, output, inputs, flags)
    return None


def _checked_output(output: Output, flags: LengthFlags) -> Output:
    """The output with its format known, once the flags are checked."""
    form = output.form
    if flags.raw:
        if output.path != STDOUT:
            raise InputError("--raw is for standard output; write -o - with it, or leave it out.")
        if form.format not in (None, "pcm"):
            raise InputError(f"--raw writes pcm and --format says {form.format}; leave one out.")
        form = replace(form, format="pcm")
    if flags.region and flags.text_file is not None:
        raise InputError("--region is for edits and --text-file for speech; leave one out.")
    if flags.subtitles is not None:
        from unison_audio.longform.subtitles import check_subtitles

        check_subtitles(flags.subtitles)
    form = form.of_stream() if output.path == STDOUT else form.of_file(output.path)
    check_marks(form, streamed=output.path == STDOUT)
    _require_loudness(form)
    if needs_av(form, output.path == STDOUT):
        require_av(f"The format {form.format}")
    return replace(output, form=form)


def _require_loudness(form: OutputFormat, channels: int = 1) -> None:
    """Check that a loudness can be measured, where one is asked for."""
    if form.loudness is not None:
        from unison_audio.loudness import require_loudness_filter

        require_loudness_filter(channels)


def _is_long_recording(variant: Variant, source: Path | None) -> bool:
    if source is None:
        return False
    from unison_audio.audio_files import seconds

    return seconds(source) > variant.max_seconds


def _plan_edit(
    variant: Variant,
    instruction: str,
    output: Output,
    inputs: FileInputs,
    flags: LengthFlags,
) -> Run:
    """An edit in regions or of a long recording."""
    from unison_audio.tasks.times import parse_region

    if inputs.source is None:
        raise InputError("--region and --extract are for a recording; give it with --source.")
    regions = [parse_region(text) for text in flags.region] if flags.region else None
    for name, given in (
        ("--reference", inputs.reference),
        ("--duration", inputs.duration),
        ("--subtitles", flags.subtitles),
    ):
        if given is not None:
            raise InputError(
                f"{name} does not go with a region, --extract or a recording longer than "
                f"{variant.max_seconds} s: the result is as long as the source; leave it out."
            )
    if output.path == STDOUT:
        raise InputError("An edited recording keeps its own format; give a file, not -o -.")
    from unison_audio.longform.regions import check_output, edit_file, plan_edit

    edit = plan_edit(
        variant,
        instruction,
        inputs.source,
        regions,
        inputs.seed,
        extract=flags.extract,
        task=inputs.task,
    )
    check_output(edit, output.path, regions is not None, output.form)
    _require_loudness(output.form, edit.recording.channels)

    def run(unison: Unison, options: Mapping[str, Any], show: Show) -> tuple[str, float]:
        edit_file(unison, edit, output.path, show, output.form, **options)
        return edit.task.name, edit.recording.seconds

    return run


def _plan_filling(
    variant: Variant, instruction: str, output: Output, inputs: FileInputs, flags: LengthFlags
) -> Run:
    """Gaps of a recording: inside it, after it, or before it."""
    from unison_audio.longform.gap_fill import fill_file
    from unison_audio.longform.gap_plan import Extension, plan_extension, plan_inpainting
    from unison_audio.longform.native_audio import check_exact
    from unison_audio.tasks.times import parse_length, parse_region

    named = " and ".join(flags.fills)
    if inputs.source is None:
        raise InputError(f"{named} needs a recording; give it with --source.")
    if len(flags.fills) > 1 and flags.inpaint:
        raise InputError(f"{named} do not go together; make two calls of them.")
    for name, given in (
        ("--region", flags.region),
        ("--extract", flags.extract),
        ("--reference", inputs.reference),
        ("--duration", inputs.duration),
        ("--text-file", flags.text_file),
        ("--subtitles", flags.subtitles),
    ):
        if given:
            raise InputError(f"{name} does not go with {named}; leave one out.")
    if output.path == STDOUT:
        raise InputError("A recording keeps its own format; give a file, not -o -.")
    if flags.inpaint:
        filling = plan_inpainting(
            variant,
            instruction,
            inputs.source,
            [parse_region(text) for text in flags.inpaint],
            inputs.seed,
            task=inputs.task,
        )
    else:
        extension = Extension(
            before=parse_length(flags.extend_before or "0"),
            after=parse_length(flags.extend_after or "0"),
        )
        filling = plan_extension(
            variant, instruction, inputs.source, extension, inputs.seed, task=inputs.task
        )
    check_exact(output.path, filling.result.coding, output.form)
    _require_loudness(output.form, filling.result.channels)

    def run(unison: Unison, options: Mapping[str, Any], show: Show) -> tuple[str, float]:
        fill_file(unison, filling, output.path, show, output.form, **options)
        return filling.task.name, filling.result.seconds

    return run


def _plan_speech(
    variant: Variant,
    instruction: str,
    output: Output,
    inputs: FileInputs,
    flags: LengthFlags,
    clean: bool,
) -> Run:
    """A text of any length."""
    from unison_audio.longform.long_speech import pieces, plan_speech, speak
    from unison_audio.longform.subtitles import sentence_cues, write_subtitles
    from unison_audio.longform.text_windows import LENGTH_MARGIN, estimate_seconds

    if inputs.source is not None:
        raise InputError("--text-file is for speech, which takes no source; leave one out.")
    if inputs.duration is not None:
        raise InputError("The length of a long text follows from its words; leave --duration out.")
    text = None if flags.text_file is None else read_text(flags.text_file)
    speech = plan_speech(
        variant,
        instruction,
        text=text,
        reference=inputs.reference,
        reference_text=inputs.reference_text,
        seed=inputs.seed,
        asr=inputs.asr,
        clean=clean,
    )

    def run(unison: Unison, options: Mapping[str, Any], show: Show) -> tuple[str, float]:
        timed: list[Any] = []

        def noted(parts: Iterator[SpokenWindow]) -> Iterator[SpokenWindow]:
            for part in parts:
                if flags.subtitles is not None:
                    timed.append(part.times)
                yield part

        # Estimated, since counting the windows of a whole book would delay the first one.
        total = round(estimate_seconds(speech.text, speech.pace) / speech.longest * LENGTH_MARGIN)
        spoken = noted(speak(unison, speech, lambda done: show(done, max(done, total)), **options))
        seconds = _write(pieces(spoken, speech), output)
        if flags.subtitles is not None:
            write_subtitles(flags.subtitles, sentence_cues(timed))
        return "tts" if speech.reference is None else "zero_shot_tts", seconds

    return run


def _is_long_timeline(variant: Variant, instruction: str) -> bool:
    from unison_audio.longform.subtitles import event_cues

    return any(cue.end > variant.max_seconds for cue in event_cues(instruction))


def _plan_timeline(
    variant: Variant,
    instruction: str,
    output: Output,
    inputs: FileInputs,
    flags: LengthFlags,
) -> Run:
    """A timeline that is longer than a window."""
    from unison_audio.longform.subtitles import event_cues, write_subtitles
    from unison_audio.longform.timeline import compose, plan_timeline

    windows = plan_timeline(variant, instruction, inputs.duration, inputs.seed)

    def run(unison: Unison, options: Mapping[str, Any], show: Show) -> tuple[str, float]:
        seconds = _write(compose(unison, windows, inputs.seed, show, **options), output)
        if flags.subtitles is not None:
            write_subtitles(flags.subtitles, event_cues(instruction))
        return "timed", seconds

    return run


def _plan_one(
    variant: Variant,
    instruction: str,
    output: Output,
    inputs: FileInputs,
    flags: LengthFlags,
) -> Run:
    """One call of the model, to a pipe or with subtitles."""
    from unison_audio.longform.subtitles import Cue, event_cues, write_subtitles
    from unison_audio.longform.text_windows import split_instruction
    from unison_audio.tasks.instructions import parse_instruction

    check_files(variant, instruction, inputs)
    task = parse_instruction(
        instruction, inputs.source is not None, inputs.reference is not None, inputs.task
    )
    events = event_cues(instruction) if task == "timed" else []
    if flags.subtitles is not None and not events and task not in ("tts", "zero_shot_tts"):
        raise InputError(
            f"The instruction {instruction!r} ({task}) has no sentences or events with times; "
            "leave --subtitles out."
        )

    def run(unison: Unison, options: Mapping[str, Any], show: Show) -> tuple[str, float]:
        sound = unison.generate(instruction, on_step=show, **vars(inputs), **options)
        _write(iter([sound]), output)
        if flags.subtitles is not None:
            said = () if events else (split_instruction(instruction)[1],)
            cues = [Cue(start=0.0, end=sound.seconds, text=text) for text in said]
            write_subtitles(flags.subtitles, events or cues)
        return task, sound.seconds

    return run


def _write(sounds: Iterator[Audio], output: Output) -> float:
    """Write sounds one after the other, and return their seconds."""
    from unison_audio.longform.sound_stream import write_sounds, write_stream

    seconds = 0.0

    def counted() -> Iterator[Audio]:
        nonlocal seconds
        for sound in sounds:
            seconds += sound.seconds
            yield sound

    if output.path == STDOUT:
        try:
            write_stream(counted(), sys.stdout.buffer, output.form)
        except BrokenPipeError:  # the reader has heard enough, which `main` knows how to end
            raise
        except OSError as error:
            # What is still buffered would fail again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise InputError(
                f"Standard output cannot be written ({os.strerror(error.errno or 0)}); "
                "give another place."
            ) from error
    else:
        write_sounds(output.path, counted(), output.form)
    return seconds


def read_text(path: Path) -> str:
    """Read a text, from standard input for `-`.

    Raises:
        InputError: It is missing, too long, no UTF-8, or holds nothing.
    """
    from unison_audio.longform.text_windows import MAX_CHARACTERS

    most = 4 * MAX_CHARACTERS  # bytes: UTF-8 takes up to four for one character
    name = "Standard input" if path == STDOUT else str(path)
    try:
        if path == STDOUT:
            data = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:  # one byte more tells that there is more
                data = file.read(most + 1)
    except OSError as error:
        raise InputError(
            f"{name} cannot be read ({os.strerror(error.errno or 0)}); check the path."
        ) from error
    if len(data) > most:
        raise InputError(
            f"{name} holds more than {most:,} bytes; at most {MAX_CHARACTERS:,} characters of text "
            "are taken at once."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text ({error.reason}); convert it.") from error
    if not text.strip():
        raise InputError(f"{name} is empty; give a text.")
    return text
