"""The command that trains the ablations of the paper's Table 8."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unison_audio.cli.train_flags import (
    AblationFlags,
    Files,
    FullAblationFlags,
    FullSizeDeviceFlags,
    NanoAblationFlags,
    check_corpora,
)
from unison_audio.errors import InputError
from unison_audio.training.configs import ModelFiles, RecipeChanges, at_least_one, check_workers

if TYPE_CHECKING:
    from unison_audio.evaluation.systems import ModelChoice
    from unison_audio.training.ablations import Evaluator

SETS, METRICS = ("audiocaps", "seed-tts"), ("fd", "clap", "wer")
"""Test sets and metrics of Table 8."""

NANO_STEPS = 2000

ABLATIONS = {
    "nano": ("nano-O", "nano-L", "nano-OL", "nano-S", "nano-O-3of6"),
    "base": ("D24-O", "D24-L", "D24-OL", "S32-O", "D24-O-3B"),
}
"""Recipe -> names of its ablations; those of `training.ablation_table`, which loads torch."""


def train_ablations(
    *,
    out: Path,
    which: AblationFlags | None = None,
    nano: NanoAblationFlags | None = None,
    full: FullAblationFlags | None = None,
    devices: FullSizeDeviceFlags | None = None,
    files: Files = None,
    workers: int = 0,
) -> None:
    """Train the ablations of the paper's Table 8 with equal steps and print the table.

    The recipe nano trains nano's counterparts and compares their error on held-out clips; base
    trains the paper's variants. Rerun the same command to resume.

    Args:
        out: A folder for the runs of all variants and the table.
        which: Which ablations; each option has its own flag.
        nano: Options of nano's ablations; each has its own flag.
        full: Options of the paper's ablations; each has its own flag.
        devices: Where to train; each option has its own flag.
        files: Where the frozen models are; each option has its own flag.
        workers: Processes that make or decode batches ahead.
    """
    which = which or AblationFlags()
    at_least_one(steps=which.steps)
    check_workers(workers)
    if which.recipe == "nano":
        _train_nano(out, which, nano or NanoAblationFlags(), workers)
    else:
        _train_full(
            out,
            which,
            full or FullAblationFlags(),
            devices or FullSizeDeviceFlags(),
            files or ModelFiles(),
            workers,
        )


def _check_names(which: AblationFlags) -> None:
    for name in which.variants or ():
        if name not in ABLATIONS[which.recipe]:
            raise InputError(
                f"There is no ablation {name!r} of the recipe {which.recipe}; use one of "
                f"{', '.join(ABLATIONS[which.recipe])}."
            )


def _train_nano(out: Path, which: AblationFlags, flags: NanoAblationFlags, workers: int) -> None:
    if flags.corpus is None or flags.codec is None:
        raise InputError("Nano's ablations need a corpus and a codec; give --corpus, --codec.")
    from unison_audio.checkpoint_files import require_codec
    from unison_audio.data.shards import find_corpora
    from unison_audio.nano.corpus_name import require_nano_corpus

    _check_names(which)
    at_least_one(frames=flags.frames)
    find_corpora([flags.corpus], split="train")
    if flags.evaluate or flags.judged:
        require_nano_corpus(flags.corpus, "Evaluating nano's ablations")
    require_codec(flags.codec)
    if flags.batches < 2:
        raise InputError(
            f"batches is {flags.batches}; it must be at least 2, since one gives no interval."
        )
    from unison_audio.training import ablations

    frames = () if flags.frames is None else (flags.frames,)
    rows = ablations.train_nano_ablations(
        flags.corpus,
        flags.codec,
        out,
        recipe=ablations.nano_recipe(which.steps or NANO_STEPS, *frames),
        names=which.variants,
        batches=flags.batches,
        workers=workers,
        evaluate=_nano_evaluator(flags.corpus) if flags.evaluate or flags.judged else None,
    )
    _report(out, rows, paper=False)


def _train_full(
    out: Path,
    which: AblationFlags,
    flags: FullAblationFlags,
    devices: FullSizeDeviceFlags,
    files: ModelFiles,
    workers: int,
) -> None:
    if not flags.corpora:
        raise InputError("The paper's ablations need corpora; give --corpora.")
    _check_names(which)
    changes = RecipeChanges(
        recipe="base",
        steps=which.steps,
        items=flags.items,
        accumulate=flags.accumulate,
        gradient_checkpointing=flags.gradient_checkpointing,
    )
    from unison_audio.files import require_folders

    changes.check()
    check_corpora(flags.corpora, "train")
    require_folders(flags.data, files.codec_files, files.text_files)
    from unison_audio.training import ablations
    from unison_audio.training.parallel import Parallel
    from unison_audio.training.run import RunData

    parallel = Parallel(
        devices.strategy,
        mixed_precision=devices.mixed_precision,
        cpu=devices.cpu,
        folder=str(out),
    )
    evaluate = None
    if flags.data is not None:
        evaluate = _paper_evaluator(flags.data, str(parallel.device), vars(files))
    rows = ablations.train_full_ablations(
        RunData(corpora=flags.corpora, workers=workers),
        out,
        parallel,
        changes=changes,
        files=files,
        names=which.variants,
        evaluate=evaluate,
    )
    if parallel.main:
        _report(out, rows, paper=True)


def _nano_evaluator(corpus: Path) -> "Evaluator":
    """Nano's test sets and the metric models that packages contain."""

    def evaluate(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.set_plans import EvaluationConfig
        from unison_audio.nano.evaluation import evaluate_nano

        config = EvaluationConfig(choice=_choice(weights), out=out, **_wanted())
        return _table_8(evaluate_nano(config, corpus, tables="sets")["rows"])

    return evaluate


def _paper_evaluator(data: Path, device: str, files: Mapping[str, Path | None]) -> "Evaluator":
    """The paper's test sets, of Seed-TTS the English part, and its metric models."""
    given = {name: None if path is None else str(path) for name, path in files.items()}

    def evaluate(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.set_plans import EvaluationConfig, MetricOptions
        from unison_audio.evaluation.suite import evaluate_paper

        config = EvaluationConfig(
            choice=_choice(weights, device=device, **given),
            out=out,
            counts={"seed-tts-zh": 0},
            metric_options=MetricOptions(device=device),
            **_wanted(),
        )
        return _table_8(evaluate_paper(config, data))

    return evaluate


def _choice(weights: Path, **how: Any) -> "ModelChoice":
    from unison_audio.evaluation.systems import ModelChoice

    return ModelChoice(model=str(weights), **how)


def _wanted() -> dict[str, Any]:
    return {"sets": SETS, "systems": ("unison",), "metrics": METRICS}


def _table_8(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that Table 8 has: sounds, and plain speech in English."""
    return [
        row
        for row in rows
        if row["task"] == "t2a" or (row["task"] == "tts" and row["language"] == "en")
    ]


def _report(out: Path, rows: Sequence[dict[str, Any]], *, paper: bool) -> None:
    """Prints the tables and writes them, with the rows that they are made of."""
    from unison_audio.evaluation.report.layouts import ABLATIONS
    from unison_audio.evaluation.report.render import table_markdown
    from unison_audio.evaluation.report.tables import fill_tables
    from unison_audio.training.ablation_report import error_table

    evaluated = [row for row in rows if row["set"] in SETS]
    texts = [error_table(rows)] if any(row["set"] not in SETS for row in rows) else []
    if evaluated:
        tables = fill_tables([], ablations=evaluated, paper=paper)
        texts += [table_markdown(table) for table in tables if table.number == ABLATIONS]
    text = "\n".join(texts)
    (out / "ablations.md").write_text(text, "utf-8")
    results = json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"
    (out / "results.json").write_text(results, "utf-8")
    print(text or f"The weights are in {out}.")
