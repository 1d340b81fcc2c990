"""Generates speech and sound with nano: `python examples/generate.py [FOLDER]`."""

import sys
from pathlib import Path

from unison_audio import Unison

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "generated")
folder.mkdir(parents=True, exist_ok=True)
unison = Unison.from_pretrained("nano")

# One instruction gives one Audio. The same seed gives the same waveform.
voice = unison.generate('[Speech] A female voice saying "the red dog is in the house"', seed=0)
voice.save(folder / "voice.wav")

# A recording of a voice and its words: new text in that voice.
clone = unison.generate(
    "[Speech with voice] good morning",
    reference=voice,
    reference_text="the red dog is in the house",
)
clone.save(folder / "clone.wav")

# A list is sampled in one batch. Each item equals a single call with the same seed.
instructions = [
    "[Audio] thunder",
    "[Audio] birds singing and a flowing stream",
    "[Audio] From 0.0s to 1.0s, thunder. From 1.5s to 2.5s, birds singing.",
]
sounds = unison.generate(instructions, duration=2.56, seed=[1, 2, 3])
for number, sound in enumerate(sounds):
    sound.save(folder / f"sound-{number}.wav")

for sound in (voice, clone, *sounds):
    print(f"{sound.task:14} {sound.seconds:.2f} s  {sound.instruction}")
