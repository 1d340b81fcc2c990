"""Which kinds of sound can be judged: classes told on real recordings of unheard families.

The perceptron of nano's event classifier is trained on the real recordings of a corpus, families of
takes apart in four folds, several times over; each recording is ranked by what has not heard its
family. Starting from the classes of `evaluation/sound_classes.py`, the class that is told least is
taken out, the ranks are counted anew among the others, and so on until each is told often enough.
No generated sound takes part. The table below the line is what `UNRANKED` holds.

    python benchmarks/sound_classes.py CORPUS
"""

import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.models.aisfx import SoundEncoder
from unison_audio.nano.event_classifier import (
    ClassifierConfig,
    ClassifierNet,
    JointEncoder,
    sound_class,
)
from unison_audio.nano.event_classifier_training import (
    Alone,
    ClassifierRecipe,
    train_perceptron,
)
from unison_audio.nano.packaged_whisper import PackagedWhisper

RATE, SECONDS = 16_000, 2.56
FOLDS, ROUNDS = 4, 3
LEAST = 0.6


def encode(corpus: Path) -> tuple[Tensor, list[str], list[str]]:
    """Features (N, features), labels and families of all recordings of sounds."""
    encoder = JointEncoder([SoundEncoder(), PackagedWhisper()])
    features, labels, families = [], [], []
    for split in ("train", "heldout"):
        for clip in read_corpus(corpus, RATE, split=split):
            if clip.record.kind == "sound":
                wave = clip.waveform[: round(SECONDS * RATE)]
                wave = F.pad(wave, (0, max(0, round(SECONDS * RATE / 2) - len(wave))))
                features.append(encoder.features(wave, RATE))
                labels.append(clip.record.label)
                families.append(re.sub(r"\d+", "", clip.record.source))
    return torch.stack(features), labels, families


def unheard(features: Tensor, labels: list[str], families: list[str], seed: int) -> Tensor:
    """Log-probabilities (N, labels) from perceptrons that have not heard the family."""
    known = sorted(set(labels))
    target = torch.tensor([known.index(label) for label in labels])
    config = ClassifierConfig(labels=tuple(known), features=features.shape[1])
    names = sorted(set(families))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(names), generator=generator).tolist()
    fold_of = {names[index]: place % FOLDS for place, index in enumerate(order)}
    folds = torch.tensor([fold_of[family] for family in families])
    scores = torch.zeros(len(labels), len(known))
    for fold in range(FOLDS):
        out = folds == fold
        torch.manual_seed(seed)
        net = ClassifierNet(config).train()
        heard = Alone(features=features[~out], labels=target[~out])
        train_perceptron(net, heard, [], ClassifierRecipe(), generator)
        with torch.no_grad():
            scores[out] = net.eval().logits_of_features(features[out])[:, :-1].log_softmax(dim=1)
    return scores


def told(rounds: list[Tensor], labels: list[str], kept: list[str]) -> dict[str, float]:
    """For each class, the share of its recordings that have it in the top 3 of those kept."""
    known = sorted(set(labels))
    members = {
        name: [i for i, label in enumerate(known) if sound_class(label) == name] for name in kept
    }
    hits: dict[str, list[float]] = {name: [] for name in kept}
    for scores in rounds:
        grouped = torch.stack([scores[:, own].logsumexp(dim=1) for own in members.values()], 1)
        for row, label in zip(grouped, labels, strict=True):
            name = sound_class(label)
            if name in hits:
                rank = 1 + int((row > row[kept.index(name)]).sum())
                hits[name].append(float(rank <= 3))
    return {name: sum(found) / len(found) for name, found in hits.items()}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    features, labels, families = encode(Path(sys.argv[1]))
    rounds = [unheard(features, labels, families, seed) for seed in range(ROUNDS)]
    kept = sorted({sound_class(label) for label in labels})
    removed: dict[str, float] = {}
    while True:
        shares = told(rounds, labels, kept)
        worst = min(kept, key=lambda name: shares[name])
        if shares[worst] >= LEAST:
            break
        removed[worst] = shares[worst]
        kept.remove(worst)
    clips = {name: sum(sound_class(label) == name for label in labels) for name in kept}
    mean = sum(shares[name] * clips[name] for name in kept) / sum(clips.values())
    print("| class | clips | in the top 3 |\n|---|---|---|")
    for name in sorted(kept, key=lambda name: -shares[name]):
        print(f"| {name} | {clips[name]} | {100 * shares[name]:.0f} % |")
    print(
        f"\n{len(kept)} classes, {100 * mean:.1f} % of {sum(clips.values())} clips in the top 3, "
        f"{100 * sum(shares.values()) / len(shares):.1f} % as a mean over classes.\n\nTaken out:"
    )
    for name, share in removed.items():
        print(f"- {name} ({100 * share:.0f} %)")


if __name__ == "__main__":
    main()
