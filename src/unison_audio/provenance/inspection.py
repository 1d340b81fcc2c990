"""What a sound file says of its origin, each layer by itself."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.audio_files import require_file
from unison_audio.errors import InputError
from unison_audio.provenance.file_tags import read_tags
from unison_audio.provenance.manifests import ManifestReport, read_manifest
from unison_audio.provenance.origin import stated_software, stated_source_type

if TYPE_CHECKING:
    from unison_audio.provenance.payload import PayloadResult


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The layers of a file. None of them proves that a sound was made by a human."""

    file: str
    source_type: str
    """Digital source type that the tags state; "" where they state none."""
    software: str
    """Version and variant of this program, where the tags name it."""
    manifest: ManifestReport | None
    """The signed manifest; None where `c2pa-python` is missing."""
    watermark: str
    """"found", "not found", "unknown" or "not checked"."""
    score: float | None
    """The watermark detector's score, 0 to 1."""
    payload: int | None
    """The hidden number; None where none was found, or not for sure."""
    payload_verdict: str
    """"found", "not found" or "unknown"."""
    payload_score: float | None
    """The detector's z; at most 0.6 % of unmarked recordings reach 6.9."""
    notes: tuple[str, ...] = ()
    """Why a layer is unknown or was not checked."""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def inspect_file(path: Path, *, anchors: bytes | None = None) -> Inspection:
    """Read every layer of a sound file. The network is not used.

    Args:
        path: The file.
        anchors: Certificates to trust, PEM.

    Raises:
        InputError: If the file cannot be read as sound.
    """
    require_file(path)
    tags = read_tags(path)
    notes = []
    manifest: ManifestReport | None = None
    try:
        manifest = read_manifest(path.read_bytes(), path.suffix, anchors)
    except InputError as error:
        notes.append(str(error))
    watermark, score, why = _watermark(path)
    if why:
        notes.append(f"Watermark: {why}.")
    hidden = _payload(path)
    if hidden.reason:
        notes.append(f"Payload: {hidden.reason}.")
    return Inspection(
        file=str(path),
        source_type=next(filter(None, map(stated_source_type, tags.values())), ""),
        software=next(filter(None, map(stated_software, tags.values())), ""),
        manifest=manifest,
        watermark=watermark,
        score=score,
        payload=hidden.payload,
        payload_verdict=hidden.verdict,
        payload_score=hidden.score,
        notes=tuple(notes),
    )


def _watermark(path: Path) -> tuple[str, float | None, str]:
    """Verdict, score and reason."""
    from unison_audio.audio import load
    from unison_audio.provenance.perth import PERTH_RATE
    from unison_audio.provenance.watermark import find_watermark

    try:
        result = find_watermark(load(path, sample_rate=PERTH_RATE), PERTH_RATE)
    except InputError as error:
        return "not checked", None, str(error).rstrip(".")
    return result.verdict, result.score, result.reason


def _payload(path: Path) -> "PayloadResult":
    from unison_audio.audio import load
    from unison_audio.provenance.payload import find_payload
    from unison_audio.provenance.payload_networks import PAYLOAD_RATE

    return find_payload(load(path, sample_rate=PAYLOAD_RATE), PAYLOAD_RATE)
