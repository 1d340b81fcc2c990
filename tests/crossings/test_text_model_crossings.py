"""The language model's rotary table and packed texts, streamed and resident.

`training/test_parallel.py` has the path of several processes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_files import write_qwen
from torch import Tensor
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni

from unison_audio.text.packing import pack
from unison_audio.text.qwen import QwenEncoder
from unison_audio.text.states import TextSetup
from unison_audio.variants import VARIANTS

PICKS = VARIANTS["d24-16k"].layer_picks
LONGEST = 2_048
THETA, HEAD_DIM = 1e6, 16
TEXTS = ["[Audio] rain", "[Audio] a dog barking", '[Speech] A male voice saying "no"']


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    write_qwen(folder)
    return folder


def encoder(files: Path, path: str, dtype: torch.dtype = torch.bfloat16) -> QwenEncoder:
    setup = TextSetup(picks=PICKS, files=files, dtype=dtype, streamed=path == "streamed")
    return QwenEncoder(setup, "none")


def phases(rotary: torch.nn.Module) -> Tensor:
    """Cosines that a layer gets, (positions, head_dim), as float32."""
    positions = torch.arange(LONGEST).expand(3, 1, -1)
    cos, _ = rotary(torch.zeros(1, LONGEST, 4, dtype=torch.float32), positions)
    return cos[0]


def exact_phases() -> Tensor:
    frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.arange(LONGEST, dtype=torch.float64)[:, None] * frequencies
    return angles.repeat(1, 2).cos().float()


PATHS = ["streamed", "resident"]


@pytest.mark.parametrize("path", PATHS)
def test_frequencies_stay_in_float32(files: Path, path: str) -> None:
    made = encoder(files, path)
    made.encode(TEXTS)
    assert {buffer.dtype for buffer in made.rotary.buffers()} == {torch.float32}
    assert not [name for module in made.layers.modules for name, _ in module.named_buffers()]
    assert (phases(made.rotary) - exact_phases()).abs().max() < 1e-3
    made.rotary.to(torch.bfloat16)  # what `.to()` of a whole model does to its buffers
    assert (phases(made.rotary) - exact_phases()).abs().max() > 0.1


def test_states_agree_between_the_paths(files: Path) -> None:
    one, *others = (encoder(files, path).encode(TEXTS).hidden_states for path in PATHS)
    for other in others:
        assert torch.equal(one, other)


@pytest.mark.parametrize("path", PATHS)
def test_packed_texts_do_not_see_each_other(files: Path, path: str) -> None:
    made = encoder(files, path, torch.float32)
    tokens = [tuple(made.prompt.tokens(text)) for text in TEXTS]
    [single] = pack(tokens, len(made.prompt.system_tokens), 1_000)
    assert len(single.spans) == len(TEXTS)  # one pack, so that they could
    before = made.encode(TEXTS)
    other = "[Audio] a cat meowing while a bell rings and a car passes by"
    for changed in range(len(TEXTS)):
        texts = [other if row == changed else text for row, text in enumerate(TEXTS)]
        after = made.encode(texts)
        for row in set(range(len(TEXTS))) - {changed}:
            count = int(before.mask[row].sum())
            ours, theirs = (s.hidden_states[row, :, :count] for s in (before, after))
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_layer_that_returns_a_tuple_gives_the_same(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder(files, "resident").encode(TEXTS).hidden_states
    forward = modeling_qwen2_5_omni.Qwen2_5OmniDecoderLayer.forward

    def older(*args: Any, **kwargs: Any) -> tuple[Tensor]:
        output = forward(*args, **kwargs)
        return output if isinstance(output, tuple) else (output,)

    monkeypatch.setattr(modeling_qwen2_5_omni.Qwen2_5OmniDecoderLayer, "forward", older)
    assert torch.equal(encoder(files, "resident").encode(TEXTS).hidden_states, expected)
