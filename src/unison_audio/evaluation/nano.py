"""Nano's evaluation: every task on held-out items, against the first bars."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import Progress

from unison_audio.data.shards import Clip, read_corpus
from unison_audio.errors import InputError
from unison_audio.evaluation import metrics
from unison_audio.evaluation.bars import BARS, with_bars
from unison_audio.evaluation.classifier import (
    CONFIG_FILE,
    EventClassifier,
    load_classifier,
    save_classifier,
)
from unison_audio.evaluation.classifier_training import ClassifierRecipe, train_classifier
from unison_audio.evaluation.encoders import JointEncoder, SoundEncoder
from unison_audio.evaluation.items import (
    FLOOR_DBFS,
    Model,
    build_items,
    fingerprint,
    make_items,
)
from unison_audio.evaluation.judges import (
    FreeRecogniser,
    RememberingRecogniser,
    VocabularyRecogniser,
)
from unison_audio.evaluation.listeners import PresenceListener, QualityListener, VoiceListener
from unison_audio.evaluation.report import Row, mean, print_rows, write_report
from unison_audio.evaluation.scorer import Judges, Scorer
from unison_audio.evaluation.scores import SCORERS
from unison_audio.tasks.table import TASKS

BARRED = ("tts", "t2a", "edit_add", "edit_remove", "speech_insert", "speech_delete", "denoise")
"""Tasks with a first bar; the others are measured on a quarter of the items."""
BY_CLASS = (*("t2a", "t2a_mix", "t2as", "timed", "edit_add", "edit_replace", "speech_to_audio"),)
"""Tasks whose items hold only sounds that the event classifier can tell."""
JUDGES_FILE = "judges.json"
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
    bars: str = "final",
) -> dict[str, Any]:
    """Measures a model on held-out items; prints the table, writes ``nano.md`` and ``nano.json``.

    What was generated and heard is kept under `out` and not made again for the same weights and
    settings, so that a run that was killed goes on.

    Args:
        unison: The model.
        corpus: What ``unison-audio data nano`` wrote.
        out: Folder for the table, the items and what the judges heard.
        items: Items of a task that has a bar; the others have a quarter of them.
        steps: Of sampling; the variant's if None.
        guidance_scale: Likewise.
        seed: Of the items and of the noise.
        tasks: Which tasks, or ``codec``; all if None.
        classifier: Folder of the event classifier, which is trained where it is missing. By
            default ``classifier`` beside `out` if that exists, else inside it.
        recipe: How to train that classifier.
        bars: ``first`` or ``final``.

    Returns:
        What ``nano.json`` holds.

    Raises:
        InputError: If a task or the bars are unknown, `items` is below 1, or a judge or the corpus
            is missing.
    """
    chosen = _chosen(tasks)
    if items < 1:
        raise InputError(f"items is {items}; measure at least 1")
    if bars not in BARS:
        raise InputError(f"There are no bars {bars!r}; use {' or '.join(BARS)}")
    rate = unison.codec.sample_rate
    out.mkdir(parents=True, exist_ok=True)
    beside = out.parent / "classifier"
    folder = classifier or (beside if (beside / CONFIG_FILE).is_file() else out / "classifier")
    judges, heard = _judges(corpus, rate, folder, out / "heard", recipe)
    clips = [
        clip for split in ("heldout", "speakers") for clip in read_corpus(corpus, rate, split=split)
    ]
    settings = {"steps": steps, "guidance_scale": guidance_scale, "seed": seed}
    rows: list[Row] = []
    for name in dict.fromkeys("tts" if name == "codec" else name for name in chosen):
        count = items if name in BARRED else max(1, items // 4)
        told = _told(judges.events, folder) if name in BY_CLASS else None
        longest = unison.variant.max_seconds
        chunks = build_items(name, clips, unison.codec, count, seed, longest, told)
        with Progress() as progress:
            bar = progress.add_task(name, total=count)
            key = fingerprint(unison, items=count, floor=FLOOR_DBFS, labels=told, **settings)
            made = make_items(
                unison,
                chunks,
                out / "items" / name,
                key,
                lambda n, p=progress, b=bar: p.advance(b, n),  # type: ignore[misc]
                **settings,
            )
        scorer = Scorer(made, judges, rate)
        for scored in ("codec", name) if name == "tts" else (name,):
            if scored in chosen:
                rows += SCORERS[scored](scorer)
        if name in chosen:
            factor = {"value": made.real_time_factor}
            rows.append(scorer.row("computing per second of sound", dict(factor), percent=False))
        for recogniser in (judges.free, judges.vocabulary):
            if isinstance(recogniser, RememberingRecogniser):
                recogniser.write()
    about = {
        "variant": unison.variant.name,
        "fingerprint": fingerprint(unison),
        "items": items,
        **settings,
        "bars": bars,
        "judges": heard,
    }
    rows = with_bars(rows, BARS[bars])
    print_rows(rows)
    return write_report(out, "nano", "Nano on held-out items", _notes(unison, about), rows, about)


def _chosen(tasks: Sequence[str] | None) -> list[str]:
    known = ["codec", *TASKS]
    for name in tasks or ():
        if name not in known:
            raise InputError(f"There is no task {name!r} to evaluate; use {', '.join(known)}")
    return [name for name in known if tasks is None or name in tasks]


def _judges(
    corpus: Path, rate: int, folder: Path, heard: Path, recipe: ClassifierRecipe | None
) -> tuple[Judges, dict[str, Any]]:
    """Loads the judges, training the classifier where it is missing; tells how good they are."""
    heard.mkdir(parents=True, exist_ok=True)
    free, vocabulary = FreeRecogniser(), VocabularyRecogniser()
    encoder = JointEncoder([SoundEncoder(), free])
    path = folder / JUDGES_FILE
    if not path.is_file():
        train = read_corpus(corpus, rate, split="train")
        events = train_classifier(train, rate, encoder, recipe)
        save_classifier(folder, events)
        about = {
            "gender_threshold_hz": _gender_threshold(train, rate),
            "classifier": _accuracy(events, read_corpus(corpus, rate, split="heldout"), rate),
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(about, indent=1) + "\n")
        partial.replace(path)
    about = json.loads(path.read_text())
    judges = Judges(
        free=RememberingRecogniser(free, heard / "free.json"),
        vocabulary=RememberingRecogniser(vocabulary, heard / "vocabulary.json"),
        events=load_classifier(folder, encoder),
        quality=QualityListener(),
        presence=PresenceListener(),
        voices=VoiceListener(),
        gender_threshold=about["gender_threshold_hz"],
    )
    return judges, about


def _told(events: EventClassifier, folder: Path) -> tuple[str, ...]:
    """The labels to ask for; a scene holds up to a base and three events, all different."""
    told = events.config.told
    if len(told) < 4:
        raise InputError(
            f"The event classifier in {folder} can tell only {len(told)} kinds of sound where at "
            "least 4 are needed; delete the folder and train it on a corpus with more recordings"
        )
    return told


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
    """Measures the classifier on held-out recordings."""
    sounds = [clip for clip in clips if clip.record.kind == "sound"]
    length = round(2.56 * rate)
    ranks = []
    for clip in sounds:
        wave = clip.waveform[:length]
        wave = F.pad(wave, (0, length - len(wave)))
        ranks += events.ranks(wave[None], rate, [clip.record.label])
    by_label = defaultdict(list)
    for clip, rank in zip(sounds, ranks, strict=True):
        by_label[clip.record.label].append(rank)
    told = [rank for label in events.config.told for rank in by_label.get(label, [])]
    return {
        "clips": len(sounds),
        "labels": len(events.config.labels),
        "told": len(events.config.told),
        "top3_told": mean(rank <= 3 for rank in told),
        **{f"top{k}": mean(rank <= k for rank in ranks) for k in (1, 3)},
        **{
            f"top{k}_by_label": mean(mean(rank <= k for rank in r) for r in by_label.values())
            for k in (1, 3)
        },
    }


def _notes(unison: Model, about: dict[str, Any]) -> list[str]:
    judge = about["judges"]["classifier"]
    steps = about["steps"] or unison.variant.steps
    guidance = about["guidance_scale"] or unison.variant.guidance_scale
    return [
        f"Variant {about['variant']}, weights {about['fingerprint']}, {steps} steps, guidance "
        f"{guidance}, seed {about['seed']}, torch {torch.__version__.split('+')[0]}. Every item is "
        "built by the tasks' own builders from held-out texts, recordings and, in zero_shot_tts, "
        f"voices, with white noise of {FLOOR_DBFS:.0f} dBFS under sources and targets. Tasks "
        "without a first bar have a quarter of the items.",
        "Words: natural sentences are judged by Whisper tiny.en, random sequences by pocketsphinx "
        "held to the vocabulary; rates are means over utterances, and words that sound alike (to, "
        "two; are, our) count as equal. Half of the words count as heard if either recogniser "
        "hears them.",
        f"Sounds: a classifier of {judge['labels']} labels trained on real training clips. Of the "
        f"{judge['clips']} held-out real clips it puts {100 * judge['top1']:.0f} % first and "
        f"{100 * judge['top3']:.0f} % in its top 3 (as a mean over labels "
        f"{100 * judge['top1_by_label']:.0f} % and {100 * judge['top3_by_label']:.0f} %). "
        f"Cross-validated within the training clips it can tell {judge['told']} labels on families "
        f"of takes it has not heard (top 3 on the held-out clips of these: "
        f"{100 * judge['top3_told']:.0f} %); tasks judged by class ask for these alone. An added "
        "event is judged in what the output has and the source has not.",
    ]
