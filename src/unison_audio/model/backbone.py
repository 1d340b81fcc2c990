"""The DeepFusion MM-DiT: predicts the flow velocity of a noisy latent from its condition and text.

Symbols (paper section 3.1):
    B    items in a batch                     C    latent channels
    T'   latent frames                        d    token width (`dim`)
    D    blocks                               N    text tokens
    z_t  noised target (B, C, T')             z_s  source or reference latent (B, C, T')
    m    task tag of each frame (B, 1, T')    t    flow time (B,): 1 is noise, 0 is data
    x    [z_t | z_s | m] (B, 2C+1, T')        v    velocity (B, C, T')
    hidden_states  the text encoder's picked layers, one per block (B, D, N, text_dim)
    penultimate    the text encoder's last layer but one (B, N, text_dim)
    text_mask      True where a token is real (B, N); a row without any is "no text"
Latents are (B, C, T') outside the backbone and (B, T', d) inside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unison_audio.errors import InputError
from unison_audio.model.config import FUSIONS, MLP_RATIO, BackboneConfig
from unison_audio.model.layers import HeadNorm, LatentEmbedder, TimeEmbedder, modulate, rotary_table
from unison_audio.model.layout import PaddedLayout, TokenLayout
from unison_audio.model.linear import Linear, apply_linear


class ProjectedText(NamedTuple):
    """Text at the blocks' width; `UnisonBackbone.project_text` computes it once per run."""

    fresh: tuple[Tensor, ...] | None
    """One (B, N, d) per block, or None where the fusion has no fresh text."""
    persistent: Tensor | None
    """(B, N, d), or None where the fusion has no persistent text."""


class StreamOutput(nn.Module):
    """The second half of a stream: attention output projection and MLP, both gated residuals."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attention = Linear(dim, dim)
        self.mlp_in = Linear(dim, MLP_RATIO * dim)
        self.mlp_out = Linear(MLP_RATIO * dim, dim)

    def forward(self, x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """Add the attention output, then the MLP: (B, length, d) -> (B, length, d)."""
        attention_gate, shift, scale, mlp_gate = modulation
        # addcmul does gate and residual in one pass over memory; a CPU is limited by these passes.
        x = torch.addcmul(x, attention_gate, self.attention(attended))
        hidden = F.gelu(self.mlp_in(modulate(x, shift, scale)), approximate="tanh")
        return torch.addcmul(x, mlp_gate, self.mlp_out(hidden))


class AudioStream(nn.Module):
    """The audio weights of a double-stream block."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim, self.head_dim = config.dim, config.head_dim
        # Shift, scale and gate of the attention, then of the MLP.
        self.modulation = _zeroed(Linear(dim, 6 * dim))
        self.query_key_value = Linear(dim, 3 * dim)
        self.query_norm = HeadNorm(self.head_dim)
        self.key_norm = HeadNorm(self.head_dim)
        self.output = StreamOutput(config)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project x, (B, length, d), to q, k and v of (B, length, heads, head_dim) each."""
        q, k, v = self.query_key_value(x).unflatten(-1, (3, -1, self.head_dim)).unbind(-3)
        return self.query_norm(q), self.key_norm(k), v


class TextStream(nn.Module):
    """The text weights of a double-stream block.

    With fusion O the text is not carried on, so the stream supplies keys and values only. The query
    weights exist nevertheless: the released weights contain them and the paper counts them.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim, self.head_dim = config.dim, config.head_dim
        has_output = FUSIONS[config.fusion].persistent
        # Without an output there is nothing to gate: only shift and scale before the attention.
        self.modulation = _zeroed(Linear(dim, (6 if has_output else 2) * dim))
        self.query = Linear(dim, dim)
        self.key_value = Linear(dim, 2 * dim)
        self.query_norm = HeadNorm(self.head_dim)
        self.key_norm = HeadNorm(self.head_dim)
        if has_output:
            self.output = StreamOutput(config)

    def freeze_output(self) -> None:
        """Exclude the weights from training that no velocity depends on.

        They never receive a gradient, which DistributedDataParallel reports as an error. As frozen
        parameters they remain in the state dict and in the parameter count.
        """
        for name in ("query", "query_norm", "output"):
            if hasattr(self, name):
                getattr(self, name).requires_grad_(False)

    def queries(self, x: Tensor) -> Tensor:
        """Project x, (B, length, d), to (B, length, heads, head_dim)."""
        return self.query_norm(self.query(x).unflatten(-1, (-1, self.head_dim)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project x, (B, length, d), to k and v of (B, length, heads, head_dim) each."""
        k, v = self.key_value(x).unflatten(-1, (2, -1, self.head_dim)).unbind(-3)
        return self.key_norm(k), v


class DoubleBlock(nn.Module):
    """Double-stream block: separate weights for audio and text, one joint attention.

    The paper's ablation finds this essential: one set of weights for both (`SingleBlock`) raises FD
    from 20.46 to 23.19 at comparable cost (Table 8).
    """

    def __init__(self, config: BackboneConfig, *, carries_text: bool) -> None:
        super().__init__()
        self.carries_text = carries_text
        self.audio = AudioStream(config)
        self.text = TextStream(config)
        if not carries_text:
            self.text.freeze_output()

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Map (S, 1, d) to the audio's (S, 1, 6d) and the text's (S, 1, 2d or 6d)."""
        return self.audio.modulation(condition), self.text.modulation(condition)

    def forward(
        self,
        audio: Tensor,
        persistent: Tensor | None,
        fresh: Tensor | None,
        modulations: tuple[Tensor, ...],
        layout: TokenLayout,
    ) -> tuple[Tensor, Tensor | None]:
        """Run one block.

        Args:
            audio: Audio tokens, (B, T', d).
            persistent: Text carried from block to block, (B, N, d), or None.
            fresh: This block's own text, (B, N, d), or None.
            modulations: From `modulations`, (B or 1, 1, 6d) and so on.
            layout: Layout of the tokens in these tensors.

        Returns:
            Audio tokens and the persistent text for the next block, or None for the latter.
        """
        shift, scale, *audio_rest = modulations[0].chunk(6, dim=-1)  # (B or 1, 1, d) each
        q, k, v = self.audio.queries_keys_values(modulate(audio, shift, scale))

        # Fusion OL passes both kinds through the same weights, and the layout's masks rely on this
        # order. Its duplicated text costs intelligibility: WER 5.52 against 4.33 % (Table 8).
        text = torch.cat([part for part in (persistent, fresh) if part is not None], dim=1)
        shift, scale, *text_rest = modulations[1].split(audio.shape[-1], dim=-1)
        normed = modulate(text, shift, scale)  # (B, N or 2N, d)
        text_k, text_v = self.text.keys_values(normed)
        text_q = None
        if persistent is not None and self.carries_text:
            text_q = self.text.queries(normed[:, : persistent.shape[1]])

        # Audio alone carries positions (paper section 3.4). Text has its order from the LLM, and an
        # audio frame has no meaningful distance to a token.
        q, k = layout.rotate(q), layout.rotate(k)
        attended, text_attended = layout.attend((q, k, v), (text_q, text_k, text_v))
        audio = self.audio.output(audio, attended, tuple(audio_rest))
        if text_attended is None or persistent is None:
            return audio, None
        return audio, self.text.output(persistent, text_attended, tuple(text_rest))


class SingleBlock(nn.Module):
    """Single-stream block of the ablation S32-O: audio and text share all weights.

    Attention and MLP run in parallel and share one output projection. The text is dropped after
    each block, so its queries and its MLP are never computed.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim, self.head_dim = config.dim, config.head_dim
        self.modulation = _zeroed(Linear(dim, 3 * dim))
        self.query_key_value = Linear(dim, 3 * dim)
        self.query_norm = HeadNorm(self.head_dim)
        self.key_norm = HeadNorm(self.head_dim)
        self.mlp_in = Linear(dim, MLP_RATIO * dim)
        self.out = Linear((1 + MLP_RATIO) * dim, dim)

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Map (S, 1, d) to ((S, 1, 3d),)."""
        return (self.modulation(condition),)

    def forward(
        self,
        audio: Tensor,
        persistent: None,
        fresh: Tensor,
        modulations: tuple[Tensor, ...],
        layout: TokenLayout,
    ) -> tuple[Tensor, None]:
        """Run one block; see `DoubleBlock.forward`."""
        dim = audio.shape[-1]
        shift, scale, gate = modulations[0].chunk(3, dim=-1)
        normed = modulate(audio, shift, scale)  # (B, T', d)
        q, k, v = self.query_key_value(normed).unflatten(-1, (3, -1, self.head_dim)).unbind(-3)
        text = _last_rows(
            self.query_key_value, modulate(fresh, shift, scale), 2 * dim
        )  # (B, N, 2d)
        text_k, text_v = text.unflatten(-1, (2, -1, self.head_dim)).unbind(-3)
        q, k = layout.rotate(self.query_norm(q)), layout.rotate(self.key_norm(k))
        attended, _ = layout.attend((q, k, v), (None, self.key_norm(text_k), text_v))
        hidden = F.gelu(self.mlp_in(normed), approximate="tanh")
        return torch.addcmul(audio, gate, self.out(torch.cat((attended, hidden), dim=-1))), None


class Head(nn.Module):
    """Maps audio tokens to the velocity of the target's channels.

    Source and mask channels are inputs only: the head predicts C channels, not 2C + 1.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.modulation = _zeroed(Linear(config.dim, 2 * config.dim))
        self.linear = _zeroed(Linear(config.dim, config.latent_channels))

    def modulations(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Map (S, 1, d) to ((S, 1, 2d),)."""
        return (self.modulation(condition),)

    def forward(self, audio: Tensor, modulations: tuple[Tensor, ...]) -> Tensor:
        """Map (B, T', d) to (B, T', C)."""
        shift, scale = modulations[0].chunk(2, dim=-1)
        return self.linear(modulate(audio, shift, scale))


def _last_rows(linear: nn.Module, x: Tensor, count: int) -> Tensor:
    """Compute the last `count` outputs of a linear layer, without the others."""
    if type(linear) is not Linear:  # wrapped, by a LoRA adapter or a quantized layer
        return linear(x)[..., -count:]
    return apply_linear(x, linear.weight[-count:], linear.bias[-count:])


def _zeroed(linear: Linear) -> Linear:
    """Initialize modulations and head to zero (adaLN-Zero, Peebles & Xie 2023).

    All gates start at 0, so a new model is its embedder followed by a head that returns 0, at any
    depth and any learning rate. Blocks come into play as training opens their gates.
    """
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class UnisonBackbone(nn.Module):
    """The trainable model of UNISON (paper section 3.4)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        # Activation checkpointing: the backward pass recomputes each block, which trades about a
        # third more computation for the memory of all blocks but one.
        self.recompute = False
        # Sampling replays its step as a CUDA graph (`graphed.py`).
        self.graphed = False
        fusion = FUSIONS[config.fusion]
        self.embed = LatentEmbedder(config.latent_channels, config.dim, config.embed_kernel)
        self.time = TimeEmbedder(config.dim)
        # Deep fusion (paper equation 2). Block k reads layer i_k = floor(1 + k (L - 1) / (D - 1)):
        # shallow blocks see lexical layers, deep blocks semantic ones. Text tokens are renewed at
        # every block instead of being carried on.
        self.fresh_projectors = nn.ModuleList(
            Linear(config.text_dim, config.dim) for _ in range(config.blocks * fusion.fresh)
        )
        self.persistent_projector = (
            Linear(config.text_dim, config.dim) if fusion.persistent else None
        )
        # No block reads the text after the last one, so that one does not carry it on.
        self.blocks = nn.ModuleList(
            SingleBlock(config)
            if fusion.single
            else DoubleBlock(config, carries_text=fusion.persistent and k + 1 < config.blocks)
            for k in range(config.blocks)
        )
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.embed.conv.weight.dtype

    def compile_blocks(self) -> None:
        """Compile every block with torch.compile, on its first call."""
        # Block by block, since all blocks of a kind share one compiled graph. Dynamic, since rows
        # of a packed batch have other lengths in each run.
        for block in self.blocks:
            block.compile(dynamic=True)

    def project_text(
        self, hidden_states: Tensor | None, penultimate: Tensor | None = None
    ) -> ProjectedText:
        """Project text to the blocks' width; the result depends on neither time nor audio.

        Args:
            hidden_states: (B, D, N, text_dim); fusions O, OL and S read it.
            penultimate: (B, N, text_dim); fusions L and OL read it.

        Returns:
            The `text` argument of `decode_tokens`.

        Raises:
            InputError: States that the fusion reads are missing or have another shape.
        """
        config, fusion, fresh, persistent = self.config, FUSIONS[self.config.fusion], None, None
        if fusion.fresh:
            states = _require_states("hidden_states", hidden_states, (config.blocks,), config)
            fresh = tuple(
                project(layer)
                for project, layer in zip(self.fresh_projectors, states.unbind(1), strict=True)
            )
        if self.persistent_projector is not None:
            states = _require_states("penultimate", penultimate, (), config)
            persistent = self.persistent_projector(states)
        return ProjectedText(fresh, persistent)

    def modulations(self, t: Tensor) -> list[tuple[Tensor, ...]]:
        """Compute the adaptive shifts, scales and gates of all blocks at the given times.

        Args:
            t: Flow times in [0, 1], (S,).

        Returns:
            One tuple per block and one for the head, of tensors (S, 1, .).
        """
        # They depend on time alone, so sampling computes those of all its steps at once.
        condition = F.silu(self.time(t))[:, None]  # (S, 1, d)
        return [part.modulations(condition) for part in (*self.blocks, self.head)]

    def decode_tokens(
        self,
        audio: Tensor,
        text: ProjectedText,
        modulations: Sequence[tuple[Tensor, ...]],
        layout: TokenLayout,
    ) -> Tensor:
        """Run all blocks and the head.

        Args:
            audio: Embedded latents, (B, T', d).
            text: From `project_text`.
            modulations: From `modulations`, for B times or for one.
            layout: Layout of the tokens in these tensors.

        Returns:
            The velocity, (B, T', C).
        """
        persistent, fresh_text = text.persistent, text.fresh or (None,) * len(self.blocks)
        # Not strict: the modulations have one entry more, the head's.
        for block, fresh, modulation in zip(self.blocks, fresh_text, modulations, strict=False):
            given = (audio, persistent, fresh, modulation, layout)
            if self.recompute and torch.is_grad_enabled():
                # The reentrant kind drops gradients where no input requires one, as in LoRA tuning.
                audio, persistent = checkpoint(block, *given, use_reentrant=False)
            else:
                audio, persistent = block(*given)
        return self.head(audio, modulations[-1])

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        hidden_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        penultimate: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity at z_t for a batch of rows padded to one length; for training.

        Args:
            x: [z_t | z_s | m], (B, 2C+1, T') (paper equation 1).
            t: Flow time in [0, 1], (B,).
            hidden_states: (B, D, N, text_dim); fusions O, OL and S read it.
            text_mask: (B, N), True where a token is real.
            penultimate: (B, N, text_dim); fusions L and OL read it.

        Returns:
            v, (B, C, T').

        Raises:
            InputError: Text that the fusion reads is missing or has another shape.
        """
        if text_mask is None:
            raise InputError(
                "text_mask is missing; give (B, N) booleans, all False in a row without text."
            )
        text = self.project_text(hidden_states, penultimate)
        rotation = rotary_table(x.shape[-1], self.config.head_dim, self.config.rope_dim, x.device)
        layout = PaddedLayout(rotation, text_mask.bool(), x.shape[-1])
        v = self.decode_tokens(self.embed(x), text, self.modulations(t), layout)
        return v.transpose(1, 2)  # (B, C, T')


def _require_states(
    name: str, states: Tensor | None, layers: tuple[int, ...], config: BackboneConfig
) -> Tensor:
    """Return text states, after a check that their shape is (B, *layers, N, text_dim)."""
    expected = f"(B, {''.join(f'{n}, ' for n in layers)}N, {config.text_dim})"
    if states is None:
        raise InputError(f"{name} is missing; fusion {config.fusion} reads {expected} of it.")
    if (
        states.ndim != 3 + len(layers)
        or states.shape[1:-2] != layers
        or states.shape[-1] != config.text_dim
    ):
        raise InputError(
            f"{name} has shape {tuple(states.shape)}; fusion {config.fusion} reads {expected}."
        )
    return states
