"""Words heard against solver, steps, temperature and candidates, on held-out sentences of nano.

python benchmarks/speech_presets.py --corpus CORPUS [--variant nano] [--texts 300] [--minutes 60]
python benchmarks/speech_presets.py --corpus CORPUS --settings 2   # one candidate against four
python benchmarks/speech_presets.py   # the times of whole warm calls alone

Natural held-out sentences are spoken with every setting from the same noise and read by Whisper
tiny.en. The reference is the setting with several candidates; its first candidate is the single
sample that the same seed gives. Prints for each setting the word error rate and the mean
difference to the reference, sentence by sentence, with the half width of its 95 % interval, and
the processor's seconds a sentence, recognition included. A Markdown table, printed again after
every ten sentences, so that a run can be stopped at any time.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from machine import describe

from unison_audio.best_of_n import LatentBatch, sample_batch
from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.model import solvers
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.unipc import UniPC
from unison_audio.nano.items import build_items
from unison_audio.nano.vocabulary_asr import SentenceAsr, fold
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import GroupSettings, resolve_sampling
from unison_audio.tasks.conditioning import condition
from unison_audio.tasks.table import TASKS, TaskBatch

SHIFT = 0.7
"""Below 1, the times between the ends are smaller, so that the first steps are longer."""


class ShiftedUniPC(UniPC):
    """UniPC at times t' = s t / (1 + (s - 1) t)."""

    shift = SHIFT

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        # The first time stays where it was, for log(1 - t) is taken of it.
        inner = self._sigmas[1:]
        self._sigmas[1:] = self.shift * inner / (1 + (self.shift - 1) * inner)
        self.times = self._sigmas[:-1]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to sample speech."""

    solver: str
    steps: int
    temperature: float
    candidates: int = 1

    @property
    def evaluations(self) -> int:
        """Backbone passes of a sentence: two a step, and twelve to rank a candidate."""
        ranking = 12 * self.candidates if self.candidates > 1 else 0
        return 2 * self.steps * self.candidates + ranking


SETTINGS = (
    Setting(solver="unipc", steps=16, temperature=0.8, candidates=4),
    Setting(solver="unipc", steps=16, temperature=0.8),
    Setting(solver="unipc", steps=16, temperature=1.0),
    Setting(solver="unipc", steps=12, temperature=0.8),
    Setting(solver="unipc", steps=10, temperature=0.8),
    Setting(solver="dpm++", steps=10, temperature=0.8),
    Setting(solver="unipc-shifted", steps=8, temperature=0.8),
)
"""The first one is the reference."""


def word_errors(
    unison: Unison,
    asr: SentenceAsr,
    chunk: TaskBatch,
    setting: Setting,
    seed: int,
    backbone: UnisonBackbone | None = None,
) -> list[float]:
    """Word error rate of each sentence of a chunk; `backbone` replaces that of `unison`."""
    count, samples = chunk.target.shape
    task = TASKS["tts"]
    frames = unison.codec.frames(samples / unison.codec.sample_rate)
    usual = resolve_sampling(unison.variant).for_task(task)
    settings: GroupSettings = replace(
        usual,
        steps=setting.steps,
        solver=setting.solver,
        temperature=setting.temperature,
        num_candidates=setting.candidates,
    )
    batch = LatentBatch(
        given=condition(unison.codec, task, frames, count),
        text=unison.text_encoder.encode(chunk.instructions),
        seeds=[100 * seed + row for row in range(count)],
        settings=settings,
    )
    z = sample_batch(backbone or unison.backbone, unison.variant, batch, torch.device("cpu"))
    with torch.no_grad():
        waves = unison.codec.decode(z)
    heard = asr.transcribe([wave.numpy() for wave in waves])
    texts = [detail["text"] for detail in chunk.details]
    return [word_error_rate(fold(t), fold(h)) for t, h in zip(texts, heard, strict=True)]


def print_times(unison: Unison, repetitions: int = 3) -> None:
    """Processor time of whole warm calls with several candidates and with one, by turns."""
    instruction = '[Speech] A male voice saying "the dog is in the house"'
    taken: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS[:2]}
    for _ in range(repetitions + 1):
        for setting, own in taken.items():
            start = time.process_time()
            unison.generate(
                instruction,
                steps=setting.steps,
                solver=setting.solver,
                temperature=setting.temperature,
                num_candidates=setting.candidates,
            )
            own.append(time.process_time() - start)
    print("| solver | steps | candidates | a warm call, s | of the first |\n|---|---|---|---|---|")
    base = statistics.median(taken[SETTINGS[0]][1:])  # the first round warms up
    for setting, own in taken.items():
        middle = statistics.median(own[1:])
        print(
            f"| {setting.solver} | {setting.steps} | {setting.candidates} | {middle:.2f} | "
            f"{middle / base:.2f} |"
        )


def table(rates: dict[Setting, list[float]], seconds: dict[Setting, float]) -> str:
    lines = [
        "| solver | steps | temperature | candidates | evaluations | s | WER | above the first |",
        "|---|---|---|---|---|---|---|---|",
    ]
    reference = rates[SETTINGS[0]]
    for setting, own in rates.items():
        away = [a - b for a, b in zip(own, reference, strict=True)]
        half = 1.96 * statistics.stdev(away) / len(away) ** 0.5
        lines.append(
            f"| {setting.solver} | {setting.steps} | {setting.temperature:g} | "
            f"{setting.candidates} | {setting.evaluations} | {seconds[setting] / len(own):.2f} | "
            f"{statistics.fmean(own):.1%} | {100 * statistics.fmean(away):+.1f} ± "
            f"{100 * half:.1f} points |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="without it, only times are measured")
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=60, help="stop after the chunk then begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--settings", type=int, default=len(SETTINGS), help="only the first so many"
    )
    parser.add_argument(
        "--part", type=int, nargs=2, metavar=("FROM", "TO"), help="only these, for runs in parallel"
    )
    arguments = parser.parse_args()
    if not 2 <= arguments.settings <= len(SETTINGS):
        parser.error(f"--settings is {arguments.settings}; it must be 2 to {len(SETTINGS)}.")
    settings = SETTINGS[: arguments.settings]
    solvers.SOLVERS["unipc-shifted"] = ShiftedUniPC
    unison = Unison.from_pretrained(arguments.variant)
    print(f"{describe()}\n", flush=True)
    if arguments.corpus is None:
        print_times(unison)
        return
    asr = SentenceAsr()
    clips = read_corpus(arguments.corpus, unison.codec.sample_rate, split="heldout")
    # The first half of the items of tts are natural sentences, which Whisper reads well.
    chunks = build_items("tts", clips, unison.variant, 2 * arguments.texts, arguments.seed)
    chunks = chunks[: (len(chunks) + 1) // 2]
    rates: dict[Setting, list[float]] = {setting: [] for setting in settings}
    seconds = dict.fromkeys(settings, 0.0)
    began = time.monotonic()
    first, last = arguments.part or (0, arguments.texts)
    before = 0
    for number, chunk in enumerate(chunks):
        place, before = before, before + len(chunk.instructions)
        if not first <= place < last:
            continue
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        for setting in settings:
            start = time.process_time()
            rates[setting] += word_errors(unison, asr, chunk, setting, number)
            seconds[setting] += time.process_time() - start
        done = len(rates[SETTINGS[0]])
        print(f"\n{done} sentences\n\n{table(rates, seconds)}", flush=True)


if __name__ == "__main__":
    main()
