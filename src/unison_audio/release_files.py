"""Where the release's files are: a file, a folder, or a repository with a folder a variant."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unison_audio import hub_files
from unison_audio.errors import InputError
from unison_audio.variants import Variant

RELEASE_FOLDERS = {"d20-44k": "unison_D20S0_O_40ch", "d24-16k": "unison_D24S0_O_20ch"}
"""Folder of a variant's weights in the release's repository."""

RELEASE_REPO = "jac22/UNISON"

AVERAGES_FILE = "ema_model.pt"

NAMED_FILES = ("model.safetensors", "pytorch_model.bin")

WEIGHT_FILES = (AVERAGES_FILE, *NAMED_FILES)
"""Files that weights are in, in the order in which the release takes them."""

PROMPT_CHARACTERS = 616

PROMPT_SHA256 = "fd1d2f84c731"
"""How the checksum of the release's system prompt begins."""

TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True, kw_only=True)
class ReleaseFiles:
    """Weights of the release on this machine."""

    weights: Path
    """The file to import."""
    named: Path | None = None
    """Weights of the same run by name, which the order of unnamed ones is checked against."""


def find_weights(weights: str | os.PathLike[str], variant: str) -> ReleaseFiles:
    """Finds the file to import, downloading it if needed.

    Args:
        weights: A file, a folder, or `owner/name` on the hub, also with a folder there:
            `owner/name/folder`.
        variant: Name of the variant, whose folder is taken where there is one.

    Returns:
        The file, and named weights beside it.

    Raises:
        InputError: If there is none; the message says what was looked for.
    """
    path = Path(weights)
    if path.is_file():
        return _beside(path)
    if path.is_dir():
        for folder in (path / RELEASE_FOLDERS.get(variant, ""), path):
            for name in WEIGHT_FILES:
                if (folder / name).is_file():
                    return _beside(folder / name)
        raise InputError(_nothing_in(path, variant, (p.name for p in sorted(path.iterdir()))))
    text = os.fspath(weights)
    if not is_on_hub(weights):
        raise InputError(
            f"There is no file or folder {text!r}; give a file of weights, a folder, or owner/name "
            f"of a repository on the Hugging Face hub, such as {RELEASE_REPO}."
        )
    parts = text.split("/")
    return _on_hub("/".join(parts[:2]), "/".join(parts[2:]), variant)


def listed_weights(variant: str) -> hub_files.HubFile:
    """The file that `find_weights` would download of the release.

    Raises:
        InputError: If the variant is not in the release, or the hub cannot be reached.
    """
    files = hub_files.list_files(RELEASE_REPO)
    path = _choose(files, "", variant)
    if path is None:
        raise InputError(_nothing_in(RELEASE_REPO, variant, sorted(files)))
    return files[path]


def check_length(seconds: float, variant: Variant) -> None:
    """Checks the one length that weights were trained with.

    Raises:
        InputError: If it is not above 0, or longer than the variant takes.
    """
    if not 0 < seconds <= variant.max_seconds:
        raise InputError(
            f"The weights' length is {seconds!r} s; give seconds above 0 and at most "
            f"{variant.max_seconds}."
        )


def is_on_hub(weights: str | os.PathLike[str]) -> bool:
    """Whether weights are named by a repository on the hub, and not by a file or a folder."""
    text = os.fspath(weights)
    parts = text.split("/")
    here = Path(weights).exists() or text.startswith(("/", ".", "~"))
    return not here and len(parts) > 1 and "" not in parts


def read_prompt(path: Path) -> str:
    """Read a system prompt from a text file; line ends at its end are left out.

    Raises:
        InputError: If it is missing, empty or no text.
    """
    try:
        prompt = path.read_text("utf-8").rstrip("\n")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({error}).") from error
    if not prompt.strip():
        raise InputError(f"{path} is empty; leave the system prompt out, or write it there.")
    return prompt


def check_prompt(prompt: str) -> str | None:
    """Says how a system prompt differs from the release's; None if it does not."""
    digest = hashlib.sha256(prompt.encode("utf-8")).hexdigest()
    if digest.startswith(PROMPT_SHA256):
        return None
    return (
        f"the system prompt has {len(prompt)} characters and the sha256 {digest[:12]}... where the "
        f"release's has {PROMPT_CHARACTERS} characters and {PROMPT_SHA256}...; the released "
        "weights give what they give there only with that prompt"
    )


def padding_side(folder: Path | None, repo: str) -> tuple[str | None, str]:
    """Reads on which side the release's processor pads with a language model's files.

    The release asks its tokenizer for the right side. Its processor has a default of its own, the
    left, which wins where `tokenizer_config.json` has no `padding_side`.

    Args:
        folder: The language model's files, if they are on this machine.
        repo: The language model on the hub, used without a folder.

    Returns:
        "left" or "right", None if the file cannot be had; and where that was found.
    """
    where = f"{folder or repo}/{TOKENIZER_CONFIG}"
    path = None if folder is None else folder / TOKENIZER_CONFIG
    if folder is None:
        path = hub_files.cached(repo, TOKENIZER_CONFIG)
        if path is None:
            try:
                path = hub_files.download(hub_files.list_files(repo)[TOKENIZER_CONFIG])
            except (InputError, KeyError):
                return None, where
    try:
        assert path is not None
        settings = json.loads(path.read_text("utf-8"))
        side = settings.get("padding_side", "left")
    except (OSError, ValueError, AttributeError):
        return None, where
    return (side, where) if side in ("left", "right") else (None, where)


def _on_hub(repo: str, folder: str, variant: str) -> ReleaseFiles:
    try:
        files = hub_files.list_files(repo)
    except InputError:
        # Without a network a file of an earlier download is as good.
        for inside in (folder, RELEASE_FOLDERS.get(variant, "")):
            for name in WEIGHT_FILES:
                if found := hub_files.cached(repo, f"{inside}/{name}".lstrip("/")):
                    return _beside(found)
        raise
    path = _choose(files, folder, variant)
    if path is None:
        raise InputError(_nothing_in(f"{repo}/{folder}".rstrip("/"), variant, sorted(files)))
    weights = hub_files.download(files[path])
    if weights.name == AVERAGES_FILE:
        for name in NAMED_FILES:
            beside = f"{path.rpartition('/')[0]}/{name}".lstrip("/")
            if beside in files:
                return ReleaseFiles(weights=weights, named=hub_files.download(files[beside]))
    return ReleaseFiles(weights=weights)


def _choose(files: Iterable[str], folder: str, variant: str) -> str | None:
    """The path to take: in the folder named, else in the variant's, else at the top."""
    known = set(files)
    for inside in [folder] if folder else [RELEASE_FOLDERS.get(variant, ""), ""]:
        for name in WEIGHT_FILES:
            if (path := f"{inside}/{name}".lstrip("/")) in known:
                return path
    return None


def _beside(path: Path) -> ReleaseFiles:
    """A file, with named weights beside it where its own have no names."""
    if path.name == AVERAGES_FILE:
        for name in NAMED_FILES:
            if (path.parent / name).is_file():
                return ReleaseFiles(weights=path, named=path.parent / name)
    return ReleaseFiles(weights=path)


def _nothing_in(where: object, variant: str, there: Iterable[str]) -> str:
    folder = RELEASE_FOLDERS.get(variant)
    places = f"{where}, nor in its folder {folder}" if folder else f"{where}"
    listing = ", ".join(list(there)[:20]) or "nothing"
    return (
        f"None of {', '.join(WEIGHT_FILES)} is in {places}; it holds {listing}. Name the file, or "
        "the folder that it is in."
    )
