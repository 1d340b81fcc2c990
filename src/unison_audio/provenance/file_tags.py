"""Tags that say where a sound comes from, in the fields that each format has."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

from unison_audio.errors import InputError
from unison_audio.provenance.origin import Origin

if TYPE_CHECKING:
    from soundfile import SoundFile


def container_tags(origin: Origin) -> dict[str, str]:
    """The tags by the names that FFmpeg's containers give them."""
    return {"COMMENT": origin.comment}


def write_tags(file: "SoundFile", origin: Origin) -> None:
    """Set the tags of a file that is open for writing; before its samples, so that they lead."""
    file.comment = origin.comment
    file.software = origin.software


def wav_info(origin: Origin) -> bytes:
    """A RIFF LIST chunk of type INFO with the tags, for a WAV that is streamed."""
    fields = b""
    for name, text in ((b"ICMT", origin.comment), (b"ISFT", origin.software)):
        value = text.encode("ascii") + b"\0"
        fields += name + struct.pack("<I", len(value)) + value + b"\0" * (len(value) % 2)
    return b"LIST" + struct.pack("<I", 4 + len(fields)) + b"INFO" + fields


def read_tags(path: Path) -> dict[str, str]:
    """The tags of a sound file by their names in lower case.

    Raises:
        InputError: If the file cannot be read as sound.
    """
    import soundfile

    # Both libraries: neither reads what the other writes in every format.
    found = _container_tags(path)
    try:
        with soundfile.SoundFile(path) as file:
            read = {name: text for name, text in file.copy_metadata().items() if text}
    except (soundfile.SoundFileError, OSError) as error:
        if found is None:
            raise InputError(
                f"{path} cannot be read as sound; give a wav, flac, ogg, mp3, opus or m4a file."
            ) from error
        read = {}
    return (found or {}) | read


def _container_tags(path: Path) -> dict[str, str] | None:
    """Tags by PyAV; None where it is not installed or cannot read the file."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as container:
            tags = dict(container.metadata)
            for stream in container.streams.audio:
                tags |= stream.metadata
    except (av.FFmpegError, OSError):
        return None
    return {name.lower(): text for name, text in tags.items() if text}
