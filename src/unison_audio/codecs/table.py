"""The codec table: audio codecs behind one interface, from waveform to latent and back.

A new codec is a class with the interface of `AudioCodec` and a row of `CODECS`.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig
from unison_audio.errors import InputError
from unison_audio.json_files import read_json
from unison_audio.tensor_files import write_tensors

CONFIG_FILE = "codec.json"

WEIGHTS_FILE = "codec.safetensors"


class AudioCodec(Protocol):
    """Maps waveforms to latents and back; frozen, whatever the task."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        ...

    @property
    def channels(self) -> int:
        """Latent channels C."""
        ...

    @property
    def hop(self) -> int:
        """Samples of a latent frame."""
        ...

    def frames(self, seconds: float) -> int:
        """Return the latent frames T' of a duration in seconds."""
        ...

    def encode(self, waveform: Tensor) -> Tensor:
        """Maps (B, samples) to (B, C, T')."""
        ...

    def decode(self, latent: Tensor) -> Tensor:
        """Maps (B, C, T') to (B, samples)."""
        ...


def save_nano_codec(folder: Path, codec: NanoCodec) -> None:
    """Writes ``codec.json`` and ``codec.safetensors`` in fp16, latent statistics included."""
    folder.mkdir(parents=True, exist_ok=True)
    # fp16, since the weights are part of the package and each commit of them stays in every clone.
    weights = {name: value.half().contiguous() for name, value in codec.state_dict().items()}
    partial = folder / f"{WEIGHTS_FILE}.partial"
    write_tensors(weights, partial)
    (folder / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(codec.config), indent=2) + "\n")
    partial.chmod(0o644)
    partial.replace(folder / WEIGHTS_FILE)


def load_nano_codec(folder: Path) -> NanoCodec:
    """Reads the files of `save_nano_codec` into an fp32 codec.

    Raises:
        InputError: A file is missing or damaged, or its keys are not those of the codec.
    """
    config_path, path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    try:
        stored = read_json(config_path, "save the codec again", most=1 << 20)
        if not isinstance(stored, dict):
            raise TypeError(f"{CONFIG_FILE} holds {type(stored).__name__}, not an object")
        shape: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored.items()
        }
        codec = NanoCodec(NanoCodecConfig(**shape))
        stored_weights = load_file(path)
        for name, value in stored_weights.items():
            if not value.is_floating_point():
                raise TypeError(f"{name} in {WEIGHTS_FILE} is of {value.dtype}, not floats")
            if not value.isfinite().all():
                raise ValueError(f"{name} in {WEIGHTS_FILE} is not finite")
        codec.load_state_dict({name: value.float() for name, value in stored_weights.items()})
        if not bool((codec.latent_scale > 0).all()):
            raise ValueError("latent_scale holds values that are not above 0")
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or path} is missing; a nano checkpoint holds {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}, which 'unison-audio train nano-codec' writes"
        ) from error
    except (SafetensorError, TypeError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The codec in {folder} cannot be used: {reason}") from error
    return codec.eval().requires_grad_(False)


def _mmaudio(name: str) -> Callable[[Path, Path | None], AudioCodec]:
    """Return the loader of one of MMAudio's codecs."""

    def load(checkpoint: Path, files: Path | None) -> AudioCodec:
        # diffusers takes seconds to import and nano does without it.
        from unison_audio.codecs.mmaudio_weights import load_mmaudio

        return load_mmaudio(name, files)

    return load


CODECS: dict[str, Callable[[Path, Path | None], AudioCodec]] = {
    "nano": lambda checkpoint, files: load_nano_codec(files or checkpoint),
    "mmaudio-16k": _mmaudio("mmaudio-16k"),
    "mmaudio-44k": _mmaudio("mmaudio-44k"),
}
"""Name -> loader. It takes the checkpoint's folder, and the folder of the codec's own files or
None, and returns the codec."""
