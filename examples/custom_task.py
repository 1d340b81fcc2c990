"""Adds a task and fine-tunes nano on it: `python examples/custom_task.py [FOLDER] [STEPS]`.

docs/add-a-task.md explains each numbered step and names the file that it belongs to.
"""

import json
import sys
from pathlib import Path

import torch

from unison_audio import Audio, Unison
from unison_audio.cli.main import main
from unison_audio.data.pools import MemoryPools
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.tasks.draw import Built, Draw, fill, finish
from unison_audio.tasks.table import EDITING, TASKS, Task, register_task


# 1. A builder makes source and target of a batch from raw clips.
def fade_out(draw: Draw) -> Built:
    """A sound throughout before; after, it fades to silence from a random moment on."""
    sounds = draw.clips("sound")
    source = fill(draw, [clip.waveform for clip in sounds]).at(draw.config.rms).wave
    begins = 0.6 * torch.rand((draw.batch, 1), generator=draw.generator)  # (B, 1)
    time = torch.linspace(0.0, 1.0, draw.samples)  # (samples,)
    envelope = ((1.0 - time) / (1.0 - begins)).clamp(max=1.0)  # (B, samples)
    details = [
        {"labels": [clip.record.label], "fade_start": float(share) * draw.seconds}
        for clip, share in zip(sounds, begins, strict=True)
    ]
    target = source * envelope.to(source.device)
    return finish(draw, [{} for _ in sounds], details, source=source, target=target)


# 2. Templates: the instructions that training uses, the first one half of the time.
TEMPLATES = (
    "[Edit][Audio] Fade out the recording",
    "[Edit][Audio] Fade the sound to silence",
)

# 3. A row of the task table.
register_task(
    Task(
        name="fade_out",
        group="remove",  # sampled like edits that insert nothing
        tag=EDITING,
        needs=("source",),
        stage1=False,
        stage2_probability=0.1,  # relative to the other rows
        builder=fade_out,
        metrics=("lsd",),
        sounds=1,  # clips that the builder draws for an item
    ),
    TEMPLATES,
)


def run(folder: Path, steps: int) -> None:
    """Fine-tune nano on the task and use it."""
    unison = Unison.from_pretrained("nano")
    rate, labels = unison.variant.sample_rate, ["rain", "thunder", "birds singing", "hissing"]
    sounds = unison.generate([f"[Audio] {label}" for label in labels])
    clips = [
        Clip(
            record=ClipRecord(
                key=label,
                kind="sound",
                split="train",
                seconds=sound.seconds,
                licence="generated",
                source="nano",
                label=label,
                caption=label,
            ),
            waveform=sound.waveform,
        )
        for label, sound in zip(labels, sounds, strict=True)
    ]

    # The builder and the templates together make a batch.
    generator = torch.Generator().manual_seed(0)
    batch = TASKS["fade_out"].build(MemoryPools(clips, rate), 8, 2.56, rate, generator)
    print(batch.task, tuple(batch.target.shape), batch.instructions[0])

    # Pairs of source and target, with their instructions, are a list for fine-tuning.
    folder.mkdir(parents=True, exist_ok=True)
    sounds[0].save(folder / "rain.wav")
    rows = [json.dumps({"audio": "rain.wav", "label": "rain"})]  # so that sounds are remembered
    for i, instruction in enumerate(batch.instructions):
        Audio(batch.source[i], rate).save(folder / f"source-{i}.wav")
        Audio(batch.target[i], rate).save(folder / f"target-{i}.wav")
        pair = {"source": f"source-{i}.wav", "audio": f"target-{i}.wav"}
        rows.append(json.dumps({**pair, "instruction": instruction}))
    (folder / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    tuned = folder / "run"
    command = ["finetune", str(folder / "pairs.jsonl"), "--run", str(tuned), "--cpu"]
    if main([*command, "--steps", str(steps)]) != 0:
        raise SystemExit("Fine-tuning failed.")

    # The tuned checkpoint takes the new instruction.
    unison = Unison.from_pretrained(tuned / "weights")
    faded = unison.generate("[Edit][Audio] Fade out the recording", source=sounds[0])
    faded.save(folder / "faded.wav")
    thirds = faded.waveform.unfold(0, len(faded.waveform) // 3, len(faded.waveform) // 3)
    levels = 20 * torch.log10(thirds.square().mean(dim=1).sqrt() + 1e-9)
    print(f"{faded.task}: level of each third", [f"{level:.1f} dB" for level in levels.tolist()])


if __name__ == "__main__":
    arguments = sys.argv[1:]
    run(Path(arguments[0] if arguments else "fading"), int(arguments[1]) if arguments[1:] else 300)
