"""The event classifier: ranks event labels by how well they fit a recording.

The log-probabilities of two small parts, trained on real clips, are added: convolutions over a
log-mel spectrogram, and a perceptron over the features of a speech recognition model's encoder,
which knows sounds well (Gong et al. 2023). Speech or other sounds mixed in must not disturb it.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unison_audio.audio import resample
from unison_audio.errors import InputError
from unison_audio.files import file_hash
from unison_audio.spectrogram import istft, mel_filters, stft
from unison_audio.tensor_files import write_tensors

MERGED = {
    "a door opening": "a door",
    "a door closing": "a door",
    "footsteps": "footsteps",
    "footsteps in snow": "footsteps",
    "a pickaxe": "metal struck",
    "a sword clash": "metal struck",
    "metal clanking": "metal struck",
    "hammering on metal": "metal struck",
    "chopping wood": "wood struck",
    "a knock on wood": "wood struck",
    "a truck": "an engine",
    "a car engine": "an engine",
    "a jet plane": "an aircraft",
    "a propeller plane": "an aircraft",
    "a helicopter": "an aircraft",
}
"""Label -> class; a label that is not here is a class by itself."""

UNRANKED = frozenset(
    {
        "a bell ringing",
        "a bird of prey or exotic bird",
        "a car crash",
        "a deer calling",
        "a dog barking",
        "a donkey or camel",
        "a hand clap or snap",
        "a horse galloping",
        "a machine running",
        "a pig grunting",
        "a power tool",
        "a snake hissing",
        "a squeak",
        "a train passing",
        "a wolf howling",
        "an arrow being shot",
        "coins",
        "creaking wood",
        "cutting with a blade",
        "digging in dirt",
        "ducks and geese",
        "eating and drinking",
        "glass breaking",
        "hammering",
        "insects buzzing",
        "rocks falling and rumbling",
        "rustling leaves",
        "sawing wood",
        "seagulls",
        "tyres skidding",
    }
)
"""Labels that the classifier confuses on real recordings."""


def sound_class(label: str) -> str:
    """The class that a label belongs to."""
    return MERGED.get(label, label)


def is_ranked(label: str) -> bool:
    """Whether tasks measured by class may ask for a label."""
    return label not in UNRANKED


CONFIG_FILE = "classifier.json"

WEIGHTS_FILE = "classifier.safetensors"


class FeatureEncoder(Protocol):
    """Describes recordings by vectors; `aisfx.SoundEncoder` and `PackagedWhisper` do."""

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a waveform (samples,) by a vector (features,)."""
        ...


class JointEncoder:
    """Several encoders side by side.

    Args:
        encoders: Encoders; their vectors are joined in this order.
    """

    def __init__(self, encoders: Sequence[FeatureEncoder]) -> None:
        self.encoders = tuple(encoders)

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a waveform (samples,) by all of them, (sum of their features,)."""
        return torch.cat([encoder.features(waveform, sample_rate) for encoder in self.encoders])


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Shape of the classifier."""

    labels: tuple[str, ...]
    """Labels of its outputs; a further output, the last, stands for speech."""
    sample_rate: int = 16_000
    """Of the waveforms, in Hz."""
    n_fft: int = 512
    """STFT size."""
    hop: int = 256
    """Samples between two frames."""
    mels: int = 64
    """Mel bands."""
    widths: tuple[int, ...] = (24, 48, 64, 96, 128, 192)
    """Channels of the convolutions."""
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 1))
    """Their strides over (mel, time)."""
    dropout: float = 0.3
    """Before the last layer of the convolutions."""
    features: int = 1152
    """Number of features of the encoder."""
    hidden: int = 256
    """Width of the perceptron over these."""


def mel_power(waveform: Tensor, config: ClassifierConfig) -> Tensor:
    """Computes mel powers: (B, samples) -> (B, mels, T)."""
    spectrum = stft(waveform, config.n_fft, config.hop, padding="zeros")
    filters = mel_filters(config.sample_rate, config.n_fft, config.mels)
    return filters @ spectrum.abs().square()


def log_mel(power: Tensor, floor: float = 1e-6) -> Tensor:
    """Makes mel powers (B, mels, T) independent of the level: dB below the loudest frame, scaled.

    Args:
        power: Mel powers.
        floor: Least power shown, relative to the loudest frame's mean over the bands.
    """
    loudest = power.mean(dim=1, keepdim=True).amax(dim=2, keepdim=True).clamp_min(1e-12)
    return (power / loudest + floor).log10() / 3.0 + 1.0  # about -1..1.5


class ClassifierNet(nn.Module):
    """Both trained parts; each gives logits of the labels and, last, of speech."""

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in, rows = 1, config.mels
        for width, stride in zip(config.widths, config.strides, strict=True):
            layers += [
                nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            width_in, rows = width, -(-rows // stride[0])
        outputs = len(config.labels) + 1
        self.convolutions = nn.Sequential(*layers)
        self.bands = nn.Conv1d(width_in * rows, width_in, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * width_in, outputs)
        self.register_buffer("feature_mean", torch.zeros(config.features))
        self.register_buffer("feature_scale", torch.ones(config.features))
        self.perceptron = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(config.features, config.hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(config.hidden, outputs),
        )

    def logits_of_mel(self, mel: Tensor) -> Tensor:
        """Maps log-mels (B, mels, T) to logits (B, labels + 1)."""
        spectrogram = mel[:, None].contiguous(memory_format=torch.channels_last)  # much faster
        x = self.convolutions(spectrogram).flatten(1, 2)  # (B, width * rows, T')
        x = F.relu(self.bands(x))
        x = torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)  # (B, 2 width)
        return self.head(self.dropout(x))

    def logits_of_features(self, features: Tensor) -> Tensor:
        """Maps the encoder's features (B, features) to logits (B, labels + 1)."""
        return self.perceptron((features - self.feature_mean) / self.feature_scale)


class EventClassifier:
    """A trained classifier as a metric model.

    Args:
        config: Its shape and labels.
        net: Its network.
        encoder: The encoder whose features it was trained on.
        identity: Identity of the classifier: checksums of its files.
    """

    model = "event classifier"

    def __init__(
        self,
        config: ClassifierConfig,
        net: ClassifierNet,
        encoder: FeatureEncoder,
        identity: str = "",
    ) -> None:
        self.config, self.encoder, self.identity = config, encoder, identity or self.model
        self.net = net.eval().requires_grad_(False)
        members: defaultdict[str, list[int]] = defaultdict(list)
        for index, label in enumerate(config.labels):
            if is_ranked(label):
                members[sound_class(label)].append(index)
        self.classes = dict(sorted(members.items()))
        """Ranked class -> its labels' numbers."""

    def scores(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Scores the labels, speech left out.

        Args:
            waveform: (B, samples).
            sample_rate: Of the waveform, in Hz.

        Returns:
            Mean log-probabilities of the two parts, (B, labels).
        """
        rate = self.config.sample_rate
        wave = resample(waveform.cpu().float(), sample_rate, rate)
        with torch.no_grad():
            seen = self.net.logits_of_mel(log_mel(mel_power(wave, self.config)))
            encoded = self.net.logits_of_features(
                torch.stack([self.encoder.features(row, rate) for row in wave])
            )
        both = [logits[:, :-1].log_softmax(dim=1) for logits in (seen, encoded)]
        return (both[0] + both[1]) / 2

    def ranks(
        self,
        waveform: Tensor,
        sample_rate: int,
        labels: Sequence[str],
        beside: Sequence[Sequence[str]] = (),
    ) -> list[int]:
        """Ranks each item's class among the ranked classes; 1 is the best.

        Args:
            waveform: (B, samples).
            sample_rate: In Hz.
            labels: One an item; what counts is the class that it belongs to.
            beside: For each item, or for none, the labels that are known to sound too; their
                classes do not count.

        Raises:
            InputError: If a label is none of the classifier's, or is not ranked.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        known = {
            label: places[sound_class(label)] for label in self.config.labels if is_ranked(label)
        }
        missing = sorted(set(labels) - known.keys())
        if missing:
            raise InputError(
                f"The classifier does not rank {missing[0]!r}; delete its folder so that it is "
                "trained again on this corpus"
            )
        scores = self.scores(waveform, sample_rate)
        scores = torch.stack([scores[:, own].logsumexp(dim=1) for own in self.classes.values()], 1)
        own = scores.gather(1, torch.tensor([[known[label]] for label in labels]))
        better = scores > own
        for row, names in zip(better, beside, strict=False):
            for name in names:
                if name in known:
                    row[known[name]] = False
        return (1 + better.sum(dim=1)).tolist()


def what_is_new(output: Tensor, source: Tensor, n_fft: int = 1024) -> Tensor:
    """Removes the unedited part of an edit's output, by spectral subtraction.

    Args:
        output: (B, samples).
        source: (B, samples), what was edited.
        n_fft: STFT size; the hop is a quarter of it.

    Returns:
        (B, samples): the output where, in time and frequency, it has more power than the source.
    """
    edited, original = (stft(wave, n_fft, n_fft // 4) for wave in (output, source))
    power, before = (
        F.avg_pool2d(spectrum.abs().square()[:, None], 3, 1, 1)[:, 0]
        for spectrum in (edited, original)
    )  # neighbors together, since noise made anew differs bin by bin
    gain = (1 - 2 * before / power.clamp_min(1e-12)).clamp_min(0).sqrt()
    return istft(edited * gain, n_fft // 4, output.shape[1])


def save_classifier(folder: Path, classifier: EventClassifier) -> None:
    """Writes ``classifier.json`` and ``classifier.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in classifier.net.state_dict().items()}
    partial = folder / f"{WEIGHTS_FILE}.partial"
    write_tensors(weights, partial)
    (folder / CONFIG_FILE).write_text(
        json.dumps(dataclasses.asdict(classifier.config), indent=1) + "\n"
    )
    partial.replace(folder / WEIGHTS_FILE)


def load_classifier(folder: Path, encoder: FeatureEncoder) -> EventClassifier:
    """Reads what `save_classifier` wrote.

    Args:
        folder: Where.
        encoder: The encoder it was trained with.

    Raises:
        InputError: If a file is missing or damaged.
    """
    try:
        stored = json.loads((folder / CONFIG_FILE).read_text())
        config = ClassifierConfig(
            **{
                **stored,
                "labels": tuple(stored["labels"]),
                "widths": tuple(stored["widths"]),
                "strides": tuple((rows, columns) for rows, columns in stored["strides"]),
            }
        )
        net = ClassifierNet(config)
        net.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"The classifier in {folder} cannot be used ({reason}); delete the folder so that it "
            "is trained again"
        ) from error
    identity = " ".join(file_hash(folder / file) for file in (CONFIG_FILE, WEIGHTS_FILE))
    return EventClassifier(config, net, encoder, identity)
