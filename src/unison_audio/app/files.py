"""Where commands write: folders are made, names are checked, text appears whole or not at all."""

import secrets
from pathlib import Path

from unison_audio.errors import InputError


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it, where they are missing.

    Raises:
        InputError: If it cannot be made or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be made ({error.strerror}); give another one."
        ) from error
    return folder


def check_sound_file(path: Path) -> Path:
    """Check the name of a sound file to be written, and make its folder.

    Raises:
        InputError: If the suffix is of no known format, or the name is a folder's.
    """
    from unison_audio.audio_files import FORMATS

    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"Cannot write {path}: the suffix must be one of {', '.join(FORMATS)}; rename the file."
        )
    if path.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder; give the name of a file.")
    make_folder(path.parent)
    return path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then move it there.

    Raises:
        InputError: If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); give another place."
        ) from error
    finally:
        part.unlink(missing_ok=True)
