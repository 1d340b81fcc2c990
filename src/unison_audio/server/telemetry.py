"""Figures for Prometheus, and a log of JSON lines that holds no text and no sound."""

import json
import logging
import sys
import time
import traceback
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from unison_audio.server.model_worker import resident_bytes

LOGGER = "unison_audio.server"

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)


class Telemetry:
    """The server's figures; `/metrics` shows them."""

    def __init__(self) -> None:
        # Its own: the library's global one refuses a name that a second server registers.
        self.registry = registry = CollectorRegistry()
        prefix = "unison_audio"
        self.active_requests = Gauge(
            f"{prefix}_active_requests", "Requests that run or wait", registry=registry
        )
        self.queued_sounds = Gauge(
            f"{prefix}_queued_sounds", "Sounds that wait for a batch", registry=registry
        )
        self.requests = Counter(
            f"{prefix}_requests",
            "Answered requests",
            ["route", "status"],
            registry=registry,
        )
        self.first_byte = Histogram(
            f"{prefix}_first_byte_seconds",
            "Seconds from a request to the first byte of sound",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            f"{prefix}_batch_size",
            "Sounds in one batch",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.real_time_factor = Gauge(
            f"{prefix}_real_time_factor",
            "Seconds of computing for one second of sound, in the last batch",
            registry=registry,
        )
        self.audio_seconds = Counter(
            f"{prefix}_audio_seconds", "Seconds of sound that were sampled", registry=registry
        )
        self.worker_restarts = Counter(
            f"{prefix}_worker_restarts", "Workers that were lost", registry=registry
        )
        self.cancelled = Counter(
            f"{prefix}_cancelled_requests",
            "Requests whose client left or took too long",
            registry=registry,
        )
        self.memory = Gauge(
            f"{prefix}_memory_bytes", "Memory of a process", ["process"], registry=registry
        )

    def batch_done(self, size: int, audio: float, took: float, memory_bytes: int) -> None:
        """Note one batch.

        Args:
            size: Its number of sounds.
            audio: Seconds of sound in it.
            took: Seconds that it took.
            memory_bytes: Memory of the worker.
        """
        self.batch_size.observe(size)
        self.memory.labels("worker").set(memory_bytes)
        if audio > 0:
            self.audio_seconds.inc(audio)
            self.real_time_factor.set(took / audio)

    def render(self) -> bytes:
        """The figures as Prometheus reads them."""
        self.memory.labels("server").set(resident_bytes())
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        entry |= record.__dict__.get("fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            # Without the message, which may quote what a client sent.
            kind, _, place = record.exc_info
            entry["error"] = kind.__name__
            entry["traceback"] = "".join(traceback.format_tb(place))
        return json.dumps(entry, ensure_ascii=True)


def set_up_logging(level: str) -> None:
    """Send the server's log to stderr as JSON lines.

    Args:
        level: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(level.upper())
