"""Edits a recording in several steps with nano: `python examples/edit.py [FOLDER]`."""

import sys
from pathlib import Path

from unison_audio import Unison

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "edited")
folder.mkdir(parents=True, exist_ok=True)
unison = Unison.from_pretrained("nano")

# A source is a path, an Audio, or (waveform, sample_rate).
scene = unison.generate("[Audio] rain", seed=1)
scene.save(folder / "0-rain.wav")

steps = [
    "[Edit][Audio] Add birds singing",
    '[Edit][Speech] Add a voice saying "good morning"',
    '[Edit][Speech] Change speech to "good night"',
    "[Edit][Speech] Remove the speech",
]
for number, instruction in enumerate(steps, start=1):
    scene = unison.generate(instruction, source=scene, seed=number)
    scene.save(folder / f"{number}-{scene.task}.wav")
    print(f"{scene.task:14} {scene.seconds:.2f} s  {instruction}")
