"""Nano's evaluation: every task on held-out items, against the bars."""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import nn

from unison_audio.data.records import Clip
from unison_audio.data.whole_corpus import read_corpus
from unison_audio.errors import InputError
from unison_audio.evaluation.engine import Model, fingerprint
from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.evaluation.models.aisfx import JointEncoder, SoundEncoder
from unison_audio.evaluation.models.asr import packaged_whisper
from unison_audio.evaluation.models.event_classifier import (
    CONFIG_FILE,
    NOT_JUDGED,
    WEIGHTS_FILE,
    EventClassifier,
    is_judged,
    load_classifier,
    save_classifier,
    sound_class,
)
from unison_audio.evaluation.models.event_classifier_training import (
    ClassifierRecipe,
    train_classifier,
)
from unison_audio.evaluation.models.speaker import Resemblyzer
from unison_audio.evaluation.models.speech_quality import Dnsmos, SileroVad
from unison_audio.evaluation.models.weights import require_packages
from unison_audio.evaluation.suite import STAGES, MetricOptions, evaluate_sets
from unison_audio.evaluation.systems import ModelChoice
from unison_audio.evaluation.test_sets.build import NANO_COUNTS
from unison_audio.evaluation.test_sets.scenes import FLOOR_DBFS
from unison_audio.nano.bars import (
    EVERY_TASK,
    FINAL,
    SEQUENCES,
    SIZE,
    SLOWEST,
    Row,
    mean,
    print_rows,
    verdict,
    with_bars,
    write_report,
)
from unison_audio.nano.corpus import require_nano_corpus
from unison_audio.nano.held_out import held_out
from unison_audio.nano.items import build_items, content, make_items
from unison_audio.nano.metrics import SCORERS, SCORES_VERSION, Judges, Scorer
from unison_audio.nano.vocabulary_asr import SentenceAsr, VocabularyAsr
from unison_audio.tasks.table import TASKS

IN_FULL = ("tts", "t2a", "edit_add", "edit_remove", "speech_insert", "speech_delete", "denoise")
"""Tasks measured on all items; the others are measured on a quarter of them."""

BY_CLASS = (*("t2a", "t2a_mix", "t2as", "timed", "edit_add", "edit_replace", "speech_to_audio"),)
"""Tasks whose items hold only sounds of the classes that are judged."""

LEAST_CLASSES = 4
"""A scene holds up to a base and three events, all of different classes."""

JUDGES_FILE = "judges.json"

SPEED = "computing per second of sound"

VOICES_HEARD = 20
"""Utterances of each training voice from which the gender's pitch is learnt."""


def evaluate_nano(
    unison: Model,
    corpus: Path,
    out: Path,
    *,
    items: int = 100,
    steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    classifier: Path | None = None,
    recipe: ClassifierRecipe | None = None,
) -> dict[str, Any]:
    """Measures a model on held-out items; prints the table, writes ``nano.md`` and ``nano.json``.

    What was generated, heard and scored is kept under `out` and not made again for the same
    weights and settings, so that a run that was killed goes on, and runs of different tasks into
    one folder, also at the same time, are put together by a last one of all tasks.

    Args:
        unison: The model.
        corpus: What ``unison-audio data nano`` wrote.
        out: Folder for the table, the items and what the judges heard.
        items: Items of a task of `IN_FULL`; the others have a quarter of them, and
            ``sequences``, random sequences of words alone, three times as many.
        steps: Of sampling; the variant's if None.
        guidance_scale: Likewise.
        seed: Of the items and of the noise.
        tasks: Which tasks, ``codec`` or ``sequences``; all if None. With some the files are called
            them.
        classifier: Folder of the event classifier, which is trained where it is missing. By
            default ``classifier`` beside `out` if that exists, else inside it.
        recipe: How to train that classifier.

    Returns:
        What ``nano.json`` holds.

    Raises:
        InputError: If a task is unknown, `items` is below 1, or a judge or the corpus is missing.
    """
    chosen = _chosen(tasks)
    if items < 1:
        raise InputError(f"items is {items}; measure at least 1")
    require_nano_corpus(corpus, "Measuring nano against its bars")
    require_packages()
    rate = unison.codec.sample_rate
    out.mkdir(parents=True, exist_ok=True)
    folder = classifier_folder(out, classifier)
    judges, heard = load_judges(corpus, rate, folder, out / "heard", recipe)
    clips = [
        clip for split in ("heldout", "speakers") for clip in read_corpus(corpus, rate, split=split)
    ]
    judged = _judged(clips)
    settings = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed}
    rows: list[Row] = []
    for name in dict.fromkeys("tts" if name == "codec" else name for name in chosen):
        count = 3 * items if name == SEQUENCES else items if name in IN_FULL else max(1, items // 4)
        labels = judged if name in BY_CLASS else None
        longest = unison.variant.max_seconds
        chunks = build_items(name, clips, unison.codec, count, seed, longest, labels)
        key = fingerprint(unison, items=content(chunks), **settings)
        kept = ScoreFile(out / "scores" / f"{name}.json", key + _judging(folder))
        if kept.rows is None:
            with Progress() as progress:
                bar = progress.add_task(name, total=count)
                made = make_items(
                    unison,
                    chunks,
                    out / "items" / name,
                    key,
                    lambda n, p=progress, b=bar: p.advance(b, n),  # type: ignore[misc]
                    **settings,
                )
            scorer = Scorer(made, judges, rate)
            factor: dict[str, float | None] = {"value": made.real_time_factor}
            speed = scorer.row(SPEED, factor, percent=False)
            also = SCORERS["codec"](scorer) if name == "tts" else []
            own = [dataclasses.replace(row, task=name) for row in [*SCORERS[name](scorer), speed]]
            kept.write([*also, *own])
        assert kept.rows is not None
        rows += [row for row in kept.rows if row.task in chosen]
    if tasks is None:
        rows += _rows_about_all(unison, rows)
    said = verdict(rows, FINAL)
    about = {
        "variant": unison.variant.name,
        "fingerprint": fingerprint(unison),
        "items": items,
        **settings,
        "verdict": said,
        "judges": heard,
    }
    rows = with_bars(rows, FINAL)
    print_rows(rows)
    print(said)
    title = "nano" if tasks is None else "-".join(["nano", *chosen])
    return write_report(out, title, "Nano on held-out items", _notes(unison, about), rows, about)


def _rows_about_all(unison: Model, rows: Sequence[Row]) -> list[Row]:
    """How fast the slowest task is, and how big the weights are."""
    speeds = [row for row in rows if row.measure == SPEED]
    slowest = Row(
        task=EVERY_TASK,
        measure=SLOWEST,
        items=sum(row.items for row in speeds),
        value=max(row.value for row in speeds),
        percent=False,
    )
    parts = (getattr(unison, "backbone", None), unison.codec)
    numbers = sum(
        value.numel()
        for part in parts
        if isinstance(part, nn.Module)
        for value in part.state_dict().values()
    )
    size = Row(task=EVERY_TASK, measure=SIZE, items=1, value=2e-6 * numbers, percent=False)
    return [slowest, size]


class ScoreFile:
    """The scores of a task, kept for as long as items, judges and the scoring itself are the same.

    Args:
        path: A JSON file.
        key: Names all that the scores depend on; scores under another one do not count.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.rows: list[Row] | None = None
        stored = json.loads(path.read_text()) if path.is_file() else {}
        if stored.get("key") == key:
            self.rows = [Row(**row) for row in stored["rows"]]

    def write(self, rows: list[Row]) -> None:
        """Keeps the scores of a task."""
        self.rows = rows
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"key": self.key, "rows": [dataclasses.asdict(row) for row in rows]})
        )
        partial.replace(self.path)


def _judging(classifier: Path) -> str:
    """Names the judges: a hash of `SCORES_VERSION`, the event classifier and its figures."""
    digest = hashlib.sha256(f"scores {SCORES_VERSION} ".encode())
    for path in (classifier / WEIGHTS_FILE, classifier / JUDGES_FILE):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def classifier_folder(out: Path, classifier: Path | None = None) -> Path:
    """Where the event classifier is looked for: as given, else beside `out` or inside it."""
    beside = out.parent / "classifier"
    return classifier or (beside if (beside / WEIGHTS_FILE).is_file() else out / "classifier")


def _chosen(tasks: Sequence[str] | None) -> list[str]:
    known = ["codec", *TASKS, SEQUENCES]
    for name in tasks or ():
        if name not in known:
            raise InputError(f"There is no task {name!r} to evaluate; use {', '.join(known)}")
    return [name for name in known if tasks is None or name in tasks]


def load_judges(
    corpus: Path, rate: int, folder: Path, heard: Path, recipe: ClassifierRecipe | None = None
) -> tuple[Judges, dict[str, Any]]:
    """Loads the judges, training the event classifier where it is missing.

    Args:
        corpus: What ``unison-audio data nano`` wrote.
        rate: Of the corpus, in Hz.
        folder: Of the event classifier.
        heard: Folder for what the recognisers heard.
        recipe: How to train the classifier.

    Returns:
        The judges, and how good they are.
    """
    heard.mkdir(parents=True, exist_ok=True)
    encoder = JointEncoder([SoundEncoder(), packaged_whisper()])
    if not (folder / WEIGHTS_FILE).is_file():
        train = read_corpus(corpus, rate, split="train")
        save_classifier(folder, train_classifier(train, rate, encoder, recipe))
    events = load_classifier(folder, encoder)
    path = folder / JUDGES_FILE
    if not path.is_file():
        about = {
            "gender_threshold_hz": _gender_threshold(
                read_corpus(corpus, rate, split="train"), rate
            ),
            "classifier": _accuracy(events, read_corpus(corpus, rate, split="heldout"), rate),
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(about, indent=1) + "\n")
        partial.replace(path)
    about = json.loads(path.read_text())
    judges = Judges(
        free=SentenceAsr(),
        vocabulary=VocabularyAsr(),
        events=events,
        quality=Dnsmos(),
        presence=SileroVad(),
        voices=Resemblyzer(),
        gender_threshold=about["gender_threshold_hz"],
    )
    return judges, about


def _judged(clips: Sequence[Clip]) -> tuple[str, ...]:
    """The labels that tasks judged by class ask for."""
    labels = {clip.record.label for clip in clips if clip.record.kind == "sound"}
    judged = sorted(label for label in labels if is_judged(label))
    classes = {sound_class(label) for label in judged}
    if len(classes) < LEAST_CLASSES:
        raise InputError(
            f"The held-out sounds are of {len(classes)} classes that can be judged where at least "
            f"{LEAST_CLASSES} are needed; build a corpus with more recordings"
        )
    return tuple(judged)


def _gender_threshold(clips: Sequence[Clip], rate: int) -> float:
    """Learns from the training voices which pitch parts the genders."""
    heard: defaultdict[str, int] = defaultdict(int)
    pitches, genders = [], []
    for clip in clips:
        record = clip.record
        if record.kind == "speech" and record.text and heard[record.speaker] < VOICES_HEARD:
            heard[record.speaker] += 1
            pitches.append(metrics.median_f0(clip.waveform, rate))
            genders.append(record.gender)
    return metrics.gender_threshold(pitches, genders)


def _accuracy(events: EventClassifier, clips: Sequence[Clip], rate: int) -> dict[str, Any]:
    """Measures the classifier on the held-out recordings of the classes that are judged."""
    length = round(2.56 * rate)
    ranks: defaultdict[str, list[int]] = defaultdict(list)
    for clip in clips:
        if clip.record.kind == "sound" and is_judged(clip.record.label):
            wave = clip.waveform[:length]
            wave = F.pad(wave, (0, length - len(wave)))
            name = sound_class(clip.record.label)
            ranks[name] += events.ranks(wave[None], rate, [clip.record.label])
    every = [rank for found in ranks.values() for rank in found]
    by_class = {
        name: {
            "clips": len(found),
            **{f"top{k}": mean(rank <= k for rank in found) for k in (1, 3)},
        }
        for name, found in sorted(ranks.items())
    }
    return {
        "labels": len(events.config.labels),
        "classes": len(events.classes),
        "clips": len(every),
        **{f"top{k}": mean(rank <= k for rank in every) for k in (1, 3)},
        **{
            f"top{k}_by_class": mean(found[f"top{k}"] for found in by_class.values())
            for k in (1, 3)
        },
        "by_class": by_class,
    }


def _notes(unison: Model, about: dict[str, Any]) -> list[str]:
    judge = about["judges"]["classifier"]
    preset = unison.variant
    steps = about["steps"] or f"{preset.steps} (taking away: {preset.removal_steps})"
    guidance = about["guidance_scale"] or (
        f"{preset.guidance_scale} (edits {preset.edit_guidance_scale}, taking away "
        f"{preset.removal_guidance_scale})"
    )
    classes = "; ".join(
        f"{name} {100 * found['top3']:.0f} % of {found['clips']}"
        for name, found in judge["by_class"].items()
    )
    return [
        about["verdict"],
        f"Variant {about['variant']}, weights {about['fingerprint']}, {steps} steps of "
        f"{preset.solver}, guidance {guidance}; speech with temperature "
        f"{preset.speech_temperature:g} and the best of {preset.speech_candidates} by the model's "
        f"own error; seed {about['seed']}, torch {torch.__version__.split('+')[0]}. Every item is "
        "built by the tasks' own builders from held-out texts, recordings and, in zero_shot_tts, "
        f"voices, with white noise of {FLOOR_DBFS:.0f} dBFS under sources and targets. "
        f"{', '.join(IN_FULL)} have all items, the other tasks a quarter of them; sequences, "
        "which are tts of random sequences of one to six words, have three times as many.",
        "Words: natural sentences are judged by Whisper tiny.en, random sequences by pocketsphinx "
        "held to the vocabulary; rates are means over utterances, and words that sound alike (to, "
        "two; are, our) count as equal. Half of the words count as heard if either recogniser "
        "hears them.",
        f"Sounds: a classifier of {judge['labels']} labels trained on real training clips ranks "
        f"{judge['classes']} classes, so that chance has a class in the top 3 in "
        f"{100 * min(1.0, 3 / judge['classes']):.0f} %. Labels that are alike count as one class; "
        f"{len(NOT_JUDGED)} labels that cannot be told on real recordings are not asked for in "
        "tasks judged by class. Both are fixed from real recordings alone "
        "(`evaluation/sound_classes.py`). An added event is judged in what the output has and the "
        "source has not.",
        f"The judge's own score: of the {judge['clips']} held-out real clips of these classes it "
        f"puts {100 * judge['top1']:.0f} % first and {100 * judge['top3']:.0f} % in its top 3 (as "
        f"a mean over classes {100 * judge['top1_by_class']:.0f} % and "
        f"{100 * judge['top3_by_class']:.0f} %). In the top 3 by class: {classes}.",
        '"Nearer to the target than the source" is asked twice: against the source as it is, which '
        "is the bar's wording and hard to pass for whatever has been through the codec, since even "
        "the ground truth through it (a column of its own) is often farther from the target than "
        "an unedited source; and against the source through the codec, where the edit alone makes "
        f"the difference. In LSD, what is softer than white noise of {FLOOR_DBFS + 6:.0f} dBFS "
        "counts as equally soft.",
    ]


def event_classifier(
    corpus: Path, sample_rate: int, out: Path, recipe: ClassifierRecipe | None = None
) -> Path:
    """The folder of the classifier that nano's evaluation wrote, or of one trained now.

    Args:
        corpus: What ``unison-audio data nano`` wrote.
        sample_rate: Of the corpus, in Hz.
        out: Folder of an evaluation; ``classifier`` in it or beside it is taken if it is there.
        recipe: How to train one that is missing, in ``out/classifier``.

    Raises:
        InputError: A package is missing, or there is no such corpus.
    """
    own, beside = out / "classifier", out.parent / "classifier"
    for folder in (own, beside):
        if (folder / CONFIG_FILE).is_file():
            return folder
    encoder = JointEncoder([SoundEncoder(), packaged_whisper()])
    train = read_corpus(corpus, sample_rate, split="train")
    save_classifier(own, train_classifier(train, sample_rate, encoder, recipe))
    return own


def evaluate_nano_sets(
    choice: ModelChoice, corpus: Path, out: Path, **options: Any
) -> list[dict[str, Any]]:
    """Evaluate on test sets of the paper's kinds from the held-out nano corpus.

    Args:
        choice: The model, nano or one of its kind.
        corpus: What ``unison-audio data nano`` wrote.
        out: As for `evaluate_paper`.
        **options: As `evaluate_sets` takes them; the counts are `NANO_COUNTS` by default, and the
            judges those that come with packages, with nano's event classifier for CLAP: the one
            in `out` or beside it, or one trained now.

    Returns:
        The rows of results.

    Raises:
        InputError: As `evaluate_sets`.
    """
    require_nano_corpus(corpus, "Measuring nano on its test sets")
    rate = choice.variant.sample_rate
    metric_options = options.pop("metric_options", None) or MetricOptions(offline=True)
    scoring = "score" in options.get("stages", STAGES)
    if scoring and metric_options.offline and not {"clap", "classifier"} & {*metric_options.paths}:
        folder = event_classifier(corpus, rate, out)
        metric_options = dataclasses.replace(
            metric_options, paths={**metric_options.paths, "classifier": folder}
        )
    return evaluate_sets(
        choice,
        lambda sets: held_out(corpus, rate),
        out,
        counts={**NANO_COUNTS, **(options.pop("counts", None) or {})},
        metric_options=metric_options,
        title="Nano on held-out sets of the paper's kinds",
        paper=False,
        **options,
    )
