"""Routes of recorded consents, which OpenAI's clients upload before a voice."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import BaseModel, Field

from unison_audio.server.api_errors import ApiError
from unison_audio.server.open_api import ERRORS
from unison_audio.server.openai_routes import State
from unison_audio.server.recording_store import StoredConsent
from unison_audio.server.server_state import ServerState
from unison_audio.server.voice_routes import require_name

router = APIRouter(tags=["voices"])

PATH = "/v1/audio/voice_consents"


class ConsentUpdate(BaseModel):
    """`POST /v1/audio/voice_consents/{id}`."""

    name: str = Field(max_length=200)


@router.post(PATH, responses=ERRORS)
async def create_consent(
    state: State,
    recording: Annotated[UploadFile, File(description="The speaker says the consent")],
    name: str = Form(max_length=200),
    language: str = Form(min_length=2, max_length=40, pattern=r"^[A-Za-z0-9-]+$"),
) -> dict[str, Any]:
    """Store a recorded consent."""
    name = require_name(name)
    data = await recording.read(state.limits.max_voice_bytes + 1)
    return _official(await state.in_thread(lambda: _store(state, data, name, language)))


@router.get(PATH, responses=ERRORS)
async def list_consents(
    state: State,
    after: Annotated[str, Query(max_length=100)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List the consents, oldest first."""
    found = await state.in_thread(state.consents.all)
    ids = [one.id for one in found]
    first = ids.index(after) + 1 if after in ids else 0
    page = [_official(one) for one in found[first : first + limit]]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(found) > first + limit,
    }


@router.get(PATH + "/{consent_id}", responses=ERRORS)
async def retrieve_consent(consent_id: str, state: State) -> dict[str, Any]:
    """Describe one consent."""
    found = await state.in_thread(lambda: state.consents.find(consent_id))
    return _official(_require(found, consent_id))


@router.post(PATH + "/{consent_id}", responses=ERRORS)
async def update_consent(consent_id: str, body: ConsentUpdate, state: State) -> dict[str, Any]:
    """Give a consent another name."""
    name = require_name(body.name)
    found = await state.in_thread(
        lambda: state.consents.update(consent_id, lambda one: replace(one, name=name))
    )
    return _official(_require(found, consent_id))


@router.delete(PATH + "/{consent_id}", responses=ERRORS)
async def delete_consent(consent_id: str, state: State) -> dict[str, Any]:
    """Delete one consent; voices made with it stay."""
    found = await state.in_thread(lambda: state.consents.delete(consent_id))
    return {
        "id": _require(found, consent_id).id,
        "deleted": True,
        "object": "audio.voice_consent",
    }


def _store(state: ServerState, data: bytes, name: str, language: str) -> StoredConsent:
    waveform, rate = state.read_reference(data, "recording")
    return state.consents.add(waveform, rate, name=name, language=language)


def _official(consent: StoredConsent) -> dict[str, Any]:
    """OpenAI's description of a consent."""
    return {
        "object": "audio.voice_consent",
        "id": consent.id,
        "name": consent.name,
        "language": consent.language,
        "created_at": consent.created_at,
    }


def _require(found: StoredConsent | None, name: str) -> StoredConsent:
    if found is None:
        raise ApiError(404, f"There is no stored consent {name!r:.120}.", param="consent_id")
    return found
