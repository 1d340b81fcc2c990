"""The marks of one output: what its options ask for, and what its format can hold."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.output_format import OutputFormat
from unison_audio.provenance.manifests import (
    MISSING_C2PA,
    Signature,
    check_signature,
    require_signable,
)
from unison_audio.provenance.origin import Origin
from unison_audio.provenance.perth_weights import perth_file


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The marks that one output gets."""

    origin: Origin | None
    """What the tags and the manifest state; None for no tags."""
    watermark: bool
    """Whether the watermark is set."""
    payload: int | None
    """The number that is hidden in the sound; None for none."""
    signature: Signature | None
    """Certificate and key of the manifest; None for none."""


def check_marks(output: OutputFormat, *, streamed: bool = False) -> None:
    """Refuse marks that the format cannot hold, or whose packages are missing, before any work.

    Args:
        output: Options of an output, with the format known.
        streamed: Whether it is written to a pipe.

    Raises:
        InputError: If one cannot be set.
    """
    if output.sign_cert is not None and output.sign_key is not None:
        require_signable(f".{output.format}", streamed=streamed)
        signature = Signature.read(Path(output.sign_cert), Path(output.sign_key))
        if find_spec("c2pa") is None:
            raise InputError(MISSING_C2PA)
        check_signature(signature)
    _require_whole(output, streamed=streamed)
    if output.marks("watermark") and output.payload is None:
        perth_file()


def choose_marks(output: OutputFormat, origin: Origin | None, *, streamed: bool = False) -> Marks:
    """Decide on the marks of an output.

    Args:
        output: Its options, with the format known.
        origin: Where the sound comes from; None for sound that this program did not make, which
            is marked only on request.
        streamed: Whether it is written to a pipe.

    Raises:
        InputError: If a manifest is asked for that the format cannot hold, or the certificate or
            the key cannot be read.
    """
    signature = None
    if output.sign_cert is not None and output.sign_key is not None:
        if origin is None:
            raise InputError("Only sounds that this program made can be signed; see Audio.origin.")
        require_signable(f".{output.format}", streamed=streamed)
        signature = Signature.read(Path(output.sign_cert), Path(output.sign_key))
    _require_whole(output, streamed=streamed)
    marked = origin is not None
    wanted = bool(output.watermark) or (marked and output.marks("watermark"))
    return Marks(
        origin=origin if output.marks("metadata") else None,
        # One mark in the samples: a number that is asked for precedes the environment's default.
        watermark=wanted and output.payload is None,
        payload=output.payload,
        signature=signature,
    )


def _require_whole(output: OutputFormat, *, streamed: bool) -> None:
    """Refuse a payload in a stream: it is set ten seconds behind.

    Raises:
        InputError: If one is asked for.
    """
    if streamed and output.payload is not None:
        raise InputError("A stream cannot carry a payload; write a file, or leave the payload out.")
