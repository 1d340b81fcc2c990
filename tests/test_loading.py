"""Loading in turn and together, and the plan for the memory there is."""

import dataclasses
import gc
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from tiny_unison import random_backbone, random_codec, tiny_variant

from unison_audio import checkpoint
from unison_audio import loading as parts
from unison_audio.codecs.table import save_nano_codec
from unison_audio.errors import InputError
from unison_audio.loading import LazyModel, needed_bytes, plan
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.pipeline import Unison
from unison_audio.text.states import TextSetup
from unison_audio.variants import VARIANTS

TTS = '[Speech] A male voice saying "red dog"'
CPU, GB = torch.device("cpu"), 10**9


class Thing:
    """Something to load."""


def test_a_part_that_is_kept_is_loaded_once() -> None:
    loaded: list[Thing] = []
    part = LazyModel(lambda: loaded.append(Thing()) or loaded[-1])
    with part.use() as first, part.use() as second:
        assert first is second
    assert part.get() is first
    assert len(loaded) == 1


def test_a_part_that_is_not_kept_goes_with_its_last_user() -> None:
    part = LazyModel(Thing, keep=False)
    with part.use() as outer:
        with part.use() as inner:
            assert inner is outer
        held = weakref.ref(outer)
        del inner, outer
        assert held() is not None
    gc.collect()
    assert held() is None


def test_low_memory_gives_the_same_sound_one_model_at_a_time(
    tiny_checkpoint: Path, stub_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    most: list[int] = []

    class Counted(LazyModel):
        def use(self):  # type: ignore[no-untyped-def]
            gc.collect()
            most.append(sum(isinstance(m, UnisonBackbone) for m in alive))
            return super().use()

    load = parts._load_backbone
    monkeypatch.setattr(parts, "LazyModel", Counted)
    monkeypatch.setattr(parts, "_load_backbone", lambda *a: _add(alive, load(*a)))
    together = Unison.from_pretrained(tiny_checkpoint, low_memory=False)
    expected = together.generate([TTS, TTS], seed=[1, 2], duration=[1.0, 1.5])
    del together
    most.clear()
    in_turn = Unison.from_pretrained(tiny_checkpoint, low_memory=True)
    sounds = in_turn.generate([TTS, TTS], seed=[1, 2], duration=[1.0, 1.5])
    for sound, wanted in zip(sounds, expected, strict=True):
        assert torch.equal(sound.waveform, wanted.waveform)
    assert max(most) <= 1
    gc.collect()
    assert not [m for m in alive if isinstance(m, UnisonBackbone)]


def _add(alive: weakref.WeakSet, module: UnisonBackbone) -> UnisonBackbone:
    alive.add(module)
    return module


@pytest.mark.parametrize("name", VARIANTS)
def test_backbone_bytes_are_its_parameters(name: str) -> None:
    totals = {"d20-44k": 620_775_464, "d24-16k": 731_705_364}
    if name in totals:
        for dtype in (torch.float32, torch.bfloat16):
            needed = needed_bytes(VARIANTS[name], dtype)
            assert needed["backbone"] == totals[name] * dtype.itemsize
    assert set(needed_bytes(VARIANTS[name], torch.float32)) == {"text encoder", "backbone", "codec"}


def test_the_plan_follows_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS["d24-16k"]

    def free(amount: float | None) -> None:
        monkeypatch.setattr(parts, "available_memory", lambda device: amount)

    def decide(low: bool | None = None, dtype: torch.dtype = torch.float32) -> bool:
        return plan(variant, CPU, dtype, low)

    free(64 * GB)
    assert decide() is False
    assert decide(True) is True
    free(6 * GB)
    assert decide() is True
    with pytest.raises(InputError, match=r"all its models together.*ask for low memory, which"):
        decide(False)
    free(3 * GB)
    with pytest.raises(InputError, match=r"3\.7 GB of memory.*backbone alone.*bfloat16"):
        decide()
    free(None)
    assert decide() is False
    assert decide(True) is True


@pytest.mark.parametrize("fusion", ["O", "L", "OL", "S"])
def test_every_fusion_gets_the_text_it_reads(fusion: str, tmp_path: Path, stub_text: None) -> None:
    variant = tiny_variant()
    backbone = dataclasses.replace(variant.backbone, fusion=fusion)
    variant = dataclasses.replace(variant, backbone=backbone, name=f"tiny-{fusion}")
    checkpoint.save(tmp_path, variant, random_backbone(variant))
    save_nano_codec(tmp_path, random_codec())
    unison = Unison.from_pretrained(tmp_path)
    one, other = unison.generate([TTS, TTS.replace("red", "blue")], duration=1.0)
    assert not torch.allclose(one.waveform, other.waveform, atol=1e-6)


def test_generation_and_training_read_the_same_window(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setups: list[TextSetup] = []
    monkeypatch.setitem(parts.TEXT_ENCODERS, "minilm", lambda setup: setups.append(setup))
    variant, backbone = checkpoint.load(tiny_checkpoint)
    variant = dataclasses.replace(variant, text_window=126, system_prompt="Listen.")
    checkpoint.save(tmp_path, variant, backbone)
    how = parts.LoadOptions()
    parts.open_models(tmp_path, how).text_encoder.get()
    parts.open_frozen(variant, how, tiny_checkpoint)
    assert [(setup.window, setup.system_prompt) for setup in setups] == [(126, "Listen.")] * 2


@pytest.mark.slow
def test_compiled_blocks_give_the_same_sound(tiny_checkpoint: Path, stub_text: None) -> None:
    if not _has_compiler():
        pytest.skip("torch.compile needs a C++ compiler")
    plain = Unison.from_pretrained(tiny_checkpoint).generate(TTS, duration=1.0)
    compiled = Unison.from_pretrained(tiny_checkpoint, compiled=True).generate(TTS, duration=1.0)
    torch.testing.assert_close(compiled.waveform, plain.waveform, atol=1e-4, rtol=1e-3)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
