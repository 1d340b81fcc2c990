"""Files and folders that no command can use, made once: sounds, checkpoints, corpora, lists."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny_unison import RATE, tone_file

DEEP = "[" * 100_000 + "]" * 100_000


def write_all(folder: Path, checkpoint: Path) -> None:
    """Write everything that the table names, under `folder`."""
    for write in (_sounds, _texts, _corpora, _runs):
        write(folder)
    _checkpoints(folder, checkpoint)


def _sounds(folder: Path) -> None:
    tone_file(folder / "good.wav", 1.0, RATE)
    tone_file(folder / "long.wav", 6.0, RATE)
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not a sound")
    (folder / "page.wav").write_text("<html><body>404</body></html>")
    (folder / "folder.wav").mkdir()
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, "FLOAT")
    loud = np.random.default_rng(0).uniform(-1e38, 1e38, RATE)
    soundfile.write(folder / "huge.wav", loud, RATE, "FLOAT")
    tone = 0.2 * np.sin(np.arange(RATE) / 10)
    soundfile.write(folder / "antiphase.wav", np.stack([tone, -tone], axis=1), RATE, "FLOAT")
    whole = (folder / "good.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "header.wav").write_bytes(whole[:20])
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    soundfile.write(folder / "good.flac", tone, RATE)
    flac = bytearray((folder / "good.flac").read_bytes())
    # STREAMINFO: the low 4 bits of byte 21 and the next four bytes are the number of samples.
    flac[21] = flac[21] & 0xF0 | 0x0F
    flac[22:26] = b"\xff\xff\xff\xff"
    (folder / "claims.flac").write_bytes(flac)
    flac[21] &= 0xF0
    flac[22:26] = struct.pack(">I", 3 * RATE)
    (folder / "short.flac").write_bytes(flac)


def _texts(folder: Path) -> None:
    (folder / "nothing.txt").touch()
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "binary.txt").write_bytes(bytes(range(128, 256)))
    (folder / "is_a_folder.txt").mkdir()
    (folder / "good.txt").write_text("red dog. go home.")
    (folder / "a_file").write_text("x")
    (folder / "book.json").write_text("red dog. go home.")
    (folder / "table-columns").mkdir()
    (folder / "table-columns" / "metadata.csv").write_text("file,words\n0.wav,rain\n")


def _corpora(folder: Path) -> None:
    shard = {"name": "a.tar", "clips": 3, "seconds": 2.0}
    whole = {"format": 1, "corpus": "odd", "shards": [shard]}
    indexes: dict[str, Any] = {
        "list": [],
        "empty": None,
        "format": {**whole, "format": 9},
        "claims": {**whole, "shards": [{**shard, "clips": 10**12}]},
        "digits": '{"format": 1, "corpus": "x", "shards": [{"name": "a", "clips": 1' + "0" * 400,
        "half": {**whole, "shards": [{**shard, "clips": 1.5}]},
        "negative": {**whole, "shards": [{**shard, "clips": -3}]},
        "seconds": {**whole, "shards": [{**shard, "seconds": 1e300}]},
        "outside": {**whole, "shards": [{**shard, "name": "../a.tar"}]},
        "number": {**whole, "shards": 3},
        "missing": {"format": 1},
        "deep": DEEP,
        "latin": b'{"format": 1, "corpus": "caf\xe9"}',
        "noshard": whole,
    }
    for name, index in indexes.items():
        place = folder / f"corpus-{name}"
        place.mkdir()
        content = index if isinstance(index, str | bytes) else json.dumps(index)
        data = content if isinstance(content, bytes) else content.encode()
        (place / "index.json").write_bytes(b"" if index is None else data)
    (folder / "corpus-folder" / "index.json").mkdir(parents=True)


def _runs(folder: Path) -> None:
    for name, content in (("garbage", b"garbage"), ("empty", b"")):
        (folder / f"run-{name}").mkdir()
        (folder / f"run-{name}" / "checkpoint-00000001.pt").write_bytes(content)
    states: dict[str, Any] = {"list": [1, 2], "step": {"step": "x"}, "other": {"step": 1}}
    for name, state in states.items():
        (folder / f"run-{name}").mkdir()
        torch.save(state, folder / f"run-{name}" / "checkpoint-00000001.pt")
    (folder / "run-far").mkdir()
    torch.save({"step": 900}, folder / "run-far" / "checkpoint-00000900.pt")
    (folder / "run-settings").mkdir()
    torch.save({"step": 1}, folder / "run-settings" / "checkpoint-00000001.pt")
    (folder / "run-settings" / "run.json").write_text("[]")


Change = Callable[[dict[str, Any]], Any]


def configs() -> dict[str, str | bytes | Change]:
    """Name -> a config.json that is refused, or what makes one out of a good one."""

    def put(key: str, value: Any) -> Change:
        return lambda config: {**config, key: value}

    def size(key: str, value: Any) -> Change:
        return lambda config: {**config, "backbone": {**config["backbone"], key: value}}

    sizes = {
        "blocks": (10**9, 0, -1, 1.5, "2", None, True, 10**300),
        "dim": (10**9, 0, 33),
        "heads": (0, 7, 10**9),
        "rope_dim": (3, 0, 10**6),
        "text_dim": (0, 10**9),
        "latent_channels": (0, 10**9),
        "embed_kernel": (2, 10**9),
        "fusion": ("X", 3),
    }
    values = {
        "steps": (10**12, 0, 1.5),
        "fast_steps": (0, 10**6),
        "max_seconds": (float("inf"), 0, -1, 10**9, float("nan")),
        "sample_rate": (0, 10**12),
        "hop": (0, 10**12),
        "text_layers": (0, 10**9),
        "speech_candidates": (0, 10**6),
        "speech_temperature": (-1, 99),
        "guidance_scale": (-1, 10**6, "4"),
        "solver": ("none", 3),
        "name": (3, None),
        "codec": (3, "none"),
        "text_encoder": (3, "none"),
        "keep_source": ("yes", 1),
        "hold_reference": ("no",),
        "text_window": (-1, 10**12),
        "domain": ([], 3, {}),
        "backbone": (None, [], 3),
        "edit_tag_spelling": ("x",),
        "wording": ("x",),
        "colour": ("red",),
    }
    table: dict[str, str | bytes | Change] = {
        "list": "[]",
        "empty": "",
        "cut": '{"name": "na',
        "latin": b'{"name": "caf\xe9"}',
        "deep": DEEP,
        "digits": '{"name": ' + "9" * 5000 + "}",
        "binary": bytes(range(256)),
    }
    for key, tried in values.items():
        table |= {f"{key}-{number}": put(key, value) for number, value in enumerate(tried)}
    for key, tried in sizes.items():
        table |= {f"b-{key}-{number}": size(key, value) for number, value in enumerate(tried)}
    return table


def weights() -> dict[str, Callable[[Path], None]]:
    """Name -> what damages the folder of a checkpoint."""

    def tensors(change: Callable[[torch.Tensor], torch.Tensor], file: str) -> Callable[..., None]:
        def write(folder: Path) -> None:
            found = load_file(folder / file)
            name = "latent_scale" if "latent_scale" in found else next(iter(found))
            save_file({**found, name: change(found[name])}, folder / file)

        return write

    def content(file: str, data: bytes) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / file).write_bytes(data)

        return write

    def folder_there(file: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / file).unlink()
            (folder / file).mkdir()

        return write

    codec, model = "codec.safetensors", "model.safetensors"
    return {
        "model-missing": lambda folder: (folder / model).unlink(),
        "model-text": content(model, b"not weights"),
        "model-empty": content(model, b""),
        "model-folder": folder_there(model),
        "model-header": content(model, struct.pack("<Q", 1 << 60) + b"{}"),
        "model-whole-numbers": tensors(lambda x: x.round().to(torch.int32), model),
        "model-truths": tensors(lambda x: x > 0, model),
        "model-shape": tensors(lambda x: x[:1].clone(), model),
        "codec-missing": lambda folder: (folder / codec).unlink(),
        "codec-text": content(codec, b"not weights"),
        "codec-folder": folder_there(codec),
        "codec-scale": tensors(torch.zeros_like, codec),
        "codec-nan": tensors(lambda x: x * float("nan"), codec),
        "codec-whole-numbers": tensors(lambda x: x.to(torch.int16), codec),
        "codec-config-list": content("codec.json", b"[]"),
        "codec-config-empty": content("codec.json", b""),
        "codec-config-folder": folder_there("codec.json"),
        "codec-config-huge": content("codec.json", b'{"mels": 1000000000000}'),
        "codec-config-deep": content("codec.json", DEEP.encode()),
        "codec-config-unknown": content("codec.json", b'{"colour": 3}'),
    }


def _checkpoints(folder: Path, checkpoint: Path) -> None:
    files = {file.name: file.read_bytes() for file in checkpoint.iterdir() if file.is_file()}
    config = json.loads(files["config.json"])

    def copy(name: str) -> Path:
        place = folder / name
        place.mkdir()
        for file, data in files.items():
            (place / file).write_bytes(data)
        return place

    for name, made in configs().items():
        place = folder / f"config-{name}"
        place.mkdir()
        content = json.dumps(made(config)) if callable(made) else made
        data = content if isinstance(content, bytes) else content.encode()
        (place / "config.json").write_bytes(data)
    (folder / "config-folder" / "config.json").mkdir(parents=True)
    (folder / "config-none").mkdir()
    for name, damage in weights().items():
        damage(copy(f"weights-{name}"))
