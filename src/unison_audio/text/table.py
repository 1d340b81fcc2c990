"""The table of text encoders."""

from collections.abc import Callable

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
    "qwen2.5-omni-7b": _qwen("Qwen/Qwen2.5-Omni-7B"),
    "qwen2.5-omni-3b": _qwen("Qwen/Qwen2.5-Omni-3B"),
}
"""Text encoders by name: what is wanted -> encoder."""
