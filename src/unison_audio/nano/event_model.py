"""Nano's event classifier: trained where it is missing, and measured on real recordings."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch.nn.functional as F

from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import signal
from unison_audio.files import write_whole
from unison_audio.nano.event_classifier import (
    WEIGHTS_FILE,
    EventClassifier,
    is_ranked,
    load_classifier,
    save_classifier,
    sound_class,
)
from unison_audio.nano.event_classifier_training import (
    ClassifierRecipe,
    train_classifier,
)
from unison_audio.nano.label_matcher import event_encoder
from unison_audio.nano.metrics import ABOUT_FILE
from unison_audio.nano.results import mean

LEAST_CLASSES = 4
"""Minimum number of classes: a scene has a base and up to three events, all of different
classes."""

PITCH_UTTERANCES = 20
"""Utterances of each training voice from which the genders' pitch is learned."""

CLIP_SECONDS = 2.56
"""Length of the recordings on which the classifier is measured, that of nano's items."""


def classifier_folder(out: Path, classifier: Path | None = None) -> Path:
    """Folder of the event classifier: as given, else beside `out` or inside it."""
    beside = out.parent / "classifier"
    return classifier or (beside if (beside / WEIGHTS_FILE).is_file() else out / "classifier")


def prepare_classifier(
    corpus: Path, rate: int, folder: Path, recipe: ClassifierRecipe | None = None
) -> dict[str, Any]:
    """Trains the event classifier where it is missing, and measures it on held-out recordings.

    Args:
        corpus: Folder that ``unison-audio data nano`` wrote.
        rate: Sample rate of the corpus in Hz.
        folder: Folder of the classifier.
        recipe: How to train it.

    Returns:
        What the file `ABOUT_FILE` in the folder holds: keys "gender_threshold_hz" and "classifier".

    Raises:
        InputError: A package is missing, or the classifier is damaged.
    """
    encoder = event_encoder()
    if not (folder / WEIGHTS_FILE).is_file():
        train = read_corpus(corpus, rate, split="train")
        save_classifier(folder, train_classifier(train, rate, encoder, recipe))
    # Measured on recordings that the classifier has not seen: its own accuracy bounds every figure
    # that it gives, and the report prints it beside them.
    path = folder / ABOUT_FILE
    if not path.is_file():
        classifier = load_classifier(folder, encoder)
        about = {
            "gender_threshold_hz": _gender_threshold(
                read_corpus(corpus, rate, split="train"), rate
            ),
            "classifier": _accuracy(classifier, read_corpus(corpus, rate, split="heldout"), rate),
        }
        write_whole(path, json.dumps(about, indent=1) + "\n")
    return json.loads(path.read_text())


def ranked_labels(clips: Sequence[Clip]) -> tuple[str, ...]:
    """The labels that tasks measured by class ask for.

    Raises:
        InputError: There are too few classes.
    """
    labels = {clip.record.label for clip in clips if clip.record.kind == "sound"}
    ranked = sorted(label for label in labels if is_ranked(label))
    classes = {sound_class(label) for label in ranked}
    if len(classes) < LEAST_CLASSES:
        raise InputError(
            f"The held-out sounds are of {len(classes)} classes that can be ranked where at least "
            f"{LEAST_CLASSES} are needed; build a corpus with more recordings"
        )
    return tuple(ranked)


def gender_threshold(pitches: Sequence[float], genders: Sequence[str]) -> float:
    """Finds the pitch that best parts male from female voices.

    Args:
        pitches: Median F0 of utterances in Hz; those that are not finite are left out.
        genders: ``male`` or ``female`` for each.

    Returns:
        Hz: the middle of the range of thresholds with the fewest mistakes.

    Raises:
        InputError: If a gender is missing.
    """
    known = sorted((f0, g) for f0, g in zip(pitches, genders, strict=True) if math.isfinite(f0))
    if {gender for _, gender in known} != {"male", "female"}:
        raise InputError("Voices of both genders are needed to part them by pitch; take more clips")
    edges = [known[0][0], *(f0 for f0, _ in known), known[-1][0]]
    middles = [math.sqrt(a * b) for a, b in pairwise(edges)]
    mistakes = [sum((f0 > cut) != (g == "female") for f0, g in known) for cut in middles]
    best = [cut for cut, wrong in zip(middles, mistakes, strict=True) if wrong == min(mistakes)]
    return best[len(best) // 2]


def _gender_threshold(clips: Sequence[Clip], rate: int) -> float:
    """Learns the pitch that separates the genders from the training voices."""
    used: defaultdict[str, int] = defaultdict(int)
    pitches, genders = [], []
    for clip in clips:
        record = clip.record
        if record.kind == "speech" and record.text and used[record.speaker] < PITCH_UTTERANCES:
            used[record.speaker] += 1
            pitches.append(signal.median_f0(clip.waveform, rate))
            genders.append(record.gender)
    return gender_threshold(pitches, genders)


def _accuracy(classifier: EventClassifier, clips: Sequence[Clip], rate: int) -> dict[str, Any]:
    """Accuracy on the held-out recordings of the classes that are ranked."""
    length = round(CLIP_SECONDS * rate)
    ranks: defaultdict[str, list[int]] = defaultdict(list)
    for clip in clips:
        if clip.record.kind == "sound" and is_ranked(clip.record.label):
            wave = clip.waveform[:length]
            wave = F.pad(wave, (0, length - len(wave)))
            name = sound_class(clip.record.label)
            ranks[name] += classifier.ranks(wave[None], rate, [clip.record.label])
    every = [rank for found in ranks.values() for rank in found]
    by_class = {
        name: {
            "clips": len(found),
            **{f"top{k}": mean(rank <= k for rank in found) for k in (1, 3)},
        }
        for name, found in sorted(ranks.items())
    }
    return {
        "labels": len(classifier.config.labels),
        "classes": len(classifier.classes),
        "clips": len(every),
        **{f"top{k}": mean(rank <= k for rank in every) for k in (1, 3)},
        **{
            f"top{k}_by_class": mean(found[f"top{k}"] for found in by_class.values())
            for k in (1, 3)
        },
        "by_class": by_class,
    }
