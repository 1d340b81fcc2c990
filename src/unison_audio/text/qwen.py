"""The text model of Qwen2.5-Omni's Thinker as a text encoder.

The layers are those of transformers 5. This file calls them one by one instead of calling the whole
model, for three reasons. A layer can come from the disk just before it is needed. All instructions
pass a layer together, unpadded and behind one copy of the system prompt. And the loop ends with the
last layer that is needed.
"""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unison_audio import hub_files
from unison_audio.device import available_memory, preferred_dtype
from unison_audio.errors import InputError
from unison_audio.text.cache import StateCache
from unison_audio.text.offload import INDEX_FILE, Layers, Shards, check_shapes, fill, shards_of
from unison_audio.text.packing import Pack, pack
from unison_audio.text.prompt import ChatPrompt, has_vocabulary, load_tokenizer
from unison_audio.text.spelling import spelled
from unison_audio.text.states import MAX_TOKENS, TextSetup, TextStates, split, stack

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from unison_audio.text.offload import SharedLayers

PREFIX = "thinker.model."

CONFIG_FILE = "config.json"

MODEL_TYPE = "qwen2_5_omni"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)

PACK_TOKENS = 512
"""Tokens that pass a layer at a time: enough to keep a processor busy, few enough to hold."""

RESIDENT_SHARE = 2 / 3
"""Share of the free memory that resident layers may take; activations and other models need the
rest."""


class QwenEncoder:
    """The text model of Qwen2.5-Omni's Thinker.

    It reads only the tensors ``thinker.model.*``, and of the embedding only the rows of the tokens
    at hand. A text gets the same states whatever is encoded beside it, up to rounding. An
    instruction is read in the ChatML form: a system turn if there is a system prompt, the
    instruction as the user's turn, the beginning of an answer. Without a window the states of the
    user's turn and the answer's beginning are returned. With a window the states of the last
    ``window`` tokens of the whole prompt are returned, the end of the system turn among them.

    Args:
        setup: What to return and where to run. ``files`` is a folder with the hub's files; without
            it the needed ones are downloaded. States are float32 on the CPU, and of the computing
            type elsewhere.
        hub_name: The model on the Hugging Face hub.

    Raises:
        InputError: If files are missing or of another model, or layers are picked that it lacks.
    """

    def __init__(self, setup: TextSetup, hub_name: str) -> None:
        self.setup = setup
        folder = setup.files or download(hub_name)
        self.shards = Shards(folder, PREFIX)
        self.config = load_config(folder)
        self.prompt = ChatPrompt(load_tokenizer(folder), setup.system_prompt, MAX_TOKENS)
        self.device = torch.device(setup.device)
        self.dtype = setup.dtype or preferred_dtype(self.device)
        count = self.config.num_hidden_layers
        if wrong := [layer for layer in setup.picks if not 1 <= layer <= count]:
            raise InputError(f"Layers {wrong} are picked of a model that has layers 1 to {count}")
        last = max((*setup.picks, count - 1 if setup.penultimate else 0))  # the last one needed
        with torch.device("meta"):
            model = _text_model(self.config)
        _require_all(model, self.shards)
        streamed = setup.streamed
        if streamed is None:
            needed = sum(weight.numel() for weight in model.layers[:last].parameters())
            streamed = not self._has_room(needed * self.dtype.itemsize)
        self.layers: Layers | SharedLayers = Layers(
            model.layers[:last], self.shards, self.device, self.dtype, streamed=streamed
        )
        self._needed_anywhere: Callable[[bool], bool] = bool  # one process: only its own need
        self.norm = self._final_norm(model.norm) if last == count else None
        # Rebuilt: the buffers are in no file, and those of the meta model have no values.
        self.rotary = type(model.rotary_emb)(config=self.config).to(self.device)
        self.cache = StateCache(setup.cache) if setup.cache else None
        self._identity = self._identify(folder) if setup.cache else ""

    @property
    def streamed(self) -> bool:
        """Whether the layers are read from the disk again for every call."""
        return self.layers.streamed

    def share(self, mesh: "DeviceMesh") -> None:
        """Keeps only this process' part of the layers' weights.

        Afterwards `encode` is collective: every process calls it, those with nothing to encode
        with no instruction.

        Args:
            mesh: The processes, in one dimension.
        """
        from unison_audio.text.offload import SharedLayers

        assert isinstance(self.layers, Layers)
        self.layers = SharedLayers(self.layers, mesh)
        self._needed_anywhere = self.layers.needed_anywhere

    @torch.inference_mode()
    def encode(self, instructions: Sequence[str]) -> TextStates:
        """Encodes B instructions.

        Returns:
            States (B, K, N, text_dim) and a mask (B, N). N is the longest text's length, or the
            window's where the whole prompts are longer than that.

        Raises:
            InputError: If an instruction is empty, or has more than ``MAX_TOKENS`` tokens together
                with the system prompt.
        """
        instructions = spelled(instructions, self.setup)
        texts = [tuple(self.prompt.tokens(instruction)) for instruction in instructions]
        new = list(dict.fromkeys(texts))
        known: dict[tuple[int, ...], TextStates] = {}
        if self.cache:
            for text in new:
                if found := self.cache.find(self._key(text)):
                    known[text] = found.to(self.device, self._states_dtype)
            new = [text for text in new if text not in known]
        if self._needed_anywhere(bool(new)):
            states = self._compute(new)
            parts = dict(zip(new, split(states), strict=True))
            if self.cache:
                for text, part in parts.items():
                    self.cache.keep(self._key(text), part.to("cpu", self.dtype))
            if new == texts:  # a copy of all states would double the memory
                return states
            known |= parts
        return stack([known[text] for text in texts]) if texts else self._empty_states([])

    def _compute(self, texts: Sequence[Sequence[int]]) -> TextStates:
        """Runs texts, given as tokens, through the layers."""
        lengths = [self._length(text) for text in texts]
        states = self._empty_states(lengths)
        packs = pack(texts, self.prompt.system_tokens, PACK_TOKENS)
        x = [self._embed(item) for item in packs]  # (1, N, text_dim) each
        inputs = [self._layer_inputs(item, start) for item, start in zip(packs, x, strict=True)]
        for number, layer in enumerate(self.layers, start=1):
            for i, item in enumerate(packs):
                output = layer(x[i], **inputs[i])
                # transformers before 5.4 returns a tuple here, later versions the states alone.
                x[i] = output[0] if isinstance(output, tuple) else output
                self._store(states, number, item, x[i], lengths)
        return states

    def _length(self, text: Sequence[int]) -> int:
        """Number of states returned for a text."""
        whole = len(self.prompt.system_tokens) + len(text)
        return min(whole, self.setup.window) if self.setup.window else len(text)

    def _embed(self, item: Pack) -> Tensor:
        rows = self.shards.rows("embed_tokens.weight", item.tokens)
        return rows[None].to(self.device, self.dtype)

    def _layer_inputs(self, item: Pack, x: Tensor) -> dict[str, Any]:
        """Inputs of a layer besides the hidden states."""
        # M-RoPE has three positions (time, height, width); a text token has the same in all three.
        positions = item.positions.to(self.device).expand(3, 1, -1)
        mask = None if item.mask is None else item.mask[None, None].to(self.device)
        return {"attention_mask": mask, "position_embeddings": self.rotary(x, positions)}

    def _store(
        self, states: TextStates, number: int, item: Pack, x: Tensor, lengths: Sequence[int]
    ) -> None:
        """Copies a layer's output to the returned states where that layer is picked."""
        last = self.config.num_hidden_layers
        slots = [k for k, pick in enumerate(self.setup.picks) if pick == number]
        if slots and number == last and self.norm is not None:
            x = self.norm(x)
        penultimate = states.penultimate if number == last - 1 else None
        if not slots and penultimate is None:
            return
        for row, span in item.spans:
            kept = x[0, item.last(span, lengths[row]).to(x.device)]  # (N, text_dim)
            for k in slots:
                states.hidden_states[row, k, : lengths[row]] = kept
            if penultimate is not None:
                penultimate[row, : lengths[row]] = kept

    @property
    def _states_dtype(self) -> torch.dtype:
        return torch.float32 if self.device.type == "cpu" else self.dtype

    def _empty_states(self, lengths: Sequence[int]) -> TextStates:
        rows, longest, width = len(lengths), max(lengths, default=0), self.config.hidden_size
        hidden = torch.zeros(
            rows,
            len(self.setup.picks),
            longest,
            width,
            dtype=self._states_dtype,
            device=self.device,
        )
        return TextStates(
            hidden_states=hidden,
            mask=(torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).to(self.device),
            penultimate=hidden.new_zeros(rows, longest, width) if self.setup.penultimate else None,
        )

    def _final_norm(self, norm: nn.Module) -> nn.Module:
        names = {name: f"norm.{name}" for name, _ in norm.named_parameters()}
        check_shapes(norm, names, self.shards)
        norm = norm.requires_grad_(False).to(self.dtype).to_empty(device=self.device)
        fill(norm, names, self.shards)
        return norm

    def _has_room(self, nbytes: int) -> bool:
        available = available_memory(self.device)
        return available is not None and nbytes <= RESIDENT_SHARE * available

    def _identify(self, folder: Path) -> str:
        """Digest of everything but the text that the states depend on."""
        setup = self.setup
        parts = (
            (folder / CONFIG_FILE).read_text("utf-8"),
            self.shards.fingerprint(),
            self.prompt.system_tokens,
            setup.picks,
            setup.penultimate,
            self.dtype,
            # Left out at 0, so that states cached before there was a window are still found.
            *([f"window {setup.window}"] if setup.window else []),
        )
        return sha256(repr(parts).encode()).hexdigest()

    def _key(self, text: Sequence[int]) -> str:
        return sha256(f"{self._identity} {list(text)}".encode()).hexdigest()


def load_config(folder: Path) -> Any:
    """Reads the text model's part of a Qwen2.5-Omni's config.

    Raises:
        InputError: If there is none or it is of another model.
    """
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig

    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text("utf-8"))
        kind = config.get("model_type")
        text = config["thinker_config"]["text_config"] if kind == MODEL_TYPE else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read; give the folder of a download of Qwen2.5-Omni"
        ) from error
    if text is None:
        raise InputError(
            f"{path} is of a model {kind!r} instead of {MODEL_TYPE!r}; "
            "give the folder of a download of Qwen2.5-Omni"
        )
    return Qwen2_5OmniTextConfig(**text)


def _require_all(model: nn.Module, shards: Shards) -> None:
    """Checks that the files hold the model's tensors, all of them and no others.

    Also those that no picked layer needs are checked: a folder that lacks one of them is damaged or
    of another model, and nothing of it can be trusted.
    """
    weights = dict(model.named_parameters())
    if unknown := sorted(set(shards.names) - set(weights)):
        raise InputError(
            f"{shards.folder} has tensors that its {CONFIG_FILE} does not ask for, {unknown[0]} "
            f"and {len(unknown) - 1} more; take both from one download"
        )
    check_shapes(model, {name: name for name in weights}, shards)


def _text_model(config: Any) -> Any:
    from transformers import Qwen2_5OmniThinkerTextModel

    config._attn_implementation = "sdpa"
    return Qwen2_5OmniThinkerTextModel(config).eval()


def download(hub_name: str) -> Path:
    """Downloads a model's config, tokenizer and text shards, unless the hub's cache has them.

    Args:
        hub_name: The model on the Hugging Face hub.

    Returns:
        The folder with the files.

    Raises:
        InputError: If a file is neither in the cache nor on the hub, or arrives damaged.
    """
    if folder := cached_folder(hub_name):
        return folder
    try:
        for file in needed_files(hub_name):
            folder = hub_files.download(file).parent
    except InputError as error:
        raise InputError(
            f"The text encoder {hub_name} cannot be had: {error} A folder with its files will do "
            "too (--text-files)."
        ) from error
    assert folder is not None
    return folder


def cached_folder(hub_name: str) -> Path | None:
    """The folder of the hub's cache where a model is whole; None if anything is missing."""
    index = hub_files.cached(hub_name, INDEX_FILE)
    config = hub_files.cached(hub_name, CONFIG_FILE)
    if index is None or config is None:
        return None
    shards = shards_of(index, PREFIX)
    complete = all((index.parent / shard).is_file() for shard in shards)
    return index.parent if complete and has_vocabulary(index.parent) else None


def needed_files(hub_name: str) -> list[hub_files.HubFile]:
    """The files of a model on the hub that the text encoder reads; the index is downloaded.

    Raises:
        InputError: If the hub cannot be reached, or has no such model.
    """
    there = hub_files.list_files(hub_name)
    if INDEX_FILE not in there:
        raise InputError(f"{hub_name} has no {INDEX_FILE}; it is not a release of Qwen2.5-Omni.")
    shards = shards_of(hub_files.download(there[INDEX_FILE]), PREFIX)
    if missing := [shard for shard in shards if shard not in there]:
        raise InputError(f"{hub_name} lacks {', '.join(missing)}, which its {INDEX_FILE} names.")
    wanted = (CONFIG_FILE, *TOKENIZER_FILES, INDEX_FILE, *shards)
    return [there[name] for name in wanted if name in there]
