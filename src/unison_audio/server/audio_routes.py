"""Routes of sounds, scenes and timelines: our own, vLLM-Omni's and ElevenLabs'."""

import re
from typing import Any

from fastapi import APIRouter, Query, Request, Response

from unison_audio.errors import InputError
from unison_audio.longform.subtitles import event_cues
from unison_audio.output_format import OutputFormat
from unison_audio.sampling_params import SamplingParams, merge_options, resolve_sampling
from unison_audio.server.answers import Parts
from unison_audio.server.api_errors import ApiError
from unison_audio.server.open_api import ERRORS, SOUND
from unison_audio.server.openai_routes import State, require_model
from unison_audio.server.output_encoding import speech_format, streamed, whole
from unison_audio.server.remote_model import RemoteModel
from unison_audio.server.request_models import (
    GenerateRequest,
    SoundGenerationRequest,
    TimelineRequest,
)
from unison_audio.server.served_tasks import require_task, served_task
from unison_audio.server.server_state import ServerState
from unison_audio.server.speech_plans import choose_voice, require_text
from unison_audio.server.warning_header import unknown_fields
from unison_audio.tasks.clauses import with_tags
from unison_audio.tasks.table import TASKS

router = APIRouter(tags=["sound"])

DEFAULT_INFLUENCE = 0.3
"""ElevenLabs' default of `prompt_influence`, which means the variant's own guidance."""

_OUTPUT = re.compile(r"(mp3|pcm|opus)_(\d{4,6})(?:_(\d{1,4}))?")


@router.post("/v1/audio/generate", responses=SOUND | ERRORS, response_class=Response)
async def generate_audio(request: Request, body: GenerateRequest, state: State) -> Response:
    """Make a sound, a scene, speech or a timeline from an instruction or a description."""
    if body.model:
        require_model(body.model, state)
    require_text(body.input, state.limits.max_input_characters, "input")
    if body.stream_format == "sse":
        raise ApiError(
            400, "This route sends no events; leave stream_format out.", param="stream_format"
        )
    params = body.sampling(state.sampling)
    if body.num_inference_steps is not None:
        params = merge_options(params, {"steps": body.num_inference_steps})
    notes = unknown_fields(body.unknown)
    if body.negative_prompt.strip():
        notes.append("negative_prompt is ignored: the model takes none.")
    if body.audio_start:
        notes.append("audio_start is ignored: a sound begins at 0.")
    instruction, task = _instruction(body.input, body.task)
    inputs: dict[str, Any] = {"seed": body.seed}
    if body.voice:
        voice = await state.in_thread(
            lambda: choose_voice(body.voice, state.voices, body.seed, state.variant)
        )
        if voice.reference is None:
            notes.append("voice is ignored: the instruction names the speaker.")
        else:
            inputs |= {"reference": voice.reference, "reference_text": voice.reference_text}
    name = served_task(instruction, False, "reference" in inputs, task, "input")
    if TASKS[name].needs == ("source",):
        raise InputError(f"The task {name} edits a recording; send it to /v1/audio/edits.")
    length = body.audio_length
    if length is not None:
        _require_length(length, state)
    output = body.output(body.response_format)
    if name == "timed" and (length or 0.0) > state.variant.max_seconds:
        return await _timeline(
            request, state, instruction, length, (output, params, body.seed, notes)
        )
    if name in ("t2a", "t2a_mix") and (length or 0.0) > state.variant.max_seconds:
        return await _long_sound(
            request, state, instruction, length, (output, params, body.seed, notes)
        )
    if task is not None:
        inputs["task"] = task
    if length is not None:
        inputs["duration"] = length
    return await _one_sound(request, state, instruction, inputs, (output, params, notes))


@router.post("/v1/sound-generation", responses=SOUND | ERRORS, response_class=Response)
async def sound_generation(
    request: Request,
    body: SoundGenerationRequest,
    state: State,
    output_format: str = Query("mp3_44100_128", max_length=40),
) -> Response:
    """Make a sound from a description, as ElevenLabs' route does."""
    require_text(body.text, state.limits.max_input_characters, "text")
    output = _eleven_format(output_format)
    params = body.sampling(state.sampling)
    if "prompt_influence" in body.model_fields_set and params.guidance_scale is None:
        scale = resolve_sampling(state.variant, params).by_group["sound"].guidance.scale
        params = merge_options(
            params, {"guidance_scale": guidance_scale(body.prompt_influence, scale)}
        )
    notes = unknown_fields(body.unknown)
    if body.loop:
        notes.append("loop is ignored: the sound does not repeat without a seam.")
    instruction, _ = _instruction(body.text, "t2a")
    if TASKS[served_task(instruction, False, False, None, "text")].group != "sound":
        raise ApiError(
            400, "This route makes sounds; for speech use /v1/audio/speech.", param="text"
        )
    seconds = body.duration_seconds
    if seconds is not None and seconds > state.variant.max_seconds:
        return await _long_sound(
            request, state, instruction, seconds, (output, params, body.seed, notes)
        )
    inputs = {"seed": body.seed} if seconds is None else {"seed": body.seed, "duration": seconds}
    return await _one_sound(request, state, instruction, inputs, (output, params, notes))


@router.post("/v1/audio/timeline", responses=SOUND | ERRORS, response_class=Response)
async def make_timeline(request: Request, body: TimelineRequest, state: State) -> Response:
    """Make a timeline: events with the seconds when they begin and end."""
    if body.model:
        require_model(body.model, state)
    sentences = []
    for number, event in enumerate(body.events):
        text = event.text.strip().rstrip(".")
        if event.end <= event.start:
            raise ApiError(400, f"Event {number} ends before it begins.", param="events")
        if event_cues(text):
            raise ApiError(
                400,
                f"The text of event {number} holds times; give them as start and end.",
                param="events",
            )
        if not re.search(r"\w", text) or re.search(r'[\[\]"“”「」]|[.;]\s', text):
            raise ApiError(
                400,
                f"The text of event {number} must be one description without quotes, brackets and "
                "full stops.",
                param="events",
            )
        sentences.append(f"From {_time(event.start)}s to {_time(event.end)}s, {text}.")
    instruction = f"[Audio] {' '.join(sentences)}"
    output = body.output(body.response_format)
    notes = unknown_fields(body.unknown)
    params = body.sampling(state.sampling)
    length = body.duration or max(event.end for event in body.events)
    _require_length(length, state)
    return await _timeline(request, state, instruction, length, (output, params, body.seed, notes))


def guidance_scale(influence: float, default: float) -> float:
    """ElevenLabs' `prompt_influence` as a guidance scale.

    Args:
        influence: 0 to 1; 0 turns guidance off, 0.3 is the variant's own, 1 doubles it.
        default: The variant's own scale.
    """
    if influence <= DEFAULT_INFLUENCE:
        return 1.0 + (default - 1.0) * influence / DEFAULT_INFLUENCE
    return default * (1.0 + (influence - DEFAULT_INFLUENCE) / (1.0 - DEFAULT_INFLUENCE))


def _instruction(text: str, task: str) -> tuple[str, str | None]:
    """An instruction with its tags, and the task where it is named.

    A text without a tag is the description of a sound.
    """
    text = text.strip()
    if task:
        require_task(task)
    if task == "t2a" or (not task and not text.startswith("[")):
        return (text if text.startswith("[") else f"[Audio] {text}"), None
    return (with_tags(text, task), task) if task else (text, None)


def _require_length(seconds: float, state: ServerState) -> None:
    if seconds > state.limits.max_output_seconds:
        raise ApiError(
            400,
            f"{seconds:g} s are asked for; this server makes at most "
            f"{state.limits.max_output_seconds:g} s at once.",
        )


def _time(seconds: float) -> str:
    """Seconds as an instruction names them."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _eleven_format(name: str) -> OutputFormat:
    """ElevenLabs' name of a format, such as mp3_44100_128."""
    match = _OUTPUT.fullmatch(name)
    if match is None:
        raise ApiError(
            400,
            f"There is no output format {name!r:.60}; write mp3_44100_128, opus_48000_64, "
            "pcm_24000 or the like.",
            param="output_format",
        )
    bit_rate = None if match[3] is None else int(match[3])
    return speech_format(match[1], int(match[2]), bit_rate)


async def _one_sound(
    request: Request,
    state: ServerState,
    instruction: str,
    inputs: dict[str, Any],
    how: tuple[OutputFormat, SamplingParams, list[str]],
) -> Response:
    """Answer with one call of the model."""
    output, params, notes = how

    def produce(model: RemoteModel) -> Parts:
        sounds = model.generate([instruction], sampling=params, **inputs)
        yield from whole(sounds, output, model.ticket, state.variant.sample_rate)

    return await state.desk.answer(request, produce, output.info.media_type, notes=notes)


async def _timeline(
    request: Request,
    state: ServerState,
    instruction: str,
    length: float | None,
    how: tuple[OutputFormat, SamplingParams, int, list[str]],
) -> Response:
    """Answer with windows of a timeline, each as soon as it is done."""
    output, params, seed, notes = how

    def produce(model: RemoteModel) -> Parts:
        from unison_audio.longform.timeline import compose, plan_timeline

        windows = plan_timeline(state.variant, instruction, length, seed)
        sounds = compose(model, windows, seed, sampling=params)
        coder = whole if len(windows) == 1 else streamed
        yield from coder(sounds, output, model.ticket, state.variant.sample_rate)

    return await state.desk.answer(request, produce, output.info.media_type, notes=notes)


async def _long_sound(
    request: Request,
    state: ServerState,
    instruction: str,
    length: float | None,
    how: tuple[OutputFormat, SamplingParams, int, list[str]],
) -> Response:
    """A sound that is longer than the variant makes at once: a timeline with one event."""
    caption = re.sub(r"^\s*\[[^\]]*\]\s*", "", instruction).strip().rstrip(".")
    if re.search(r"[.;]\s", caption):
        raise InputError(
            f"A sound of {length:g} s is made of several windows, which takes one sentence as its "
            "description; leave out full stops and semicolons."
        )
    timeline = f"[Audio] From 0s to {_time(length or 0.0)}s, {caption}."
    return await _timeline(request, state, timeline, length, how)
