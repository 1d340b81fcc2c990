"""The route of edits: a recording of any length and an instruction, or named regions of it."""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile

from unison_audio.errors import InputError
from unison_audio.provenance.origin import Origin
from unison_audio.server.answers import Parts
from unison_audio.server.api_errors import ApiError
from unison_audio.server.open_api import ERRORS, SOUND
from unison_audio.server.openai_routes import State, require_model
from unison_audio.server.output_encoding import SPEECH_FORMATS, as_file, speech_format
from unison_audio.server.remote_model import RemoteModel
from unison_audio.server.request_models import SAMPLING_FIELDS, read_sampling
from unison_audio.server.served_tasks import served_task
from unison_audio.server.speech_plans import require_text
from unison_audio.server.uploads import kept_upload, open_upload
from unison_audio.server.warning_header import unknown_fields
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.times import Region, parse_region

router = APIRouter(tags=["edits"])

_KNOWN = (
    "audio",
    "instruction",
    "model",
    "task",
    "regions",
    "extract",
    "seed",
    "response_format",
    "sample_rate",
    "bit_rate",
    "loudness",
)

MAX_REGIONS = 100


@router.post("/v1/audio/edits", responses=SOUND | ERRORS, response_class=Response)
async def edit_audio(
    request: Request,
    state: State,
    audio: Annotated[
        UploadFile, File(description="The recording: wav, flac, mp3, ogg, opus, aac, m4a or webm")
    ],
    instruction: str = Form(max_length=4096),
    model: str = Form("", max_length=200),
    response_format: str = Form("wav", max_length=20),
) -> Response:
    """Edit a recording; what no region covers stays as it is, sample by sample.

    Further fields of the form: `task`, `regions` (`3.2-7.5`, several with commas, or a JSON list of
    pairs), `extract`, `seed`, `sample_rate`, `bit_rate`, `loudness`, and the options of sampling.
    """
    if model:
        require_model(model, state)
    require_text(instruction, state.limits.max_input_characters, "instruction")
    form = {name: value for name, value in (await request.form()).items() if name != "audio"}
    fields = {name: str(value).strip() for name, value in form.items() if str(value).strip()}
    if response_format not in SPEECH_FORMATS:
        raise ApiError(
            400,
            f"response_format is {response_format!r:.40}; use one of {', '.join(SPEECH_FORMATS)}.",
            param="response_format",
        )
    regions = read_regions(fields.get("regions", ""))
    seed = _number(fields, "seed", 0)
    extract = _switch(fields, "extract")
    task = fields.get("task")
    name = served_task(instruction, True, False, task, "instruction")
    output = speech_format(
        response_format,
        _number(fields, "sample_rate", 0) or None,
        _number(fields, "bit_rate", 0) or None,
        _real(fields, "loudness"),
    )
    if output.format == "pcm" and "sample_rate" not in fields:
        raise ApiError(
            400,
            "An edited recording keeps its sample rate and channels, which pcm cannot say; "
            "name a sample_rate, or use wav.",
            param="response_format",
        )
    params = read_sampling(state.sampling, _sampling_fields(fields))
    notes = unknown_fields(n for n in fields if n not in (*_KNOWN, *SAMPLING_FIELDS))

    def produce(remote: RemoteModel) -> Parts:
        from unison_audio.audio_writer import SampleLayout
        from unison_audio.longform.regions import edit_blocks, plan_edit

        with ExitStack() as stack:
            path = stack.enter_context(kept_upload(audio.file))
            recording = open_upload(path, "audio", state.limits, state.limits.max_upload_seconds)
            if recording.channels > 2 and output.format not in ("wav", "flac"):
                raise InputError(
                    f"audio has {recording.channels} channels, which {output.format} cannot hold "
                    "here; use wav or flac."
                )
            edit = plan_edit(
                state.variant, instruction, recording, regions, seed, extract=extract, task=task
            )
            layout = SampleLayout(
                sample_rate=recording.sample_rate,
                channels=recording.channels,
                coding=recording.coding,
                frames=recording.frames,
                origin=Origin(task=name, variant=state.variant.name, edited=True),
            )
            remote.ticket.audio_seconds = recording.seconds
            yield from as_file(
                edit_blocks(remote, edit, sampling=params), layout, output, remote.ticket
            )

    headers = {"X-Unison-Task": TASKS[name].name}
    return await state.desk.answer(
        request, produce, output.info.media_type, notes=notes, headers=headers
    )


def read_regions(text: str) -> list[Region] | None:
    """Regions as a form names them.

    Args:
        text: `3.2-7.5, 9-10`, or `[[3.2, 7.5], [9, 10]]`; empty for the whole recording.

    Raises:
        ApiError: It is neither.
        InputError: A time is not understood.
    """
    if not text:
        return None
    if not text.startswith("["):
        found = [parse_region(part) for part in re.split(r"[,;\n]", text) if part.strip()]
    else:
        try:
            found = [(float(start), float(stop)) for start, stop in json.loads(text)]
        except (ValueError, TypeError, RecursionError) as error:
            raise ApiError(
                400, "regions is no list of pairs; write [[3.2, 7.5]] or 3.2-7.5.", param="regions"
            ) from error
    if not 0 < len(found) <= MAX_REGIONS:
        raise ApiError(
            400, f"regions names {len(found)} regions; give 1 to {MAX_REGIONS}.", param="regions"
        )
    return found


def _number(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise ApiError(400, f"{name} is {text!r:.40}; give a whole number from 0 on.", param=name)
    return int(text)


def _real(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ApiError(400, f"{name} is {text!r:.40}; give a number.", param=name) from error


def _switch(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise ApiError(400, f"{name} is {text!r:.40}; give true or false.", param=name)
    return text in ("true", "1")


def _sampling_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Options of sampling out of a form, whose values are texts: as JSON would give them."""
    found: dict[str, Any] = {}
    for name in SAMPLING_FIELDS:
        if name in fields:
            try:
                found[name] = json.loads(fields[name])
            except (ValueError, RecursionError):
                found[name] = fields[name]
    return found
