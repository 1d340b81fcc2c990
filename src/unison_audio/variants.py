"""The variant table: the one place where backbone, codec and text encoder meet."""

from dataclasses import dataclass

from unison_audio.errors import InputError
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.solvers import SOLVERS

EDIT_TAG_SPELLINGS = ("[Edit][Audio]", "[Edit] [Audio]")


def layer_picks(layers: int, blocks: int) -> tuple[int, ...]:
    """Choose the text encoder's layer that each block reads (paper section 3.4).

    Block k of D reads layer `floor(1 + k (L - 1) / (D - 1))`. Layers count from 1; transformers
    gives layer l as `hidden_states[l]`, index 0 being the embedding.

    Args:
        layers: layers of the text encoder, L.
        blocks: blocks of the backbone, D.

    Returns:
        D layers, 1-based.

    Raises:
        InputError: if there is no layer or no block.
    """
    if layers < 1 or blocks < 1:
        raise InputError(f"{blocks} blocks cannot read {layers} layers; both must be at least 1.")
    return tuple(1 + k * (layers - 1) // max(blocks - 1, 1) for k in range(blocks))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A backbone with the codec and the text encoder that it was or is to be trained with."""

    name: str
    """What the variant is called on the command line."""
    backbone: BackboneConfig
    """Sizes of the trained part."""
    codec: str
    """Which audio codec: its name in `unison_audio.codecs.table`."""
    text_encoder: str
    """Which text encoder: its name in `unison_audio.text.states`."""
    text_layers: int
    """Layers of the text encoder, L."""
    sample_rate: int
    """Samples of sound per second."""
    hop: int
    """Samples per latent frame."""
    max_seconds: float
    """The longest sound the variant is made for."""
    default_seconds: float = 10.0
    """How long a sound becomes when no duration is asked for."""
    zero_shot_seconds: float = 10.0
    """How long the new speech after a reference becomes when no duration is asked for."""
    steps: int = 100
    """Steps of sampling when none are asked for."""
    solver: str = "euler"
    """Solver of these steps: a name in `unison_audio.model.sampling`."""
    speech_temperature: float = 1.0
    """Deviation of the noise that speech without other sounds is sampled from: with less than
    training's 1 it is likelier and less varied."""
    speech_candidates: int = 1
    """Times that such speech is drawn; what the model finds to fit best is kept
    (`unison_audio.model.ranking`). The fast preset draws once, as the paper does."""
    fast_steps: int = 25
    """Steps of the fast preset."""
    fast_solver: str = "unipc"
    """Solver of the fast preset."""
    guidance_scale: float = 4.5
    """Guidance when none is asked for."""
    edit_guidance_scale: float = 4.5
    """Likewise in edits that add something; less of it leaves more of the source alone."""
    removal_guidance_scale: float = 4.5
    """Likewise in edits that only take something away."""
    removal_steps: int = 100
    """Steps of those: with few of them, what is left alone varies less from noise to noise."""
    keep_source: bool = False
    """Whether edits, but those that put in words, are done to the recording itself
    (`unison_audio.keeping`); the paper gives out what the codec decodes."""
    hold_reference: bool = False
    """Whether a zero-shot reference's frames are led to what they are known to be while the new
    ones are sampled, as in training, where they are always right. The loss leaves them out
    (M_loss), so that the velocity there is anything; the release follows it all the same."""
    edit_tag_spelling: str = "[Edit][Audio]"
    """How the weights saw the tags of edits in training: `[Edit][Audio]` or `[Edit] [Audio]`."""
    system_prompt: str = ""
    """System prompt around every instruction, for text encoders that take one."""
    text_window: int = 0
    """Tokens that the backbone reads, counted from the end of the whole prompt, so that the end of
    the system turn is among them. 0 reads the user's turn alone. The released weights saw 126."""
    sample_seconds: float = 0.0
    """The one length that the weights know, in seconds: everything is sampled at it and cropped,
    and sources are padded with zeros to it. 0 samples each sound at its own length."""
    source_rms: float = 0.0
    """RMS that sources of every task are brought to, without a limit on their peak. 0 takes each
    task's own level, with the peak limited."""
    dither: float = 0.0
    """Samples of a source below this are replaced by noise of this deviation; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse values that no variant can have."""
        sizes = ("text_layers", "sample_rate", "hop", "max_seconds")
        work = ("steps", "fast_steps", "removal_steps", "speech_candidates")
        for name in (*sizes, *work, "default_seconds", "zero_shot_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("default_seconds", "zero_shot_seconds"):
            if getattr(self, name) > self.max_seconds:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must not exceed max_seconds, "
                    f"{self.max_seconds}."
                )
        for solver in (self.solver, self.fast_solver):
            if solver not in SOLVERS:
                raise InputError(f"There is no solver {solver!r}; use one of {', '.join(SOLVERS)}.")
        for name in ("sample_seconds", "source_rms", "dither"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or above.")
        if self.sample_seconds > self.max_seconds:
            raise InputError(
                f"sample_seconds is {self.sample_seconds}; it must not exceed max_seconds, "
                f"{self.max_seconds}."
            )
        if self.text_window < 0:
            raise InputError(
                f"text_window is {self.text_window}; it must be a number of tokens, or 0 for the "
                "user's turn alone."
            )
        if self.edit_tag_spelling not in EDIT_TAG_SPELLINGS:
            raise InputError(
                f"edit_tag_spelling is {self.edit_tag_spelling!r}; "
                f"use {' or '.join(map(repr, EDIT_TAG_SPELLINGS))}."
            )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent, C."""
        return self.backbone.latent_channels

    @property
    def latent_fps(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop

    @property
    def reads_penultimate(self) -> bool:
        """Whether the fusion reads the text encoder's last layer but one."""
        return FUSIONS[self.backbone.fusion].persistent

    @property
    def read_layers(self) -> tuple[int, ...]:
        """The layer picks that the fusion reads: all, or none."""
        return self.layer_picks if FUSIONS[self.backbone.fusion].fresh else ()

    @property
    def layer_picks(self) -> tuple[int, ...]:
        """The text encoder's layer that each block reads, 1-based."""
        return layer_picks(self.text_layers, self.backbone.blocks)


def _full_size(name: str, *, rate: int, fusion: str = "O", blocks: int, llm: str = "7b") -> Variant:
    """One of the paper's models: they differ in codec, depth, fusion and language model only."""
    latent_channels, hop = {16_000: (20, 512), 44_100: (40, 1024)}[rate]
    text_dim, text_layers = {"7b": (3584, 28), "3b": (2048, 36)}[llm]
    return Variant(
        name=name,
        backbone=BackboneConfig(
            latent_channels=latent_channels, blocks=blocks, text_dim=text_dim, fusion=fusion
        ),
        codec=f"mmaudio-{rate // 1000}k",
        text_encoder=f"qwen2.5-omni-{llm}",
        text_layers=text_layers,
        sample_rate=rate,
        hop=hop,
        max_seconds=22.0,
        edit_tag_spelling="[Edit] [Audio]",
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        _full_size("d20-44k", rate=44_100, blocks=20),
        _full_size("d24-16k", rate=16_000, blocks=24),
        _full_size("d24-16k-l", rate=16_000, blocks=24, fusion="L"),
        _full_size("d24-16k-ol", rate=16_000, blocks=24, fusion="OL"),
        _full_size("s32-16k", rate=16_000, blocks=32, fusion="S"),
        _full_size("d24-16k-3b", rate=16_000, blocks=24, llm="3b"),
        Variant(
            name="nano",
            backbone=BackboneConfig(
                latent_channels=32,
                dim=256,
                heads=4,
                rope_dim=48,
                blocks=7,
                text_dim=384,
                embed_kernel=3,
            ),
            codec="nano",
            text_encoder="minilm",
            text_layers=6,
            sample_rate=16_000,
            hop=1024,
            max_seconds=5.12,
            steps=16,
            solver="unipc",
            speech_temperature=0.8,
            speech_candidates=4,
            fast_steps=12,
            guidance_scale=6.0,
            edit_guidance_scale=4.5,
            removal_guidance_scale=1.0,
            removal_steps=4,
            keep_source=True,
            hold_reference=True,
            default_seconds=2.56,
            zero_shot_seconds=2.56,
        ),
    )
}


def find_variant(name: str) -> Variant:
    """Look a variant up by name.

    Args:
        name: a key of `VARIANTS`.

    Returns:
        The variant.

    Raises:
        InputError: if there is none of that name; the message lists those there are.
    """
    if name not in VARIANTS:
        raise InputError(f"There is no variant {name!r}; use one of {', '.join(VARIANTS)}.")
    return VARIANTS[name]
