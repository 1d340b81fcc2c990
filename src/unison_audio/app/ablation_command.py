"""The command that trains the ablations of the paper's Table 8, or nano's, and prints the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from unison_audio.errors import InputError

if TYPE_CHECKING:
    from unison_audio.evaluation.entrants import ModelChoice
    from unison_audio.training.ablations import Judge

SETS, METRICS = ("audiocaps", "seed-tts"), ("fd", "clap", "wer")
"""What Table 8 is made of."""


def train_ablations(
    *,
    out: Path,
    recipe: Literal["nano", "base"] = "nano",
    steps: int | None = None,
    variants: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    corpus: Path | None = None,
    codec: Path | None = None,
    frames: int | None = None,
    batches: int = 4,
    judged: bool = False,
    corpora: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    data: Path | None = None,
    items: int | None = None,
    accumulate: int = 1,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    mixed_precision: Literal["bf16", "no"] = "bf16",
    gradient_checkpointing: bool = False,
    codec_files: Path | None = None,
    text_files: Path | None = None,
    workers: int = 0,
    cpu: bool = False,
) -> None:
    """Train the ablations of the paper's Table 8 for equal steps and print the table.

    With the recipe nano they are nano's counterparts, compared by the error on held-out clips; with
    base the paper's. A run that was cut off is gone on with.

    Args:
        out: A folder with one run for each variant, and the table.
        recipe: nano, or base: the paper's full size.
        steps: Of each variant; by default 2,000 of nano's, the paper's 80,000 of the full size.
        variants: Which; by default all: nano-O, nano-L, nano-OL, nano-S, nano-O-3of6, or D24-O,
            D24-L, D24-OL, S32-O, D24-O-3B.
        corpus: nano: what 'unison-audio data' wrote; --judged needs nano's own corpus.
        codec: nano: the codec's folder.
        frames: nano: latent frames in a batch, if not nano's 960.
        batches: nano: held-out batches of each task.
        judged: nano: generate as well, and let the offline judges fill Table 8.
        corpora: base: folders or addresses of what 'unison-audio data' wrote.
        data: base: AudioCaps test and Seed-TTS as published, to fill Table 8.
        items: base: clips of 10 s in a batch of one device, if not the paper's 56.
        accumulate: base: batches of a device in a step.
        strategy: base: ddp copies the backbone to every device, fsdp cuts it in pieces.
        mixed_precision: base: type of the products.
        gradient_checkpointing: base: compute blocks again in the backward pass instead of
            remembering them.
        codec_files: base: folder of the codec's own files, if they are not to be downloaded.
        text_files: base: folder with a language model's files for all chosen variants, if they are
            not to be downloaded; the 3B variant has another one than the rest.
        workers: Processes that make or decode batches ahead.
        cpu: base: stay on the CPU where there is a GPU.
    """
    from unison_audio.training import ablations

    if steps is not None:
        _at_least("steps", steps, 1)
    if recipe == "nano":
        if corpus is None or codec is None:
            raise InputError("Nano's ablations need a corpus and a codec; give --corpus, --codec.")
        _at_least("batches", batches, 2)  # of one there is no interval
        plan = ablations.nano_recipe(
            2000 if steps is None else steps,
            *(() if frames is None else (_at_least("frames", frames, 1),)),
        )
        rows = ablations.train_nano_ablations(
            corpus,
            codec,
            out,
            recipe=plan,
            names=variants,
            batches=batches,
            workers=workers,
            judge=_nano_judge(corpus) if judged else None,
        )
        _report(out, rows, paper=False)
        return
    if not corpora:
        raise InputError("The paper's ablations need corpora; give --corpora.")
    from unison_audio.training.parallel import Parallel

    parallel = Parallel(strategy, mixed_precision=mixed_precision, cpu=cpu, folder=str(out))
    how: dict[str, Any] = {"codec_files": codec_files, "text_files": text_files}
    rows = ablations.train_full_ablations(
        corpora,
        out,
        parallel,
        recipe=recipe,
        steps=ablations.PAPER_STEPS if steps is None else steps,
        names=variants,
        judge=None if data is None else _paper_judge(data, str(parallel.device), how),
        items=None if items is None else _at_least("items", items, 1),
        accumulate=_at_least("accumulate", accumulate, 1),
        gradient_checkpointing=gradient_checkpointing,
        workers=workers,
        **how,
    )
    if parallel.main:
        _report(out, rows, paper=True)


def _nano_judge(corpus: Path) -> "Judge":
    """Nano's test sets and the judges that come with packages."""

    def judge(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.suite import evaluate_nano_sets

        return _of_table(evaluate_nano_sets(_choice(weights), corpus, out, **_wanted()))

    return judge


def _paper_judge(data: Path, device: str, how: Mapping[str, Path | None]) -> "Judge":
    """The paper's test sets, of Seed-TTS the English part, and its judges."""
    files = {name: None if path is None else str(path) for name, path in how.items()}

    def judge(name: str, weights: Path, out: Path) -> list[dict[str, Any]]:
        from unison_audio.evaluation.suite import Judging, evaluate_paper

        rows = evaluate_paper(
            _choice(weights, device=device, **files),
            data,
            out,
            counts={"seed-tts-zh": 0},
            judging=Judging(device=device),
            **_wanted(),
        )
        return _of_table(rows)

    return judge


def _choice(weights: Path, **how: Any) -> "ModelChoice":
    from unison_audio.evaluation.entrants import ModelChoice

    return ModelChoice(model=str(weights), **how)


def _wanted() -> dict[str, Any]:
    return {"sets": SETS, "systems": ("unison",), "metrics": METRICS}


def _of_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that Table 8 has: of sound, and of plain speech in English."""
    return [
        row
        for row in rows
        if row["task"] == "t2a" or (row["task"] == "tts" and row["language"] == "en")
    ]


def _report(out: Path, rows: Sequence[dict[str, Any]], *, paper: bool) -> None:
    """Print the tables and write them, with the rows they are made of."""
    import json

    from unison_audio.evaluation.table_filling import fill_tables
    from unison_audio.evaluation.table_formats import table_markdown
    from unison_audio.evaluation.table_layouts import ABLATIONS
    from unison_audio.training.ablations import error_table

    judged = [row for row in rows if row["set"] in SETS]
    texts = [error_table(rows)] if any(row["set"] not in SETS for row in rows) else []
    if judged:
        tables = fill_tables([], ablations=judged, paper=paper)
        texts += [table_markdown(table) for table in tables if table.number == ABLATIONS]
    text = "\n".join(texts)
    (out / "ablations.md").write_text(text, "utf-8")
    results = json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n"
    (out / "results.json").write_text(results, "utf-8")
    print(text or f"The weights are in {out}.")


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}.")
    return value
