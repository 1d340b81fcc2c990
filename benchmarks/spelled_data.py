"""Data of the experiment with spelled transcripts: flite's speech as latents, with text states.

A part is some hundred utterances of one kind of texts. It is three files: an index (JSON), the
nano codec's latents and MiniLM's states of the instruction (both float16, mapped from the disk).
Part, kind and number decide all its bits, so that a build that was cut off resumes.
"""

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from spelled_texts import TRANSCRIPTS
from torch import Tensor

from unison_audio.audio import normalize_rms, trim_silence
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.nano.open_texts import Texts, draw_texts
from unison_audio.nano.voices import VOICES, speak
from unison_audio.tasks.templates import TEMPLATES, render
from unison_audio.text.states import TextEncoder, TextStates

UTTERANCES = 500
"""In a part."""
SPEAKERS = tuple(voice for voice in VOICES if voice.name in ("slt", "rms"))
"""They speak in turn."""
ONSET_DB, MARGIN_SECONDS = -55.0, 0.03
"""Speech is trimmed at this level, so that soft onsets stay, and has so much silence."""
SPARE_FRAMES = 8
"""Frames of silence behind every utterance: a batch takes some of them."""
LAYERS = (1, 2, 3, 4, 5, 6)
"""MiniLM's layers that are stored."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One row of a part's index."""

    text: str
    gender: str
    frames: int
    """Latent frames with speech; `SPARE_FRAMES` of silence follow."""
    start: int
    """First of its frames in the part's latents."""


def instruction(text: str, gender: str, mode: str) -> str:
    """What the text encoder reads: the paper's wording around the transcript.

    Args:
        text: Words in lower case.
        gender: Of the voice.
        mode: Key of `TRANSCRIPTS`.
    """
    return render(TEMPLATES["tts"][0], {"gender": gender, "text": TRANSCRIPTS[mode](text)})


def recording(text: str, gender: str, sample_rate: int) -> Tensor:
    """What flite says, trimmed and at RMS 0.1: (samples,)."""
    voice = next(voice for voice in SPEAKERS if voice.gender == gender)
    spoken = trim_silence(speak(text, voice, sample_rate), sample_rate, ONSET_DB)
    margin = round(MARGIN_SECONDS * sample_rate)
    level = normalize_rms(F.pad(spoken, (margin, margin)), 0.1)
    return level * min(1.0, 0.99 / max(float(level.abs().max()), 1e-9))


def make_speech(
    folder: Path, texts: Texts, codec: AudioCodec, kind: str, part: int, count: int
) -> float:
    """Writes the latents and the index of a part unless they are there.

    Returns:
        Hours of speech in it.
    """
    index, latents = _path(folder, kind, part, "json"), _path(folder, kind, part, "latents.npy")
    if index.exists():
        return sum(row.frames for row in read_index(index)) * codec.hop / codec.sample_rate / 3600
    rows, stored, start = [], [], 0
    for number, text in enumerate(draw_texts(texts, kind, part, count)):
        gender = SPEAKERS[(number + part) % len(SPEAKERS)].gender
        wave = recording(text, gender, codec.sample_rate)
        frames = codec.frames(len(wave) / codec.sample_rate)
        silence = (frames + SPARE_FRAMES) * codec.hop - len(wave)
        z = codec.encode(F.pad(wave, (0, silence))[None])[0].T  # (T', C)
        rows.append(Utterance(text=text, gender=gender, frames=frames, start=start))
        stored.append(z.half().numpy())
        start += len(z)
    _save(latents, np.concatenate(stored))
    partial = index.with_suffix(".partial")
    partial.write_text(json.dumps([asdict(row) for row in rows]), "utf-8")
    partial.replace(index)
    return sum(row.frames for row in rows) * codec.hop / codec.sample_rate / 3600


def make_states(folder: Path, encoder: TextEncoder, mode: str, kind: str, part: int) -> None:
    """Writes the text states of a part, one token after the other, unless they are there."""
    states, counts = (_path(folder, kind, part, f"{mode}.{what}.npy") for what in ("s", "n"))
    if states.exists() and counts.exists():
        return
    rows = read_index(_path(folder, kind, part, "json"))
    found, tokens = [], []
    for start in range(0, len(rows), 50):
        text = encoder.encode(
            [instruction(row.text, row.gender, mode) for row in rows[start : start + 50]]
        )
        for hidden, mask in zip(text.hidden_states, text.mask, strict=True):
            found.append(hidden[:, mask].transpose(0, 1).half().numpy())  # (N, K, text_dim)
            tokens.append(len(found[-1]))
    _save(counts, np.array(tokens))
    _save(states, np.concatenate(found))


def read_index(path: Path) -> list[Utterance]:
    """Reads a part's index.

    Raises:
        InputError: If it is missing.
    """
    try:
        return [Utterance(**row) for row in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; make it with the command 'data'.") from error


class SpeechParts:
    """Some parts together, as one list of utterances.

    Args:
        folder: Where they are.
        mode: How transcripts are read: key of `TRANSCRIPTS`.
        parts: Kind -> how many of its parts.
        picks: MiniLM's layer that each block reads.

    Raises:
        InputError: If a part is missing.
    """

    def __init__(
        self, folder: Path, mode: str, parts: dict[str, int], picks: Sequence[int]
    ) -> None:
        self.layers = [LAYERS.index(pick) for pick in picks]
        self.rows: list[Utterance] = []
        self.stored: list[tuple[np.ndarray, np.ndarray, int, int]] = []
        for kind, count in parts.items():
            for part in range(count):
                rows = read_index(_path(folder, kind, part, "json"))
                try:
                    latents, states, tokens = (
                        np.load(_path(folder, kind, part, f"{what}.npy"), mmap_mode="r")
                        for what in ("latents", f"{mode}.s", f"{mode}.n")
                    )
                except FileNotFoundError as error:
                    raise InputError(
                        f"{error.filename} is missing; make it with the command 'data'."
                    ) from error
                ends = np.cumsum(tokens).tolist()
                self.rows += rows
                self.stored += [
                    (latents, states, end - count, end)
                    for end, count in zip(ends, tokens.tolist(), strict=True)
                ]
        self.frames = torch.tensor([row.frames for row in self.rows])

    @functools.cache  # noqa: B019 - one object a phase of a run
    def buckets(self, longest: int) -> list[tuple[int, Tensor]]:
        """Lengths in frames of batches, up to `longest`, with the utterances that fit each."""
        found = []
        for length in range(SPARE_FRAMES, longest + 1, SPARE_FRAMES // 2):
            fits = (self.frames <= length) & (self.frames > length - SPARE_FRAMES)
            if fits.any():
                found.append((length, fits.nonzero().flatten()))
        return found

    def draw(self, longest: int, frames: int, generator: torch.Generator) -> tuple[int, list[int]]:
        """Draws one batch: every utterance is equally likely, and all have one length.

        Args:
            longest: Longest clip in frames.
            frames: Frames in the batch.
            generator: Of the draw.

        Returns:
            The length in frames, and which utterances.
        """
        buckets = self.buckets(longest)
        weights = torch.tensor([float(length * len(fits)) for length, fits in buckets])
        length, fits = buckets[int(torch.multinomial(weights, 1, generator=generator))]
        chosen = torch.randperm(len(fits), generator=generator)[: max(1, frames // length)]
        return length, fits[chosen].tolist()

    def latents(self, which: Sequence[int], length: int) -> Tensor:
        """Latents of some utterances, (B, C, length), float32."""
        rows = [self.rows[i] for i in which]
        found = [
            np.array(self.stored[i][0][row.start : row.start + length], dtype=np.float32)
            for i, row in zip(which, rows, strict=True)
        ]
        return torch.from_numpy(np.stack(found)).transpose(1, 2).contiguous()

    def text(self, which: Sequence[int]) -> TextStates:
        """Text states of some utterances, padded to the longest."""
        spans = [self.stored[i][1:] for i in which]
        longest = max(end - start for _, start, end in spans)
        hidden = torch.zeros(len(spans), longest, len(LAYERS), spans[0][0].shape[-1])
        mask = torch.zeros(len(spans), longest, dtype=torch.bool)
        for row, (states, start, end) in enumerate(spans):
            hidden[row, : end - start] = torch.from_numpy(np.array(states[start:end]))
            mask[row, : end - start] = True
        picked = hidden[:, :, self.layers].transpose(1, 2)  # (B, D, N, text_dim)
        return TextStates(hidden_states=picked, mask=mask)


def build(
    folder: Path,
    texts: Texts,
    codec: AudioCodec,
    encoder: TextEncoder,
    *,
    parts: dict[str, int],
    modes: Sequence[str],
    count: int = UTTERANCES,
) -> None:
    """Makes parts in their order, with a line about each."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, number in parts.items():
        for part in range(number):
            began = time.process_time()
            hours = make_speech(folder, texts, codec, kind, part, count)
            spoken = time.process_time() - began
            for mode in modes:
                make_states(folder, encoder, mode, kind, part)
            states = time.process_time() - began - spoken
            print(f"{kind} {part}: {hours:.2f} h, {spoken:.0f} + {states:.0f} s", flush=True)


def _path(folder: Path, kind: str, part: int, suffix: str) -> Path:
    return folder / f"{kind}-{part:03d}.{suffix}"


def _save(path: Path, values: np.ndarray) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, values)
    partial.replace(path)
