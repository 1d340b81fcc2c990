"""The command `serve`: the HTTP server."""

import signal
import socket
import sys
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from unison_audio.cli.options import MachineFlags, SamplingFlags, Weights
from unison_audio.errors import InputError
from unison_audio.machine import MachineSettings
from unison_audio.server.limits import Limits

if TYPE_CHECKING:
    from unison_audio.server.app import ServerConfig
    from unison_audio.server.model_worker import WorkerConfig

DRAIN_SECONDS = 30
"""Seconds that running requests get after SIGTERM, by default."""

LimitFlags = Annotated[Limits | None, Parameter(name="*")]
"""One flag for each limit."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AccessFlags:
    """Who may reach the server, and what it keeps."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is every network of the machine."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    api_keys_file: Path | None = None
    """File with API keys, one a line; more may be in $UNISON_AUDIO_API_KEYS, separated by
    commas."""
    cors_origin: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None
    """Web page whose scripts may call the server, such as https://example.org; may be given
    several times."""
    allow_reference_host: Annotated[
        list[str] | None, Parameter(negative="", consume_multiple=False)
    ] = None
    """Host that a request's ref_audio may be fetched from, such as media.example.org or
    192.168.1.5:8080; may be given several times. By default no address is opened."""
    voices: Path | None = None
    """Folder of stored voices; by default 'voices' in the cache folder."""
    drain_seconds: int = DRAIN_SECONDS
    """Seconds that running requests get after SIGTERM or Ctrl-C."""
    wyoming: int | None = None
    """Also serve speech to Home Assistant, which speaks Wyoming, at this port; 10200 is usual."""
    wyoming_host: str = "127.0.0.1"
    """Address of that port; whoever reaches it needs no key, since Wyoming has none."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the log's lines."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReplicaFlags:
    """Replicas of the server on the machines of a cluster."""

    ray: Annotated[bool, Parameter(negative="")] = False
    """Serve from replicas on Ray, each with a model; needs the extra cluster."""
    ray_address: str | None = None
    """Address of the Ray cluster; by default one on this machine is started."""
    min_replicas: int = 1
    """Replicas that are always there."""
    max_replicas: int | None = None
    """Replicas under load; by default --min-replicas."""


def serve(
    *,
    variant: Weights = "nano",
    access: AccessFlags | None = None,
    limits: LimitFlags = None,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
    cluster: ReplicaFlags | None = None,
) -> None:
    """Serve speech, sounds and edits over HTTP, as OpenAI's clients expect it.

    Args:
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        access: Address, keys, voices; each has its own flag.
        limits: What a client may ask; each has its own flag.
        sampling: Sampling options where a request has none; each has its own flag.
        machine: Where to compute; --device takes several with commas, one worker each.
        cluster: Replicas on a cluster; each has its own flag.
    """
    access, machine = access or AccessFlags(), machine or MachineFlags()
    cluster = cluster or ReplicaFlags()
    uvicorn = _require_server()
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.hub import cache_folder
    from unison_audio.output_format import OutputFormat
    from unison_audio.provenance.marks import check_marks
    from unison_audio.sampling_params import SamplingParams
    from unison_audio.server.api_keys import read_keys
    from unison_audio.server.app import ServerConfig, create_app
    from unison_audio.server.reference_hosts import ReferenceHosts
    from unison_audio.server.telemetry import set_up_logging

    check_marks(OutputFormat(format="wav"))
    keys = read_keys(access.api_keys_file)
    hosts = tuple(access.allow_reference_host or ())
    ReferenceHosts(hosts)  # bad ones are refused before a port is opened
    if cluster != ReplicaFlags():
        config = ServerConfig(
            variant=open_checkpoint(variant).variant,
            workers=_workers(variant, machine),
            voices=(access.voices or cache_folder() / "voices").absolute(),
            limits=limits or Limits(),
            keys=keys,
            cors_origins=tuple(access.cors_origin or ()),
            reference_hosts=hosts,
            sampling=sampling or SamplingParams(),
            drain_seconds=access.drain_seconds,
        )
        _serve_on_ray(config, access, cluster)
        return
    listening = _listen(access.host, access.port)
    wyoming = None
    if access.wyoming is not None:
        _require_wyoming()
        wyoming = _listen(access.wyoming_host, access.wyoming)
    unusable: list[str] = []

    def stop(reason: str) -> None:
        unusable.append(reason)
        server.should_exit = True

    app = create_app(
        ServerConfig(
            variant=open_checkpoint(variant).variant,
            workers=_workers(variant, machine),
            voices=access.voices or cache_folder() / "voices",
            limits=limits or Limits(),
            keys=keys,
            cors_origins=tuple(access.cors_origin or ()),
            reference_hosts=hosts,
            sampling=sampling or SamplingParams(),
            on_unusable=stop,
            wyoming=wyoming,
            drain_seconds=access.drain_seconds,
        )
    )
    set_up_logging(access.log_level)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=access.drain_seconds,
        )
    )
    print(_notice(access, listening.getsockname()[1], bool(keys)), file=sys.stderr, flush=True)
    if wyoming is not None:
        said = _wyoming_notice(access.wyoming_host, wyoming.getsockname()[1])
        print(said, file=sys.stderr, flush=True)
    # uvicorn raises the signal again once it is done, for what was there before it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run(sockets=[listening])
    if unusable:
        raise InputError(unusable[0])


def _serve_on_ray(config: "ServerConfig", access: AccessFlags, cluster: ReplicaFlags) -> None:
    """Serve from replicas until SIGTERM or Ctrl-C."""
    if not cluster.ray:
        raise InputError("Replicas and the address of a cluster go with --ray; add it.")
    if access.wyoming is not None:
        raise InputError("--wyoming does not go with --ray; serve it by a server of its own.")
    if len(config.workers) > 1:
        raise InputError("With --ray each replica has one device; give one and --min-replicas.")
    try:
        import ray.serve
    except ModuleNotFoundError as error:
        raise InputError(
            f"--ray needs the package {error.name}, which is missing; install it with: "
            "pip install 'unison-audio[server,cluster]'"
        ) from error
    del ray
    from unison_audio.server.ray_deployment import Replicas, deploy

    least = cluster.min_replicas
    most = least if cluster.max_replicas is None else cluster.max_replicas
    gpus = float(config.workers[0].machine.device.startswith("cuda"))
    replicas = Replicas(least=least, most=most, gpus=gpus)
    if access.port:
        _listen(access.host, access.port).close()  # a port in use is refused before Ray starts
    else:
        raise InputError("With --ray the port cannot be 0; give a number above it.")
    at = (access.host, access.port)
    stop = deploy(config, replicas, cluster.ray_address, at, access.log_level)
    print(_notice(access, access.port, bool(config.keys)), file=sys.stderr, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        threading.Event().wait()
    finally:
        stop()


def _workers(variant: str, machine: MachineFlags) -> "list[WorkerConfig]":
    from unison_audio.server.model_worker import WorkerConfig

    devices = [device.strip() for device in machine.device.split(",") if device.strip()]
    if not devices:
        raise InputError(f"The device is {machine.device!r}; give cpu, cuda, or several.")
    return [
        # Not the flags themselves: a worker that reads them would import the command line.
        WorkerConfig(
            checkpoint=variant, machine=MachineSettings(**(vars(machine) | {"device": device}))
        )
        for device in devices
    ]


def _listen(host: str, port: int) -> socket.socket:
    """Open a port before a model is loaded, so that a port in use is refused at once."""
    if not 0 <= port < 65536:
        raise InputError(f"The port is {port}; give a number from 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"The server cannot listen at {host}, port {port} "
            f"({error.strerror or error}); choose another port or address."
        ) from error


def _notice(access: AccessFlags, port: int, locked: bool) -> str:
    """Where the server listens, and who can reach it."""
    host = f"[{access.host}]" if ":" in access.host else access.host
    where = f"unison-audio: serving at http://{host}:{port}/v1"
    if _is_loopback(access.host):
        return f"{where}, for this machine alone; use --host to open it to others."
    if locked:
        return f"{where}, for every machine that reaches it and has a key."
    return (
        f"{where}, for EVERY machine that reaches it: no API key is set. Set "
        "UNISON_AUDIO_API_KEYS or --api-keys-file."
    )


def _wyoming_notice(host: str, port: int) -> str:
    """Where Wyoming is served, and who can reach it."""
    shown = f"[{host}]" if ":" in host else host
    who = "this machine alone" if _is_loopback(host) else "EVERY machine that reaches it, keyless"
    return f"unison-audio: serving Wyoming at tcp://{shown}:{port}, for {who}."


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_wyoming() -> None:
    try:
        import wyoming
    except ModuleNotFoundError as error:
        raise InputError(
            "--wyoming needs the package wyoming, which is missing; install it with: "
            "pip install 'unison-audio[wyoming]'"
        ) from error
    del wyoming


def _require_server() -> Any:
    """Import uvicorn, and see that the other packages are there."""
    try:
        import fastapi
        import multipart  # from python-multipart
        import prometheus_client
        import uvicorn
    except ModuleNotFoundError as error:
        raise InputError(
            f"The server needs the package {error.name}, which is missing; install it with: "
            "pip install 'unison-audio[server]'"
        ) from error
    del fastapi, multipart, prometheus_client
    return uvicorn
