"""Signed manifests with a test CA: sign, read back, trust, damage, edits, refusals."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unison_audio.errors import InputError
from unison_audio.provenance.manifests import (
    Signature,
    read_manifest,
    require_signable,
    sign,
)
from unison_audio.provenance.origin import Origin

GENERATED = Origin(task="t2a", variant="nano", edited=False)


def signature(authority: Path, name: str = "ec") -> Signature:
    return Signature.read(authority / f"{name}-chain.pem", authority / f"{name}.key")


def sound(suffix: str) -> bytes:
    held = io.BytesIO()
    wave = 0.1 * np.random.default_rng(0).standard_normal(8_000)
    soundfile.write(held, wave, 16_000, format=suffix[1:].upper())
    return held.getvalue()


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_signed_and_read_back(authority: Path, suffix: str) -> None:
    plain = sound(suffix)
    signed = sign(plain, suffix, GENERATED, signature(authority))
    before, _ = soundfile.read(io.BytesIO(plain))
    after, _ = soundfile.read(io.BytesIO(signed))
    assert np.array_equal(before, after)
    report = read_manifest(signed, suffix)
    assert report.state == "untrusted"
    assert report.source_types == ("trainedAlgorithmicMedia",)
    assert report.generator.startswith("unison-audio ")
    assert report.issuer == "Maker"
    root = (authority / "ca.pem").read_bytes()
    assert read_manifest(signed, suffix, root).state == "trusted"
    assert read_manifest(plain, suffix).state == "none"


def test_a_changed_sample_breaks_the_manifest(authority: Path) -> None:
    signed = bytearray(sign(sound(".flac"), ".flac", GENERATED, signature(authority, "ed")))
    signed[-5] ^= 1
    report = read_manifest(bytes(signed), ".flac")
    assert report.state == "invalid"
    assert "assertion.dataHash.mismatch" in report.problems


def test_an_edit_keeps_the_sources_manifest(authority: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.wav"
    source.write_bytes(sign(sound(".wav"), ".wav", GENERATED, signature(authority)))
    edit = Origin(task="edit_add", variant="nano", edited=True, source=source)
    signed = sign(sound(".wav"), ".wav", edit, signature(authority))
    report = read_manifest(signed, ".wav")
    assert report.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    assert signed.count(b"trainedAlgorithmicMedia") > 0  # the source's own manifest is inside
    cleaned = Origin(task="denoise", variant="nano", edited=True, source=source)
    assert read_manifest(
        sign(sound(".wav"), ".wav", cleaned, signature(authority)), ".wav"
    ).source_types == ("algorithmicallyEnhanced",)


def test_refusals(authority: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.ogg cannot hold a signed manifest"):
        sign(sound(".ogg"), ".ogg", GENERATED, signature(authority))
    with pytest.raises(InputError, match="A stream cannot be signed"):
        require_signable(".wav", streamed=True)
    wrong = Signature.read(authority / "ec-chain.pem", authority / "ca.key")
    with pytest.raises(InputError, match=r"cannot be signed|does not hold"):
        sign(sound(".wav"), ".wav", GENERATED, wrong)
    with pytest.raises(InputError, match="holds no PEM certificate"):
        Signature.read(authority / "ec.key", authority / "ec.key")
    with pytest.raises(InputError, match="cannot be read"):
        Signature.read(tmp_path / "missing.pem", authority / "ec.key")
