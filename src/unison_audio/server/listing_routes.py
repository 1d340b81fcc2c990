"""Routes that tell what can be asked for: tasks, domain, limits, one instruction, the queue."""

from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from unison_audio.checks import domain_message, outside_domain
from unison_audio.errors import InputError
from unison_audio.server.open_api import ERRORS
from unison_audio.server.openai_routes import State
from unison_audio.server.served_tasks import in_fields
from unison_audio.tasks.clauses import respell, with_tags
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import pool_of

router = APIRouter(tags=["listings"])


class CheckRequest(BaseModel):
    """`POST /v1/audio/check`."""

    instruction: str = Field(max_length=4096)
    task: str | None = Field(None, max_length=100)
    source: bool = False
    reference: bool = False


@router.get("/v1/audio/tasks", responses=ERRORS)
async def list_tasks(state: State) -> dict[str, Any]:
    """List the tasks with inputs and templates, and the variant with its domain and limits."""
    variant = state.variant
    tasks = [
        {
            "id": name,
            "object": "audio.task",
            "group": task.group,
            "needs": list(task.needs),
            "templates": [
                respell(template, variant.edit_tag_spelling)
                for template in pool_of(name, variant.wording)
            ],
        }
        for name, task in TASKS.items()
    ]
    domain = variant.domain
    return {
        "object": "list",
        "data": tasks,
        "variant": {
            "id": variant.name,
            "sample_rate": variant.sample_rate,
            "max_seconds": variant.max_seconds,
            "default_seconds": variant.default_seconds,
            "speech_seconds": variant.longest_speech,
        },
        "domain": domain
        and {
            "words": list(domain.words),
            "any_word": domain.spells,
            "sounds": list(domain.sounds),
            "max_words": domain.max_words,
            "letters_per_second": domain.letters_per_second,
        },
        "limits": {
            "input_characters": state.limits.max_input_characters,
            "output_seconds": state.limits.max_output_seconds,
            "upload_seconds": state.limits.max_upload_seconds,
            "voice_seconds": state.limits.max_voice_seconds,
            "body_megabytes": state.limits.max_body_mb,
        },
    }


@router.post("/v1/audio/check", responses=ERRORS)
async def check_instruction(body: CheckRequest, state: State) -> dict[str, Any]:
    """Tell what an instruction asks for, and what the variant does not know of it."""
    instruction = body.instruction
    try:
        reading = read_instruction(
            instruction,
            body.source,
            body.reference,
            body.task or None,
            labels=() if state.variant.domain is None else state.variant.domain.sounds,
        )
    except InputError as error:
        return {"object": "audio.check", "task": None, "error": in_fields(str(error))} | _nothing()
    if body.task:
        instruction = with_tags(instruction, reading.task)
    outside = outside_domain(state.variant, instruction)
    found = {
        "words": list(outside.words),
        "sounds": list(outside.sounds),
        "text_words": outside.text_words,
        "message": f"{domain_message(state.variant, outside)}." if outside else "",
        "notes": list(reading.notes),
    }
    return {"object": "audio.check", "task": reading.task, "error": None, **found}


@router.get("/v1/audio/queue", responses=ERRORS)
async def show_queue(state: State, request_id: str = Query("", max_length=64)) -> dict[str, Any]:
    """Tell how many requests run or wait, and how many sounds stand before those of one of them.

    `ahead` is 0 once it runs, and null where no such request is known. `step` and `steps` count
    those of the batch that runs for it, and are null while none does.
    """
    scheduler = state.desk.scheduler
    active, queued, ahead = scheduler.standing(request_id)
    step, steps = scheduler.steps(request_id) or (None, None)
    return {
        "object": "audio.queue",
        "ready": scheduler.ready,
        "active_requests": active,
        "max_requests": state.limits.max_requests,
        "queued_sounds": queued,
        "ahead": ahead,
        "step": step,
        "steps": steps,
    }


def _nothing() -> dict[str, Any]:
    return {"words": [], "sounds": [], "text_words": 0, "message": "", "notes": []}
