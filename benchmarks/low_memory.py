"""Peak memory of a whole generation at true size, one model in memory at a time.

python benchmarks/low_memory.py FOLDER [--variant d24-16k] [--seconds 10] [--steps 4] [--released]
    [--int8] [--keep]

Writes random weights of true size in the true layouts: the checkpoint, the codec's converted file
and the language model's shards. Then runs the command line as a user would, with --low-memory, in
a process of its own, and prints that process's largest resident memory. The weights need about
18 GB of disk for d24-16k. The number of steps changes the time, not the peak.

With --int8 the backbone and the language model are int8 files, made by `unison-audio quantize`.
With --released the checkpoint's config is that of imported weights: a system prompt of 130 tokens,
a text window of 126, one length of 10 s, and the release's level and dither.
"""

import dataclasses
import os
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
from transformers import AutoTokenizer
from true_size import random_model

from unison_audio import checkpoint
from unison_audio.checkpoint_files import CONFIG_FILE, config_text, open_checkpoint
from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.release import RELEASE_WINDOW, input_fields
from unison_audio.text.offload import INDEX_FILE
from unison_audio.variants import Variant, find_variant

BAR_GB = 6.0
INSTRUCTION = '[Speech] A female voice saying "good morning" [Audio] Rain on a tin roof'
PROMPT_TOKENS = 130
"""Tokens of the release's system prompt with the marks of its turn."""


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


def quantize(folder: Path) -> None:
    """The same weights in int8, beside them."""
    from unison_audio.text.quantize_qwen import quantize_language_model

    if not (folder / "checkpoint-int8" / CONFIG_FILE).is_file():
        opened = open_checkpoint(folder / "checkpoint")
        checkpoint.quantize_checkpoint(opened, folder / "checkpoint-int8")
    if not (folder / "text-int8" / INDEX_FILE).is_file():
        quantize_language_model(str(folder / "text"), folder / "text-int8")


def as_imported(variant: Variant, tokenizer: Path) -> Variant:
    """The variant with the config that `import-release` stores, and a prompt as long as its."""
    count, prompt = AutoTokenizer.from_pretrained(tokenizer), "You are given the description"
    while (turn := len(count(f"<|im_start|>system\n{prompt}<|im_end|>\n")["input_ids"])) != (
        PROMPT_TOKENS
    ):
        assert turn < PROMPT_TOKENS
        prompt += "!"
    return dataclasses.replace(
        variant,
        system_prompt=prompt,
        text_window=RELEASE_WINDOW,
        **input_fields(variant, None),
    )


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
    released: bool = False,
    int8: bool = False,
    keep: bool = False,
) -> None:
    """Measure; fails above the bar.

    Args:
        folder: Where to write the weights; it is made, or holds them from a call with --keep.
        variant: What to run.
        seconds: Length of the sound.
        steps: Euler steps.
        released: Whether the config is that of imported weights.
        int8: Whether backbone and language model are int8.
        keep: Whether to leave the weights there.
    """
    parts = {part: part for part in ("checkpoint", "codec", "text")}
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_weights(folder, variant)
        config = find_variant(variant)
        if released:
            config = as_imported(config, folder / "text")
        if int8:
            quantize(folder)
            parts |= {part: f"{part}-int8" for part in ("checkpoint", "text")}
            config = dataclasses.replace(config, quantization="int8")
        (folder / parts["checkpoint"] / CONFIG_FILE).write_text(config_text(config), "utf-8")
        cache = folder / "cache"  # empty: text states of an earlier call would save the work
        shutil.rmtree(cache, ignore_errors=True)
        for part in parts.values():
            forget(folder / part)
        out = folder / "sound.wav"
        command = [
            *(sys.executable, "-m", "unison_audio.cli.main", "generate", INSTRUCTION),
            *("-o", str(out), "--variant", str(folder / parts["checkpoint"]), "--low-memory"),
            *("--codec-files", str(folder / "codec"), "--text-files", str(folder / parts["text"])),
            *("--duration", str(seconds), "--steps", str(steps)),
        ]
        start = time.perf_counter()
        environment = {**os.environ, "UNISON_AUDIO_CACHE": str(cache)}
        process = subprocess.Popen(command, env=environment)
        peaks = {"RssAnon": 0, "RssFile": 0}
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        code = process.wait()
        watcher.join()
        spent = time.perf_counter() - start
        stored = sum(file.stat().st_size for file in cache.rglob("*.safetensors"))
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if code:
        raise SystemExit(f"The generation failed with exit code {code}.")
    print(f"{describe()}\n")
    print(
        "| variant | weights | text window | sound, s | steps | peak RssAnon, GB "
        "| peak RssFile, GB | stored states, MB | whole command, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {variant} | {'int8' if int8 else 'float32, bfloat16'} | {config.text_window} "
        f"| {seconds:g} | {steps} "
        f"| {peaks['RssAnon'] / 1e9:.2f} | {peaks['RssFile'] / 1e9:.2f} | {stored / 1e6:.1f} "
        f"| {spent:.0f} |"
    )
    if peaks["RssAnon"] > BAR_GB * 1e9:
        raise SystemExit(f"Peak RssAnon is above {BAR_GB} GB.")


if __name__ == "__main__":
    cyclopts.run(main)
