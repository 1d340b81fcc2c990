"""Nano's test items, one set a task: built by the tasks' builders from held-out clips."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

import torch

from unison_audio.data.pools import MemoryPools, choose
from unison_audio.data.records import Clip
from unison_audio.evaluation.test_sets.manifest import RenderedItem
from unison_audio.evaluation.test_sets.scenes import batch_item, with_floor
from unison_audio.nano.event_classifier import sound_class
from unison_audio.nano.vocabulary import IsSentence
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.tasks.templates import render
from unison_audio.variants import Variant

CHUNK = 10
"""Items that are built together."""

SEQUENCES = "sequences"
"""Stands for a task: `tts` of random sequences of words alone."""

SECONDS = {"": 2.56, "zero_shot_tts": 5.12, "timed": 5.12}
"""Length of the items by task; the entry ``""`` serves tasks not named."""


class EvenPools(MemoryPools):
    """Pools that draw every class of sound once in a round, each round in a new random order.

    A scene never holds two sounds of one class.
    """

    def __init__(self, clips: Sequence[Clip], sample_rate: int) -> None:
        super().__init__(clips, sample_rate)
        self._waiting: list[str] = []
        self._members: defaultdict[str, list[str]] = defaultdict(list)
        for label in self.labels:
            self._members[sound_class(label)].append(label)

    def draw_label(self, excluded: AbstractSet[str], generator: torch.Generator) -> str:
        """Draws a label of the class whose turn it is."""
        names, classes = list(self._members), {sound_class(label) for label in excluded}
        if not [name for name in self._waiting if name not in classes]:
            order = torch.randperm(len(names), generator=generator).tolist()
            # Classes that were excluded keep their place at the front, so that none is skipped for
            # good.
            self._waiting = [*self._waiting, *(names[k] for k in order)]
        name = next(name for name in self._waiting if name not in classes)
        self._waiting.remove(name)
        return choose(self._members[name], generator)


def evaluation_config(hop: int) -> BuilderConfig:
    """The ranges of evaluation (paper §4.2): fixed SNRs and the paper's own templates."""
    return BuilderConfig(
        speech_snr_db=(10.0, 10.0),
        t2as_snr_db=(0.0, 0.0),
        event_snr_db=(-3.0, 3.0),
        noise_snr_db=(5.0, 5.0),
        peak=0.98,  # leaves room for the noise floor
        first_template_probability=1.0,
        hop=hop,
    )


def build_items(
    task: str,
    clips: Sequence[Clip],
    variant: Variant,
    count: int,
    seed: int,
    labels: Sequence[str] | None = None,
) -> list[TaskBatch]:
    """Builds the items of a task from held-out clips, in chunks.

    Zero-shot speech comes from the held-out speakers and says natural sentences, since pocketsphinx
    does not understand these voices; half of TTS says such sentences and half random sequences of
    up to five words. `SEQUENCES` is TTS of sequences alone, of up to six.

    Args:
        task: Name of the task, or `SEQUENCES`.
        clips: The splits ``heldout`` and ``speakers``.
        variant: Sets the sample rate, the hop and the longest clip.
        count: Number of items.
        seed: Equal seeds give equal items.
        labels: Kinds of sound to use; all if None.
    """
    split = "speakers" if task == "zero_shot_tts" else "heldout"
    sounds = [
        clip
        for clip in clips
        if clip.record.kind == "sound" and (labels is None or clip.record.label in labels)
    ]
    speech = [c for c in clips if c.record.kind == "speech" and c.record.split == split]
    is_sentence = IsSentence()
    if task == "zero_shot_tts":
        speech = [clip for clip in speech if is_sentence(clip.record.text)]
    parts: list[tuple[list[Clip], int]] = [(speech, count)]
    seconds = min(variant.max_seconds, SECONDS.get(task, SECONDS[""]))
    number = [*TASKS, SEQUENCES].index(task)
    if task in ("tts", SEQUENCES):
        sentences = [clip for clip in speech if is_sentence(clip.record.text)]
        sequences = [
            clip
            for clip in speech
            if not is_sentence(clip.record.text)
            and len(clip.record.text.split()) <= (6 if task == SEQUENCES else 5)
            and (task == "tts" or clip.record.seconds <= seconds)
        ]
        share = count if task == SEQUENCES else count // 2
        parts = [(sentences, count - share), (sequences, share)]
        task = "tts"
    # One generator for all chunks of a task: CHUNK and the order of the parts are thus part of what
    # a seed means.
    generator = torch.Generator().manual_seed(1000 * seed + number)
    chunks = []
    for spoken, share in parts:
        if share == 0:
            continue
        pools = EvenPools([*sounds, *spoken], variant.sample_rate)
        chunks += [
            TASKS[task].build(
                pools,
                min(CHUNK, share - start),
                seconds,
                variant.sample_rate,
                generator,
                config=evaluation_config(variant.hop),
            )
            for start in range(0, share, CHUNK)
        ]
    return [with_floor(chunk, 1000 * seed + number) for number, chunk in enumerate(chunks)]


def render_items(
    name: str, chunks: Sequence[TaskBatch], sample_rate: int
) -> Iterator[RenderedItem]:
    """The items of built batches in the form of a test set.

    Zero-shot speech is cut: the reference becomes a file of its own, the target the new words.

    Args:
        name: The set's name.
        chunks: Result of `build_items`.
        sample_rate: Of the batches, in Hz.
    """
    batch = join(chunks)
    for row in range(len(batch.target)):
        item, sounds = batch_item(batch, row, f"{row:03d}", name, sample_rate)
        if batch.reference_samples is not None:
            edge = int(batch.reference_samples[row])
            head = round(item.details["reference_window"][1] * sample_rate)
            sounds = {"reference": sounds["source"][:head], "target": sounds["target"][edge:]}
            item = dataclasses.replace(
                item,
                instruction=render(TASKS[batch.task].templates[0], {"text": item.text}),
                reference_text=item.details["reference_text"],
                seconds=len(sounds["target"]) / sample_rate,
            )
        yield RenderedItem(item=item, sounds=sounds)


def join(chunks: Sequence[TaskBatch]) -> TaskBatch:
    """Joins batches of one task into one."""
    sources = [chunk.source for chunk in chunks if chunk.source is not None]
    edges = [chunk.reference_samples for chunk in chunks if chunk.reference_samples is not None]
    return dataclasses.replace(
        chunks[0],
        instructions=[text for chunk in chunks for text in chunk.instructions],
        target=torch.cat([chunk.target for chunk in chunks]),
        source=torch.cat(sources) if sources else None,
        reference_samples=torch.cat(edges) if edges else None,
        details=[detail for chunk in chunks for detail in chunk.details],
    )
