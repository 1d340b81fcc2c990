"""Quality against function evaluations for every solver, on a trained model.

python benchmarks/solvers.py --corpus CORPUS --out FOLDER [--variant nano] [--items 24]

Held-out items of several tasks are made with each solver at several numbers of evaluations. Two
things are measured: how far a latent is from the one that 400 Euler steps lead to from the same
noise (relative to that latent's size), and the word error rate of the speech as the vocabulary's
recogniser hears it. Prints a Markdown table and writes `solvers.md` and `solvers.png`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import jiwer
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from machine import describe
from torch import Tensor

from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.items import build_items
from unison_audio.evaluation.judges import VocabularyRecogniser
from unison_audio.model import sampling
from unison_audio.pipeline import Unison
from unison_audio.tasks.latents import condition
from unison_audio.tasks.table import TASKS

TASK_NAMES = ("tts", "t2a", "edit_remove", "speech_insert")
REFERENCE_STEPS = 400
EVALUATIONS = (4, 6, 8, 12, 16, 24, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Items of one task, encoded, with their noise and where 400 steps lead from it."""

    given: dict
    noise: Tensor
    reference: Tensor
    texts: list[str]


def solver_steps(solver: str, evaluations: int) -> int:
    """Steps that take about that many evaluations: Heun's takes two a step but the last."""
    return (evaluations + 1) // 2 if solver == "heun" else evaluations


@torch.no_grad()
def prepare(unison: Unison, corpus: Path, items: int) -> dict[str, Batch]:
    rate = unison.codec.sample_rate
    clips = [c for split in ("heldout", "speakers") for c in read_corpus(corpus, rate, split=split)]
    batches = {}
    for name in TASK_NAMES:
        chunk = build_items(name, clips, unison.codec, items, 0, unison.variant.max_seconds)[0]
        count, samples = chunk.target.shape
        frames = unison.codec.frames(samples / rate)
        given = condition(unison.codec, TASKS[name], frames, count, chunk.source)
        text = unison.text_encoder.encode(chunk.instructions)
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(given.z_s.shape, generator=generator)
        inputs = {
            "z_s": given.z_s,
            "m": given.m,
            "hidden_states": text.hidden_states,
            "text_mask": text.mask,
        }
        batches[name] = Batch(
            given=inputs,
            noise=noise,
            reference=run(unison, inputs, noise, "euler", REFERENCE_STEPS),
            texts=[detail.get("text", "") for detail in chunk.details],
        )
    return batches


def run(unison: Unison, given: dict, noise: Tensor, solver: str, steps: int) -> Tensor:
    guidance = sampling.Guidance(scale=unison.variant.guidance_scale)
    return sampling.sample(
        unison.backbone, **given, noise=noise, steps=steps, solver=solver, guidance=guidance
    )


def word_error_rate(unison: Unison, judge: VocabularyRecogniser, z: Tensor, texts: list) -> float:
    rate = unison.codec.sample_rate
    heard = [judge.transcribe(wave, rate) or "-" for wave in unison.codec.decode(z)]
    return jiwer.wer(texts, heard)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--items", type=int, default=24)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    unison, judge = Unison.from_pretrained(arguments.variant), VocabularyRecogniser()
    batches = prepare(unison, arguments.corpus, arguments.items)
    tts = batches["tts"]
    rows = []
    best = word_error_rate(unison, judge, tts.reference, tts.texts)
    rows.append(("euler", REFERENCE_STEPS, dict.fromkeys(batches, 0.0), best))
    for solver in sampling.SOLVERS:
        for evaluations in EVALUATIONS:
            steps, away = solver_steps(solver, evaluations), {}
            asked = len(sampling.Solver(solver, steps).times)
            for name, batch in batches.items():
                z = run(unison, batch.given, batch.noise, solver, steps)
                error = torch.linalg.vector_norm(z - batch.reference, dim=(1, 2))
                size = torch.linalg.vector_norm(batch.reference, dim=(1, 2))
                away[name] = float((error / size).mean())
                if name == "tts":
                    wer = word_error_rate(unison, judge, z, batch.texts)
            rows.append((solver, asked, away, wer))
            print(solver, asked, f"{sum(away.values()) / len(away):.3f}", f"{wer:.1%}", flush=True)
    lines = [
        f"{arguments.items} items a task, guidance {unison.variant.guidance_scale:g}; {describe()}",
        "",
        "| solver | evaluations | " + " | ".join(batches) + " | mean distance | WER |",
        "|---" * (len(batches) + 4) + "|",
    ]
    for solver, asked, away, wer in rows:
        distances = " | ".join(f"{away[name]:.3f}" for name in batches)
        mean = sum(away.values()) / len(away)
        lines.append(f"| {solver} | {asked} | {distances} | {mean:.3f} | {wer:.1%} |")
    table = "\n".join(lines)
    print(table)
    (arguments.out / "solvers.md").write_text(table + "\n")
    draw(rows, arguments.out / "solvers.png")


def draw(rows: list, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for solver in sampling.SOLVERS:
        points = [row for row in rows if row[0] == solver and row[1] != REFERENCE_STEPS]
        counts = [row[1] for row in points]
        left.plot(counts, [sum(r[2].values()) / len(r[2]) for r in points], "o-", label=solver)
        right.plot(counts, [100 * row[3] for row in points], "o-", label=solver)
    right.axhline(100 * rows[0][3], color="grey", linestyle="--", label=f"{REFERENCE_STEPS} steps")
    for axes, title in ((left, "distance to 400 Euler steps"), (right, "WER of tts, %")):
        axes.set(xscale="log", xlabel="function evaluations", title=title)
        axes.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_yscale("log")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
