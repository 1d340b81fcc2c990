"""UNISON: one flow-matching model that generates and edits speech and sound.

The public names load what they need when they are first used, so that the import costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unison_audio.audio import Audio
    from unison_audio.errors import InputError
    from unison_audio.output_format import OutputFormat
    from unison_audio.pipeline import Unison
    from unison_audio.sampling_params import SamplingParams

    __version__: str

__all__ = ["Audio", "InputError", "OutputFormat", "SamplingParams", "Unison", "__version__"]

_HOMES = {
    "Unison": "unison_audio.pipeline",
    "Audio": "unison_audio.audio",
    "InputError": "unison_audio.errors",
    "OutputFormat": "unison_audio.output_format",
    "SamplingParams": "unison_audio.sampling_params",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("unison-audio")
    if name not in _HOMES:
        raise AttributeError(f"module 'unison_audio' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
