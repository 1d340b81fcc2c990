"""The guide to the full-size variants, command by command, on small models in the true layouts."""

import dataclasses
import hashlib
import re
import shlex
from pathlib import Path

import pytest
import soundfile
import torch
from independent_backbone import Size, draw_state
from qwen_files import LAYERS, WIDTH, write_qwen
from safetensors.torch import save_file
from tiny_mmaudio import TINY, random_originals

from unison_audio import checkpoint_files, variants
from unison_audio.cli import main as cli
from unison_audio.codecs import mmaudio_weights as mmaudio_files
from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.model.config import BackboneConfig
from unison_audio.pipeline import Unison
from unison_audio.text import qwen

GUIDE = Path(__file__).parents[1] / "docs" / "full-size.md"
CODECS = {"d20-44k": "mmaudio-44k", "d24-16k": "mmaudio-16k"}


def small(name: str) -> variants.Variant:
    """A variant of the same kind with small sizes everywhere."""
    config = TINY[CODECS[name]]
    return dataclasses.replace(
        variants.VARIANTS[name],
        backbone=BackboneConfig(
            latent_channels=config.latent_channels,
            dim=64,
            heads=2,
            rope_dim=24,
            blocks=3,
            text_dim=WIDTH,
        ),
        text_layers=LAYERS,
        sample_rate=config.sample_rate,
        hop=config.frame_hop,
        default_seconds=0.5,
        zero_shot_seconds=0.5,
        max_seconds=2.0,
        steps=3,
        fast_steps=2,
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything published, and nothing that the network would be needed for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "mmaudio").mkdir()
    for name, codec in CODECS.items():
        monkeypatch.setitem(CONFIGS, codec, TINY[codec])
        vae, vocoder = random_originals(TINY[codec])
        originals = mmaudio_files.ORIGINALS[codec]
        paths = [tmp_path / "mmaudio" / one.name for one in originals]
        torch.save(vae, paths[0])
        torch.save({"generator": vocoder}, paths[1])
        found = [
            dataclasses.replace(
                one,
                md5=one.md5 and hashlib.md5(path.read_bytes()).hexdigest(),
                sha256=one.sha256 and hashlib.sha256(path.read_bytes()).hexdigest(),
                url=path.as_uri(),
            )
            for one, path in zip(originals, paths, strict=True)
        ]
        monkeypatch.setitem(mmaudio_files.ORIGINALS, codec, tuple(found))
        monkeypatch.setitem(variants.VARIANTS, name, small(name))
    config = variants.VARIANTS["d20-44k"].backbone
    size = Size(
        channels=config.latent_channels,
        blocks=config.blocks,
        text_dim=config.text_dim,
        width=config.dim,
        heads=config.heads,
        rope_dim=config.rope_dim,
    )
    save_file(draw_state(size), tmp_path / "model.safetensors")
    (tmp_path / "prompt.txt").write_text("You hear what is to be heard.\n")
    write_qwen(tmp_path / "Qwen2.5-Omni-7B")
    return tmp_path


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_guide_works(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen, "download", lambda name: files / name.removeprefix("Qwen/"))
    resolve = checkpoint_files.resolve
    monkeypatch.setattr(
        checkpoint_files,
        "resolve",
        lambda name, also=(): files if name == "jac22/UNISON" else resolve(name, also),
    )
    lines = commands()
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "unison-audio"
        if "--codec-files" not in words and words[1] == "generate":
            words += ["--codec-files", "mmaudio"]  # where a download would have put them
        assert cli.main(words[1:]) == 0, line
        out = Path(words[words.index("-o") + 1])
        if out.suffix:
            samples, rate = soundfile.read(out)
            assert rate == 44_100
            assert 0 < abs(samples).max() <= 1
        else:
            found = checkpoint_files.read_config(out / "config.json")
            assert found.system_prompt == "You hear what is to be heard."


@pytest.mark.parametrize("low_memory", [False, True])
def test_every_kind_of_task_runs_on_a_full_size_variant(low_memory: bool, files: Path) -> None:
    config = variants.VARIANTS["d24-16k"].backbone
    size = Size(
        channels=config.latent_channels,
        blocks=config.blocks,
        text_dim=config.text_dim,
        width=config.dim,
        heads=config.heads,
        rope_dim=config.rope_dim,
    )
    save_file(draw_state(size), files / "16k.safetensors")
    command = ["import-release", "16k.safetensors", "--variant", "d24-16k", "-o", "d24"]
    assert cli.main([*command, "--system-prompt-file", "prompt.txt"]) == 0
    unison = Unison.from_pretrained(
        files / "d24",
        low_memory=low_memory,
        codec_files=files / "mmaudio",
        text_files=files / "Qwen2.5-Omni-7B",
    )
    source = (0.1 * torch.randn(2, 9001, generator=torch.Generator().manual_seed(0)), 16_000)
    sounds = unison.generate(
        [
            '[Speech] A male voice saying "red dog"',
            "[Edit][Audio] Remove rain",
            "[Speech with voice] go home",
        ],
        source=[None, source, None],
        reference=[None, None, source],
        reference_text=[None, None, "red"],
        duration=[0.4, None, 0.3],
        seed=[1, 2, 3],
    )
    hop = unison.variant.hop
    assert sounds[0].waveform.shape == (int(0.4 * 16_000) // hop * hop,)
    assert sounds[1].waveform.shape == (9001,)  # an edit loses nothing of its source
    alone = unison.generate("[Edit][Audio] Remove rain", source=source, seed=2)
    torch.testing.assert_close(alone.waveform, sounds[1].waveform, atol=1e-4, rtol=1e-3)
