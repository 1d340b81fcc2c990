"""Training the event classifier: scenes of real clips, and the steps over them."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor, nn

from unison_audio.audio import normalize_rms, resample
from unison_audio.data.pools import colored_noise
from unison_audio.data.records import Clip
from unison_audio.errors import InputError
from unison_audio.nano.event_classifier import (
    ClassifierConfig,
    ClassifierNet,
    EventClassifier,
    FeatureEncoder,
    log_mel,
    mel_power,
)
from unison_audio.spectrogram import istft, mel_filters, stft
from unison_audio.tasks import scene

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe:
    """How the classifier is trained."""

    steps: int = 1300
    """Steps of the convolutions."""
    batch: int = 32
    """Scenes in a step."""
    encoded_steps: int = 40
    """So many first batches also go through the encoder; from these, and from the clips by
    themselves, the perceptron learns."""
    alone: float = 0.75
    """Share of clips by themselves, all labels alike, in what the perceptron sees."""
    seconds: tuple[float, ...] = (1.92, 2.56)
    """Lengths of scenes, one drawn a step."""
    peak_lr: float = 2e-3
    """Highest learning rate; it rises over a tenth of the steps and falls as a cosine."""
    weight_decay: float = 0.02
    """Of AdamW."""
    speeds: tuple[float, ...] = (0.93, 1.0, 1.08)
    """Playback rates of the clips."""
    second_event: float = 0.4
    """Probability of a second event in a scene."""
    speech: float = 0.25
    """Probability of speech in a scene."""
    noise: float = 0.3
    """Probability of broadband noise in a scene."""
    smeared: float = 0.4
    """Probability that a scene is smeared as by a lossy codec, of no particular kind."""
    perceptron_steps: int = 700
    """Steps of the perceptron."""
    seed: int = 0
    """Seed of all that is drawn."""


class Scenes:
    """Scenes made from real clips: an event, perhaps a second one, speech and noise.

    Args:
        clips: Training clips, sounds and speech.
        labels: The event labels in the classifier's order.
        sample_rate: Of the clips, in Hz.
        recipe: How to mix.

    Raises:
        InputError: If there is no sound among the clips.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        sample_rate: int,
        recipe: ClassifierRecipe,
    ) -> None:
        self.recipe, self.sample_rate = recipe, sample_rate
        self.outputs = len(labels) + 1
        self.by_label: defaultdict[int, list[list[Tensor]]] = defaultdict(list)
        for clip in clips:
            if clip.record.kind == "sound":
                versions = [
                    resample(clip.waveform, round(sample_rate * speed), sample_rate)
                    for speed in recipe.speeds
                ]
                label = labels.index(clip.record.label)
                self.by_label[label].append(versions)
        self.speech = [clip.waveform for clip in clips if clip.record.kind == "speech"]
        self.labels = sorted(self.by_label)
        if not self.labels:
            raise InputError("There is no sound to train the classifier on; build the corpus again")

    def draw(self, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Makes a batch.

        Args:
            samples: Length of each scene.
            generator: A CPU generator.

        Returns:
            Waveforms (B, samples) and targets (B, labels + 1) that sum to 1.
        """
        waves = torch.zeros(self.recipe.batch, samples)
        targets = torch.zeros(self.recipe.batch, self.outputs)
        for wave, target in zip(waves, targets, strict=True):
            two, spoken, noisy = torch.rand(3, generator=generator).tolist()
            for _ in range(2 if two < self.recipe.second_event else 1):
                label = _choose(self.labels, generator)
                clip = _choose(_choose(self.by_label[label], generator), generator)
                wave += self._laid(clip, samples, generator) * _gain(-2.5, 2.5, generator)
                target[label] = 1.0
            if self.speech and spoken < self.recipe.speech:
                laid = self._laid(_choose(self.speech, generator), samples, generator, loop=False)
                wave += laid * _gain(-8.0, 10.0, generator)
                target[-1] = 1.0
            if noisy < self.recipe.noise:
                slope = 2.0 * float(torch.rand((), generator=generator))
                wave += colored_noise(samples, slope, generator) * _gain(-35.0, -5.0, generator)
        chosen = torch.rand(len(waves), generator=generator) < self.recipe.smeared
        if chosen.any():
            waves[chosen] = smear(waves[chosen], self.sample_rate, generator)
        return normalize_rms(waves), targets / targets.sum(dim=1, keepdim=True)

    def alone(self, samples: int) -> Iterator[tuple[Tensor, int]]:
        """Gives every clip by itself, at most so long, with its label."""
        for label, clips in self.by_label.items():
            for versions in clips:
                clip = versions[len(versions) // 2][:samples]
                yield F.pad(clip, (0, max(0, samples // 2 - len(clip)))), label

    def _laid(
        self, clip: Tensor, samples: int, generator: torch.Generator, loop: bool = True
    ) -> Tensor:
        """Lays a clip into a scene as the builders do: cropped, repeated, placed anywhere."""
        cut = normalize_rms(scene.crop(clip, samples, generator))
        fade = self.sample_rate // 100
        if loop and float(torch.rand((), generator=generator)) < 0.4:
            gap = scene.integer(0, len(cut) // 2, generator)
            length = scene.integer(len(cut), samples, generator)
            cut = scene.repeat(cut, length, gap=gap, fade=fade, whole=True)
        return scene.place(cut, samples, scene.integer(0, samples - len(cut), generator), fade)


def smear(waveform: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Smears waveforms (B, samples) as vocoders do: coarse bands, and phases that are partly lost.

    Args:
        waveform: What to smear.
        sample_rate: In Hz.
        generator: Draws the bands' number and how much of magnitudes and phases is lost.
    """
    n_fft, mels = 1024, scene.integer(40, 90, generator)
    spectrum = stft(waveform, n_fft, n_fft // 4)
    filters = mel_filters(sample_rate, n_fft, mels)  # (mels, bins)
    bands = filters @ spectrum.abs() / filters.sum(dim=1, keepdim=True).clamp_min(1e-3)
    coarse = filters.T @ bands / filters.sum(dim=0)[:, None].clamp_min(1e-3)
    keep = torch.rand(len(waveform), 1, 1, generator=generator)
    magnitude = torch.lerp(coarse, spectrum.abs(), keep)
    lost = math.pi * torch.rand(len(waveform), 1, 1, generator=generator)
    turn = lost * (2 * torch.rand(spectrum.shape, generator=generator) - 1)
    smeared = torch.polar(magnitude, spectrum.angle() + turn)
    return istft(smeared, n_fft // 4, waveform.shape[1])


def train_classifier(
    clips: Sequence[Clip],
    sample_rate: int,
    encoder: FeatureEncoder,
    recipe: ClassifierRecipe | None = None,
) -> EventClassifier:
    """Trains the classifier on real clips.

    Args:
        clips: Training clips, sounds and speech.
        sample_rate: Of the clips, in Hz.
        encoder: The encoder whose features the perceptron reads.
        recipe: How to train.

    Returns:
        The classifier; the same clips, recipe and machine give the same one.
    """
    recipe = recipe or ClassifierRecipe()
    labels = tuple(sorted({clip.record.label for clip in clips if clip.record.kind == "sound"}))
    scenes = Scenes(clips, labels, sample_rate, recipe)
    generator = torch.Generator().manual_seed(recipe.seed)
    mixed: list[tuple[Tensor, Tensor]] = []
    with torch.random.fork_rng(devices=[]), Progress() as progress:
        torch.manual_seed(recipe.seed)
        size = len(encoder.features(torch.zeros(sample_rate), sample_rate))
        config = ClassifierConfig(labels=labels, sample_rate=sample_rate, features=size)
        net = ClassifierNet(config).train()
        optimizer = _optimizer(net, recipe)
        bar = progress.add_task("event classifier", total=recipe.steps)
        for step in range(recipe.steps):
            seconds = _choose(recipe.seconds, generator)
            waves, target = scenes.draw(round(seconds * sample_rate), generator)
            if step < recipe.encoded_steps:
                mixed += [
                    (encoder.features(wave, sample_rate), wanted)
                    for wave, wanted in zip(waves, target, strict=True)
                ]
            logits = net.logits_of_mel(_disturbed(mel_power(waves, config), generator))
            loss = F.cross_entropy(logits, target, label_smoothing=0.05)
            _update(optimizer, loss, recipe.peak_lr * _schedule(step, recipe.steps))
            progress.update(bar, advance=1, description=f"event classifier {loss.item():.2f}")
        alone = Alone.of(scenes, encoder, sample_rate, generator)
        train_perceptron(net, alone, mixed, recipe, generator)
    return EventClassifier(config, net, encoder)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What the encoder gives for the clips by themselves, each plain and smeared."""

    features: Tensor
    """(2 N, features); the plain ones first."""
    labels: Tensor
    """(2 N,)."""

    @classmethod
    def of(
        cls, scenes: Scenes, encoder: FeatureEncoder, sample_rate: int, generator: torch.Generator
    ) -> "Alone":
        """Encodes all clips of the scenes."""
        plain, smeared, labels = [], [], []
        for wave, label in scenes.alone(round(max(scenes.recipe.seconds) * sample_rate)):
            plain.append(encoder.features(wave, sample_rate))
            again = smear(wave[None], sample_rate, generator)[0]
            smeared.append(encoder.features(again, sample_rate))
            labels.append(label)
        return cls(
            features=torch.stack([*plain, *smeared]), labels=torch.tensor([*labels, *labels])
        )


def train_perceptron(
    net: ClassifierNet,
    alone: Alone,
    mixed: Sequence[tuple[Tensor, Tensor]],
    recipe: ClassifierRecipe,
    generator: torch.Generator,
) -> None:
    """Trains the part over the encoder's features, blending pairs.

    Args:
        net: The network; its other part is left as it is.
        alone: The clips by themselves.
        mixed: Features (features,) of scenes, with targets (labels + 1,) that sum to 1.
        recipe: How to train.
        generator: A CPU generator.
    """
    outputs = len(net.perceptron[-1].bias)  # type: ignore[arg-type]
    features = torch.cat([alone.features, *(encoded[None] for encoded, _ in mixed)])
    one_hot = F.one_hot(alone.labels, outputs).float()
    targets = torch.cat([one_hot, *(target[None] for _, target in mixed)])
    rarity = 1.0 / torch.bincount(alone.labels, minlength=outputs)[alone.labels]
    weights = torch.cat(
        [
            rarity / rarity.sum() * recipe.alone,
            torch.full((len(mixed),), (1 - recipe.alone) / max(1, len(mixed))),
        ]
    )
    net.feature_mean.copy_(features.mean(dim=0))
    net.feature_scale.copy_(features.std(dim=0).clamp_min(1e-5))
    optimizer = _optimizer(net, recipe)
    for step in range(recipe.perceptron_steps):
        drawn = torch.multinomial(weights, 2 * 128, replacement=True, generator=generator)
        first, second = drawn.view(2, 128)
        share = torch.rand(128, 1, generator=generator) ** 3  # mostly the first alone
        blended = torch.lerp(features[first], features[second], share / 2)
        target = torch.lerp(targets[first], targets[second], share / 2)
        loss = F.cross_entropy(net.logits_of_features(blended), target, label_smoothing=0.05)
        _update(optimizer, loss, recipe.peak_lr * _schedule(step, recipe.perceptron_steps))


def _disturbed(power: Tensor, generator: torch.Generator) -> Tensor:
    """Filters mel powers (B, mels, T), takes the logarithm, roughens it, masks bands and frames."""
    floor = 10.0 ** -(4.5 + 2.0 * float(torch.rand((), generator=generator)))
    mel = log_mel(power * _filter(len(power), power.shape[1], generator), floor)
    rough = 0.05 * torch.rand(len(mel), 1, 1, generator=generator)
    mel = mel + rough * torch.randn(mel.shape, generator=generator)
    lowest = mel.amin(dim=(1, 2))
    for row, low in zip(mel, lowest, strict=True):
        for axis, widest in ((0, 10), (1, mel.shape[2] // 6)):
            width = scene.integer(0, widest, generator)
            start = scene.integer(0, row.shape[axis] - width, generator)
            row.narrow(axis, start, width).fill_(float(low))
    return mel


def _filter(batch: int, mels: int, generator: torch.Generator) -> Tensor:
    """Draws smooth filters within some decibels, some with a falling top: (B, mels, 1)."""
    knots = 4.0 * torch.randn(batch, 1, 6, generator=generator)
    decibels = F.interpolate(knots, mels, mode="linear", align_corners=True)[:, 0]
    cut = mels * (0.6 + 1.4 * torch.rand(batch, 1, generator=generator))
    decibels = decibels - 6.0 * (torch.arange(mels)[None] - cut).clamp_min(0)
    return 10.0 ** (decibels / 10.0)[:, :, None]


def _optimizer(net: nn.Module, recipe: ClassifierRecipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)  # the part that has no gradient stays as it is
    loss.backward()
    optimizer.step()


def _schedule(step: int, steps: int) -> float:
    rising = min(1.0, (step + 1) / max(1, steps // 10))
    return rising * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _choose(items: Sequence[T], generator: torch.Generator) -> T:
    return items[scene.integer(0, len(items) - 1, generator)]


def _gain(low_db: float, high_db: float, generator: torch.Generator) -> float:
    share = float(torch.rand((), generator=generator))
    return 10.0 ** ((low_db + (high_db - low_db) * share) / 20.0)
