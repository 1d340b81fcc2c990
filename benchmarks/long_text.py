"""Long texts, measured on nano.

    python benchmarks/long_text.py speech --sentences 250 --voices 10
    python benchmarks/long_text.py batches
    python benchmarks/long_text.py memory

`speech` speaks the sentences that nano's training held out, as long texts of one voice each, and
each window by itself with its own seed. After the last sentence it begins again with other seeds.
Words are judged by Whisper tiny.en. The two ways share noise and lengths, so that words are
compared window by window; a voice has its own rate of errors, so that voices count once each.
Voices are judged by Resemblyzer: the similarity of windows stands beside that of utterances that
flite makes in one of nano's voices, where flite is installed. Steps and spectral flux at the joins
stand beside those inside windows. Processor time counts.

`--female` takes a female voice. `--steer-above 0.5` steers in flow times above that alone; 1 is no
steering. With `--only-times`, nothing is judged. With `--folder` every window and its errors are
kept there, and the same command goes on where it was stopped; times are then not reported.

`batches` speaks the same eight windows in batches of one, two, four and eight, in turns, and a text
of a minute with each in a process of its own for the memory.

`memory` speaks texts of a minute and of an hour, each in a process of its own, with one step, on
which memory does not depend. `--default-steps` takes the preset's steps; `--minutes 1 --minutes 4`
speaks texts of other lengths.
"""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import cyclopts
import numpy as np
import torch
from machine import peak_memory_gib, report
from torch import Tensor

from unison_audio import Unison, audio
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.longform import long_speech
from unison_audio.longform.edit_windows import derive_seed
from unison_audio.longform.long_speech import SpokenWindow, plan_speech, speak
from unison_audio.model import voice_target

RATE = 16_000
MALE, FEMALE = "[Speech] A male voice", "[Speech] A female voice"
HELD_OUT = 160
"""Sentences at the end of nano's held-out texts."""

app = cyclopts.App(help=__doc__)


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


FLITE_VOICES = {MALE: ("rms", "awb", "kal16"), FEMALE: ("slt",)}
"""The voices of flite among nano's."""


def flite_similarity(embed, voice: str, texts: list[str]) -> list[float] | str:
    """Similarities of the utterances of a voice of flite."""
    program = shutil.which("flite")
    if program is None:
        return "no flite"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        waves = []
        for text in texts:
            subprocess.run([program, "-voice", voice, "-t", text, "-o", str(path)], check=True)
            waves.append(audio.load(path, sample_rate=RATE))
    return similarities(embed, waves)


def similarities(embed, waves: list[Tensor]) -> list[float]:
    """Mean similarity to the first, and of all pairs."""
    vectors = torch.stack(list(embed([wave.numpy() for wave in waves])))
    pairs = (vectors @ vectors.T)[~torch.eye(len(vectors), dtype=torch.bool)]
    return [float((vectors[1:] @ vectors[0]).mean()), float(pairs.mean())]


class Kept:
    """A model whose sounds, and what is judged of them, are kept, so that a stopped run goes on.

    Args:
        unison: The model.
        folder: Where to keep them; None keeps nothing.
    """

    def __init__(self, unison: Unison, folder: Path | None) -> None:
        self.unison, self.folder, self.variant = unison, folder, unison.variant
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def generate(self, instructions, **inputs):
        if self.folder is None:
            return self.unison.generate(instructions, **inputs)

        def make() -> list[Tensor]:
            return [sound.waveform for sound in self.unison.generate(instructions, **inputs)]

        asked = repr((instructions, sorted(inputs.items()), voice_target.STEER_ABOVE)).encode()
        return [audio.Audio(wave, RATE) for wave in self.recall(asked, make)]

    def recall(self, asked: bytes, make: Callable[[], list]) -> list:
        """What was made for the same before, or what is made now."""
        if self.folder is None:
            return make()
        path = self.folder / f"{hashlib.sha256(asked).hexdigest()[:16]}.pt"
        if not path.is_file():
            part = path.with_suffix(".part")
            torch.save(make(), part)
            part.replace(path)
        return torch.load(path)


class Spoken:
    """The windows of one voice as a long text, and each singly.

    Args:
        unison: The model.
        instruction: The kind of voice.
        texts: Sentences.
        seed: Seed of the long text.
    """

    def __init__(self, unison: Kept, instruction: str, texts: list[str], seed: int) -> None:
        self.parts: list[SpokenWindow] = []
        self.alone: list[Tensor] = []
        self.together = self.singly = self.first = 0.0
        self.seed = seed
        # In turns, so that a change in the machine's speed concerns both ways alike.
        started = time.process_time()
        text = "\n".join(f"{line[0].upper()}{line[1:]}." for line in texts)
        plan = plan_speech(unison.variant, instruction, text=text, seed=seed)
        for part in speak(unison, plan):
            stopped = time.process_time()
            self.together += stopped - started
            self.first = self.first or self.together
            said = f'{instruction} saying "{part.window.text}"'
            duration, own = plan.seconds(part.window), derive_seed(seed, part.window.index)
            self.alone += [
                sound.waveform for sound in unison.generate([said], seed=own, duration=duration)
            ]
            self.parts.append(part)
            started = time.process_time()
            self.singly += started - stopped

    @property
    def resampled(self) -> int:
        """Windows kept from a second try."""
        own = [derive_seed(self.seed, index) for index in range(len(self.parts))]
        return sum(part.seed != seed for part, seed in zip(self.parts, own, strict=True))

    @property
    def whole(self) -> Tensor:
        """The long text as it sounds."""
        return torch.cat([torch.cat([p.speech, p.speech.new_zeros(p.pause)]) for p in self.parts])

    def steps_and_flux(self) -> list[float]:
        """Step and flux at joins, then inside windows."""
        edges, inside, position = [], [], 0
        for part in self.parts:
            inside += [position + len(part.speech) // n for n in (2, 3)]
            position += len(part.speech)
            edges += [position, position + part.pause]
            position += part.pause
        return [*step_and_flux(self.whole, edges[:-2]), *step_and_flux(self.whole, inside)]


@app.command
def speech(
    *,
    sentences: int = 100,
    voices: int = 1,
    seed: int = 0,
    female: bool = False,
    folder: Path | None = None,
    only_times: bool = False,
    steer_above: float = voice_target.STEER_ABOVE,
) -> None:
    """Words, voice, joins, first sound and time of long texts."""
    voice_target.STEER_ABOVE = steer_above
    from unison_audio.evaluation.models.speaker import Resemblyzer
    from unison_audio.nano.vocabulary import held_out_texts
    from unison_audio.nano.vocabulary_asr import SentenceAsr

    torch.set_num_threads(1)
    instruction = FEMALE if female else MALE
    texts = list(islice(cycle(held_out_texts()[-HELD_OUT:]), sentences))
    unison = Kept(Unison.from_pretrained("nano"), folder)
    unison.generate([f'{instruction} saying "{texts[0]}"'], duration=1.92)  # loads models
    cuts = [sentences * k // voices for k in range(voices + 1)]
    spoken = [
        Spoken(unison, instruction, texts[cuts[k] : cuts[k + 1]], seed + k) for k in range(voices)
    ]
    parts = [part for voice in spoken for part in voice.parts]
    if folder is None:
        singly = sum(voice.singly for voice in spoken)
        together = sum(voice.together for voice in spoken)
        first = np.mean([voice.first for voice in spoken])
        report(
            {
                "windows": len(parts),
                "first sound after windows' times": float(first / (singly / len(parts))),
                "time of the whole by that of windows one by one": together / singly,
                "processor seconds for a second of sound": together
                / sum(len(part.speech) / RATE for part in parts),
            }
        )
    if only_times:
        return
    asr, embed = SentenceAsr(), Resemblyzer().embed

    def errors(waves: list[Tensor], spelled: list[str]) -> list[float]:
        """Percent of each window's words."""
        heard = [wave.numpy() for wave in waves]

        def judge() -> list[float]:
            return [100 * word_error_rate(*pair) for pair in asr.transcript_pairs(heard, spelled)]

        return unison.recall(b"".join(wave.tobytes() for wave in heard), judge)

    alike, apart = [], []
    for voice in spoken:
        alike.append(similarities(embed, [part.speech for part in voice.parts]))
        apart.append(similarities(embed, voice.alone))
    heard = np.array([voice.steps_and_flux() for voice in spoken]).max(axis=0)
    report(
        {
            "seconds of sound": sum(len(voice.whole) for voice in spoken) / RATE,
            "windows": len(parts),
            "windows kept from a second try": sum(voice.resampled for voice in spoken),
            "similarity of windows to the first, of all pairs": np.mean(alike, axis=0).tolist(),
            "of all pairs, of each voice": [pairs for _, pairs in alike],
            "similarity of single utterances, the same": np.mean(apart, axis=0).tolist(),
            **{
                f"similarity of flite's utterances in {name}": flite_similarity(
                    embed, name, texts[:20]
                )
                for name in FLITE_VOICES[instruction]
            },
            "largest step and flux at joins": heard[:2].tolist(),
            "largest step and flux inside windows": heard[2:].tolist(),
        }
    )
    long, single = np.zeros(0), np.zeros(0)
    for voice in spoken:
        spelled = [part.window.text for part in voice.parts]
        long = np.append(long, errors([part.speech for part in voice.parts], spelled))
        single = np.append(single, errors(voice.alone, spelled))
    ends = np.cumsum([len(voice.parts) for voice in spoken])[:-1]
    by_voice = np.array([values.mean() for values in np.split(long - single, ends)])
    report(
        {
            "WER of the long texts, %": float(long.mean()),
            "WER of the same windows singly, %": float(single.mean()),
            "difference, its standard error over windows": [
                float((long - single).mean()),
                float((long - single).std(ddof=1) / len(long) ** 0.5),
            ],
            "difference of each voice": by_voice.tolist(),
            "standard error over voices": "one voice"
            if voices == 1
            else float(by_voice.std(ddof=1) / voices**0.5),
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


if __name__ == "__main__":
    app()
