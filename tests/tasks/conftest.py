import math

import pytest
import torch

from unison_audio.data.records import Clip, ClipRecord

SAMPLE_RATE = 8000
WORDS = ["red", "blue", "dog", "house", "the", "in", "is", "a", "seven", "monday"]
LABELS = {  # label -> its frequency in Hz
    "a dog barking": 300.0,
    "rain": 500.0,
    "a door knock": 700.0,
    "a bell ringing": 900.0,
    "wind blowing": 1100.0,
    "an engine running": 1300.0,
}
SPEECH_HZ = 2000.0


def make_clip(kind, waveform, **about):
    """A clip with a record that says what is given."""
    seconds = len(waveform) / SAMPLE_RATE
    record = ClipRecord(
        key="tone", kind=kind, split="train", seconds=seconds, licence="", source="", **about
    )
    return Clip(record=record, waveform=waveform)


class TonePools:
    """Sounds are tones, one frequency a label; speech is a tone at 2 kHz, noise is white."""

    def __init__(self, amplitude=0.3, peaky=False, seconds=None):
        self.amplitude, self.peaky, self.seconds = amplitude, peaky, seconds

    def tone(self, frequency, seconds):
        time = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        wave = self.amplitude * torch.sin(2 * math.pi * frequency * time)
        if self.peaky:
            wave[len(wave) // 2] = 1.0
            wave = torch.where(wave.abs() < 0.9, 1e-3 * wave, wave)
        return wave

    def length(self, generator, longest):
        drawn = 0.3 + (longest - 0.3) * float(torch.rand((), generator=generator))
        return self.seconds or drawn

    def utterance(self, generator, longest, speaker):
        # rounded down, as a pool must: never longer than asked
        seconds = math.floor(self.length(generator, longest) * SAMPLE_RATE) / SAMPLE_RATE
        words = torch.randint(len(WORDS), (3,), generator=generator).tolist()
        return make_clip(
            "speech",
            self.tone(SPEECH_HZ, seconds),
            text=" ".join(WORDS[k] for k in words),
            gender="male" if speaker % 2 else "female",
            speaker=f"speaker {speaker}",
        )

    def draw(self, kind, count, where, generator):
        if kind == "noise":
            samples = round(where.max_seconds * SAMPLE_RATE)
            waves = [0.2 * torch.randn(samples, generator=generator) for _ in range(count)]
            return [make_clip("noise", wave) for wave in waves]
        if kind == "sound":
            return [self.sound(where, item, generator) for item in range(count)]
        each = 2 if kind == "speaker_pair" else 1
        speakers = torch.randint(4, (count,), generator=generator).tolist()
        return [
            self.utterance(generator, where.max_seconds, k) for k in speakers for _ in range(each)
        ]

    def sound(self, where, item, generator):
        names = [name for name in LABELS if name not in where.excluded(item)]
        label = names[int(torch.randint(len(names), (), generator=generator))]
        wave = self.tone(LABELS[label], self.length(generator, 1.5 * where.max_seconds))
        return make_clip("sound", wave, label=label, caption=f"{label} outside")


@pytest.fixture(scope="session")
def pools():
    return TonePools()


@pytest.fixture(scope="session")
def make_pools():
    return TonePools


@pytest.fixture(scope="session")
def build(pools):
    """Builds a batch: build(task, seed=0, batch=16, pools=..., **config)."""
    from unison_audio.tasks.draw import BuilderConfig
    from unison_audio.tasks.table import TASKS

    def make(task, seed=0, batch=16, seconds=4.0, source_of_clips=pools, **config):
        return TASKS[task].build(
            source_of_clips,
            batch,
            seconds,
            SAMPLE_RATE,
            torch.Generator().manual_seed(seed),
            config=BuilderConfig(**config),
        )

    return make


@pytest.fixture(scope="session")
def label_hz():
    return LABELS
