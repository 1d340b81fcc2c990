"""`PretrainedModels`: the models of a variant, opened from a checkpoint and written to one."""

import os
import tempfile
from pathlib import Path
from typing import NoReturn, Self, TypeVar

import torch
from torch import nn

from unison_audio import checkpoint
from unison_audio.checkpoint_files import OpenCheckpoint
from unison_audio.codecs import table as codecs
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import AudioCodec
from unison_audio.device import own_settings
from unison_audio.errors import InputError
from unison_audio.loading import LazyModel, LoadOptions, open_models
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model_card import CardInfo
from unison_audio.text.states import TextEncoder
from unison_audio.values import require_path, require_truth
from unison_audio.variants import Variant

T = TypeVar("T")


class PretrainedModels:
    """The three models of a variant, each in memory or loaded on first use.

    Args:
        variant: The variant of the models.
        backbone: The trained model, loaded or to be loaded on first use.
        codec: The variant's codec, loaded or to be loaded on first use.
        text_encoder: The variant's text encoder, loaded or to be loaded on first use.
        device: Device of the backbone and the codec; loaded models are moved there.
    """

    def __init__(
        self,
        variant: Variant,
        backbone: UnisonBackbone | LazyModel[UnisonBackbone],
        codec: AudioCodec | LazyModel[AudioCodec],
        text_encoder: TextEncoder | LazyModel[TextEncoder],
        device: torch.device | str = "cpu",
    ) -> None:
        self.variant, self.device = variant, torch.device(device)
        self._backbone = _as_lazy(backbone, self.device)
        self._codec = _as_lazy(codec, self.device)
        self._text_encoder = _as_lazy(text_encoder, self.device)

    @property
    def backbone(self) -> UnisonBackbone:
        """The trained model."""
        return self._backbone.get()

    @property
    def codec(self) -> AudioCodec:
        """The variant's codec."""
        return self._codec.get()

    @property
    def text_encoder(self) -> TextEncoder:
        """The variant's text encoder."""
        return self._text_encoder.get()

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"A {type(self).__name__} cannot be pickled or copied, since it holds loaded models; "
            "open one in each process with from_pretrained, and start the processes by spawn."
        )

    @classmethod
    @own_settings()
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | OpenCheckpoint = "nano",
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype | None = None,
        quantize: str | None = None,
        low_memory: bool | None = None,
        codec_files: str | os.PathLike[str] | None = None,
        text_files: str | os.PathLike[str] | None = None,
        compiled: bool = False,
    ) -> Self:
        """Open a checkpoint with its codec and its text encoder.

        Args:
            name_or_path: "nano" for the weights that come with the package, a folder,
                `owner/name` of a repository on the Hugging Face hub, or an open checkpoint.
            device: Device to run on.
            dtype: Computing type of the backbone. By default bfloat16 where a GPU has it, or where
                a CPU multiplies it fast and the model is large; else float32. If bfloat16 is given,
                a full-size model's vocoder computes its convolutions in it on a CPU as well.
            quantize: "int8" runs the blocks' linear layers in int8, on a CPU; None leaves the
                checkpoint as it is.
            low_memory: Hold one model in memory at a time, and read a large language model layer
                by layer from the disk. By default only where the models do not fit together.
            codec_files: Folder of the codec's files; None downloads them.
            text_files: Folder of the language model; None downloads it.
            compiled: Whether the backbone's blocks are compiled by torch.compile, and a GPU replays
                a sampling step as a CUDA graph.

        Raises:
            InputError: If there is no such checkpoint, it is damaged, its codec or text encoder is
                unknown, it does not fit into memory, or an option is of another kind.
        """
        how = LoadOptions(
            device=device,
            dtype=dtype,
            quantize=quantize,
            low_memory=None if low_memory is None else require_truth(low_memory, "low_memory"),
            codec_files=None if codec_files is None else require_path(codec_files, "codec_files"),
            text_files=None if text_files is None else require_path(text_files, "text_files"),
            compiled=require_truth(compiled, "compiled"),
        )
        parts = open_models(name_or_path, how)
        models = cls(parts.variant, parts.backbone, parts.codec, parts.text_encoder, device)
        if parts.resident:  # a damaged file is refused now, not at the first sound
            models._backbone.get(), models._codec.get(), models._text_encoder.get()
        return models

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        card: CardInfo | None = None,
    ) -> None:
        """Write a checkpoint that `from_pretrained` loads, nano's codec and a model card included.

        Args:
            directory: Folder to write to; made if missing.
            dtype: Type of the backbone's weights in the file, float32 or float16. The nano codec
                is always stored as float16.
            card: License, data and results for the model card. A card by hand stays.

        Raises:
            InputError: If a weight is not finite in that type.
        """
        checkpoint.save(directory, self.variant, self.backbone, dtype=dtype, card=card)
        if isinstance(self.codec, NanoCodec):
            codecs.save_nano_codec(Path(directory), self.codec)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        dtype: torch.dtype = torch.float32,
        card: CardInfo | None = None,
    ) -> str:
        """Upload a checkpoint, as `save_pretrained` writes it, to the Hugging Face hub.

        Args:
            repo_id: `owner/name`; the repository is made if it is missing.
            private: Whether a new repository is hidden from others.
            dtype: As for `save_pretrained`, and so `card`.
            card: License, data and results for the model card.

        Returns:
            The address of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype, card=card)
            message = f"Upload {self.variant.name}"
            return checkpoint.upload(folder, repo_id, message=message, private=private)


def _as_lazy(value: T | LazyModel[T], device: torch.device) -> LazyModel[T]:
    """Wrap a model that is loaded already; leave one that is loaded later."""
    if isinstance(value, LazyModel):
        return value
    if isinstance(value, nn.Module):
        value = value.to(device).eval()
    return LazyModel(lambda: value)
