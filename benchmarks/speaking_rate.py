"""Seconds of a character in synthetic speech, for the `speaking_rate` of a variant's config.json.

    python benchmarks/speaking_rate.py --texts nano
    python benchmarks/speaking_rate.py --texts prose

`nano` says nano's held-out texts with its voices, at nano's tempos; `prose` says the sentences of
docs/*.md with flite's own voices at their own tempo, for English of any words. The silence at both
ends is cut off. The rate is the least-squares line through 0 of seconds over characters; the
largest share by which a text takes longer than its estimate says what margin a window needs.
"""

import random
import re
from pathlib import Path

import cyclopts
import numpy as np
import torch
from machine import describe

from unison_audio import audio
from unison_audio.longform.text_windows import LENGTH_MARGIN
from unison_audio.nano.vocabulary import held_out_texts
from unison_audio.nano.voices import ENGINES, VOICES
from unison_audio.variants import VARIANTS

DOCS = Path(__file__).parents[1] / "docs"


def prose(count: int) -> list[str]:
    """Sentences of the docs that hold words and simple punctuation alone."""
    text = "\n".join(path.read_text("utf-8") for path in sorted(DOCS.glob("*.md")))
    paragraphs = [part for part in text.split("\n\n") if re.match(r"[A-Z][a-z]", part)]
    found = re.findall(r"(?<=[.\n] )?[A-Z][a-zA-Z ,;'-]{20,120}\.", " ".join(paragraphs))
    return random.Random(0).sample(sorted(set(found)), count)


def seconds(engine: str, voice: str, stretch: float, text: str) -> float:
    samples, rate = ENGINES[engine](text, voice, stretch)
    return len(audio.trim_silence(torch.from_numpy(np.asarray(samples)), rate)) / rate


def measure(texts: str = "nano", count: int = 40, engine: str = "flite") -> None:
    """Fit the rate.

    Args:
        texts: nano or prose.
        count: Texts a voice.
        engine: flite, or piper or kokoro where the corpus tools are installed.
    """
    said = held_out_texts()[:count] if texts == "nano" else prose(count)
    voices = {
        (voice.voice, 1 / voice.tempo if texts == "nano" else 1.0)
        for voice in VOICES
        if voice.engine == engine
    }
    rows = [
        (len(text), seconds(engine, voice, stretch, text))
        for voice, stretch in sorted(voices)
        for text in said
    ]
    characters, taken = np.array(rows, dtype=float).T
    rate = float(characters @ taken / (characters @ characters))
    excess = taken / (rate * characters)
    stored = VARIANTS["nano"].speaking_rate
    for name, value in {
        "texts": f"{len(said)} of {texts}, {len(voices)} voices of {engine}",
        "seconds of a character": f"{rate:.4f}",
        "standard deviation of a text": f"{float(np.std(excess)):.0%}",
        "texts that take longer with the margin": f"{float(np.mean(excess > LENGTH_MARGIN)):.0%}",
        "nano's stored rate": "none" if stored is None else f"{stored.english:.4f}",
        "machine": describe(),
    }.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    cyclopts.run(measure)
