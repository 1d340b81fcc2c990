"""The guide to the full-size variants, command by command, on small models in the true layouts."""

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from hub_server import Hub
from independent_backbone import Size, draw_state
from qwen_files import LAYERS, WIDTH, write_qwen
from safetensors.torch import save_file
from tiny_mmaudio import TINY, random_originals

from unison_audio import checkpoint_files, variants
from unison_audio.cli import main as cli
from unison_audio.codecs import mmaudio_weights as mmaudio_files
from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.downloads import needed_downloads
from unison_audio.evaluation.baselines import SDEdit, Zeta
from unison_audio.evaluation.systems import UnisonSystem
from unison_audio.evaluation.test_sets.manifest import (
    RenderedItem,
    TestItem,
    TestSetAbout,
    write_test_set,
)
from unison_audio.loading import LoadOptions, open_frozen
from unison_audio.model.config import BackboneConfig
from unison_audio.pipeline import Unison
from unison_audio.release_files import RELEASE_FOLDERS
from unison_audio.tasks.table import TaskBatch
from unison_audio.text.prompt import ChatPrompt
from unison_audio.training.batches import BatchStream
from unison_audio.training.configs import FinetuneConfig
from unison_audio.training.finetune import finetune
from unison_audio.training.recipes import base_recipe
from unison_audio.training.run import RunOutput

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


def release_weights(variant: str) -> dict[str, torch.Tensor]:
    """Weights under the release's names for a small variant."""
    config = variants.VARIANTS[variant].backbone
    return draw_state(
        Size(
            channels=config.latent_channels,
            blocks=config.blocks,
            text_dim=config.text_dim,
            width=config.dim,
            heads=config.heads,
            rope_dim=config.rope_dim,
        )
    )


@pytest.fixture
def files(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything published; the hub and MMAudio's release serve the same files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmaudio").mkdir()
    release: dict[str, bytes] = {"README.md": b"a card"}
    for name, codec in CODECS.items():
        monkeypatch.setitem(CONFIGS, codec, TINY[codec])
        vae, vocoder = random_originals(TINY[codec])
        originals = mmaudio_files.ORIGINALS[codec]
        paths = [tmp_path / "mmaudio" / one.name for one in originals]
        torch.save(vae, paths[0])
        torch.save({"generator": vocoder}, paths[1])
        hub.files |= {f"v0.1/{path.name}": path.read_bytes() for path in paths}
        found = [
            dataclasses.replace(
                one,
                md5=one.md5 and hashlib.md5(path.read_bytes()).hexdigest(),
                sha256=one.sha256 and hashlib.sha256(path.read_bytes()).hexdigest(),
                url=f"{hub.url}/v0.1/{path.name}",
            )
            for one, path in zip(originals, paths, strict=True)
        ]
        monkeypatch.setitem(mmaudio_files.ORIGINALS, codec, tuple(found))
        monkeypatch.setitem(variants.VARIANTS, name, small(name))
        save_file(release_weights(name), tmp_path / f"{name}.safetensors")
        content = (tmp_path / f"{name}.safetensors").read_bytes()
        release[f"{RELEASE_FOLDERS[name]}/model.safetensors"] = content
    (tmp_path / "d20-44k.safetensors").rename(tmp_path / "model.safetensors")
    (tmp_path / "prompt.txt").write_text("You hear what is to be heard.\n")
    qwen = tmp_path / "Qwen2.5-Omni-7B"
    write_qwen(qwen)
    hub.repos["jac22/UNISON"] = release
    hub.repos["Qwen/Qwen2.5-Omni-7B"] = {path.name: path.read_bytes() for path in qwen.iterdir()}
    return tmp_path


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_every_command_of_the_guide_works(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = commands()
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "unison-audio"
        assert cli.main(words[1:]) == 0, line
        if words[1] in ("download", "export"):
            continue
        out = Path(words[words.index("-o") + 1])
        if out.suffix:
            samples, rate = soundfile.read(out)
            assert rate == 44_100
            assert 0 < abs(samples).max() <= 1
        else:
            found = checkpoint_files.read_config(out / "config.json")
            assert found.system_prompt == "You hear what is to be heard."
    # The Python of the page, after its commands and in its order; there is no GPU here.
    cache = "diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "modules"))
    row = {"system": "unison", "set": "timed", "task": "timed", "scores": {"clap": {"value": 0.3}}}
    Path("results.json").write_text(json.dumps({"rows": [row]}))
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block.replace('device="cuda"', 'device="cpu"'), names)
    assert "| timed | timed | clap | 0.3 |" in Path("mine", "README.md").read_text()
    assert names["pipe"].sample_rate == 44_100
    assert 0 < abs(names["sound"]).max() <= 1


def test_the_checksum_of_the_prompt_is_what_the_guide_s_command_prints(files: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    done = subprocess.run(
        ["sh", "-c", block], cwd=files, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == hashlib.sha256(b"You hear what is to be heard.").hexdigest()


IMPORT = ["import-release", "jac22/UNISON", "--variant", "d20-44k"]
IMPORT += ["--system-prompt-file", "prompt.txt", "-o", "d20"]
GENERATE = ["generate", "[Audio] Rain", "--variant", "d20", "-o", "rain.wav"]


def test_from_an_empty_cache_to_sound_with_the_connection_cut(
    files: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    sounds = []
    for breaks in ([], [1_000, 3_000, 50_000]):
        for cache in ("hub", "cache", "d20"):
            shutil.rmtree(files / cache, ignore_errors=True)
        hub.breaks = breaks
        assert cli.main(IMPORT) == 0
        assert cli.main(GENERATE) == 0
        assert not hub.breaks
        sounds.append((files / "rain.wav").read_bytes())
    assert sounds[0] == sounds[1]
    # With the files on the disk the same commands give the same sound without a network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert cli.main(["import-release", "model.safetensors", *IMPORT[2:]]) == 0
    offline = ["--codec-files", "mmaudio", "--text-files", "Qwen2.5-Omni-7B"]
    assert cli.main([*GENERATE, *offline]) == 0
    assert (files / "rain.wav").read_bytes() == sounds[0]


def test_download_says_how_much_it_is_and_makes_all_ready(
    files: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = variants.VARIANTS["d20-44k"]
    text = needed_downloads(variant, ("text",))[0]
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2)]
    served = hub.repos["Qwen/Qwen2.5-Omni-7B"]
    assert text.missing > sum(len(served[shard]) for shard in shards)
    codec, backbone = needed_downloads(variant, ("codec", "backbone"))
    originals = mmaudio_files.ORIGINALS["mmaudio-44k"]
    assert codec.missing == sum(len(hub.files[f"v0.1/{one.name}"]) for one in originals)
    folder = RELEASE_FOLDERS["d20-44k"]
    assert backbone.missing == len(hub.repos["jac22/UNISON"][f"{folder}/model.safetensors"])
    command = ["download", "--variant", "d20-44k"]
    assert cli.main([*command, "--only-text"]) == 0
    assert [one.missing > 0 for one in needed_downloads(variant)] == [False, True, True]
    assert cli.main(command) == 0
    assert "text: Qwen/Qwen2.5-Omni-7B: complete" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "0.00 GB to download for d20-44k." in capsys.readouterr().out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.files.clear()
    assert cli.main(IMPORT) == 0
    assert cli.main(GENERATE) == 0


def test_a_download_that_the_disk_cannot_hold_is_refused(
    files: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(files)._replace(free=1000)
    monkeypatch.setattr("unison_audio.downloads.shutil.disk_usage", lambda folder: usage)
    hub.asked.clear()
    assert cli.main(["download", "--variant", "d20-44k"]) == 2
    assert "make room" in capsys.readouterr().err
    assert not any("model-0000" in path for method, path in hub.asked if method == "GET")


def test_a_gated_model_says_what_to_do(
    files: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gated.add("jac22/UNISON")
    assert cli.main(IMPORT) == 2
    assert "accept the terms" in capsys.readouterr().err


def test_every_path_reads_the_same_tokens(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["import-release", "d24-16k.safetensors", "--variant", "d24-16k", "-o", "d24"]
    assert cli.main([*command, "--system-prompt-file", "prompt.txt"]) == 0
    read: list[list[int]] = []
    tokens = ChatPrompt.tokens

    def noted(self: ChatPrompt, instruction: str) -> list[int]:
        read.append(tokens(self, instruction))
        return read[-1]

    monkeypatch.setattr(ChatPrompt, "tokens", noted)
    where = {"codec_files": files / "mmaudio", "text_files": files / "Qwen2.5-Omni-7B"}
    unison = Unison.from_pretrained(files / "d24", **where)
    source = 0.1 * torch.randn(1, 9001, generator=torch.Generator().manual_seed(0))
    batch = TaskBatch(
        task="edit_remove",
        instructions=["[Edit][Audio] Remove rain"],
        target=source,
        source=source,
        reference_samples=None,
        details=[{}],
    )
    codec, frozen_text = open_frozen(unison.variant, LoadOptions(**where))
    recipe = base_recipe(unison.variant, codec.frames)
    stream = BatchStream(unison.variant, recipe, object(), codec, frozen_text)
    wants = "[Edit] [Audio] Remove rain"
    for spelling in ("[Edit][Audio] Remove rain", wants, "[edit]  [audio] Remove rain"):
        unison.generate(spelling, source=(source[0], 16_000))
        unison.run(dataclasses.replace(batch, instructions=[spelling]))
        unison.text_encoder.encode([spelling])  # as the baselines do
        stream.encode(dataclasses.replace(batch, instructions=[spelling]))
    assert len(read) == 12
    prompt = unison.text_encoder.prompt
    assert all(one == tokens(prompt, wants) for one in read)

    # The evaluation engine asks with the item's instruction; the baselines describe its sounds.
    item = TestItem(
        id="rain",
        set="audio-editing",
        task="edit_remove",
        instruction="[Edit][Audio] Remove rain",
        caption="a dog",
        source_caption="a dog and rain",
        seconds=source.shape[1] / 16_000,
    )
    about = TestSetAbout(name="audio-editing", sample_rate=16_000, seed=0, settings={}, inputs={})
    rendered = RenderedItem(item=item, sounds={"source": source[0], "target": source[0]})
    test_set = write_test_set(files / "set", about, [rendered])
    described = [f"[Audio] {caption}" for caption in (item.source_caption, item.caption)]
    for system, instructions in (
        (UnisonSystem(unison), [wants]),
        (SDEdit(unison, steps=2), described[1:]),
        (Zeta(unison, steps=2), described),
    ):
        read.clear()
        system.generate(test_set, test_set.items)
        assert read == [tokens(prompt, text) for text in instructions]

    # Fine-tuning on a pair, with the command's own stream of batches.
    for name in ("before", "after"):
        soundfile.write(files / f"{name}.wav", source[0].numpy(), 16_000)
    pair = {"audio": "after.wav", "source": "before.wav"}
    pair["instruction"] = "[edit][audio] Remove rain"
    (files / "own.jsonl").write_text(json.dumps(pair) + "\n")
    read.clear()
    config, run = FinetuneConfig(steps=1, items=1, rank=2), RunOutput(folder=files / "run")
    finetune(str(files / "d24"), files / "own.jsonl", run, config=config)
    assert read
    assert all(one == tokens(prompt, wants) for one in read)


@pytest.mark.parametrize("low_memory", [False, True])
def test_every_kind_of_task_runs_on_a_full_size_variant(low_memory: bool, files: Path) -> None:
    command = ["import-release", "d24-16k.safetensors", "--variant", "d24-16k", "-o", "d24"]
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
    assert unison.variant.sample_seconds == unison.variant.max_seconds == 2.0
    assert sounds[0].waveform.shape == (int(0.4 * 16_000),)  # sampled at 2 s, then cropped
    assert sounds[1].waveform.shape == (9001,)  # an edit loses nothing of its source
    alone = unison.generate("[Edit][Audio] Remove rain", source=source, seed=2)
    torch.testing.assert_close(alone.waveform, sounds[1].waveform, atol=1e-4, rtol=1e-3)
