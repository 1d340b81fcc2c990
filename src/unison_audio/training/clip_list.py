"""A user's own clips for fine-tuning: reads the list and makes batches of it.

Each line of the list is an object with `audio` and one of these:

* `caption`, or `label` (as in "Add {label}"): a sound, from which the builders make every task
  that they can.
* `text`, with `gender` and optionally `speaker`: an utterance, used in the same way.
* `instruction`, with `source` for edits: the audio is the result of the instruction, used as it is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from unison_audio import audio
from unison_audio.data.captions import plain_caption
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.files import read_rows
from unison_audio.frame_layout import PEAK
from unison_audio.release_inputs import leveling_gain
from unison_audio.tasks.clauses import respell
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.training.batches import REDRAW_SEEDS, BatchStream, buildable_tasks
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.clip_rows import KEYS, check_row
from unison_audio.variants import Variant


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An instruction and its result."""

    task: str
    """Task of the instruction."""
    instruction: str
    """The instruction in the variant's spelling."""
    target: Tensor
    """The result, (samples,): whole latent frames, at the level that the model expects."""
    source: Tensor | None
    """The recording to edit, (samples,), with the same gain; None for generation."""


@dataclass(frozen=True, kw_only=True)
class OwnClips:
    """The content of a list."""

    clips: list[Clip]
    """Sounds and utterances for the builders."""
    pairs: list[Pair]
    """Instructions with their results."""
    files: tuple[Path, ...] = ()
    """Their recordings."""

    def tasks(self) -> dict[str, float]:
        """The tasks that these clips allow, with their shares of the batches."""
        can = buildable_tasks(self.clips) | {pair.task for pair in self.pairs}
        shares = {name: TASKS[name].stage2_probability for name in TASKS if name in can}
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}

    def waveforms(self) -> list[Tensor]:
        """The clips and the results of the pairs, (samples,) each."""
        return [clip.waveform for clip in self.clips] + [pair.target for pair in self.pairs]


def read_own_clips(path: Path, variant: Variant, hop: int) -> OwnClips:
    """Reads and checks a list of own clips.

    Args:
        path: A JSONL file; paths in it are relative to its folder.
        variant: The variant to fine-tune.
        hop: Samples in a latent frame.

    Raises:
        InputError: If a line cannot be used; the message begins with the line's number.
    """
    files: list[Path] = []

    def read(number: int, row: dict[str, Any]) -> Clip | Pair:
        check_row(row, path.parent, variant)
        files.extend(path.parent / row[key] for key in ("audio", "source") if key in row)
        if "instruction" in row:
            return _pair(row, path.parent, variant, hop)
        return _clip(row, path.parent, variant, f"{number:06d}")

    rows = read_rows(path, KEYS, "clips", read)
    return OwnClips(
        clips=[row for row in rows if isinstance(row, Clip)],
        pairs=[row for row in rows if isinstance(row, Pair)],
        files=tuple(files),
    )


class OwnClipStream(BatchStream):
    """Batches of own clips: of pairs if a task has any, else from the builders.

    Args:
        pairs: Instructions with their results.
        *args: As in `BatchStream`.
        **others: As in `BatchStream`.
    """

    def __init__(self, pairs: Sequence[Pair], *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        self.by_task: defaultdict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            self.by_task[pair.task].append(pair)

    def build(self, step: int, task: str, number: int = 0, attempt: int = 0) -> TaskBatch:
        """Builds a batch of waveforms, as in `BatchStream`."""
        pairs = self.by_task.get(task)
        if not pairs:
            return super().build(step, task, number, attempt)
        seed_step = step * self.recipe.batches_per_step + number
        generator = step_generator(self.recipe.seed + REDRAW_SEEDS * attempt, seed_step)
        # Items of a batch have one length, so the others are drawn with replacement among the
        # pairs that are as long as the first one.
        first = pairs[int(torch.randint(len(pairs), (1,), generator=generator))]
        alike = [pair for pair in pairs if len(pair.target) == len(first.target)]
        frames = len(first.target) // self.codec.hop
        count = max(1, self.recipe.frames_per_batch // frames)
        rows = torch.randint(len(alike), (count,), generator=generator).tolist()
        return self._batch(task, [alike[row] for row in rows])

    def sample_batch(
        self, task: str, count: int, seconds: float, generator: torch.Generator
    ) -> TaskBatch:
        """Builds items for samples: of pairs if the task has any, as in `build`."""
        pairs = self.by_task.get(task)
        if not pairs:
            return super().sample_batch(task, count, seconds, generator)
        alike = [pair for pair in pairs if len(pair.target) == len(pairs[0].target)]
        return self._batch(task, alike[:count])

    def _batch(self, task: str, chosen: Sequence[Pair]) -> TaskBatch:
        """A batch of pairs of equal length."""
        sources = [pair.source for pair in chosen if pair.source is not None]
        return TaskBatch(
            task=task,
            instructions=[pair.instruction for pair in chosen],
            target=torch.stack([pair.target for pair in chosen]).to(self.device),
            source=torch.stack(sources).to(self.device) if sources else None,
            reference_samples=None,
            details=[{} for _ in chosen],
            leveled=True,
        )


def _load(folder: Path, name: str, variant: Variant) -> Tensor:
    path = folder / name
    waveform = audio.load(path, sample_rate=variant.sample_rate)
    audio.require_sound(waveform, str(path))
    return waveform


def _clip(row: dict[str, str], folder: Path, variant: Variant, key: str) -> Clip:
    spoken = "text" in row
    waveform = _load(folder, row["audio"], variant)
    label = row.get("label") or plain_caption(row.get("caption", ""))
    record = ClipRecord(
        key=key,
        kind="speech" if spoken else "sound",
        split="train",
        seconds=len(waveform) / variant.sample_rate,
        licence="",
        source=row["audio"],
        text=row.get("text", ""),
        speaker=row.get("speaker", ""),
        gender=row.get("gender", ""),
        label="" if spoken else label,
        caption="" if spoken else row.get("caption", label),
    )
    return Clip(record=record, waveform=waveform)


def _pair(row: dict[str, str], folder: Path, variant: Variant, hop: int) -> Pair:
    # Trained on as it would be read at inference.
    reading = read_instruction(row["instruction"], "source" in row, False)
    target = _load(folder, row["audio"], variant)
    source = _load(folder, row["source"], variant) if "source" in row else None
    # Inference brings the source to this level. A pair must have one gain for both recordings:
    # with two, the model would learn to change the level.
    loud = target if source is None else source
    peak = max(float(wave.abs().max()) for wave in (target, source) if wave is not None)
    gain = leveling_gain(variant, TASKS[reading.task], float(audio.rms(loud)), PEAK / peak)
    samples = max(len(target), 0 if source is None else len(source))
    if variant.sample_seconds:  # one length, which need not be whole frames
        samples = round(variant.sample_seconds * variant.sample_rate)
    else:
        samples = -(-samples // hop) * hop

    def fit(wave: Tensor) -> Tensor:
        return pad(wave * gain, (0, samples - len(wave)))

    return Pair(
        task=reading.task,
        instruction=respell(reading.instruction.strip(), variant.edit_tag_spelling),
        target=fit(target),
        source=None if source is None else fit(source),
    )
