"""Synthetic speech of nano's corpus: texts over its own words, and over any English words."""

import random
from collections.abc import Iterator
from pathlib import Path

import torch

from unison_audio.audio import normalize_rms, trim_silence
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.nano.open_texts import draw_texts, open_texts
from unison_audio.nano.vocabulary import held_out_texts, random_text
from unison_audio.nano.voices import SyntheticVoice, speak

SAMPLE_RATE = 16_000

ONSET_DB, MARGIN_SECONDS = -55.0, 0.03
"""Level at which synthetic speech is trimmed, low enough for soft onsets; silence around it."""

OPEN_KINDS = {"sentences": 0.6, "sequences": 0.35, "words": 0.05}
"""Kinds of texts of any words, and their shares."""

OPEN_SECONDS = 5.0
"""Seconds of the longest utterance of such a text: nano's sounds have 5.12."""

LICENSES = {
    "flite": "BSD-like (flite voices)",
    "piper": "MIT (piper voice joe)",
    "kokoro": "Apache-2.0 (Kokoro voices)",
}


def make_speech(voice: SyntheticVoice, split: str, number: int, count: int) -> Iterator[Clip]:
    """Makes synthetic utterances: of random texts for `train`, else of held-out texts."""
    held_out = held_out_texts()
    # Seeded by the shard's own name, so that shards can be made in any order and by any process.
    rng = random.Random(f"{voice.name} {split} {number}")
    texts: list[str] = []
    if split == "train":
        # A random text may equal a held-out one, which no training clip may say.
        forbidden = set(held_out)
        while len(texts) < count:
            text = random_text(rng)
            if text not in forbidden:
                texts.append(text)
    else:
        texts = rng.sample(held_out, count)
    for index, text in enumerate(texts):
        yield make_utterance(text, voice, split, f"{voice.name}-{split}-{number:02d}-{index:04d}")


def make_open_speech(
    voice: SyntheticVoice, packages: Path, number: int, count: int
) -> Iterator[Clip]:
    """Makes synthetic utterances of any English words for `train`; long ones are left out.

    Args:
        voice: The speaker.
        packages: Folder of Debian packages, which the texts come from.
        number: Of the shard.
        count: Utterances, before any is left out.
    """
    texts = open_texts(packages)
    rng = random.Random(f"{voice.name} open {number}")
    kinds = rng.choices(list(OPEN_KINDS), list(OPEN_KINDS.values()), k=count)
    for index, kind in enumerate(kinds):
        text = draw_texts(texts, kind, rng.randrange(1 << 30), 1)[0]
        clip = make_utterance(text, voice, "train", f"{voice.name}-open-{number:02d}-{index:04d}")
        if clip.record.seconds <= OPEN_SECONDS:
            yield clip


def make_utterance(text: str, voice: SyntheticVoice, split: str, key: str) -> Clip:
    """Makes one synthetic utterance, with a little silence around it, at RMS 0.1."""
    spoken = trim_silence(speak(text, voice, SAMPLE_RATE), SAMPLE_RATE, ONSET_DB)
    margin = round(MARGIN_SECONDS * SAMPLE_RATE)
    waveform = level(torch.nn.functional.pad(spoken, (margin, margin)))
    record = ClipRecord(
        key=key,
        kind="speech",
        split=split,
        seconds=round(len(waveform) / SAMPLE_RATE, 3),
        licence=LICENSES[voice.engine],
        source=f"{voice.engine}:{voice.voice} shifted by {voice.shift}",
        text=text,
        speaker=voice.name,
        gender=voice.gender,
    )
    return Clip(record=record, waveform=waveform)


def level(waveform: torch.Tensor) -> torch.Tensor:
    """Scales to RMS 0.1, or lower where the peak would exceed 0.99."""
    leveled = normalize_rms(waveform, 0.1)
    return leveled * min(1.0, 0.99 / max(float(leveled.abs().max()), 1e-9))
