"""Fine-tune nano on ten recordings of a sound that it does not know, and measure before and after.

python benchmarks/new_sound.py OUT [--variant nano] [--packages DIR] [--steps 300]

The tabla, a pair of drums, is not among nano's 72 kinds of sound. The Debian package
sonic-pi-samples has 24 strokes of one, under CC0. apt-get fetches it, with five packages of known
sounds, into OUT/packages (about 90 MB), unless --packages has them.

Ten strokes go to OUT/clips with the list that `unison-audio finetune` reads, and nano is fine-tuned
on them. The other fourteen and known sounds train a classifier of about 56 kinds: a perceptron over
the features of aiSFX and of Whisper's encoder. The classifier is checked on the ten strokes, which
it was not trained on. Sounds of the same seeds before and after go to OUT/before and OUT/after.
Prints a Markdown table.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import cyclopts
import torch
import torch.nn.functional as F
from codec_pass import round_trip
from machine import describe
from torch import Tensor

from unison_audio.audio import save
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.evaluation.models.aisfx import SoundEncoder
from unison_audio.nano.corpus import SAMPLE_RATE, decode, make_recordings
from unison_audio.nano.debian import fetch, read_members
from unison_audio.nano.event_classifier import ClassifierConfig, ClassifierNet, JointEncoder
from unison_audio.nano.event_classifier_training import (
    Alone,
    ClassifierRecipe,
    Scenes,
    train_perceptron,
)
from unison_audio.nano.packaged_whisper import PackagedWhisper
from unison_audio.pipeline import Unison
from unison_audio.training.configs import FinetuneConfig
from unison_audio.training.finetune import finetune
from unison_audio.training.run import RunOutput

LABEL, CAPTION = "a tabla", "A tabla is struck."
SOURCE = "sonic-pi-samples"
STROKES = (
    *("dhec", "ghe1", "ghe2", "ghe3", "ghe4", "ghe5", "ghe6", "ghe7", "ghe8", "ke3", "na", "na_o"),
    *("na_s", "re", "tas1", "tas2", "tas3", "te1", "te2", "te_m", "te_ne", "tun1", "tun2", "tun3"),
)
"""The recordings of a tabla that are used; two more are too soft."""
OTHERS = ("minetest-data", "openttd-opensfx", "scratch", "ufoai-sound", "lmms-common")
KNOWN = (
    *("footsteps", "fire burning", "glass breaking", "a water splash"),
    *("an explosion", "a gunshot", "a door closing", "a person screaming"),
)
"""Known kinds that are generated again after fine-tuning."""
PROMPTS = (
    *("[Audio] {}", "[Audio] We hear {}"),
    *("[Audio] A recording: {}", "[Audio] Generate this sound: {}"),
)
SECONDS = 2.56
EACH = 5
"""Sounds of each known kind; the new kind has ten of each prompt."""


def strokes(packages: Path) -> tuple[list[Clip], list[Clip]]:
    """The recordings of the tabla: ten for fine-tuning, the others for the classifier."""
    folder = "usr/share/sonic-pi/samples"
    wanted = {f"{folder}/tabla_{name}.flac" for name in STROKES}
    found = dict(read_members(fetch(SOURCE, packages), wanted))
    clips = []
    for path in sorted(found):
        wave = decode(path, found[path])
        record = ClipRecord(
            key=PurePosixPath(path).stem,
            kind="sound",
            split="train",
            seconds=len(wave) / SAMPLE_RATE,
            licence="CC0-1.0",
            source=f"{SOURCE}:{path}",
            label=LABEL,
            caption=CAPTION,
        )
        clips.append(Clip(record=record, waveform=wave))
    learnt = [clip for place, clip in enumerate(clips) if place % 5 in (0, 2)]
    return learnt, [clip for place, clip in enumerate(clips) if place % 5 not in (0, 2)]


def write_examples(folder: Path, clips: Sequence[Clip]) -> Path:
    """Writes the recordings and their list, as a user would."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for clip in clips:
        name = f"{clip.record.key}.flac"
        save(folder / name, clip.waveform, SAMPLE_RATE)
        lines.append(json.dumps({"audio": name, "label": LABEL, "caption": CAPTION}))
    path = folder / "examples.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


class SoundClassifier:
    """Ranks kinds of sound; the new one among about 55 others."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.encoder = JointEncoder([SoundEncoder(), PackagedWhisper()])
        self.labels = tuple(sorted({clip.record.label for clip in clips}))
        recipe = ClassifierRecipe(speeds=(1.0,))
        generator = torch.Generator().manual_seed(recipe.seed)
        scenes = Scenes(clips, self.labels, SAMPLE_RATE, recipe)
        alone = Alone.of(scenes, self.encoder, SAMPLE_RATE, generator)
        torch.manual_seed(recipe.seed)
        self.net = ClassifierNet(
            ClassifierConfig(labels=self.labels, features=alone.features.shape[1])
        )
        train_perceptron(self.net.train(), alone, [], recipe, generator)
        self.net.eval()

    @torch.no_grad()
    def ranks(self, waves: Sequence[Tensor], labels: Sequence[str]) -> list[int]:
        """The rank of each recording's label; 1 is the best."""
        length = round(SECONDS * SAMPLE_RATE)
        cut = [F.pad(wave[:length], (0, max(0, length - len(wave)))) for wave in waves]
        heard = torch.stack([self.encoder.features(wave, SAMPLE_RATE) for wave in cut])
        scores = self.net.logits_of_features(heard)[:, :-1]
        own = scores.gather(1, torch.tensor([[self.labels.index(name)] for name in labels]))
        return (1 + (scores > own).sum(dim=1)).tolist()


def make(unison: Unison, folder: Path) -> tuple[list[Tensor], list[Tensor], list[str]]:
    """Generates the new kind and the known ones.

    Returns:
        Waveforms of the new kind, waveforms of the known ones, and labels of the latter.
    """
    captions = (LABEL, "a tabla is struck")
    new = [PROMPTS[k % 4].format(captions[k // 4 % 2]) for k in range(40)]
    labels = [label for label in KNOWN for _ in range(EACH)]
    known = [PROMPTS[0].format(label) for label in labels]
    folder.mkdir(parents=True, exist_ok=True)
    waves = []
    instructions = [*new, *known]
    for first in range(0, len(instructions), 10):
        part = instructions[first : first + 10]
        seeds = list(range(first, first + len(part)))
        for seed, audio in zip(
            seeds, unison.generate(part, duration=SECONDS, seed=seeds), strict=True
        ):
            audio.save(folder / f"{seed:03d}.flac")
            waves.append(audio.waveform.reshape(-1))
    return waves[: len(new)], waves[len(new) :], labels


def share(ranks: Sequence[int], best: int) -> str:
    """The share of ranks up to `best`, as text."""
    return f"{100 * sum(rank <= best for rank in ranks) / len(ranks):.0f} %"


def main(
    out: Path,
    /,
    *,
    variant: str = "nano",
    packages: Path | None = None,
    steps: int = 300,
    rank: int = 16,
) -> None:
    """Fine-tune on ten recordings of a new kind of sound, and measure before and after."""
    folder = packages or out / "packages"
    own, others = strokes(folder)
    known = [
        clip
        for package in (SOURCE, *OTHERS)
        for clip in make_recordings(package, folder)
        if clip.record.kind == "sound"
    ]
    examples = write_examples(out / "clips", own)
    train = [clip for clip in known if clip.record.split == "train"]
    classifier = SoundClassifier([*train, *others])
    unseen = [
        clip
        for clip in known
        if clip.record.split == "heldout" and clip.record.label in classifier.labels
    ]
    unison = Unison.from_pretrained(variant)
    if unison.codec.sample_rate != SAMPLE_RATE:
        raise SystemExit(f"{variant} is not at {SAMPLE_RATE} Hz; take nano or one trained like it.")
    before = make(unison, out / "before")
    began = time.perf_counter()
    config = FinetuneConfig(steps=steps, rank=rank)
    weights = finetune(variant, examples, RunOutput(folder=out / "run"), config=config)
    minutes = (time.perf_counter() - began) / 60
    after = make(Unison.from_pretrained(str(weights)), out / "after")

    real = [clip.waveform for clip in own]
    again = [round_trip(unison.codec, wave[None])[0] for wave in real]
    print(f"\nFine-tuned in {minutes:.1f} minutes, {steps} steps; {describe()}\n")
    print("| sounds | first | in the top 3 |\n|---|---|---|")
    for title, waves in (
        ("real tabla, not in the classifier's training", real),
        ("the same through the codec", again),
        (f"'{LABEL}' before", before[0]),
        (f"'{LABEL}' after", after[0]),
    ):
        ranks = classifier.ranks(waves, [LABEL] * len(waves))
        print(f"| {title} ({len(waves)}) | {share(ranks, 1)} | {share(ranks, 3)} |")
    for title, made in (("before", before), ("after", after)):
        ranks = classifier.ranks(made[1], made[2])
        print(f"| known kinds {title} ({len(ranks)}) | {share(ranks, 1)} | {share(ranks, 3)} |")
    waves, labels = [clip.waveform for clip in unseen], [clip.record.label for clip in unseen]
    ranks = classifier.ranks(waves, labels)
    print(f"| known kinds, real ({len(ranks)}) | {share(ranks, 1)} | {share(ranks, 3)} |")
    false = classifier.ranks(waves, [LABEL] * len(waves))
    title = f"known kinds, real, taken for a tabla ({len(false)})"
    print(f"| {title} | {share(false, 1)} | {share(false, 3)} |")
    print(
        f"\nThe classifier was trained on {len(others)} strokes and {len(train)} recordings of "
        f"{len(classifier.labels) - 1} known kinds."
    )


if __name__ == "__main__":
    cyclopts.run(main)
