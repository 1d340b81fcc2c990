"""MiniLM in plain torch against transformers' model, bit for bit."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from unison_audio.errors import InputError
from unison_audio.tasks.table import TASKS
from unison_audio.text.minilm import LAYERS, MiniLmEncoder, _packaged
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS

PIECES = (
    *(
        "[Speech]",
        "[Audio]",
        "[Edit]",
        "A",
        "a",
        "Dog",
        "barking",
        "über",
        "東京",
        'said: "go home"',
    ),
    *("3.5", "s,", "\ufb01ne", "naïve\u200b", "\U0001f600", "[MASK]", "[SEP]", "<unk>", "isn't"),
    *("thunder,then", "rain", "\u2014", "CAFÉ", "x1f", "antidisestablishmentarianism"),
)


def texts() -> list[str]:
    """Every task's own template, and random ones of all lengths with marks of every kind."""
    draw = random.Random(0)
    drawn = (draw.choices(PIECES, k=count) for count in range(1, 61))
    return [
        *(task.templates[0] for task in TASKS.values()),
        *(" ".join(pieces) for pieces in drawn),
        "rain\n\twith  wind ",
    ]


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any]:
    folder = _packaged()
    assert folder is not None
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    return AutoTokenizer.from_pretrained(folder), model.eval()


@pytest.fixture(scope="module")
def ours() -> MiniLmEncoder:
    setup = TextSetup(picks=tuple(range(1, LAYERS + 1)), penultimate=True)
    encoder = TEXT_ENCODERS["minilm"](setup)
    assert isinstance(encoder, MiniLmEncoder)
    return encoder


def expected(theirs: tuple[Any, Any], text: str) -> tuple[Tensor, ...]:
    tokenizer, model = theirs
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)[1]


def test_the_tokens_are_those_of_transformers(theirs: Any, ours: MiniLmEncoder) -> None:
    for text in [*texts(), "rain " * 300]:
        known = theirs[0](text, truncation=False, verbose=False)["input_ids"]
        assert ours.tokenizer.encode(text).ids == known, text


def test_the_states_have_the_bits_of_transformers(theirs: Any, ours: MiniLmEncoder) -> None:
    for text in texts():
        states, known = ours.encode([text]), expected(theirs, text)
        assert torch.equal(states.hidden_states[0], torch.cat(known[1:]))
        assert states.penultimate is not None
        assert torch.equal(states.penultimate, known[-2])
        assert states.mask.all()


def test_the_states_of_no_pick_are_empty(theirs: Any) -> None:
    batch = texts()[:2]
    states = TEXT_ENCODERS["minilm"](TextSetup(picks=(), penultimate=True)).encode(batch)
    assert states.penultimate is not None
    assert states.hidden_states.shape == (2, 0, *states.penultimate.shape[1:])
    for row, text in enumerate(batch):
        known = expected(theirs, text)[-2][0]
        assert torch.allclose(states.penultimate[row, : len(known)], known, atol=1e-5)
        assert not states.penultimate[row, len(known) :].any()
    assert MiniLmEncoder(TextSetup(picks=(1,))).encode(batch).penultimate is None


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"{damaged"])
def test_files_that_cannot_be_used_are_refused(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    whole = _packaged()
    assert whole is not None
    for file in ("model.safetensors", "tokenizer.json"):
        shutil.copy(whole / file, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be loaded from .*pip install"):
        MiniLmEncoder(TextSetup(picks=(1,), files=tmp_path))


@pytest.mark.parametrize("layer", ["encoder.layer.2.", "embeddings.position"])
def test_a_file_without_some_tensors_is_refused(layer: str, tmp_path: Path) -> None:
    whole = _packaged()
    assert whole is not None
    shutil.copy(whole / "tokenizer.json", tmp_path)
    weights = load_file(whole / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith(layer)}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"{layer}.* missing or misshapen"):
        MiniLmEncoder(TextSetup(picks=(1,), files=tmp_path))


def test_a_window_is_refused() -> None:
    with pytest.raises(InputError, match="no text window"):
        MiniLmEncoder(TextSetup(picks=(1,), window=126))
