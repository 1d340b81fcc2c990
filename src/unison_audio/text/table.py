"""The table of text encoders."""

from collections.abc import Callable

from unison_audio.text.hub_names import HUB_NAMES
from unison_audio.text.states import TextEncoder, TextSetup


def _minilm(setup: TextSetup) -> TextEncoder:
    from unison_audio.text.minilm import MiniLmEncoder

    return MiniLmEncoder(setup)


def _qwen(hub_name: str) -> Callable[[TextSetup], TextEncoder]:
    def load(setup: TextSetup) -> TextEncoder:
        from unison_audio.text.qwen import QwenEncoder

        return QwenEncoder(setup, hub_name)

    return load


TEXT_ENCODERS: dict[str, Callable[[TextSetup], TextEncoder]] = {
    "minilm": _minilm,
    **{name: _qwen(repo) for name, repo in HUB_NAMES.items()},
}
"""Text encoders by name: their setup -> encoder."""
