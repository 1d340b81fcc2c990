"""The text model of Qwen2.5-Omni's Thinker as a text encoder.

The layers are those of transformers 5. This file calls them one by one instead of calling the whole
model, for four reasons. A layer can come from the disk just before it is needed. All instructions
pass a layer together, unpadded and behind one copy of the system prompt. That prompt's keys and
values are computed once and kept. And the loop ends with the last layer that is needed.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unison_audio.device import available_memory, preferred_dtype
from unison_audio.errors import InputError
from unison_audio.text.cache import StateCache
from unison_audio.text.hub_names import CONFIG_FILE
from unison_audio.text.int8_linear import use_int8
from unison_audio.text.kept_prompt import (
    Behind,
    KeptPrompt,
    Recorder,
    copy_end,
    read_prompt,
    write_prompt,
)
from unison_audio.text.offload import Layers, Shards, check_shapes, fill
from unison_audio.text.packing import Pack, pack
from unison_audio.text.prompt import ChatPrompt, load_tokenizer
from unison_audio.text.qwen_folder import (
    PREFIX,
    download,
    load_config,
    require_all,
    text_model,
)
from unison_audio.text.spelling import spelled
from unison_audio.text.states import (
    MAX_TOKENS,
    TextSetup,
    TextStates,
    last_tokens,
    split,
    stack,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from unison_audio.text.offload import SharedLayers

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
            model = text_model(self.config).to(self.dtype)
        use_int8(model.layers, self.shards, self.device)
        require_all(model, self.shards)
        streamed = setup.streamed
        if streamed is None:
            needed = sum(weight.nbytes for weight in model.layers[:last].parameters())
            streamed = not self._has_room(needed)
        self.layers: Layers | SharedLayers = Layers(
            model.layers[:last], self.shards, self.device, streamed=streamed
        )
        self._last_layer = last
        self._needed_anywhere: Callable[[bool], bool] = bool  # one process: only its own need
        self.norm = self._final_norm(model.norm) if last == count else None
        # Rebuilt: the buffers are in no file, and those of the meta model have no values.
        self.rotary = type(model.rotary_emb)(config=self.config).to(self.device)
        self.cache = StateCache(setup.cache) if setup.cache else None
        self._identity = self._identify(folder) if setup.cache else ""
        self._kept: KeptPrompt | None = None

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

        Raises:
            InputError: If the weights are int8.
        """
        from unison_audio.text.offload import SharedLayers

        assert isinstance(self.layers, Layers)
        if any(self.shards.dtype(name) == torch.int8 for name in self.shards.names):
            raise InputError(
                f"The language model in {self.shards.folder} is int8 and cannot be divided between "
                "processes; use the files that it was made from."
            )
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
        distinct = list(dict.fromkeys(texts))
        known = self._cached(distinct)  # without the prompt's states
        new = [text for text in distinct if text not in known]
        prompt = self._find_prompt() if new or any(map(self._from_prompt, texts)) else None
        lacks_prompt = prompt is None and any(map(self._from_prompt, known))
        if self._needed_anywhere(bool(new) or lacks_prompt):
            states, prompt = self._compute(new, prompt, record=bool(new) or lacks_prompt)
            parts = dict(zip(new, split(states), strict=True))
            if self.cache:
                for text, part in parts.items():
                    own = last_tokens(part, min(len(text), self._length(text)))
                    self.cache.keep(self._key(text), own.to("cpu", self.dtype))
            if new == texts:  # a copy of all states would double the memory
                return states
        else:
            parts = {}
        if not texts:
            return self._empty_states([])
        for text, own in known.items():
            part = own.to(self.device, self._states_dtype)
            parts[text] = self._behind(prompt, part, self._from_prompt(text))
        return stack([parts[text] for text in texts])

    def _cached(self, texts: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], TextStates]:
        """States of the texts that are cached on the disk."""
        found = {text: self.cache.find(self._key(text)) for text in texts} if self.cache else {}
        return {text: states for text, states in found.items() if states is not None}

    def _compute(
        self, texts: Sequence[Sequence[int]], prompt: KeptPrompt | None, *, record: bool
    ) -> tuple[TextStates, KeptPrompt | None]:
        """Runs texts, given as tokens, through the layers.

        Args:
            texts: Texts that follow the prompt.
            prompt: The prompt, if it is known.
            record: Whether an unknown prompt is run through the layers before the texts.

        Returns:
            The texts' states, and the prompt.
        """
        system = self.prompt.system_tokens
        lengths = [self._length(text) for text in texts]
        states = self._empty_states(lengths)
        packs = pack(texts, len(system), PACK_TOKENS)
        places = [_places(item, lengths) for item in packs]
        x = [self._embed(item.tokens) for item in packs]  # (1, N, text_dim) each
        masks = [None if p.mask is None else p.mask[None, None].to(self.device) for p in packs]
        angles = [self._angles(item.positions, start) for item, start in zip(packs, x, strict=True)]

        # The prompt passes a layer by itself. So its keys and values are the same bits whatever
        # follows, whether they were kept or not.
        recorder = Recorder() if system and prompt is None and record else None
        if recorder:
            y = self._embed(system)  # (1, P, text_dim)
            y_angles = self._angles(torch.arange(len(system)), y)
            end = self._empty_states([self._prompt_end])
            y_places = [(0, slice(len(system) - self._prompt_end, len(system)), slice(None))]
        for number, layer in enumerate(self.layers, start=1):
            if recorder:
                y = _states(layer(y, None, None, recorder, position_embeddings=y_angles))
                self._store(end, number, y, y_places)
                front = Behind(recorder.keys[-1], recorder.values[-1])
            elif prompt:
                front = Behind(prompt.keys[number - 1], prompt.values[number - 1])
            else:
                front = None
            for i, mask in enumerate(masks):
                # By position: this argument has two names in transformers 5.
                output = layer(x[i], mask, None, front, position_embeddings=angles[i])
                x[i] = _states(output)
                self._store(states, number, x[i], places[i])
        if recorder:
            prompt = KeptPrompt(
                keys=recorder.keys, values=recorder.values, end=end.to(self.device, self.dtype)
            )
            self._keep_prompt(prompt)
        for row, text in enumerate(texts):
            if count := self._from_prompt(text):
                assert prompt is not None
                copy_end(states, row, prompt.end, count)
        return states, prompt

    def _length(self, text: Sequence[int]) -> int:
        """Number of states returned for a text."""
        whole = len(self.prompt.system_tokens) + len(text)
        return min(whole, self.setup.window) if self.setup.window else len(text)

    def _from_prompt(self, text: Sequence[int]) -> int:
        """Number of states returned for a text that are the prompt's."""
        return max(0, self._length(text) - len(text))

    @property
    def _prompt_end(self) -> int:
        """Number of the prompt's states that an instruction may ask for."""
        return min(len(self.prompt.system_tokens), self.setup.window)

    def _find_prompt(self) -> KeptPrompt | None:
        """The kept prompt, from memory or from the disk."""
        kept = self._kept
        if kept is not None and kept.end.mask.shape[1] == self._prompt_end:
            return kept
        if not (self.cache and self.setup.keep_prompt and self.prompt.system_tokens):
            return None
        self._kept = read_prompt(self.cache, self._prompt_key, self._like, self.device)
        return self._kept

    def _keep_prompt(self, prompt: KeptPrompt) -> None:
        if self.setup.keep_prompt:
            self._kept = prompt
            if self.cache:
                write_prompt(self.cache, self._prompt_key, prompt)

    @property
    def _like(self) -> dict[str, Tensor]:
        """Names, types and shapes of a kept prompt's tensors."""
        config, picks, end = self.config, len(self.setup.picks), self._prompt_end
        head = config.hidden_size // config.num_attention_heads
        prompt = (1, config.num_key_value_heads, len(self.prompt.system_tokens), head)
        shapes: dict[str, tuple[int, ...]] = {
            "keys": (self._last_layer, *prompt),
            "values": (self._last_layer, *prompt),
            "hidden_states": (1, picks, end, config.hidden_size),
        }
        if self.setup.penultimate:
            shapes["penultimate"] = (1, end, config.hidden_size)
        return {
            name: torch.empty(shape, dtype=self.dtype, device="meta")
            for name, shape in shapes.items()
        }

    def _behind(self, prompt: KeptPrompt | None, own: TextStates, count: int) -> TextStates:
        """Puts the prompt's last states in front of those of one text."""
        if not count:
            return own
        assert prompt is not None
        states = self._empty_states([count + own.mask.shape[1]])
        states.hidden_states[:, :, count:] = own.hidden_states
        if states.penultimate is not None and own.penultimate is not None:
            states.penultimate[:, count:] = own.penultimate
        copy_end(states, 0, prompt.end, count)
        return states

    def _embed(self, tokens: Sequence[int]) -> Tensor:
        rows = self.shards.rows("embed_tokens.weight", tokens)
        return rows[None].to(self.device, self.dtype)

    def _angles(self, positions: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the rotary embedding."""
        # M-RoPE has three positions (time, height, width); a text token has the same in all three.
        return self.rotary(x, positions.to(self.device).expand(3, 1, -1))

    def _store(
        self, states: TextStates, number: int, x: Tensor, places: Iterable[tuple[int, slice, slice]]
    ) -> None:
        """Copies a layer's output to the returned states where that layer is picked.

        Args:
            states: The returned states.
            number: Number of the layer.
            x: Its output, (1, N, text_dim).
            places: Row of the states, tokens of x, and tokens of that row.
        """
        last = self.config.num_hidden_layers
        slots = [k for k, pick in enumerate(self.setup.picks) if pick == number]
        if slots and number == last and self.norm is not None:
            x = self.norm(x)
        penultimate = states.penultimate if number == last - 1 else None
        for row, source, target in places:
            for k in slots:
                states.hidden_states[row, k, target] = x[0, source]
            if penultimate is not None:
                penultimate[row, target] = x[0, source]

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
        """Digest of everything but the text that a text's own states depend on."""
        setup = self.setup
        parts = (
            (folder / CONFIG_FILE).read_text("utf-8"),
            self.shards.fingerprint(),
            self.prompt.system_tokens,
            setup.picks,
            setup.penultimate,
            self.dtype,
        )
        return sha256(repr(parts).encode()).hexdigest()

    def _key(self, text: Sequence[int]) -> str:
        window = self.setup.window
        # A window cuts only longer texts; all others are the same for every window.
        cut = f" window {window}" if 0 < window < len(text) else ""
        return sha256(f"{self._identity} {list(text)}{cut}".encode()).hexdigest()

    @property
    def _prompt_key(self) -> str:
        return sha256(f"{self._identity} prompt, window {self.setup.window}".encode()).hexdigest()


def _places(item: Pack, lengths: Sequence[int]) -> list[tuple[int, slice, slice]]:
    """Row of each text of a pack, its tokens that are returned, and their places in the row."""
    places = []
    for row, span in item.spans:
        count = min(span.stop - span.start, lengths[row])
        source = slice(span.stop - count, span.stop)
        places.append((row, source, slice(lengths[row] - count, lengths[row])))
    return places


def _states(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a layer returns: transformers before 5.4 puts the states into a tuple."""
    return output[0] if isinstance(output, tuple) else output
