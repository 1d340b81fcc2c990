import dataclasses
import hashlib

import pytest
import torch

from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.text.states import TextStates
from unison_audio.variants import VARIANTS

RATE = 16_000
WORDS = ("red", "blue", "dog", "cat", "stop")


def tiny_codec_config():
    return NanoCodecConfig(
        latent_channels=4,
        mels=20,
        widths=(8, 8, 8),
        encoder_blocks=(1, 1, 1),
        decoder_widths=(8, 8, 8),
        decoder_blocks=(1, 1, 1),
    )


def latent_distance(codec, reference, waveforms):
    """Mean squared distance of two codecs' latents of (B, samples), in the reference's scale."""
    with torch.no_grad():
        means, _ = codec.encoder(waveforms)
        scaled = (means - reference.latent_mean) / reference.latent_scale
        return float((scaled - reference.encode(waveforms)).square().mean())


class HashedWords:
    """A text encoder whose states follow from each word alone."""

    def encode(self, instructions):
        texts = [text.split() for text in instructions]
        longest = max(len(words) for words in texts)
        hidden = torch.zeros(len(texts), 2, longest, 12)
        mask = torch.zeros(len(texts), longest, dtype=torch.bool)
        for row, words in enumerate(texts):
            mask[row, : len(words)] = True
            for i, word in enumerate(words):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
                generator = torch.Generator().manual_seed(seed)
                hidden[row, :, i] = torch.randn(2, 12, generator=generator)
        return TextStates(hidden_states=hidden, mask=mask)


def make_clips():
    generator = torch.Generator().manual_seed(0)
    clips = []
    for index in range(40):
        seconds = 0.3 + 0.02 * index
        time = torch.arange(int(seconds * RATE)) / RATE
        pitch = 100 + 20 * (index % 7)
        wave = 0.1 * torch.sin(2 * torch.pi * pitch * time)
        wave += 0.01 * torch.randn(wave.shape, generator=generator)
        speech = index < 24
        record = ClipRecord(
            key=f"clip-{index:02d}",
            kind="speech" if speech else "sound",
            split="train",
            seconds=seconds,
            licence="CC0-1.0",
            source="made by the test",
            text=" ".join(WORDS[(index + j) % 5] for j in range(1 + index % 3)) if speech else "",
            speaker=f"speaker-{index % 2}" if speech else "",
            gender=("male", "female")[index % 2] if speech else "",
            label="" if speech else ("a beep", "a buzz", "rain", "a horn")[index % 4],
            caption="" if speech else "A tone sounds.",
        )
        clips.append(Clip(record=record, waveform=wave))
    return clips


def make_variant():
    backbone = dataclasses.replace(
        VARIANTS["nano"].backbone,
        latent_channels=4,
        dim=32,
        heads=2,
        rope_dim=12,
        blocks=2,
        text_dim=12,
    )
    return dataclasses.replace(VARIANTS["nano"], backbone=backbone)


@pytest.fixture(scope="session")
def clips():
    return make_clips()


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return NanoCodec(tiny_codec_config()).eval().requires_grad_(False)
