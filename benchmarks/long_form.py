"""Long texts, long recordings and regions, measured on nano.

    python benchmarks/long_form.py speech --sentences 100
    python benchmarks/long_form.py batches
    python benchmarks/long_form.py memory
    python benchmarks/long_form.py regions
    python benchmarks/long_form.py recording
    python benchmarks/long_form.py timeline --corpus CORPUS

`speech` speaks held-out sentences as one long text and each by itself, with its own seed. Words are
judged by Whisper tiny.en, voices by Resemblyzer: the similarity of each window to the first stands
beside that of utterances that flite makes in one of nano's voices, where flite is installed. Steps
and spectral flux at the joins stand beside those inside windows. Processor time counts.

`--steer-above 0.5` steers in flow times above that alone; 1 is no steering. With `--only-times`,
nothing is judged. With `--folder` every window is kept there, and the same
command goes on where it was stopped; times are then not reported.

`batches` speaks the same eight windows in batches of one, two, four and eight, in turns, and a text
of a minute with each in a process of its own for the memory.

`memory` speaks texts of a minute and of an hour, each in a process of its own, with one step, on
which memory does not depend. `--default-steps` takes the preset's steps; `--minutes 1 --minutes 4`
speaks texts of other lengths.

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

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cyclopts
import numpy as np
import soundfile
import torch
from machine import describe, peak_memory_gib
from torch import Tensor

from unison_audio import Unison, audio
from unison_audio.evaluation.metrics.signal import lsd, word_error_rate
from unison_audio.longform import edit_changes, long_speech
from unison_audio.longform.edit_windows import derive_seed
from unison_audio.longform.long_speech import plan_speech, speak
from unison_audio.longform.timeline import compose, plan_timeline
from unison_audio.model import voice_target

RATE = 16_000
MALE = "[Speech] A male voice"
REMOVE = "[Edit][Audio] Remove a dog barking"

app = cyclopts.App(help=__doc__)


def report(rows: dict[str, object]) -> None:
    for name, value in rows.items():
        if isinstance(value, list):
            value = ", ".join(f"{number:.3f}" for number in value)
        print(f"{name:58} {value:.4g}" if isinstance(value, float) else f"{name:58} {value}")
    print(f"machine: {describe()}")


def step_and_flux(wave: Tensor, places: list[int]) -> tuple[float, float]:
    """The largest step between samples, and the largest spectral flux, within 10 ms of places."""
    steps = wave.diff().abs()
    window = torch.hann_window(320)
    power = torch.stft(wave, 320, 80, window=window, return_complex=True).abs()
    flux = power.diff(dim=1).clamp_min(0).sum(dim=0)
    reach = 160
    near = [steps[max(0, p - reach) : p + reach].max() for p in places]
    rise = [flux[max(0, p // 80 - 2) : p // 80 + 2].max() for p in places]
    return float(max(near)), float(max(rise))


FLITE_VOICES = ("rms", "awb", "kal16")
"""The voices of flite among nano's male ones."""


def flite_similarity(embed, voice: str, texts: list[str]) -> float | None:
    """Mean similarity of utterances to the first of a voice of flite."""
    program = shutil.which("flite")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        vectors = []
        for text in texts:
            subprocess.run([program, "-voice", voice, "-t", text, "-o", str(path)], check=True)
            vectors += embed([audio.load(path, sample_rate=RATE).numpy()])
    return float(torch.stack([vectors[0] @ vector for vector in vectors[1:]]).mean())


class Kept:
    """A model whose sounds are kept in a folder, so that a stopped run goes on.

    Args:
        unison: The model.
        folder: Where to keep sounds; None keeps none.
    """

    def __init__(self, unison: Unison, folder: Path | None) -> None:
        self.unison, self.folder, self.variant = unison, folder, unison.variant
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def generate(self, instructions, **inputs):
        if self.folder is None:
            return self.unison.generate(instructions, **inputs)
        asked = hashlib.sha256(repr((instructions, sorted(inputs.items()))).encode()).hexdigest()
        path = self.folder / f"{asked[:16]}.pt"
        if not path.is_file():
            made = self.unison.generate(instructions, **inputs)
            part = path.with_suffix(".part")
            torch.save([sound.waveform for sound in made], part)
            part.replace(path)
        return [audio.Audio(wave, RATE) for wave in torch.load(path)]


@app.command
def speech(
    *,
    sentences: int = 100,
    seed: int = 0,
    folder: Path | None = None,
    only_times: bool = False,
    steer_above: float = voice_target.STEER_ABOVE,
) -> None:
    """Words, voice, joins, first sound and time of a long text."""
    voice_target.STEER_ABOVE = steer_above
    from unison_audio.evaluation.models.speaker import Resemblyzer
    from unison_audio.nano.vocabulary import held_out_texts
    from unison_audio.nano.vocabulary_asr import SentenceAsr

    torch.set_num_threads(1)
    texts = held_out_texts(sequences=0)[:sentences]
    text = "\n".join(f"{line[0].upper()}{line[1:]}." for line in texts)
    unison = Kept(Unison.from_pretrained("nano"), folder)
    unison.generate([f'{MALE} saying "{texts[0]}"'], duration=1.92)  # the first call loads models

    # In turns, so that a change in the machine's speed concerns both ways alike.
    spoken, alone = [], []
    together = singly = first = 0.0
    started = time.process_time()
    plan = plan_speech(unison.variant, MALE, text=text, seed=seed)
    for part in speak(unison, plan):
        stopped = time.process_time()
        together += stopped - started
        first = first or together
        instruction = f'{MALE} saying "{part.window.text}"'
        alone += unison.generate(
            [instruction],
            seed=derive_seed(seed, part.window.index),
            duration=plan.seconds(part.window),
        )
        spoken.append(part)
        started = time.process_time()
        singly += started - stopped

    if folder is None:
        report(
            {
                "windows": len(spoken),
                "first sound after windows' times": first / (singly / len(spoken)),
                "time of the whole by that of windows one by one": together / singly,
                "processor seconds for a second of sound": together
                / sum(len(part.speech) / RATE for part in spoken),
            }
        )
    if only_times:
        return
    asr, voices = SentenceAsr(), Resemblyzer()

    def wer(waves: list[Tensor]) -> float:
        spelled = [part.window.text for part in spoken]
        pairs = asr.transcript_pairs([wave.numpy() for wave in waves], spelled)
        return 100 * float(np.mean([word_error_rate(*pair) for pair in pairs]))

    def likeness(waves: list[Tensor]) -> list[float]:
        """Mean similarity to the first, and of all pairs."""
        vectors = torch.stack(list(voices.embed([wave.numpy() for wave in waves])))
        pairs = (vectors @ vectors.T)[~torch.eye(len(vectors), dtype=torch.bool)]
        return [float((vectors[1:] @ vectors[0]).mean()), float(pairs.mean())]

    windows, clips = [part.speech for part in spoken], [sound.waveform for sound in alone]
    whole = torch.cat([torch.cat([p.speech, p.speech.new_zeros(p.pause)]) for p in spoken])
    edges, inside, position = [], [], 0
    for part in spoken:
        inside.append(position + len(part.speech) // 2)
        inside.append(position + len(part.speech) // 3)
        position += len(part.speech)
        edges += [position, position + part.pause]
        position += part.pause
    join_step, join_flux = step_and_flux(whole, edges[:-2])
    inner_step, inner_flux = step_and_flux(whole, inside)
    resampled = sum(part.seed != derive_seed(seed, index) for index, part in enumerate(spoken))
    flite = [flite_similarity(voices.embed, voice, texts[:20]) for voice in FLITE_VOICES]
    report(
        {
            "seconds of sound": len(whole) / RATE,
            "windows": len(spoken),
            "windows kept from a second try": resampled,
            "WER of the long text, %": wer(windows),
            "WER of the same windows singly, %": wer(clips),
            "similarity of windows to the first, of all pairs": likeness(windows),
            "similarity of single utterances, the same": likeness(clips),
            f"similarity of flite's utterances, {', '.join(FLITE_VOICES)}": (
                "no flite" if None in flite else flite
            ),
            "largest step at joins": join_step,
            "largest step inside windows": inner_step,
            "largest flux at joins": join_flux,
            "largest flux inside windows": inner_flux,
        }
    )


def spoken_apart(minutes: int, *flags: str) -> dict[str, float]:
    """Seconds and peak memory of a text that another process speaks."""
    done = subprocess.run(
        [sys.executable, __file__, "speak-minutes", str(minutes), *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@app.command
def batches(*, windows: int = 8, rounds: int = 2) -> None:
    """Processor time and peak memory of windows in batches of several sizes."""
    from unison_audio.nano.vocabulary import held_out_texts

    torch.set_num_threads(1)
    spent = dict.fromkeys((1, 2, 4, 8), 0.0)
    # Before a model is loaded here: Linux counts the peak of a process from its parent's size on.
    peaks = {size: spoken_apart(1, "--batch", str(size))["peak"] for size in spent}
    unison = Unison.from_pretrained("nano")
    said = [f'{MALE} saying "{text}"' for text in held_out_texts(sequences=0)[:windows]]
    unison.generate(said[:1], duration=2.56)  # the first call loads models
    for _ in range(rounds):
        for size in spent:
            started = time.process_time()
            for start in range(0, windows, size):
                unison.generate(said[start : start + size], duration=2.56)
            spent[size] += time.process_time() - started
    for size, total in spent.items():
        report(
            {
                f"batches of {size}, time by one by one": total / spent[1],
                f"batches of {size}, peak memory in MB": peaks[size] * 1024,
            }
        )


@app.command
def memory(*, minutes: tuple[int, ...] = (1, 60), default_steps: bool = False) -> None:
    """Peak memory of an hour of text beside that of a minute."""
    flags = ["--default-steps"] if default_steps else []
    for length in minutes:
        row = spoken_apart(length, *flags)
        report({f"peak memory in MB, {row['seconds']:.0f} s of sound": row["peak"] * 1024})


@app.command
def speak_minutes(minutes: int, *, default_steps: bool = False, batch: int | None = None) -> None:
    """Speak a text of so many minutes, and say how much memory that took."""
    torch.set_num_threads(1)
    words = random.Random(0)
    animals = ("dog", "cat", "bird", "fish", "horse", "tiger")
    lines = [f"The {words.choice(animals)} is in the house." for _ in range(28 * minutes)]
    long_speech.WINDOWS_AT_ONCE = batch or long_speech.WINDOWS_AT_ONCE
    unison = Unison.from_pretrained("nano")
    options = {} if default_steps else {"steps": 1}
    stream = unison.stream(MALE, text="\n".join(lines), **options)
    seconds = sum(piece.seconds for piece in stream)
    print(json.dumps({"seconds": seconds, "peak": peak_memory_gib()}))


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
