"""Finds the task of a request's instruction; what is refused is said in the routes' own fields."""

import re

from unison_audio.errors import InputError
from unison_audio.server.api_errors import ApiError
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS

_WAYS = (
    ("give it with --source FILE", "send it with the recording to /v1/audio/edits"),
    ("leave --source out", "send it to /v1/audio/generate"),
    ("with --source the forms", "with a recording the forms"),
    ("give it with --reference FILE", "name a stored voice in the field voice"),
    ("leave --reference out", "leave the field voice out"),
    ("with --reference the forms", "with a stored voice the forms"),
    (", or give a long text with --text-file", ""),
    ("such as --region ", "such as regions="),
    ("--region", "the field regions"),
    ("--duration", "the field audio_length"),
)
"""What the command line says -> what a client of the server can do."""


def in_fields(message: str) -> str:
    """A refusal of an instruction without flags of the command line."""
    for flag, field in _WAYS:
        message = message.replace(flag, field)
    return re.sub(r"--([a-z]+)", r"the field \1", message)


def require_task(task: str) -> None:
    """Refuse a task that is not in the task table."""
    if task not in TASKS:
        raise ApiError(
            400, f"There is no task {task!r}; use one of {', '.join(TASKS)}.", param="task"
        )


def served_task(
    instruction: str, has_source: bool, has_reference: bool, task: str | None, field: str
) -> str:
    """Find the task of a request's instruction.

    Args:
        instruction: The instruction.
        has_source: Whether the route takes a recording.
        has_reference: Whether the request names a stored voice.
        task: The task, where the client names it.
        field: The field that holds the instruction.

    Raises:
        ApiError: It fits no task.
    """
    if task is not None:
        require_task(task)
    try:
        return parse_instruction(instruction, has_source, has_reference, task)
    except InputError as error:
        message = in_fields(" ".join(str(error).split()))
        if field == "text":  # the route of ElevenLabs has no field for the task
            message = re.sub("; or name its task with .*", ".", message)
            message = message.replace("name its task with the field task, or ", "")
        raise ApiError(400, message, param=field) from error
