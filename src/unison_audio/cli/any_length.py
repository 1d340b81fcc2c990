"""Plans what `generate`, a job or a tool asks for: one call of the model, or any length.

A plan is made without torch, so that bad input is refused before the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.checks import FileInputs, check_files, clean_request
from unison_audio.cli.options import LengthFlags
from unison_audio.cli.streams import STDOUT, read_text, write_out
from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat, needs_av, require_av
from unison_audio.provenance.marks import check_marks
from unison_audio.sampling_params import SamplingParams, cleans_text

if TYPE_CHECKING:
    from unison_audio.longform.long_speech import SpokenWindow
    from unison_audio.pipeline import Unison
    from unison_audio.variants import Variant

Show = Callable[[int, int], None]
"""Called with the steps or windows done, and with those in all."""


@dataclass(frozen=True, kw_only=True)
class SoundRequest:
    """What a user asks for, wherever it comes from."""

    instruction: str
    """With the tags of the task table."""
    output: Path
    """The file to write, or `STDOUT`."""
    form: OutputFormat = field(default_factory=OutputFormat)
    """Its format and options."""
    inputs: FileInputs = field(default_factory=FileInputs)
    """The other inputs."""
    length: LengthFlags = field(default_factory=LengthFlags)
    """Regions, long texts, subtitles."""
    sampling: SamplingParams | None = None
    """Sampling options."""


@dataclass(frozen=True, kw_only=True)
class MadeSound:
    """What was written."""

    task: str
    """The task's name."""
    seconds: float
    """Seconds of sound."""


@dataclass(frozen=True, kw_only=True)
class SoundPlan:
    """A request that was checked as far as possible without decoding its recordings."""

    run: Callable[[Unison, Show], MadeSound]
    """Makes the sound and writes it."""
    windows: bool = True
    """Whether the model may be called several times; False for a request that fits one window."""


def plan_sound(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """Check a request and find out how it is made.

    Args:
        variant: The variant that will run it.
        asked: The request.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    clean = cleans_text(variant, asked.sampling)
    if clean:
        instruction, inputs = clean_request(asked.instruction, asked.inputs)
        asked = replace(asked, instruction=instruction, inputs=inputs)
    asked = replace(asked, form=_checked_form(asked))
    inputs, flags, source = asked.inputs, asked.length, asked.inputs.source
    if flags.fills:
        return _plan_filling(variant, asked)
    if flags.region or flags.extract or _is_long_recording(variant, source):
        return _plan_edit(variant, asked)
    from unison_audio.longform.text_windows import is_long
    from unison_audio.tasks.clauses import with_tags

    cloned = inputs.reference is not None
    speaks = inputs.task in (None, "tts", "zero_shot_tts")
    tagged = asked
    if inputs.task is not None and speaks:
        tagged = replace(asked, instruction=with_tags(asked.instruction, inputs.task))
    if flags.text_file is not None or (
        source is None
        and speaks
        and is_long(variant, tagged.instruction, inputs.duration, cloned, inputs.task)
    ):
        return _plan_speech(variant, tagged, clean)
    if source is None and not cloned and inputs.task in (None, "timed"):
        timeline = asked
        if inputs.task is not None:
            timeline = replace(asked, instruction=with_tags(asked.instruction, inputs.task))
        if _is_long_timeline(variant, timeline):
            return _plan_timeline(variant, timeline)
    if asked.output == STDOUT or flags.subtitles is not None:
        return _plan_stream(variant, tagged)
    return _plan_call(variant, asked)


def _checked_form(asked: SoundRequest) -> OutputFormat:
    """The output's format and options, once the flags are checked."""
    form, flags, streamed = asked.form, asked.length, asked.output == STDOUT
    if flags.raw:
        if not streamed:
            raise InputError("--raw is for standard output; write -o - with it, or leave it out.")
        if form.format not in (None, "pcm"):
            raise InputError(f"--raw writes pcm and --format says {form.format}; leave one out.")
        form = replace(form, format="pcm")
    if flags.region and flags.text_file is not None:
        raise InputError("--region is for edits and --text-file for speech; leave one out.")
    if flags.subtitles is not None:
        from unison_audio.longform.subtitles import check_subtitles

        check_subtitles(flags.subtitles)
    form = form.of_stream() if streamed else form.of_file(asked.output)
    check_marks(form, streamed=streamed)
    _require_loudness(form)
    if needs_av(form, streamed):
        require_av(f"The format {form.format}")
    return form


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


def _is_long_timeline(variant: Variant, asked: SoundRequest) -> bool:
    from unison_audio.longform.subtitles import event_cues

    try:
        cues = event_cues(asked.instruction)
    except InputError:
        if asked.inputs.task is None:
            raise
        return False  # free wording: the language model may follow what no pattern does
    return any(cue.end > variant.max_seconds for cue in cues)


def _check_recording(asked: SoundRequest, refused: Mapping[str, Any], why: str) -> Path:
    """The recording of an edit whose result takes its form, which some flags contradict."""
    for name, given in refused.items():
        if given is not None and given != [] and given is not False:
            raise InputError(f"{name} does not go with {why}")
    if asked.output == STDOUT:
        raise InputError("An edited recording keeps its own format; give a file, not -o -.")
    assert asked.inputs.source is not None
    return asked.inputs.source


def _plan_edit(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """An edit in regions or of a long recording."""
    from unison_audio.tasks.times import parse_region

    inputs, flags = asked.inputs, asked.length
    if inputs.source is None:
        raise InputError("--region and --extract are for a recording; give it with --source.")
    regions = [parse_region(text) for text in flags.region] if flags.region else None
    refused = {
        "--reference": inputs.reference,
        "--duration": inputs.duration,
        "--subtitles": flags.subtitles,
    }
    source = _check_recording(
        asked,
        refused,
        f"a region, --extract or a recording longer than {variant.max_seconds} s: the result is as "
        "long as the source; leave it out.",
    )
    from unison_audio.longform.regions import check_output, edit_file, plan_edit

    edit = plan_edit(
        variant,
        asked.instruction,
        source,
        regions,
        inputs.seed,
        extract=flags.extract,
        task=inputs.task,
    )
    check_output(edit, asked.output, regions is not None, asked.form)
    _require_loudness(asked.form, edit.recording.channels)

    def run(unison: Unison, show: Show) -> MadeSound:
        edit_file(unison, edit, asked.output, show, asked.form, sampling=asked.sampling)
        return MadeSound(task=edit.task.name, seconds=edit.recording.seconds)

    return SoundPlan(run=run)


def _plan_filling(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """Gaps of a recording: inside it, after it, or before it."""
    from unison_audio.longform.gap_fill import fill_file
    from unison_audio.longform.gap_plan import Extension, plan_extension, plan_inpainting
    from unison_audio.longform.native_audio import check_exact
    from unison_audio.tasks.times import parse_length, parse_region

    inputs, flags = asked.inputs, asked.length
    named = " and ".join(flags.fills)
    if inputs.source is None:
        raise InputError(f"{named} needs a recording; give it with --source.")
    if len(flags.fills) > 1 and flags.inpaint:
        raise InputError(f"{named} do not go together; make two calls of them.")
    refused = {
        "--region": flags.region,
        "--extract": flags.extract,
        "--reference": inputs.reference,
        "--duration": inputs.duration,
        "--text-file": flags.text_file,
        "--subtitles": flags.subtitles,
    }
    source = _check_recording(asked, refused, f"{named}; leave one out.")
    if flags.inpaint:
        regions = [parse_region(text) for text in flags.inpaint]
        filling = plan_inpainting(
            variant, asked.instruction, source, regions, inputs.seed, task=inputs.task
        )
    else:
        extension = Extension(
            before=parse_length(flags.extend_before or "0"),
            after=parse_length(flags.extend_after or "0"),
        )
        filling = plan_extension(
            variant, asked.instruction, source, extension, inputs.seed, task=inputs.task
        )
    check_exact(asked.output, filling.result.coding, asked.form)
    _require_loudness(asked.form, filling.result.channels)

    def run(unison: Unison, show: Show) -> MadeSound:
        fill_file(unison, filling, asked.output, show, asked.form, sampling=asked.sampling)
        return MadeSound(task=filling.task.name, seconds=filling.result.seconds)

    return SoundPlan(run=run)


def _plan_speech(variant: Variant, asked: SoundRequest, clean: bool) -> SoundPlan:
    """A text of any length; `clean` writes numbers and abbreviations in it as words."""
    from unison_audio.longform.long_speech import (
        pieces,
        plan_speech,
        require_known_words,
        speak,
        warn_of_unknown_words,
    )
    from unison_audio.longform.subtitles import sentence_cues, write_subtitles
    from unison_audio.longform.text_windows import LENGTH_MARGIN, estimate_seconds

    inputs, flags = asked.inputs, asked.length
    if inputs.source is not None:
        raise InputError("--text-file is for speech, which takes no source; leave one out.")
    if inputs.duration is not None:
        raise InputError("The length of a long text follows from its words; leave --duration out.")
    speech = plan_speech(
        variant,
        asked.instruction,
        text=None if flags.text_file is None else read_text(flags.text_file),
        reference=inputs.reference,
        reference_text=inputs.reference_text,
        seed=inputs.seed,
        asr=inputs.asr,
        clean=clean,
    )
    if asked.sampling is not None and asked.sampling.strict:
        require_known_words(speech)

    def run(unison: Unison, show: Show) -> MadeSound:
        warn_of_unknown_words(speech)
        timed: list[Any] = []

        def noted(parts: Iterator[SpokenWindow]) -> Iterator[SpokenWindow]:
            for part in parts:
                if flags.subtitles is not None:
                    timed.append(part.times)
                yield part

        # Estimated, since counting the windows of a whole book would delay the first one.
        total = round(estimate_seconds(speech.text, speech.pace) / speech.longest * LENGTH_MARGIN)
        spoken = speak(
            unison, speech, lambda done: show(done, max(done, total)), sampling=asked.sampling
        )
        seconds = write_out(pieces(noted(spoken), speech), asked.output, asked.form)
        if flags.subtitles is not None:
            write_subtitles(flags.subtitles, sentence_cues(timed))
        task = "tts" if speech.reference is None else "zero_shot_tts"
        return MadeSound(task=task, seconds=seconds)

    return SoundPlan(run=run)


def _plan_timeline(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """A timeline that is longer than a window."""
    from unison_audio.longform.subtitles import event_cues, write_subtitles
    from unison_audio.longform.timeline import compose, plan_timeline

    seed, subtitles = asked.inputs.seed, asked.length.subtitles
    windows = plan_timeline(variant, asked.instruction, asked.inputs.duration, seed)

    def run(unison: Unison, show: Show) -> MadeSound:
        sounds = compose(unison, windows, seed, show, sampling=asked.sampling)
        seconds = write_out(sounds, asked.output, asked.form)
        if subtitles is not None:
            write_subtitles(subtitles, event_cues(asked.instruction))
        return MadeSound(task="timed", seconds=seconds)

    return SoundPlan(run=run)


def _plan_stream(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """One call of the model, to a pipe or with subtitles."""
    from unison_audio.longform.subtitles import Cue, event_cues, write_subtitles
    from unison_audio.longform.text_windows import split_instruction
    from unison_audio.tasks.instructions import parse_instruction

    instruction, inputs, subtitles = asked.instruction, asked.inputs, asked.length.subtitles
    check_files(variant, instruction, inputs)
    task = parse_instruction(
        instruction, inputs.source is not None, inputs.reference is not None, inputs.task
    )
    events = event_cues(instruction) if task == "timed" else []
    if subtitles is not None and not events and task not in ("tts", "zero_shot_tts"):
        raise InputError(
            f"The instruction {instruction!r} ({task}) has no sentences or events with times; "
            "leave --subtitles out."
        )

    def run(unison: Unison, show: Show) -> MadeSound:
        sound = unison.generate(instruction, on_step=show, **vars(inputs), sampling=asked.sampling)
        write_out(iter([sound]), asked.output, asked.form)
        if subtitles is not None:
            said = () if events else (split_instruction(instruction)[1],)
            cues = [Cue(start=0.0, end=sound.seconds, text=text) for text in said]
            write_subtitles(subtitles, events or cues)
        return MadeSound(task=task, seconds=sound.seconds)

    return SoundPlan(run=run)


def _plan_call(variant: Variant, asked: SoundRequest) -> SoundPlan:
    """One call of the model, to a file."""
    strict = asked.sampling is not None and bool(asked.sampling.strict)
    check_files(variant, asked.instruction, asked.inputs, strict=strict)

    def run(unison: Unison, show: Show) -> MadeSound:
        sound = unison.generate(
            asked.instruction, on_step=show, **vars(asked.inputs), sampling=asked.sampling
        )
        sound.save(asked.output, asked.form)
        return MadeSound(task=sound.task, seconds=sound.seconds)

    return SoundPlan(run=run, windows=False)
