"""Quality against function evaluations for every solver, on a trained model.

python benchmarks/solvers.py --corpus CORPUS --out FOLDER [--variant nano] [--items 100]

Held-out items are made with each solver at several numbers of evaluations, from the same noise.
Two things are measured: how far latents of several tasks are from those that 400 Euler steps lead
to (relative to their size), and how many words of natural sentences are wrong, as Whisper tiny.en
hears them, beside the difference to the default preset, sentence by sentence, with its standard
error. Prints a Markdown table and writes `solvers.md` and `solvers.png`.
"""

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from machine import describe
from torch import Tensor

from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.model.solvers import SOLVERS, Solver
from unison_audio.nano.items import build_items
from unison_audio.nano.vocabulary_asr import SentenceAsr, fold
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import resolve_sampling
from unison_audio.tasks.conditioning import condition
from unison_audio.tasks.table import TASKS, TaskBatch

TASK_NAMES = ("tts", "t2a", "edit_remove", "speech_insert")
REFERENCE_STEPS = 400
EVALUATIONS = (4, 8, 12, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Items of one task, encoded, with their noise."""

    task: str
    inputs: ModelInputs
    noise: Tensor
    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one solver gives with so many evaluations."""

    solver: str
    evaluations: int
    away: dict[str, float]
    rates: list[float]

    @property
    def mean_away(self) -> float:
        return statistics.fmean(self.away.values())


def solver_steps(solver: str, evaluations: int) -> int:
    """Steps that take about that many evaluations: Heun's takes two a step but the last."""
    return (evaluations + 1) // 2 if solver == "heun" else evaluations


@torch.no_grad()
def prepare(unison: Unison, chunk: TaskBatch, seed: int) -> Batch:
    count, samples = chunk.target.shape
    frames = unison.codec.frames(samples / unison.codec.sample_rate)
    given = condition(unison.codec, TASKS[chunk.task], frames, count, chunk.source)
    text = unison.text_encoder.encode(chunk.instructions)
    return Batch(
        task=chunk.task,
        inputs=ModelInputs(
            z_s=given.z_s, m=given.m, hidden_states=text.hidden_states, text_mask=text.mask
        ),
        noise=torch.randn(given.z_s.shape, generator=torch.Generator().manual_seed(seed)),
        texts=[detail.get("text", "") for detail in chunk.details],
    )


def run(unison: Unison, batch: Batch, solver: str, steps: int) -> Tensor:
    guidance = resolve_sampling(unison.variant).for_task(TASKS[batch.task]).guidance
    return sample(
        unison.backbone,
        batch.inputs,
        noise=batch.noise,
        steps=steps,
        solver=solver,
        guidance=guidance,
    )


@torch.no_grad()
def measure(
    unison: Unison,
    asr: SentenceAsr,
    batches: list[Batch],
    references: list[Tensor],
    spoken: list[Batch],
    solver: str,
    steps: int,
) -> Row:
    away = {}
    for batch, reference in zip(batches, references, strict=True):
        error = torch.linalg.vector_norm(run(unison, batch, solver, steps) - reference, dim=(1, 2))
        size = torch.linalg.vector_norm(reference, dim=(1, 2))
        away[batch.task] = float((error / size).mean())
    rates = []
    for batch in spoken:
        waves = unison.codec.decode(run(unison, batch, solver, steps))
        for wave, text in zip(waves, batch.texts, strict=True):
            found = asr.transcribe([wave.numpy()])[0]
            rates.append(word_error_rate(fold(text), fold(found)))
    evaluations = len(Solver(solver, steps).times)
    row = Row(solver=solver, evaluations=evaluations, away=away, rates=rates)
    print(solver, evaluations, f"{row.mean_away:.3f} {statistics.fmean(rates):.1%}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--items", type=int, default=100)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    unison, asr = Unison.from_pretrained(arguments.variant), SentenceAsr()
    variant, rate = unison.variant, unison.codec.sample_rate
    clips: list[Clip] = [
        clip
        for split in ("heldout", "speakers")
        for clip in read_corpus(arguments.corpus, rate, split=split)
    ]

    def items(task: str, count: int) -> list[Batch]:
        chunks = build_items(task, clips, variant, count, 0)
        return [prepare(unison, chunk, seed) for seed, chunk in enumerate(chunks)]

    batches = [items(task, 10)[0] for task in TASK_NAMES]
    # The first half of the items of tts are natural sentences, which Whisper reads well.
    spoken = items("tts", 2 * arguments.items)
    spoken = spoken[: len(spoken) // 2]
    with torch.no_grad():
        references = [run(unison, batch, "euler", REFERENCE_STEPS) for batch in batches]
    given = (unison, asr, batches, references, spoken)
    default = measure(*given, variant.solver, variant.steps)
    rows = [
        measure(*given, solver, solver_steps(solver, evaluations))
        for solver in SOLVERS
        for evaluations in EVALUATIONS
    ]
    lines = [
        f"{len(default.rates)} sentences; default preset: {variant.solver}, {variant.steps} steps, "
        f"WER {statistics.fmean(default.rates):.1%}; guidance {variant.guidance_scale:g}, in edits "
        f"that add {variant.edit_guidance_scale:g}, in others {variant.removal_guidance_scale:g}; "
        f"{describe()}",
        "",
        "| solver | evaluations | "
        + " | ".join(TASK_NAMES)
        + " | mean distance | WER | above the default preset's |",
        "|---" * (len(TASK_NAMES) + 5) + "|",
    ]
    for row in rows:
        distances = " | ".join(f"{row.away[name]:.3f}" for name in TASK_NAMES)
        above = [a - b for a, b in zip(row.rates, default.rates, strict=True)]
        spread = statistics.stdev(above) / len(above) ** 0.5 if len(above) > 1 else 0.0
        lines.append(
            f"| {row.solver} | {row.evaluations} | {distances} | {row.mean_away:.3f} | "
            f"{statistics.fmean(row.rates):.1%} | "
            f"{100 * statistics.fmean(above):+.1f} ± {100 * spread:.1f} points |"
        )
    table = "\n".join(lines)
    print(table)
    (arguments.out / "solvers.md").write_text(table + "\n")
    draw(rows, default, arguments.out / "solvers.png")


def draw(rows: list[Row], default: Row, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for solver in SOLVERS:
        points = [row for row in rows if row.solver == solver]
        counts = [row.evaluations for row in points]
        left.plot(counts, [row.mean_away for row in points], "o-", label=solver)
        right.plot(counts, [100 * statistics.fmean(r.rates) for r in points], "o-", label=solver)
    level = 100 * statistics.fmean(default.rates)
    right.axhline(level, color="grey", linestyle="--", label="default preset")
    for axes, title in (
        (left, f"distance to {REFERENCE_STEPS} Euler steps"),
        (right, "WER of sentences, %"),
    ):
        axes.set(xscale="log", xlabel="function evaluations", title=title)
        axes.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
