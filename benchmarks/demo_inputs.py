"""Draws the demo's inputs: one a task, by seed, from held-out recordings that are free to share.

python benchmarks/demo_inputs.py --corpus CORPUS --out FOLDER [--seed 0]

`demo_draws.py` draws several and chooses; what it chose is kept in src/unison_audio/demo/inputs.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from unison_audio import audio
from unison_audio.data.pools import MemoryPools
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.data.shards import read_corpus
from unison_audio.demo.examples import JOBS, DemoExample
from unison_audio.errors import InputError
from unison_audio.files import make_folder, write_whole
from unison_audio.nano.corpus_name import require_nano_corpus
from unison_audio.nano.event_classifier import is_ranked
from unison_audio.nano.vocabulary import held_out_texts
from unison_audio.tasks.clips import ClipKind, ClipLimits
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS, TaskBatch

SAMPLE_RATE = 16_000
SECONDS = 2.56
OTHER_SECONDS = {"timed": 3.84, "zero_shot_tts": 5.12}
"""Tasks whose examples are longer."""
SHARED_LICENSES = ("CC0", "CC-BY-")
SENTENCES = 160
"""Held-out texts end with so many sentences; those before are mere sequences of words."""

CONFIG = BuilderConfig(
    event_snr_db=(3.0, 3.0),
    speech_snr_db=(10.0, 10.0),
    t2as_snr_db=(0.0, 0.0),
    noise_snr_db=(5.0, 5.0),
    mix_events=(2, 2),
    timed_events=(2, 2),
    timed_overlap=0.0,
    first_template_probability=1.0,
)
"""The levels of the paper's test sets, where they are fixed, and the paper's templates."""

_HEARD: dict[str, tuple[int, int]] = {
    "zero_shot_tts": (0, 1),
    "edit_add": (1, 0),
    "edit_remove": (2, 0),
    "edit_replace": (2, 0),
    "speech_insert": (1, 0),
    "speech_delete": (1, 1),
    "speech_rewrite": (1, 1),
    "denoise": (0, 1),
    "audio_to_speech": (2, 0),
    "speech_to_audio": (1, 1),
}
"""Task -> how many of the sounds and of the utterances drawn, from the first on, are in its input;
the others are in the target alone."""


def make_inputs(corpus: Path, out: Path, seed: int = 0) -> list[DemoExample]:
    """Draw one example a task and write its input.

    Texts, sounds and voices are those that training never meets: the splits `heldout`, and
    `speakers` for the reference of zero-shot speech. Only recordings under CC0, CC-BY and CC-BY-SA
    and synthetic voices are drawn from.

    Args:
        corpus: What `unison-audio data nano` wrote.
        out: Where the FLAC files and `jobs.json` go.
        seed: Of all draws and, later, of the noise.

    Returns:
        The examples.
    """
    return write_inputs(list(draw_examples(corpus, seed)), out)


def write_inputs(drawn: Sequence[tuple[DemoExample, TaskBatch]], out: Path) -> list[DemoExample]:
    """Write examples and their inputs.

    Args:
        drawn: What `draw_examples` gave, of one seed or of several.
        out: Where the FLAC files and `jobs.json` go.

    Returns:
        The examples.
    """
    make_folder(out)
    examples = []
    for example, built in drawn:
        examples.append(example)
        name = example.reference or example.source
        if name is None or built.source is None:
            continue
        wave = built.source[0]
        if example.reference is not None:
            wave = wave[: round(built.details[0]["reference_window"][1] * SAMPLE_RATE)]
        audio.save(out / name, wave, SAMPLE_RATE)
    text = json.dumps([asdict(example) for example in examples], indent=1, ensure_ascii=False)
    write_whole(out / JOBS, text + "\n")
    return examples


def draw_examples(corpus: Path, seed: int = 0) -> Iterator[tuple[DemoExample, TaskBatch]]:
    """Draw one example a task; sounds are of kinds that nano's event classifier knows.

    Args:
        corpus: What `unison-audio data nano` wrote.
        seed: Of all draws; an example keeps it as the seed of its noise.

    Yields:
        The example, and what was built for it: a batch of one.
    """
    require_nano_corpus(corpus, "Drawing the demo's examples")
    sentences = set(held_out_texts()[-SENTENCES:])
    held_out = [
        clip for clip in read_corpus(corpus, SAMPLE_RATE, split="heldout") if _shared(clip.record)
    ]
    unheard = read_corpus(corpus, SAMPLE_RATE, split="speakers", kind="speech")
    sounds = [
        clip for clip in held_out if clip.record.kind == "sound" and is_ranked(clip.record.label)
    ]
    used: set[str] = set()
    pools = TracedPools([*sounds, *_saying(held_out, sentences)], used)
    voices = TracedPools([*sounds, *_saying(unheard, sentences)], used)
    generator = torch.Generator().manual_seed(seed)
    for name in TASKS:
        drawn = voices if name == "zero_shot_tts" else pools
        drawn.drawn_sounds.clear()
        drawn.drawn_speech.clear()
        seconds = OTHER_SECONDS.get(name, SECONDS)
        built = TASKS[name].build(drawn, 1, seconds, SAMPLE_RATE, generator, "cpu", CONFIG)
        yield replace(_describe(name, built, drawn), seed=seed), built


def draw_again(
    corpus: Path, examples: Sequence[DemoExample]
) -> list[tuple[DemoExample, TaskBatch]]:
    """Draw each example with its own seed, to know its target.

    Args:
        corpus: What `unison-audio data nano` wrote.
        examples: Examples of `draw_examples`, of one seed or of several.

    Returns:
        The example, and what was built for it, for each of `examples`.

    Raises:
        InputError: If the corpus gives other examples.
    """
    drawn = {
        (found.task, found.seed): (found, built)
        for seed in sorted({example.seed for example in examples})
        for found, built in draw_examples(corpus, seed)
    }
    found = [drawn[example.task, example.seed] for example in examples]
    if [example for example, _ in found] != [replace(given, passing="") for given in examples]:
        raise InputError(
            f"The corpus {corpus} does not give the demo's examples; build it with this version of "
            "unison-audio data nano."
        )
    return [(given, built) for given, (_, built) in zip(examples, found, strict=True)]


class TracedPools(MemoryPools):
    """Pools that never give the same label or text twice and remember what they gave.

    Args:
        clips: What to draw from.
        used: Labels and texts not to be given; those given are added.
    """

    def __init__(self, clips: list[Clip], used: set[str]) -> None:
        super().__init__(clips, SAMPLE_RATE)
        self.records = {id(clip.waveform): clip.record for clip in clips}
        self.used = used
        self.drawn_sounds: list[ClipRecord] = []
        self.drawn_speech: list[ClipRecord] = []

    def draw(
        self, kind: ClipKind, count: int, where: ClipLimits, generator: torch.Generator
    ) -> list[Clip]:
        """Draw clips of labels or texts not yet used; recorded noise counts as a sound."""
        if kind == "sound":
            excluded = [self.used | where.excluded(item) for item in range(count)]
            where = replace(where, exclude_labels=excluded)
        elif kind == "speech_any":
            kind = "speech"
        while True:
            clips = super().draw(kind, count, where, generator)
            if kind in ("sound", "noise"):
                self.used |= {clip.record.label for clip in clips} if kind == "sound" else set()
                known = [clip for clip in clips if id(clip.waveform) in self.records]
                self.drawn_sounds += [self.records[id(clip.waveform)] for clip in known]
                return clips
            if self._note(clips):
                return clips

    def _note(self, clips: list[Clip]) -> bool:
        texts = {clip.record.text for clip in clips}
        if len(texts) < len(clips) or texts & self.used:
            return False
        self.used |= texts
        self.drawn_speech += [self.records[id(clip.waveform)] for clip in clips]
        return True


def _shared(record: ClipRecord) -> bool:
    return record.kind == "speech" or record.licence.startswith(SHARED_LICENSES)


def _saying(clips: list[Clip], texts: set[str]) -> list[Clip]:
    return [clip for clip in clips if clip.record.kind == "speech" and clip.record.text in texts]


def _describe(name: str, built: TaskBatch, drawn: TracedPools) -> DemoExample:
    needs, detail = TASKS[name].needs, built.details[0]
    sounds, speech = _HEARD.get(name, (0, 0))
    if name == "denoise":
        sounds = len(drawn.drawn_sounds)  # recorded noise is, synthetic noise is not
    credits = [
        f"{record.label or 'voice ' + record.speaker}: {record.source}, {record.licence}"
        for record in (*drawn.drawn_speech[:speech], *drawn.drawn_sounds[:sounds])
    ]
    common: dict[str, Any] = {"task": name, "credits": tuple(credits)}
    if built.source is None:
        seconds = OTHER_SECONDS.get(name, SECONDS)
        return DemoExample(**common, instruction=built.instructions[0], duration=seconds)
    if "reference" in needs:
        return DemoExample(
            **common,
            instruction=TASKS[name].templates[0].format(text=detail["text"]),
            reference=f"{name}.flac",
            reference_text=detail["reference_text"],
            holds=f"a voice saying “{detail['reference_text']}”",
        )
    heard = [record.label for record in drawn.drawn_sounds[:sounds]]
    if name == "denoise":
        heard = [label + ", as noise" for label in heard] or ["noise"]
    heard += [f"a voice saying “{record.text}”" for record in drawn.drawn_speech[:speech]]
    return DemoExample(
        **common,
        instruction=built.instructions[0],
        source=f"{name}.flac",
        holds=" · ".join(heard),
    )


def main() -> None:
    """Writes the inputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for example in make_inputs(arguments.corpus, arguments.out, arguments.seed):
        print(f"{example.task}: {example.instruction}")


if __name__ == "__main__":
    main()
