"""The test items: built by the tasks' builders, generated once, kept on disk."""

import dataclasses
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unison_audio.audio import load, save
from unison_audio.codecs.table import AudioCodec
from unison_audio.data.pools import MemoryPools, choose
from unison_audio.data.records import Clip
from unison_audio.evaluation.engine import Model
from unison_audio.evaluation.models.event_classifier import sound_class
from unison_audio.evaluation.test_sets.scenes import with_floor
from unison_audio.nano.bars import SEQUENCES
from unison_audio.nano.vocabulary import IsSentence
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS, TaskBatch

CHUNK = 10
"""Items generated together; what is on disk after a kill are whole chunks."""

SECONDS = {"": 2.56, "zero_shot_tts": 3.84, "timed": 5.12}
"""Length of the items by task; the entry ``""`` serves tasks not named."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """The items of a task with all their waveforms, (B, samples) each."""

    batch: TaskBatch
    """What was built."""
    output: Tensor
    """What the model made."""
    target_again: Tensor
    """The target through the codec."""
    source_again: Tensor | None
    """The source through the codec."""
    real_time_factor: float
    """Seconds of computing for a second of sound; NaN where that was not measured."""


class EvenPools(MemoryPools):
    """Pools that go through all classes of sound in turn, in an order drawn anew each round.

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
            self._waiting = [*self._waiting, *(names[k] for k in order)]
        name = next(name for name in self._waiting if name not in classes)
        self._waiting.remove(name)
        return choose(self._members[name], generator)


def evaluation_config(codec: AudioCodec) -> BuilderConfig:
    """The ranges of evaluation (paper §4.2): fixed SNRs and the paper's own wordings."""
    return BuilderConfig(
        speech_snr_db=(10.0, 10.0),
        t2as_snr_db=(0.0, 0.0),
        event_snr_db=(-3.0, 3.0),
        noise_snr_db=(5.0, 5.0),
        peak=0.98,  # leaves room for the noise floor
        first_template_probability=1.0,
        hop=codec.hop,
    )


def build_items(
    task: str,
    clips: Sequence[Clip],
    codec: AudioCodec,
    count: int,
    seed: int,
    longest: float,
    labels: Sequence[str] | None = None,
) -> list[TaskBatch]:
    """Builds the items of a task from held-out clips, in chunks.

    Zero-shot speech comes from the held-out speakers; half of TTS says natural sentences and half
    random sequences of up to five words. `SEQUENCES` is TTS of sequences alone, of up to six.

    Args:
        task: Its name, or `SEQUENCES`.
        clips: The splits ``heldout`` and ``speakers``.
        codec: Of the model; gives sample rate and hop.
        count: Items.
        seed: The same one gives the same items.
        longest: Seconds that an item may last at most.
        labels: Kinds of sound to use; all if None.
    """
    split = "speakers" if task == "zero_shot_tts" else "heldout"
    sounds = [
        clip
        for clip in clips
        if clip.record.kind == "sound" and (labels is None or clip.record.label in labels)
    ]
    speech = [c for c in clips if c.record.kind == "speech" and c.record.split == split]
    parts: list[tuple[list[Clip], int]] = [(speech, count)]
    seconds = min(longest, SECONDS.get(task, SECONDS[""]))
    number = [*TASKS, SEQUENCES].index(task)
    if task in ("tts", SEQUENCES):
        is_sentence = IsSentence()
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
    generator = torch.Generator().manual_seed(1000 * seed + number)
    chunks = []
    for spoken, share in parts:
        if share == 0:
            continue
        pools = EvenPools([*sounds, *spoken], codec.sample_rate)
        chunks += [
            TASKS[task].build(
                pools,
                min(CHUNK, share - start),
                seconds,
                codec.sample_rate,
                generator,
                config=evaluation_config(codec),
            )
            for start in range(0, share, CHUNK)
        ]
    return [with_floor(chunk, 1000 * seed + number) for number, chunk in enumerate(chunks)]


def content(chunks: Sequence[TaskBatch]) -> str:
    """Names items by a hash of all that is asked and expected."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(json.dumps(chunk.instructions).encode())
        for waves in (chunk.source, chunk.target):
            if waves is not None:
                digest.update(waves.contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_items(
    model: Model,
    chunks: Sequence[TaskBatch],
    folder: Path,
    key: str,
    on_items: Callable[[int], None],
    **settings: Any,
) -> Items:
    """Generates the items of a task, or takes those that an earlier run left.

    Sources, targets and outputs are written to the folder as FLAC, with the instructions beside
    them. What is judged is what was written.

    Args:
        model: The model.
        chunks: Its items.
        folder: The task's folder.
        key: `fingerprint` of the model and its settings; outputs of another one are made again.
        on_items: Called with the number of items done after each chunk.
        **settings: ``steps``, ``guidance_scale`` and ``seed`` of `Model.run`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rate, codec = model.codec.sample_rate, model.codec
    state = _read_state(folder, key)
    first = 0
    for chunk in chunks:
        if str(first) not in state["seconds"]:
            began = time.perf_counter()
            made = model.run(chunk, **{**settings, "seed": settings["seed"] + first})
            spent = time.perf_counter() - began
            _write(folder, "output", first, made, rate)
            _write(folder, "target", first, chunk.target, rate)
            if chunk.source is not None:
                _write(folder, "source", first, chunk.source, rate)
            for i, instruction in enumerate(chunk.instructions, first):
                (folder / f"{i:03d}.txt").write_text(instruction + "\n")
            state["seconds"][str(first)] = spent
            _write_state(folder, state)
        first += len(chunk.target)
        on_items(len(chunk.target))
    batch = join(chunks)
    batch = dataclasses.replace(
        batch,
        target=_read(folder, "target", first, rate),
        source=_read(folder, "source", first, rate) if batch.source is not None else None,
    )
    sound = batch.target.numel() / rate
    return Items(
        batch=batch,
        output=_read(folder, "output", first, rate),
        target_again=round_trip(codec, batch.target),
        source_again=round_trip(codec, batch.source) if batch.source is not None else None,
        real_time_factor=sum(state["seconds"].values()) / sound,
    )


def round_trip(codec: AudioCodec, waveform: Tensor) -> Tensor:
    """Passes waveforms (B, samples) through a codec."""
    parts = [codec.decode(codec.encode(part)).cpu() for part in waveform.split(CHUNK)]
    return torch.cat(parts)[:, : waveform.shape[1]]


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


def _write(folder: Path, kind: str, first: int, waves: Tensor, rate: int) -> None:
    """Writes waveforms (B, samples); one that exceeds full scale is scaled."""
    for i, wave in enumerate(waves, first):
        scaled = wave * min(1.0, 0.99 / max(float(wave.abs().max()), 1e-9))
        save(folder / f"{i:03d}-{kind}.flac", scaled, rate)


def _read(folder: Path, kind: str, count: int, rate: int) -> Tensor:
    """Reads the waveforms of all items, (count, samples)."""
    paths = [folder / f"{i:03d}-{kind}.flac" for i in range(count)]
    return torch.stack([load(path, sample_rate=rate) for path in paths])


def _read_state(folder: Path, key: str) -> dict[str, Any]:
    path = folder / "state.json"
    state = json.loads(path.read_text()) if path.is_file() else {}
    return state if state.get("key") == key else {"key": key, "seconds": {}}


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    partial = folder / "state.json.partial"
    partial.write_text(json.dumps(state))
    partial.replace(folder / "state.json")
