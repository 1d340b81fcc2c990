"""Files of a repository on the Hugging Face hub: listed with their sizes, downloaded, verified.

The hub's own client resumes and caches. It compares sizes only, so the checksum is compared here.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unison_audio.errors import InputError
from unison_audio.hub import ChecksumError

ATTEMPTS = 5
"""Downloads of one file before giving up; each resumes where the last one broke off."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository."""

    repo: str
    """`owner/name` of the repository."""
    path: str
    """Its path inside the repository."""
    size: int
    """Bytes."""
    sha256: str | None
    """Checksum of a large file; small files have only `sha1`."""
    sha1: str
    """Git's checksum of a small file: of a header with the size, then the content."""


def list_files(repo: str) -> dict[str, HubFile]:
    """Lists the files of a repository.

    Args:
        repo: `owner/name`.

    Returns:
        The files by path.

    Raises:
        InputError: If the repository is missing, gated or unreachable.
    """
    from huggingface_hub import HfApi, RepoFile

    try:
        entries = list(HfApi().list_repo_tree(repo, recursive=True))
    except Exception as error:  # which errors these are depends on the hub client's HTTP library
        raise refusal(repo, error) from error
    return {
        entry.path: HubFile(
            repo=repo,
            path=entry.path,
            size=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs else None,
            sha1=entry.blob_id,
        )
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def cached(repo: str, path: str) -> Path | None:
    """Finds a file in the hub's cache, without the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, path)
    return Path(found) if isinstance(found, str) else None


def download(file: HubFile) -> Path:
    """Downloads a file into the hub's cache, unless it is there.

    A connection that breaks off is resumed, in this call and in later ones.

    Args:
        file: From `list_files`.

    Returns:
        Where the file is.

    Raises:
        ChecksumError: If the file has another checksum; it is removed.
        InputError: If it cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if found := cached(file.repo, file.path):
        return found
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path = Path(hf_hub_download(file.repo, file.path))
            break
        except (HfHubHTTPError, LocalEntryNotFoundError) as error:  # an answer, or no network
            raise refusal(f"{file.repo}/{file.path}", error) from error
        except Exception as error:
            if attempt == ATTEMPTS:
                raise refusal(f"{file.repo}/{file.path}", error) from error
    if not _is_intact(path, file):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ChecksumError(
            f"{file.repo}/{file.path} arrived damaged: its checksum is not the one that the hub "
            "states; run the command again to download it anew."
        )
    return path


def refusal(name: str, error: Exception) -> InputError:
    """An error of the hub's client as one sentence that says what to do.

    Args:
        name: What was asked for: `owner/name`, or that with a file's path.
        error: What the client raised.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError, so it comes first
        return InputError(
            f"The hub asks for a login to give {name}; accept the terms on the repository's page, "
            "then run 'hf auth login'."
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"The hub has no repository {name}, or it is private ({first}); check the name and, if "
            "it is private, your login."
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return InputError(f"The hub has no file {name} ({first}); check the name.")
    return InputError(
        f"{name} cannot be had from the hub ({first}); check the connection and run the command "
        "again: what has arrived is kept."
    )


def _is_intact(path: Path, file: HubFile) -> bool:
    with path.open("rb") as content:
        if file.sha256 is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        digest.update(content.read())
        return digest.hexdigest() == file.sha1
