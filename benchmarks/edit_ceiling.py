"""What the bar "nearer to the target than the source" asks of edits that add something.

python benchmarks/edit_ceiling.py --corpus CORPUS [--items 40] [--variant nano]

The LSD of an edit to its target is compared with the source's, for three edits no model makes: the
target itself through the codec; the same applied to the recording itself (`preserve_source`), as a
model whose latents are perfect would do it; and the source, untouched, with another recording of
the same kind of sound (or another utterance of the same speaker) in the added one's place, equally
loud. In a swap the last stands in the scene without what was to go.
Whoever is not told which recording was added can hardly do better than the last. Prints a Markdown
table.
"""

import argparse
from pathlib import Path
from unittest import mock

import torch
from codec_pass import round_trip
from machine import describe
from torch import Tensor

from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.nano.event_classifier import sound_class
from unison_audio.nano.items import build_items, join
from unison_audio.nano.metrics import SILENCE
from unison_audio.pipeline import Unison
from unison_audio.preserve import preserve_source
from unison_audio.tasks import editing
from unison_audio.tasks.draw import Draw
from unison_audio.tasks.table import TASKS, TaskBatch

SWAPS = {"audio_to_speech": "speech", "speech_to_audio": "event"}
"""Swaps, and what they add."""

TASK_NAMES = ("edit_add", "edit_replace", "speech_insert", "speech_rewrite", *SWAPS)

AUDIBLE = 0.05
"""Share of the peak at which a sound begins."""


def another(clips: list[Clip], detail: dict, added: Tensor, speech: bool) -> Tensor:
    """Another take of what was added: the one of middling likeness to it, by correlation."""
    if speech:
        takes = [c for c in clips if c.record.kind == "speech" and c.record.text != detail["text"]]
        takes = [c for c in takes if c.record.speaker == detail["speaker"]] or takes
    else:
        kind = sound_class(detail["labels"][-1])
        sounds = [c for c in clips if c.record.kind == "sound"]
        takes = [c for c in sounds if sound_class(c.record.label) == kind]
    size = 2 * len(added)
    spectrum = torch.fft.rfft(added, size)

    def likeness(clip: Clip) -> float:
        wave = clip.waveform[: len(added)]
        product = torch.fft.irfft(spectrum * torch.fft.rfft(wave, size).conj(), size)
        return float(product.abs().max() / (wave.norm() * added.norm()).clamp_min(1e-9))

    ranked = sorted(takes, key=likeness)
    return ranked[len(ranked) // 2 if len(ranked) > 2 else 0].waveform


def beginning(wave: Tensor) -> int:
    return int((wave.abs() > AUDIBLE * wave.abs().max()).nonzero()[0])


def with_another(batch: TaskBatch, clips: list[Clip], rest: Tensor) -> Tensor:
    """The target with another take in the place of what was added; `rest` is all else."""
    made = []
    for row, detail in enumerate(batch.details):
        added = batch.target[row] - rest[row]
        start = beginning(added)
        speech = "text" in detail and batch.task != "speech_to_audio"
        take = another(clips, detail, added[start:], speech)
        take = take[beginning(take) :][: len(added) - start]
        take = torch.nn.functional.pad(take, (start, len(added) - start - len(take)))
        made.append(rest[row] + take * (added.norm() / take.norm().clamp_min(1e-9)))
    return torch.stack(made)


def build(name: str, clips: list[Clip], unison: Unison, items: int) -> tuple[TaskBatch, Tensor]:
    """The items of a task, and what of their targets is not added."""
    added = []
    draw_scene = editing._exchange_scene

    def noted(draw: Draw) -> tuple:
        base, event, speech, details = draw_scene(draw)
        added.append({"event": event, "speech": speech}[SWAPS[name]])
        return base, event, speech, details

    with mock.patch.object(editing, "_exchange_scene", noted):
        batch = join(build_items(name, clips, unison.variant, items, 0))
    assert batch.source is not None
    if name not in SWAPS:
        return batch, batch.source
    gains = torch.tensor([detail["gain"] for detail in batch.details])
    return batch, batch.target - gains[:, None] * torch.cat(added)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--variant", default="nano")
    arguments = parser.parse_args()
    unison = Unison.from_pretrained(arguments.variant)
    codec = unison.codec
    clips = read_corpus(arguments.corpus, codec.sample_rate, split="heldout")
    print(f"{arguments.items} items a task, seed 0; {describe()}\n")
    print("| task | edit | nearer than the source | LSD | the source's |\n|---|---|---|---|---|")
    for name in TASK_NAMES:
        batch, rest = build(name, clips, unison, arguments.items)
        target, source = batch.target, batch.source
        again = round_trip(codec, target)
        edits = {
            "the target through the codec": again,
            "the same, done to the recording": preserve_source(
                source,
                round_trip(codec, source),
                again,
                adds=True,
                removes=TASKS[name].removes,
                clears_speech=TASKS[name].clears_speech,
            ),
        }
        if name in ("edit_add", "speech_insert", *SWAPS):
            edits["the rest with another take"] = with_another(batch, clips, rest)
        before = metrics.lsd(target, source, codec.sample_rate, eps=SILENCE)
        for what, waves in edits.items():
            after = metrics.lsd(target, waves, codec.sample_rate, eps=SILENCE)
            share = float((after < before).float().mean())
            print(f"| {name} | {what} | {share:.0%} | {after.mean():.2f} | {before.mean():.2f} |")


if __name__ == "__main__":
    main()
