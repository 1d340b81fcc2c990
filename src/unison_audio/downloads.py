"""What a variant needs from the network: how much it is, and all of it at once."""

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unison_audio import hub_files
from unison_audio.errors import InputError
from unison_audio.hub import TIMEOUT_SECONDS, cache_folder
from unison_audio.release_files import RELEASE_FOLDERS, RELEASE_REPO, find_weights, listed_weights
from unison_audio.text.hub_names import HUB_NAMES
from unison_audio.variants import Variant

PARTS = ("text", "codec", "backbone")


@dataclass(frozen=True, kw_only=True)
class Download:
    """One part of a variant that comes from the network."""

    part: str
    """One of `PARTS`."""
    source: str
    """Where it comes from."""
    missing: int
    """Bytes still to be downloaded; 0 where all is here."""
    folder: Path
    """Where it goes; the folder may not exist yet."""
    fetch: Callable[[], object]
    """Downloads and verifies it."""


def needed_downloads(variant: Variant, parts: tuple[str, ...] = PARTS) -> list[Download]:
    """Lists what a variant needs from the network, without downloading anything large.

    Args:
        variant: The variant. The backbone is listed where the release has one of that name.
        parts: Which parts.

    Returns:
        The parts; none for nano, whose models are packages.

    Raises:
        InputError: If a server cannot be reached, or lacks a file.
    """
    found = []
    if "text" in parts and variant.text_encoder in HUB_NAMES:
        found.append(_text(HUB_NAMES[variant.text_encoder]))
    if "codec" in parts and variant.codec.startswith("mmaudio"):
        found.append(_codec(variant.codec))
    if "backbone" in parts and variant.name in RELEASE_FOLDERS:
        found.append(_backbone(variant.name))
    return found


def download_all(downloads: list[Download]) -> None:
    """Downloads what is missing, after a check that the disk has room for all of it.

    Raises:
        InputError: If the disk is too small, or a file cannot be had or is damaged. What arrived
            stays, and the next call continues.
    """
    needed: dict[int, tuple[Path, int]] = {}
    for one in downloads:
        folder = next(p for p in (one.folder, *one.folder.parents) if p.exists())
        disk = folder.stat().st_dev
        needed[disk] = (folder, needed.get(disk, (folder, 0))[1] + one.missing)
    for folder, amount in needed.values():
        free = shutil.disk_usage(folder).free
        if amount > free:
            raise InputError(
                f"The download takes {amount / 1e9:.1f} GB and the disk of {folder} has "
                f"{free / 1e9:.1f} GB left; make room, or choose another cache with HF_HOME and "
                "UNISON_AUDIO_CACHE."
            )
    for one in downloads:
        if one.missing:
            one.fetch()


def _text(repo: str) -> Download:
    from unison_audio.text.qwen_folder import cached_folder, download, needed_files

    whole = cached_folder(repo) is not None
    files = [] if whole else needed_files(repo)
    return Download(
        part="text",
        source=repo,
        missing=_missing(files),
        folder=_hub_folder(),
        fetch=lambda: download(repo),
    )


def _codec(name: str) -> Download:
    from unison_audio.codecs.mmaudio_weights import ORIGINALS, load_mmaudio

    folder = cache_folder() / name
    originals = ORIGINALS[name]
    whole = (folder / f"{name}.safetensors").is_file()
    sizes = [
        0 if whole or (folder / one.name).is_file() else _remote_size(one.url) for one in originals
    ]
    return Download(
        part="codec",
        source=" and ".join(one.url for one in originals),
        missing=sum(sizes),
        folder=folder,
        fetch=lambda: load_mmaudio(name),  # converts, so that the first sound need not
    )


def _backbone(name: str) -> Download:
    return Download(
        part="backbone",
        source=f"{RELEASE_REPO}/{RELEASE_FOLDERS[name]}",
        missing=_missing([listed_weights(name)]),
        folder=_hub_folder(),
        fetch=lambda: find_weights(RELEASE_REPO, name),
    )


def _missing(files: list[hub_files.HubFile]) -> int:
    return sum(file.size for file in files if hub_files.cached(file.repo, file.path) is None)


def _hub_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _remote_size(url: str) -> int:
    """Bytes of a file by its address."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "unison-audio"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return int(response.headers.get("Content-Length") or 0)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} cannot be had ({reason}); check the connection.") from error
