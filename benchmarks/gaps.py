"""Filled gaps, extensions and extractions of real recordings, measured on nano.

    python benchmarks/gaps.py fill CORPUS
    python benchmarks/gaps.py extend CORPUS
    python benchmarks/gaps.py extract CORPUS

CORPUS is what `unison-audio data nano` wrote. `fill` takes 1.5 s out of recordings of steady sounds
and fills them with `[Audio] ...` of the recording's label; `extend` replaces their last 1.5 s.
Each is done with several counts of repeats, without fixed frames, and by the paper's task that adds
a sound to the silenced region. Beside them stands the recording itself.

- spectrum: distance of the gap's mean spectrum in mel bands from that of the recording around it
- level: how much the gap's level differs from the level around it, without sign
- edge: largest spectral flux within 15 ms of the edges, by the 99th percentile of all frames
- step: largest step between two samples at the edges, by the same
- class: share of gaps whose features in aiSFX are nearest to the mean of their own label's training
  recordings, among all labels here; the row of recordings says how far that can be trusted

`extract` mixes speech of flite with held-out sounds and extracts either by each task that could.
Figures are medians of SI-SDR in dB.
"""

import random
from functools import partial
from pathlib import Path

import cyclopts
import numpy as np
import torch
from machine import describe
from torch import Tensor

from unison_audio import Unison, audio, best_of_n
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.evaluation.metrics.signal import si_sdr
from unison_audio.evaluation.models.aisfx import SoundEncoder
from unison_audio.model.gap_sampling import sample_gap
from unison_audio.spectrogram import log_mel

RATE = 16_000
LENGTH = 4 * RATE
STEADY = (
    *("rain", "wind blowing", "a flowing stream", "fire burning", "crickets chirping"),
    *("a helicopter", "a car engine", "a machine running", "birds singing", "a propeller plane"),
    *("insects buzzing", "bubbles", "a truck"),
)
GAPS = {"fill": (round(1.3 * RATE), round(2.8 * RATE)), "extend": (LENGTH - 3 * RATE // 2, LENGTH)}
EACH = 6
"""Training recordings of each label that its mean is taken of, at most."""

app = cyclopts.App(help=__doc__)


def clips_of(corpus: Path, split: str) -> list[Clip]:
    clips = read_corpus(corpus, RATE, split=split)
    found = [c for c in clips if c.record.kind == "sound" and c.record.label in STEADY]
    random.Random(0).shuffle(found)
    return found


def spectrum(wave: Tensor) -> Tensor:
    power = 10 ** (log_mel(wave, RATE) / 10)
    return 10 * (power.mean(dim=1) + 1e-9).log10()


def edges(wave: Tensor, places: list[int]) -> tuple[float, float]:
    """Largest flux and step near places, each by the 99th percentile of the whole."""
    bins = torch.stft(wave, 320, 80, window=torch.hann_window(320), return_complex=True).abs()
    flux, steps = bins.diff(dim=1).clamp_min(0).sum(dim=0), wave.diff().abs()
    near = max(float(flux[max(0, p // 80 - 3) : p // 80 + 3].max()) for p in places)
    step = max(float(steps[p - 3 : p + 3].max()) for p in places)
    return near / float(flux.quantile(0.99)), step / float(steps.quantile(0.99))


class Classes:
    """The nearest mean of the labels' training recordings."""

    def __init__(self, clips: list[Clip], labels: list[str], seconds: float = 1.5) -> None:
        self.encoder, length = SoundEncoder(), round(seconds * RATE)
        means = []
        for label in labels:
            own = [c.waveform[:length] for c in clips if c.record.label == label][:EACH]
            means.append(torch.stack([self.features(wave) for wave in own]).mean(dim=0))
        self.labels, self.means = labels, torch.stack(means)

    def features(self, wave: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.encoder.features(wave, RATE), dim=0)

    def tell(self, wave: Tensor) -> str:
        return self.labels[int((self.means @ self.features(wave)).argmax())]


def gap_results(unison: Unison, clip: Clip, wave: Tensor, where: str, seed: int):
    """Name of a way -> the recording with its gap filled."""
    start, stop = GAPS[where]
    label, region = clip.record.label, (start / RATE, stop / RATE)
    yield "the recording itself", wave
    ways = {f"{n} evaluations a step": partial(sample_gap, repeats=n) for n in (1, 3)}
    for name, way in ways.items():
        best_of_n.sample_gap = way
        if where == "fill":
            made = unison.inpaint(f"[Audio] {label}", (wave, RATE), [region], seed=seed)
        else:
            kept = (wave[:start], RATE)
            made = unison.extend(f"[Audio] {label}", kept, after=region[1] - region[0], seed=seed)
        yield name, torch.from_numpy(made.read(0, made.frames)[:, 0].copy())
    fade = RATE // 50
    rise = audio.raised_cosine(fade)
    free = unison.generate(f"[Audio] {label}", duration=1.5, seed=seed).waveform
    hole = wave.clone()
    hole[start:stop] = 0
    added = unison.generate(
        f"[Edit][Audio] Add {label}", source=(hole, RATE), seed=seed, preserve_source=False
    ).waveform[start:stop]
    for name, piece in (("no fixed frames", free), ("edit_add", added)):
        piece = torch.nn.functional.pad(piece, (0, max(0, stop - start - len(piece))))
        filled = wave.clone()
        filled[start:stop] = piece[: stop - start]
        filled[start : start + fade] = torch.lerp(wave[start : start + fade], piece[:fade], rise)
        yield name, filled


def measure(corpus: Path, where: str, count: int) -> None:
    torch.set_num_threads(1)
    unison, (start, stop) = Unison.from_pretrained("nano"), GAPS[where]
    training = clips_of(corpus, "train")
    held = [c for c in clips_of(corpus, "heldout") if len(c.waveform) >= LENGTH]
    long = [c for c in training if len(c.waveform) >= LENGTH]
    used: dict[str, int] = {}
    chosen = []
    for clip in held + long:  # at most three of a label
        used[clip.record.label] = used.get(clip.record.label, 0) + 1
        if used[clip.record.label] <= 3 and len(chosen) < count:
            chosen.append(clip)
    names = {c.record.key for c in chosen}
    others = [c for c in training if c.record.key not in names]
    labels = sorted({c.record.label for c in others})
    classes = Classes(others, labels)
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed, clip in enumerate(chosen):
        wave = audio.normalize_rms(clip.waveform[:LENGTH], 0.1)
        around = torch.cat([wave[:start], wave[stop:]])
        for name, filled in gap_results(unison, clip, wave, where, seed):
            gap = filled[start:stop]
            outside = torch.cat([filled[:start], filled[stop:]])
            assert torch.equal(outside, around)
            flux, step = edges(filled, [start, stop] if where == "fill" else [start])
            level = float(20 * (audio.rms(gap[800:-800]) / audio.rms(around)).log10())
            away = float((spectrum(gap) - spectrum(around)).square().mean().sqrt())
            right = float(classes.tell(gap) == clip.record.label)
            rows.setdefault(name, []).append((away, abs(level), flux, step, 100 * right))
    print(f"{len(chosen)} recordings, {len(labels)} labels; outside the gap all samples are equal")
    print("| way | spectrum, dB | level, dB | edge | step | class, % |\n|---|---|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{x:.3g}" for x in np.mean(values, axis=0)) + " |")
    print(f"machine: {describe()}")


@app.command
def fill(corpus: Path, *, count: int = 18) -> None:
    """Gaps inside recordings."""
    measure(corpus, "fill", count)


@app.command
def extend(corpus: Path, *, count: int = 18) -> None:
    """Recordings that go on after their end."""
    measure(corpus, "extend", count)


@app.command
def extract(corpus: Path, *, count: int = 16) -> None:
    """Speech and sounds taken out of mixes of both."""
    torch.set_num_threads(1)
    unison = Unison.from_pretrained("nano")
    clips = read_corpus(corpus, RATE, split="train")
    voices = [c for c in clips if c.record.kind == "speech" and 1.5 < c.record.seconds < 2.8]
    held = read_corpus(corpus, RATE, split="heldout")
    sounds = [c for c in held if c.record.kind == "sound"]
    random.Random(1).shuffle(voices)
    random.Random(2).shuffle(sounds)
    length, found = 3 * RATE, {}
    for seed, (voice, sound) in enumerate(zip(voices[:count], sounds[:count], strict=True)):
        spoken = torch.zeros(length)
        spoken[1500 : 1500 + len(voice.waveform)] = audio.normalize_rms(voice.waveform, 0.1)
        times = -(-length // len(sound.waveform))
        other = audio.normalize_rms(sound.waveform.repeat(times)[:length], 0.05)
        mix = (spoken + other, RATE)
        results = {
            "denoise": unison.edit("[Edit][Speech] Denoise the recording", mix, seed=seed),
            "minus speech_delete": unison.extract("[Speech]", mix, seed=seed),
            "speech_delete": unison.edit("[Edit][Speech] Remove the speech", mix, seed=seed),
            "minus edit_remove": unison.extract(f"[Audio] {sound.record.label}", mix, seed=seed),
        }
        waves = {name: torch.from_numpy(r.read(0, length)[:, 0]) for name, r in results.items()}
        for name, wave in {"the mix": mix[0], **waves}.items():
            for aim, truth in (("speech", spoken), ("the sound", other)):
                found.setdefault((aim, name), []).append(
                    float(si_sdr(truth[None], wave.float()[None]))
                )
    print("| to extract | by | SI-SDR, dB |\n|---|---|---|")
    for (aim, name), values in sorted(found.items()):
        print(f"| {aim} | {name} | {float(np.median(values)):.1f} |")
    print(f"machine: {describe()}")


if __name__ == "__main__":
    app()
