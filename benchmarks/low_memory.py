"""Peak memory of a whole generation at true size, one model in memory at a time.

python benchmarks/low_memory.py FOLDER [--variant d24-16k] [--seconds 10] [--steps 4] [--keep]

Writes random weights of true size in the true layouts: the checkpoint, the codec's converted file
and the language model's shards. Then runs the command line as a user would, with --low-memory, in
a process of its own, and prints that process's largest resident memory. The weights need about
18 GB of disk for d24-16k. The number of steps changes the time, not the peak.
"""

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cyclopts
import torch
from machine import describe
from safetensors.torch import save_file
from text_encoder import forget, write_model
from true_size import random_model

from unison_audio import checkpoint
from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.variants import find_variant

BAR_GB = 6.0
INSTRUCTION = '[Speech] A female voice saying "good morning" [Audio] Rain on a tin roof'


def write_weights(folder: Path, name: str) -> None:
    """Everything that a generation reads, unless it is there already."""
    variant = find_variant(name)
    if not (folder / "checkpoint" / "config.json").is_file():
        backbone = random_model(lambda: UnisonBackbone(variant.backbone))
        checkpoint.save(folder / "checkpoint", variant, backbone)
        del backbone
    codec_file = folder / "codec" / f"{variant.codec}.safetensors"
    if not codec_file.is_file():
        codec_file.parent.mkdir(parents=True, exist_ok=True)
        codec = random_model(lambda: MMAudioCodec(CONFIGS[variant.codec]))
        save_file(codec.state_dict(), codec_file, metadata={"format": "pt"})
        del codec
    text = folder / "text"
    if not (text / "tokenizer_config.json").is_file():
        text.mkdir(parents=True, exist_ok=True)
        write_model(text, variant.text_encoder.rsplit("-", 1)[-1])


def watch(process: subprocess.Popen, peaks: dict[str, int]) -> None:
    """Keeps the largest of each kind of resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            for kind in peaks:
                peaks[kind] = max(peaks[kind], 1024 * int(fields[kind].split()[0]))
        except (OSError, KeyError, ValueError):
            continue
        time.sleep(0.01)


def main(
    folder: Path,
    *,
    variant: str = "d24-16k",
    seconds: float = 10.0,
    steps: int = 4,
    keep: bool = False,
) -> None:
    """Measure; fails above the bar.

    Args:
        folder: Where to write the weights; it is made, or holds them from a call with --keep.
        variant: What to run.
        seconds: Length of the sound.
        steps: Euler steps.
        keep: Whether to leave the weights there.
    """
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_weights(folder, variant)
        for part in ("checkpoint", "codec", "text"):
            forget(folder / part)
        out = folder / "sound.wav"
        command = [
            *(sys.executable, "-m", "unison_audio.cli.main", "generate", INSTRUCTION),
            *("-o", str(out), "--variant", str(folder / "checkpoint"), "--low-memory"),
            *("--codec-files", str(folder / "codec"), "--text-files", str(folder / "text")),
            *("--duration", str(seconds), "--steps", str(steps)),
        ]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        peaks = {"RssAnon": 0, "RssFile": 0}
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        code = process.wait()
        watcher.join()
        spent = time.perf_counter() - start
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if code:
        raise SystemExit(f"The generation failed with exit code {code}.")
    print(f"{describe()}\n")
    print("| variant | sound, s | steps | peak RssAnon, GB | peak RssFile, GB | whole command, s |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {variant} | {seconds:g} | {steps} | {peaks['RssAnon'] / 1e9:.2f} "
        f"| {peaks['RssFile'] / 1e9:.2f} | {spent:.0f} |"
    )
    if peaks["RssAnon"] > BAR_GB * 1e9:
        raise SystemExit(f"Peak RssAnon is above {BAR_GB} GB.")


if __name__ == "__main__":
    cyclopts.run(main)
