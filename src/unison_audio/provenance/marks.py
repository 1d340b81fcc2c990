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
    if output.marks("watermark"):
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
    marked = origin is not None
    return Marks(
        origin=origin if output.marks("metadata") else None,
        watermark=bool(output.watermark) or (marked and output.marks("watermark")),
        signature=signature,
    )
