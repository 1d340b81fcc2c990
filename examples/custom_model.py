"""Adds a codec, a text encoder and a variant of them: `python examples/custom_model.py [FOLDER]`.

docs/add-a-model.md explains each numbered step and names the file that it belongs to.
"""

import dataclasses
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unison_audio import Unison, checkpoint
from unison_audio.codecs.table import CODECS
from unison_audio.loading import FROZEN_BYTES
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.text.states import TextSetup, TextStates
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.variants import VARIANTS

HOP, WIDTH, LAYERS = 64, 32, 3


# 1. A codec turns a waveform into a latent and back. This one cuts it into frames.
class FrameCodec:
    """Frames of 64 samples as 64 channels: 250 frames a second, without any loss."""

    sample_rate, channels, hop = 16_000, HOP, HOP

    def frames(self, seconds: float) -> int:
        """Latent frames that cover a duration."""
        return -(-round(seconds * self.sample_rate) // self.hop)

    def encode(self, waveform: Tensor) -> Tensor:
        """Maps (B, samples) to (B, C, T'); the last frame is filled up with zeros."""
        waveform = torch.nn.functional.pad(waveform, (0, -waveform.shape[1] % self.hop))
        return waveform.unflatten(1, (-1, self.hop)).transpose(1, 2)

    def decode(self, latent: Tensor) -> Tensor:
        """Maps (B, C, T') to (B, samples)."""
        return latent.transpose(1, 2).flatten(1)


CODECS["frames"] = lambda checkpoint, files: FrameCodec()


# 2. A text encoder turns instructions into hidden states, one for each block of the backbone.
class WordHashEncoder:
    """A random vector for each word, the same in every layer."""

    def __init__(self, setup: TextSetup) -> None:
        self.setup = setup

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions into (B, blocks, N, WIDTH) and a mask (B, N)."""
        words = [text.split() for text in instructions]
        longest = max(map(len, words))
        states = torch.zeros(len(words), len(self.setup.picks), longest, WIDTH)
        mask = torch.zeros(len(words), longest, dtype=torch.bool)
        for row, text in enumerate(words):
            for column, word in enumerate(text):
                generator = torch.Generator().manual_seed(zlib.crc32(word.lower().encode()))
                states[row, :, column] = torch.randn(WIDTH, generator=generator)
                mask[row, column] = True
        return TextStates(hidden_states=states, mask=mask)


TEXT_ENCODERS["word-hash"] = WordHashEncoder

# 3. A row of the table of variants: backbone, codec and text encoder belong together.
nano = VARIANTS["nano"]
VARIANTS["pico"] = dataclasses.replace(
    nano,
    name="pico",
    backbone=dataclasses.replace(
        nano.backbone,
        latent_channels=HOP,
        dim=64,
        heads=2,
        rope_dim=24,
        blocks=3,
        text_dim=WIDTH,
    ),
    codec="frames",
    text_encoder="word-hash",
    text_layers=LAYERS,
    hop=HOP,
    default_seconds=1.0,
    zero_shot_seconds=1.0,
)

# 4. Their memory in bytes, from which loading decides what stays in memory.
FROZEN_BYTES.update({"frames": 0, "word-hash": 0})


def run(folder: Path) -> None:
    """Write a checkpoint with untrained weights, load it and generate."""
    variant = VARIANTS["pico"]
    torch.manual_seed(0)
    backbone = UnisonBackbone(variant.backbone)
    print(f"{sum(weight.numel() for weight in backbone.parameters()):,} parameters")
    checkpoint.save(folder, variant, backbone)

    unison = Unison.from_pretrained(folder)
    noise = unison.generate("[Audio] rain", steps=2)
    noise.save(folder / "untrained.wav")
    print(f"{unison.variant.name}: {noise.seconds:.2f} s of noise, as the weights are untrained")


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "pico"))
