"""The same application on Ray Serve: replicas on a cluster, as many as the load asks for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp

from unison_audio.cluster import start_ray
from unison_audio.errors import InputError
from unison_audio.server.app import ServerConfig, create_app
from unison_audio.server.telemetry import set_up_logging

NAME = "unison-audio"
"""Name of the application in Ray's lists."""

REQUESTS_A_REPLICA = 4
"""Requests that run or wait in a replica, above which another one is started."""


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many replicas there are, and what each takes."""

    least: int = 1
    """Replicas that are always there."""
    most: int = 1
    """Replicas under load."""
    gpus: float = 0.0
    """GPUs of each."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.least <= self.most:
            raise InputError(
                f"From {self.least} to {self.most} replicas are asked for; give at least 1, and "
                "at most as many as --max-replicas."
            )


def deploy(
    config: ServerConfig, replicas: Replicas, address: str | None, at: tuple[str, int], level: str
) -> Callable[[], None]:
    """Start the replicas, and wait until they have their models.

    Args:
        config: What each replica is made of.
        replicas: How many.
        address: Address of the cluster; None starts one on this machine.
        at: Host and port of HTTP.
        level: Level of the log.

    Returns:
        What ends them.
    """
    import ray
    from ray import serve

    options = {} if address else {"include_dashboard": False}
    start_ray(ray, address, logging_level=logging.WARNING, **options)
    host, port = at
    serve.start(http_options={"host": host, "port": port})

    # Ray takes only a function without arguments for something that builds an application.
    def build() -> ASGIApp:
        set_up_logging(level)
        return create_app(config)

    replica = serve.deployment(
        name=NAME,
        max_ongoing_requests=config.limits.max_requests + 16,  # the queue's own limit answers 429
        autoscaling_config={
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": REQUESTS_A_REPLICA,
        },
        graceful_shutdown_timeout_s=config.drain_seconds,
        ray_actor_options={"num_cpus": 1, "num_gpus": replicas.gpus},
    )(serve.ingress(build)(_Replica))
    serve.run(replica.bind(), name=NAME, route_prefix="/")

    def stop() -> None:
        serve.shutdown()
        ray.shutdown()

    return stop


class _Replica:
    """One replica; its routes are those of the application."""
