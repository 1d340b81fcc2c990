"""Long recordings, regions and timelines, measured on nano; `long_text.py` measures long texts.

    python benchmarks/long_form.py regions
    python benchmarks/long_form.py recording
    python benchmarks/long_form.py timeline --corpus CORPUS

`regions` removes a sound in one region of recordings of many rates, channels and depths, and counts
the samples outside that stay as they are.

`recording` removes a bark every ten seconds from five minutes of wind, and from clips of 5.12 s
around each bark by themselves. The LSD is to the wind alone; wind and barks are nano's own.
`--threshold` sets how many dB below the loudest a change is left out.

`timeline` lays 20 events of 2 s into two minutes, and compares the level inside the events with the
level outside, beside the same events two by two in timelines of 5.12 s. With `--corpus`, the folder
that `unison-audio data nano` wrote, each event is classified by the nearest mean of ten labels'
recordings in the features of aiSFX.
"""

import tempfile
from pathlib import Path

import cyclopts
import numpy as np
import soundfile
import torch
from machine import report
from torch import Tensor

from unison_audio import Unison, audio
from unison_audio.evaluation.metrics.signal import lsd
from unison_audio.longform import edit_changes
from unison_audio.longform.edit_windows import derive_seed
from unison_audio.longform.timeline import compose, plan_timeline

RATE = 16_000
REMOVE = "[Edit][Audio] Remove a dog barking"

app = cyclopts.App(help=__doc__)


@app.command
def regions() -> None:
    """Samples outside a region that stay as they are."""
    unison = Unison.from_pretrained("nano")
    generator = np.random.default_rng(0)
    kept = total = 0
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.wav", Path(folder) / "out.wav"
        for rate in (8_000, 16_000, 22_050, 44_100, 48_000):
            for channels in (1, 2):
                for coding in ("PCM_16", "PCM_24", "FLOAT"):
                    noise = generator.normal(0, 0.05, (4 * rate, channels))
                    soundfile.write(source, noise, rate, coding)
                    unison.edit(REMOVE, source, regions=[(1, 2.5)]).save(out)
                    before, after = (soundfile.read(p, dtype="float64")[0] for p in (source, out))
                    outside = np.r_[0:rate, round(2.5 * rate) : 4 * rate]
                    kept += int((before[outside] == after[outside]).sum())
                    total += before[outside].size
    report({"samples outside": total, "of these the input's, %": 100 * kept / total})


@app.command
def recording(*, minutes: float = 5.0, threshold: float = edit_changes.CHANGE_RANGE_DB) -> None:
    """A removal in a long recording beside the same in short clips."""
    edit_changes.CHANGE_RANGE_DB = threshold
    unison = Unison.from_pretrained("nano")
    length = round(minutes * 60 * RATE)
    winds = unison.generate(["[Audio] wind blowing"] * 8, duration=5.12, seed=list(range(8)))
    wind = torch.zeros(length)
    fade = RATE // 2
    for k in range(-(-length // (4 * RATE))):
        piece = audio.fade(audio.normalize_rms(winds[k % 8].waveform, 0.03), fade, fade)
        piece = piece[: max(0, length - 4 * k * RATE)]
        wind[4 * k * RATE : 4 * k * RATE + len(piece)] += piece
    barks = unison.generate(["[Audio] a dog barking"] * 8, duration=1.92, seed=list(range(8)))
    source = wind.clone()
    starts = list(range(4 * RATE, length - 4 * RATE, 10 * RATE))
    for k, start in enumerate(starts):
        bark = audio.fade(audio.normalize_rms(barks[k % 8].waveform, 0.1), 400, 400)
        source[start : start + len(bark)] += bark
    source, wind = source * 0.5, wind * 0.5

    result = unison.edit(REMOVE, (source, RATE), seed=0)
    edited = torch.from_numpy(result.read(0, length)[:, 0].copy())
    span = round(1.92 * RATE)
    size = round(5.12 * RATE)

    def near(wave: Tensor) -> Tensor:
        return torch.stack([wave[start : start + span] for start in starts])

    clips = []
    for first in range(0, len(starts), 8):
        some = starts[first : first + 8]
        begins = [start - (size - span) // 2 for start in some]
        sounds = unison.generate(
            [REMOVE] * len(some),
            source=[(source[b : b + size], RATE) for b in begins],
            seed=[derive_seed(0, first + i) for i in range(len(some))],
        )
        clips += [
            sound.waveform[start - b : start - b + span]
            for sound, start, b in zip(sounds, some, begins, strict=True)
        ]
    eps = 1e-4  # the power of a bin next to silence, so that the wind's pauses do not decide

    def distance(waves: Tensor) -> float:
        return float(lsd(near(wind), waves, RATE, eps=eps).mean())

    away = torch.ones(length, dtype=torch.bool)
    for start in starts:
        away[max(0, start - RATE // 10) : start + span + RATE // 10] = False
    taken = unison.edit(REMOVE, (source, RATE), seed=0, extract=True)
    extracted = torch.from_numpy(taken.read(0, length)[:, 0].copy())
    barked = source - wind

    def si_sdr(truth: Tensor, estimate: Tensor) -> Tensor:
        aimed = (estimate * truth).sum(1, keepdim=True) / truth.square().sum(1, keepdim=True)
        error = estimate - aimed * truth
        return 10 * ((aimed * truth).square().sum(1) / error.square().sum(1)).log10()

    report(
        {
            "SI-SDR of the extracted barks, dB": float(
                si_sdr(near(barked), near(extracted)).median()
            ),
            "SI-SDR of the recording at the barks, dB": float(
                si_sdr(near(barked), near(source)).median()
            ),
            "barks": len(starts),
            "LSD of the source at the barks": distance(near(source)),
            "LSD of the long recording, edited": distance(near(edited)),
            "LSD of short clips, edited": distance(torch.stack(clips)),
            "samples without barks": int(away.sum()),
            "of these the input's own, %": 100 * float((edited == source)[away].float().mean()),
            "SNR of the change in the others, dB": float(
                20 * torch.log10(audio.rms(source[away]) / audio.rms((edited - source)[away]))
            ),
        }
    )


OTHERS = ("a car horn", "thunder", "a sheep bleating", "a door closing", "footsteps")
"""Classes besides those of the timeline among which an event is classified."""


def class_rates(corpus: Path, told: list[tuple[Tensor, tuple[float, float], str]]) -> list[float]:
    """Percent told right of the first 20 events, of the others, and of held-out recordings."""
    from gaps import Classes

    from unison_audio.data.shards import read_corpus

    labels = sorted({name for *_, name in told} | set(OTHERS))
    clips = [c for c in read_corpus(corpus, RATE, split="train") if c.record.label in labels]
    held = [c for c in read_corpus(corpus, RATE, split="heldout") if c.record.label in labels]
    classes = Classes(clips, labels, 2.0)

    def right(rows: list[tuple[Tensor, str]]) -> float:
        return 100 * float(np.mean([classes.tell(wave) == name for wave, name in rows]))

    cut = [(wave[round(a * RATE) : round(b * RATE)], name) for wave, (a, b), name in told]
    known = [(c.waveform[: 2 * RATE], c.record.label) for c in held]
    return [right(cut[:20]), right(cut[20:]), right(known)]


@app.command
def timeline(*, corpus: Path | None = None) -> None:
    """Levels and classes of the events of a long timeline, and of short ones."""
    unison = Unison.from_pretrained("nano")
    names = ("a dog barking", "a bell ringing", "a gunshot", "a cow mooing", "glass breaking")
    starts = [6.0 * k + 1.0 for k in range(20)]
    said = [f"From {s:g}s to {s + 2:g}s, {names[k % 5]}." for k, s in enumerate(starts)]
    windows = plan_timeline(unison.variant, f"[Audio] {' '.join(said)}", duration=120.0)
    whole = torch.cat([piece.waveform for piece in compose(unison, windows)])
    pairs = [
        f"[Audio] From 0.3s to 2.3s, {names[k % 5]}. From 3s to 5s, {names[(k + 1) % 5]}."
        for k in range(0, 20, 2)
    ]
    short = unison.generate(pairs, duration=5.12, seed=list(range(10)))

    def contrast(wave: Tensor, spans: list[tuple[float, float]]) -> float:
        inside = torch.zeros(len(wave), dtype=torch.bool)
        for start, stop in spans:
            inside[round(start * RATE) : round(stop * RATE)] = True
        return float(20 * (audio.rms(wave[inside]) / audio.rms(wave[~inside])).log10())

    if corpus is not None:
        spans = [(s, s + 2.0) for s in starts]
        told = [(whole, span, names[k % 5]) for k, span in enumerate(spans)]
        for sound, k in zip(short, range(0, 20, 2), strict=True):
            told.append((sound.waveform, (0.3, 2.3), names[k % 5]))
            told.append((sound.waveform, (3.0, 5.0), names[(k + 1) % 5]))
        rates = class_rates(corpus, told)
        report(
            {
                "class right in windows of the long timeline, %": rates[0],
                "class right in windows of short timelines, %": rates[1],
                "class right of held-out recordings, %": rates[2],
            }
        )
    report(
        {
            "windows, of these silent": f"{len(windows)}, {sum(not w.events for w in windows)}",
            "events above the rest, dB": contrast(whole, [(s, s + 2.0) for s in starts]),
            "events above the rest in short timelines, dB": float(
                np.mean([contrast(sound.waveform, [(0.3, 2.3), (3.0, 5.0)]) for sound in short])
            ),
        }
    )


if __name__ == "__main__":
    app()
