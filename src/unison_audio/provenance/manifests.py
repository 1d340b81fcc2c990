"""Signed C2PA manifests: written with the user's certificate and key, read back, verified."""

import base64
import binascii
import io
import json
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from unison_audio.errors import InputError
from unison_audio.provenance.origin import Origin

MIME_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".m4a": "audio/mp4"}
"""Suffix -> type, of the formats that can hold a manifest."""

MISSING_C2PA = (
    "Signed manifests need c2pa-python; install it with: pip install 'unison-audio[c2pa]'"
)

# No address that stands in a file is ever fetched.
_OFFLINE: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
_ALGORITHMS = {
    "2a8648ce3d030107": "es256",
    "2b81040022": "es384",
    "2b81040023": "es512",
    "2b6570": "ed25519",
    "2a864886f70d010101": "ps256",
}
"""Object identifier of a key's kind, in hexadecimal -> the algorithm that signs with it."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A certificate chain and its private key, PEM."""

    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, certificate: Path, key: Path) -> "Signature":
        """Read both files.

        Raises:
            InputError: If one cannot be read or is not PEM.
        """
        held = []
        for path, what in ((certificate, "certificate"), (key, "key")):
            try:
                content = path.read_bytes()
            except OSError as error:
                raise InputError(
                    f"The {what} {path} cannot be read ({error.strerror}); give a PEM file."
                ) from error
            wanted = b"CERTIFICATE" if what == "certificate" else b"PRIVATE KEY"
            if b"-----BEGIN" not in content or wanted not in content:
                raise InputError(f"{path} holds no PEM {what}; give a file that does.")
            if b"ENCRYPTED" in content:
                raise InputError(
                    f"The key {path} is encrypted; decrypt it first, such as with openssl pkcs8."
                )
            held.append(content)
        return cls(certificate=held[0], key=held[1])

    @property
    def algorithm(self) -> str:
        """The algorithm that fits the key.

        Raises:
            InputError: If C2PA has none for it.
        """
        body = self.key.split(b"-----BEGIN", 1)[1].split(b"\n", 1)[1].split(b"-----END")[0]
        try:
            der = base64.b64decode(body, validate=False).hex()
        except binascii.Error as error:
            raise InputError("The signing key is damaged; give a PEM private key.") from error
        for identifier, algorithm in _ALGORITHMS.items():
            if identifier in der:
                return algorithm
        raise InputError(
            "The signing key is of no kind that C2PA knows; use an EC (P-256, P-384, P-521), "
            "Ed25519 or RSA key."
        )


@dataclass(frozen=True, kw_only=True)
class ManifestReport:
    """What a file's manifest says."""

    state: str
    """"none", "invalid", "untrusted" or "trusted"."""
    problems: tuple[str, ...] = ()
    """Codes of what failed."""
    generator: str = ""
    """The program that the manifest names."""
    source_types: tuple[str, ...] = ()
    """Digital source types of the manifest's actions."""
    issuer: str = ""
    """Who issued the certificate."""


def require_signable(suffix: str, *, streamed: bool = False) -> str:
    """The MIME type of a format that can hold a manifest.

    Args:
        suffix: The output's suffix, such as ".wav".
        streamed: Whether the output is a stream, whose header states no length.

    Raises:
        InputError: If it can hold none.
    """
    if streamed:
        # A WAV whose sizes are not filled in would be signed, and the signature would not hold.
        raise InputError("A stream cannot be signed; write a file, or leave the signature out.")
    if suffix.lower() not in MIME_TYPES:
        raise InputError(
            f"{suffix} cannot hold a signed manifest; write one of {', '.join(MIME_TYPES)}, or "
            "leave the signature out."
        )
    return MIME_TYPES[suffix.lower()]


def sign(content: bytes, suffix: str, origin: Origin, signature: Signature) -> bytes:
    """Sign a whole sound file.

    The tags must be in the file already: whatever changes afterwards makes the manifest invalid.

    Args:
        content: The file's bytes.
        suffix: Its suffix.
        origin: What the manifest states.
        signature: Certificate and key.

    Returns:
        The signed file's bytes, read back and verified.

    Raises:
        InputError: If the format cannot hold a manifest, the certificate and key do not fit, or
            `c2pa-python` is not installed.
    """
    mime = require_signable(suffix)
    c2pa = _library()
    parent = _parent(origin)
    action: dict[str, Any] = {
        "action": "c2pa.edited" if parent else "c2pa.created",  # "edited" needs what was opened
        "digitalSourceType": origin.source_type_url,
        "softwareAgent": {"name": origin.software},
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}}
    actions = [opened, action] if parent else [action]
    stated = {
        "claim_generator_info": [{"name": "unison-audio", "version": origin.software.split()[1]}],
        "title": f"{origin.task} by {origin.variant}",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }
    signed = io.BytesIO()
    try:
        # Bytes, against the library's docstring, which asks for strings.
        info = c2pa.C2paSignerInfo(signature.algorithm, signature.certificate, signature.key, None)
        builder = c2pa.Builder(stated, _context(c2pa))
        if parent:
            ingredient = {"title": "source", "relationship": "parentOf", "label": "source"}
            builder.add_ingredient(ingredient, parent[0], io.BytesIO(parent[1]))
        # Never in place: the library would leave the file empty if it failed.
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(content), signed)
    except c2pa.C2paError as error:
        raise InputError(
            f"The sound cannot be signed ({_reason(error)}); give a certificate chain for C2PA "
            "claim signing, the signer first, and its key."
        ) from error
    result = signed.getvalue()
    report = read_manifest(result, suffix)
    if report.state not in ("untrusted", "trusted"):
        raise InputError(
            f"The signature does not hold when it is read back ({', '.join(report.problems)}); "
            "check the certificate's dates and uses."
        )
    return result


@lru_cache(maxsize=1)  # a batch checks every job
def check_signature(signature: Signature) -> None:
    """Sign a moment of silence: a key that does not fit is noticed before any work.

    Raises:
        InputError: As `sign` does.
    """
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(320))
    sign(held.getvalue(), ".wav", Origin(task="t2a", variant=""), signature)


def read_manifest(content: bytes, suffix: str, anchors: bytes | None = None) -> ManifestReport:
    """Read and verify a file's manifest, without the network.

    Args:
        content: The file's bytes.
        suffix: Its suffix.
        anchors: Certificates to trust, PEM; None for none.

    Raises:
        InputError: If `c2pa-python` is not installed.
    """
    mime = MIME_TYPES.get(suffix.lower())
    if mime is None:
        return ManifestReport(state="none")
    c2pa = _library()
    try:
        reader = c2pa.Reader(mime, io.BytesIO(content), context=_context(c2pa, anchors))
    except c2pa.C2paError.ManifestNotFound:
        return ManifestReport(state="none")
    except c2pa.C2paError as error:
        return ManifestReport(state="invalid", problems=(_reason(error),))
    stated = json.loads(reader.json())
    manifest = stated["manifests"].get(stated.get("active_manifest"), {})
    states = {"Trusted": "trusted", "Valid": "untrusted"}
    results = stated.get("validation_results", {}).get("activeManifest", {})
    return ManifestReport(
        state=states.get(stated.get("validation_state", ""), "invalid"),
        problems=tuple(one["code"] for one in results.get("failure", ())),
        generator=" ".join(
            f"{one.get('name', '')} {one.get('version', '')}".strip()
            for one in manifest.get("claim_generator_info", ())
        ),
        source_types=tuple(
            action["digitalSourceType"].rsplit("/", 1)[-1]
            for assertion in manifest.get("assertions", ())
            for action in assertion.get("data", {}).get("actions", ())
            if "digitalSourceType" in action
        ),
        issuer=manifest.get("signature_info", {}).get("issuer", ""),
    )


def _parent(origin: Origin) -> tuple[str, bytes] | None:
    """Type and bytes of the recording that was edited, where its format can hold a manifest."""
    if not origin.edited or origin.source is None:
        return None
    mime = MIME_TYPES.get(origin.source.suffix.lower())
    return None if mime is None else (mime, origin.source.read_bytes())


def _context(c2pa: ModuleType, anchors: bytes | None = None) -> Any:
    settings = dict(_OFFLINE)
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _library() -> ModuleType:
    try:
        import c2pa
    except ImportError as error:
        raise InputError(MISSING_C2PA) from error
    return c2pa
