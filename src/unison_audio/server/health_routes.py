"""Routes for those who run the server: alive, ready, figures."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from unison_audio.server.api_errors import ApiError
from unison_audio.server.open_api import ERRORS
from unison_audio.server.openai_routes import State

router = APIRouter(tags=["operations"])


@router.get("/health", response_class=PlainTextResponse)
async def health() -> str:
    """Whether the server answers at all: the text OK, which clients compare."""
    return "OK"


@router.get("/readyz", response_class=PlainTextResponse, responses=ERRORS)
async def ready(state: State) -> str:
    """Whether a model is loaded."""
    scheduler = state.desk.scheduler
    if not scheduler.ready:
        reason = scheduler.failure or "The model is being loaded."
        raise ApiError(503, reason, code="not_ready", retry_after=2)
    return "ready"


@router.get("/metrics", response_class=Response, responses=ERRORS)
async def metrics(state: State) -> Response:
    """Figures for Prometheus."""
    return Response(state.desk.telemetry.render(), media_type=CONTENT_TYPE_LATEST)
