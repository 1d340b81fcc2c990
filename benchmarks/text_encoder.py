"""Memory and time of the full-size text encoders, streamed from true-size random weights on disk.

    python benchmarks/text_encoder.py FOLDER [--model 7b] [--instructions 1 --instructions 32]
        [--window 126] [--int8] [--dtype float32] [--calls 2] [--keep]

Writes shards with the names, shapes and type of the hub's files (13.2 GiB for 7b, 5.8 GiB for 3b)
and random values into FOLDER, with --int8 also int8 ones made from them, measures each number of
instructions in a process of its own, prints a table and removes the shards. The second call finds
the system prompt's keys and values in memory. Memory is read off /proc (Linux). Before each
measurement the system is asked to forget the shards, so that the first call reads the disk; the
second finds in the page cache what the system kept of them. Times are wall-clock, in brackets those
of the processor: on a machine that does other things too the two differ.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from machine import describe

BAR_GB = 2.5
"""Peak RssAnon that the streamed 7b must stay under, GB."""
TEXT = {
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    | {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36}
    | {"num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936},
}
PARAMETERS = {"7b": 7_070_619_136, "3b": 3_085_938_688}
BLOCKS_OF_BACKBONE = 24
SHARD_BYTES = 5 << 30
SYSTEM_PROMPT = (
    "You are given the description of a sound. Say what is to be heard in it: the speech and who "
    "speaks it, the events and their order, and the place where it all happens."
)
SUBJECTS = ("a dog", "a door", "the rain", "a train", "a violin", "a crowd", "a kettle", "a gull")
EVENTS = ("far away on a windy day", "close by in a small room", "again and again", "then silence")
COLUMNS = (
    "model",
    "weights",
    "window",
    "instructions",
    "tokens (system + rest)",
    "seconds of each call (of the processor)",
    "loading, s",
    "states, MB",
    "peak RssAnon, GB (before loading)",
    "peak RssFile, GB (before loading)",
)

app = cyclopts.App(help=__doc__)


def instructions(count: int) -> list[str]:
    """Short instructions, all different."""
    texts = [f"[Audio] {subject} {event}" for event in EVENTS for subject in SUBJECTS]
    texts[1::2] = [f'[Speech] A female voice saying "listen to {text[8:]}"' for text in texts[1::2]]
    return texts[:count]


def shapes(model: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the text model."""
    size = TEXT[model]
    width, inner = size["hidden_size"], size["intermediate_size"]
    keys = size["num_key_value_heads"] * width // size["num_attention_heads"]
    yield "embed_tokens.weight", (size["vocab_size"], width)
    for i in range(size["num_hidden_layers"]):
        at = f"layers.{i}"
        yield f"{at}.input_layernorm.weight", (width,)
        for name, rows in (("q", width), ("k", keys), ("v", keys)):
            yield f"{at}.self_attn.{name}_proj.weight", (rows, width)
            yield f"{at}.self_attn.{name}_proj.bias", (rows,)
        yield f"{at}.self_attn.o_proj.weight", (width, width)
        yield f"{at}.post_attention_layernorm.weight", (width,)
        yield f"{at}.mlp.gate_proj.weight", (inner, width)
        yield f"{at}.mlp.up_proj.weight", (inner, width)
        yield f"{at}.mlp.down_proj.weight", (width, inner)
    yield "norm.weight", (width,)


def write_model(folder: Path, model: str) -> None:
    """Writes config, tokenizer, index and shards of one block of random values over and over."""
    import torch

    tensors = [(f"thinker.model.{name}", shape) for name, shape in shapes(model)]
    sizes = {name: 2 * int(torch.Size(shape).numel()) for name, shape in tensors}
    assert sum(sizes.values()) == 2 * PARAMETERS[model]
    needed, free = sum(sizes.values()) + (1 << 30), shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} are needed"
        )
    block = torch.randn(16 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    ones = torch.ones(1 << 13).bfloat16()
    shards: list[list[str]] = [[]]
    for name, nbytes in sizes.items():
        if sum(sizes[each] for each in shards[-1]) + nbytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(name)
    weight_map, of = {}, dict(tensors)
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards) + 1:05}.safetensors"  # the last is others'
        weight_map |= dict.fromkeys(names, file)
        header, start = {}, 0
        for name in names:
            end = start + sizes[name]
            header[name] = {"dtype": "BF16", "shape": of[name], "data_offsets": [start, end]}
            start = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                values = ones if "norm" in name else block
                raw = memoryview(values.view(torch.uint8).numpy())
                for done in range(0, sizes[name], len(raw)):
                    out.write(raw[: min(len(raw), sizes[name] - done)])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    rope = {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}
    text_config = TEXT[model] | {
        "model_type": "qwen2_5_omni_text",
        "rope_scaling": rope,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
    }
    thinker = {"model_type": "qwen2_5_omni_thinker", "text_config": text_config}
    config = {"model_type": "qwen2_5_omni", "thinker_config": thinker}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, words=TEXT[model]["vocab_size"] - 400)


def write_tokenizer(folder: Path, words: int) -> None:
    """A tokenizer with a vocabulary as large as the real one's, trained on these instructions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([SYSTEM_PROMPT, "system user assistant", *instructions(32)], trainer)
    state = json.loads(bpe.to_str())
    known = state["model"]["vocab"]
    stride = words // len(known)  # spread, so that their embeddings lie apart
    spread = {token: stride * i for token, i in known.items()}
    taken = set(spread.values())
    fillers = {f"filler{i}": i for i in range(words) if i not in taken}
    state["model"]["vocab"] = spread | fillers
    bpe = Tokenizer.from_str(json.dumps(state))
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe.add_special_tokens(marks)
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": marks[0], "eos_token": marks[2]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


class Watch(threading.Thread):
    """Reads this process's memory every few milliseconds and keeps the largest of each kind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}
        self.first = self.read()

    def read(self) -> dict[str, int]:
        """The amounts now, in bytes."""
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return {name: 1024 * int(fields[name].split()[0]) for name in self.peaks}

    def run(self) -> None:
        """Until the process ends."""
        while True:
            for name, amount in self.read().items():
                self.peaks[name] = max(self.peaks[name], amount)
            time.sleep(0.005)


@app.command(show=False)
def measure(folder: Path, model: str, count: int, dtype: str, calls: int, window: int) -> None:
    """Encodes in this process and prints what it took as JSON."""
    import torch
    from transformers import Qwen2_5OmniThinkerTextModel  # noqa: F401  its import is no part of it

    from unison_audio.text.qwen import QwenEncoder
    from unison_audio.text.states import TextSetup
    from unison_audio.variants import layer_picks

    watch = Watch()
    watch.start()
    picks = layer_picks(TEXT[model]["num_hidden_layers"], BLOCKS_OF_BACKBONE)
    setup = TextSetup(
        picks=picks,
        system_prompt=SYSTEM_PROMPT,
        window=window,
        files=folder,
        streamed=True,
        dtype=None if dtype == "auto" else getattr(torch, dtype),
    )
    start = time.perf_counter()
    encoder = QwenEncoder(setup, model)
    built = time.perf_counter() - start
    dtype = str(encoder.dtype).removeprefix("torch.")
    weights = {encoder.shards.dtype(name) for name in encoder.shards.names}
    if torch.int8 in weights:
        dtype = f"int8, rest {dtype}"
    result = {"dtype": dtype, "built": built, "seconds": [], "cpu": []}
    for _ in range(calls):
        start, cpu = time.perf_counter(), time.process_time()
        states = encoder.encode(instructions(count))
        result["seconds"].append(time.perf_counter() - start)
        result["cpu"].append(time.process_time() - cpu)
        assert torch.isfinite(states.hidden_states.sum())  # without a copy, which would count
        result["states"] = states.nbytes
        result["tokens"] = sum(len(encoder.prompt.tokens(text)) for text in instructions(count))
        del states
    result["system"] = len(encoder.prompt.system_tokens)
    print(json.dumps(result | {"peaks": watch.peaks, "first": watch.first}))


def forget(folder: Path) -> None:
    """Asks the system to drop the shards from its page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@app.default
def main(
    folder: Path,
    *,
    model: Literal["7b", "3b"] = "7b",
    instructions: Annotated[list[int] | None, cyclopts.Parameter(name="--instructions")] = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    calls: int = 2,
    window: int = 0,
    int8: bool = False,
    keep: bool = False,
) -> None:
    """Writes random weights, measures, prints a table, removes the weights.

    Args:
        folder: Where to write them; it is made, or holds them from a call with --keep.
        model: Which size.
        instructions: How many instructions at a time; 1 and 32 unless told otherwise.
        dtype: Type to compute in; auto is what the encoder chooses on this processor.
        calls: How often each is encoded; the first reads the disk.
        window: Tokens whose states are returned; 0 for those of the instructions.
        int8: Whether the weights are int8.
        keep: Whether to leave the weights there.
    """
    from unison_audio.text.quantize_qwen import quantize_language_model

    root, folder = folder, folder / model
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if not (folder / "tokenizer_config.json").exists():  # written last
            write_model(folder, model)
        if int8:
            plain, folder = folder, root / f"{model}-int8"
            if not (folder / "model.safetensors.index.json").exists():
                quantize_language_model(str(plain), folder)
        print(f"{describe()}\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for count in instructions or [1, 32]:
            forget(folder)
            values = (folder, model, count, dtype, calls, window)
            command = [sys.executable, __file__, "measure", *map(str, values)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            _print_row(model, count, window, json.loads(done.stdout.splitlines()[-1]))
    finally:
        if not keep:
            for name in (model, f"{model}-int8"):
                shutil.rmtree(root / name, ignore_errors=True)


def _print_row(model: str, count: int, window: int, result: dict) -> None:
    peaks, first = result["peaks"], result["first"]
    cells = [
        model,
        result["dtype"],
        str(window),
        str(count),
        f"{result['system']} + {result['tokens']}",
        ", ".join(
            f"{seconds:.1f} ({cpu:.1f})"
            for seconds, cpu in zip(result["seconds"], result["cpu"], strict=True)
        ),
        f"{result['built']:.1f}",
        f"{result['states'] / 1e6:.0f}",
        *(f"{peaks[kind] / 1e9:.2f} ({first[kind] / 1e9:.2f})" for kind in ("RssAnon", "RssFile")),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    if model == "7b" and peaks["RssAnon"] > BAR_GB * 1e9:
        raise SystemExit(f"Peak RssAnon is above {BAR_GB} GB")


if __name__ == "__main__":
    app()
