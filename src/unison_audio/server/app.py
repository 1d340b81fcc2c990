"""The application: routes, errors, the gate in front, and the scheduler behind."""

from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from unison_audio.sampling_params import SamplingParams
from unison_audio.server import (
    api_errors,
    audio_routes,
    consent_routes,
    edit_routes,
    health_routes,
    listing_routes,
    openai_routes,
    studio_routes,
    voice_routes,
)
from unison_audio.server.answers import Desk
from unison_audio.server.api_keys import ApiKeys
from unison_audio.server.builtin_voices import MODEL_ALIASES
from unison_audio.server.gate import Gate
from unison_audio.server.limits import Limits
from unison_audio.server.model_worker import WorkerConfig
from unison_audio.server.recording_store import RecordingStore, StoredConsent, StoredVoice
from unison_audio.server.reference_hosts import ReferenceHosts
from unison_audio.server.scheduler import Scheduler
from unison_audio.server.server_state import ServerState
from unison_audio.server.telemetry import Telemetry
from unison_audio.server.warning_header import WARNINGS
from unison_audio.variants import Variant

_SPARE_THREADS = 8
"""Threads besides one for each request, for voices and for ending requests."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What one server is made of."""

    variant: Variant
    """What the workers run."""
    workers: Sequence[WorkerConfig]
    """What each worker loads, one a device."""
    voices: Path
    """Folder of stored voices."""
    limits: Limits = field(default_factory=Limits)
    """What a client may ask."""
    keys: ApiKeys = field(default_factory=lambda: ApiKeys(()))
    """Keys that open the server."""
    cors_origins: tuple[str, ...] = ()
    """Web pages whose scripts may call the server."""
    reference_hosts: tuple[str, ...] = ()
    """Hosts that recordings of voices may be fetched from."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    """Options of sampling where a request has none."""
    on_unusable: Callable[[str], None] = lambda reason: None
    """Called when a model cannot be loaded at the first start."""
    wyoming: socket | None = None
    """An open port for Wyoming, beside HTTP."""
    drain_seconds: float = 30.0
    """Seconds that speech over Wyoming gets at the end."""


def create_app(config: ServerConfig) -> ASGIApp:
    """Build the application.

    Args:
        config: Its parts.

    Returns:
        An ASGI application; its scheduler starts and stops with its lifespan.
    """
    from unison_audio import __version__

    telemetry = Telemetry()
    scheduler = Scheduler(config.workers, config.limits, telemetry, config.on_unusable)
    pool = ThreadPoolExecutor(config.limits.max_requests + _SPARE_THREADS, "unison-request")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        # The first request would otherwise wait for torch's import.
        pool.submit(_import_models)
        async with _beside(app.state.server, config):
            yield
        scheduler.stop()
        pool.shutdown(wait=False, cancel_futures=True)

    app = _Application(
        title="unison-audio",
        version=__version__,
        description="Speech, sounds, scenes, timelines and edits from plain instructions.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.server = ServerState(
        variant=config.variant,
        model_names=tuple(dict.fromkeys((config.variant.name, *MODEL_ALIASES))),
        limits=config.limits,
        voices=RecordingStore(config.voices, StoredVoice, "voice", config.limits.max_voices),
        consents=RecordingStore(config.voices, StoredConsent, "cons", config.limits.max_voices),
        desk=Desk(
            variant=config.variant,
            scheduler=scheduler,
            telemetry=telemetry,
            deadline_seconds=config.limits.deadline_seconds,
            pool=pool,
        ),
        references=ReferenceHosts(config.reference_hosts),
        sampling=config.sampling,
    )
    api_errors.install(app)
    for routes in (
        openai_routes,
        audio_routes,
        edit_routes,
        voice_routes,
        consent_routes,
        health_routes,
        listing_routes,
        studio_routes,
    ):
        app.include_router(routes.router)
    inner: ASGIApp = app
    if config.cors_origins:
        inner = CORSMiddleware(
            app,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[WARNINGS, "x-request-id", "retry-after"],
        )
    return Gate(inner, config.keys, config.limits, telemetry, config.cors_origins)


def _beside(state: ServerState, config: ServerConfig) -> AbstractAsyncContextManager[None]:
    """What is served beside HTTP."""
    if config.wyoming is None:
        return nullcontext()
    from unison_audio.server.wyoming_server import wyoming_beside

    return wyoming_beside(state, config.wyoming, config.drain_seconds)


class _Application(FastAPI):
    """FastAPI without its answer 422, which is never sent."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(name, None)
        return document


def _import_models() -> None:
    from unison_audio.longform import long_speech, regions, timeline

    del long_speech, regions, timeline
