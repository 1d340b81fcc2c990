import math

import pytest
import torch

from unison_audio.tasks.clips import SoundClip, SpeechClip

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
        return SpeechClip(
            waveform=self.tone(SPEECH_HZ, seconds),
            text=" ".join(WORDS[k] for k in words),
            gender="male" if speaker % 2 else "female",
            speaker=f"speaker {speaker}",
        )

    def speech(self, count, generator, *, max_seconds):
        speakers = torch.randint(4, (count,), generator=generator).tolist()
        return [self.utterance(generator, max_seconds, k) for k in speakers]

    speech_any = speech

    def speaker_pairs(self, count, generator, *, max_seconds_each):
        speakers = torch.randint(4, (count,), generator=generator).tolist()
        return [
            tuple(self.utterance(generator, max_seconds_each, k) for _ in range(2))
            for k in speakers
        ]

    def sounds(self, count, generator, *, exclude_labels=None, max_seconds):
        drawn = []
        for i in range(count):
            excluded = exclude_labels[i] if exclude_labels else set()
            names = [name for name in LABELS if name not in excluded]
            label = names[int(torch.randint(len(names), (), generator=generator))]
            seconds = self.length(generator, 1.5 * max_seconds)
            wave = self.tone(LABELS[label], seconds)
            drawn.append(SoundClip(waveform=wave, label=label, caption=f"{label} outside"))
        return drawn

    def noise(self, count, generator, seconds):
        return [
            0.2 * torch.randn(round(seconds * SAMPLE_RATE), generator=generator)
            for _ in range(count)
        ]


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
