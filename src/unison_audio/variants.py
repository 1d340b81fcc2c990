"""The variant table, which combines a backbone, a codec and a text encoder."""

import re
from dataclasses import dataclass

from unison_audio.domain import Domain
from unison_audio.errors import InputError
from unison_audio.model.config import FUSIONS, BackboneConfig
from unison_audio.model.solvers import SOLVERS
from unison_audio.tasks.templates import WORDINGS
from unison_audio.values import shown

MAX_STEPS, MAX_CANDIDATES = 1000, 64
"""Most sampling steps and candidates of a request."""

MOST: dict[str, int] = {
    "text_layers": 1024,
    "sample_rate": 1_000_000,
    "hop": 1 << 20,
    "max_seconds": 3600,
    "steps": MAX_STEPS,
    "fast_steps": MAX_STEPS,
    "removal_steps": MAX_STEPS,
    "speech_candidates": MAX_CANDIDATES,
    "default_seconds": 3600,
    "zero_shot_seconds": 3600,
}
"""Largest values of a variant's numbers: a damaged config must not ask for 10^12 steps."""

MOST_TOKENS = 100_000

EDIT_TAG_SPELLINGS = ("[Edit][Audio]", "[Edit] [Audio]")


def layer_picks(layers: int, blocks: int) -> tuple[int, ...]:
    """Choose the text encoder's layer that each block reads (paper section 3.4).

    Block k of D reads layer `floor(1 + k (L - 1) / (D - 1))`. Layers count from 1; transformers
    gives layer l as `hidden_states[l]`, index 0 being the embedding.

    Args:
        layers: Layers of the text encoder, L.
        blocks: Blocks of the backbone, D.

    Returns:
        D layers, 1-based.

    Raises:
        InputError: If there is no layer or no block.
    """
    if layers < 1 or blocks < 1:
        raise InputError(f"{blocks} blocks cannot read {layers} layers; both must be at least 1.")
    return tuple(1 + k * (layers - 1) // max(blocks - 1, 1) for k in range(blocks))


LENGTH_MARGIN = 1.15
"""Factor on the estimated length of speech, for a slow voice."""

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, kw_only=True)
class SpeakingRate:
    """How fast a variant speaks, fitted by `benchmarks/speaking_rate.py`."""

    english: float
    """Seconds of a character of English, spaces and punctuation included."""
    chinese: float
    """Seconds of a Chinese character."""

    def seconds(self, text: str) -> float:
        """Estimate how long a text takes to say, in seconds."""
        chinese = len(_CHINESE.findall(text))
        return chinese * self.chinese + (len(text.strip()) - chinese) * self.english

    def __post_init__(self) -> None:
        """Validate the fields."""
        for name in ("english", "chinese"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 10:
                raise InputError(
                    f"The speaking rate's {name} is {value!r}; it must be seconds, from 0 to 10."
                )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A backbone with the codec and the text encoder of its training."""

    name: str
    """Name on the command line."""
    backbone: BackboneConfig
    """Sizes of the trained model."""
    codec: str
    """Audio codec, by its name in `unison_audio.codecs.table`."""
    text_encoder: str
    """Text encoder, by its name in `unison_audio.text.table`."""
    text_layers: int
    """Layers of the text encoder, L."""
    sample_rate: int
    """Samples per second."""
    hop: int
    """Samples per latent frame."""
    max_seconds: float
    """Length of the longest sound."""
    default_seconds: float = 10.0
    """Default length of a sound."""
    zero_shot_seconds: float = 10.0
    """Default length of the new speech after a reference."""
    speech_seconds: float = 0.0
    """Length of the longest speech without a reference that is sampled at once where no length is
    set; it grows with the text up to this, or up to `max_seconds`. 0 keeps to `default_seconds`."""
    steps: int = 100
    """Sampling steps of the default preset."""
    solver: str = "euler"
    """Solver of the default preset, a key of `unison_audio.model.solvers.SOLVERS`."""
    speech_temperature: float = 1.0
    """Standard deviation of the initial noise for speech alone; below training's 1, speech is
    clearer and less varied."""
    speech_candidates: int = 1
    """Candidates for speech alone, of which the one with the lowest denoising error is kept
    (`unison_audio.model.rerank`). The fast preset samples one, as the paper does."""
    fast_steps: int = 25
    """Sampling steps of the fast preset."""
    fast_solver: str = "unipc"
    """Solver of the fast preset."""
    guidance_scale: float = 4.5
    """Guidance scale of generation."""
    edit_guidance_scale: float = 4.5
    """Guidance scale of edits that add something; less preserves more of the source."""
    removal_guidance_scale: float = 4.5
    """Guidance scale of edits that only remove something."""
    removal_steps: int = 100
    """Sampling steps of edits that only remove something: with few steps, the parts that stay
    depend less on the noise."""
    keep_source: bool = False
    """Whether edits that add no words are applied to the recording itself
    (`unison_audio.preserve`); the paper returns the codec's output."""
    hold_reference: bool = False
    """Whether the frames of a zero-shot reference are set to their known values while the new
    frames are sampled, as in training. The loss excludes these frames (M_loss), so the model's
    velocity there is arbitrary; the release follows it all the same."""
    edit_tag_spelling: str = "[Edit][Audio]"
    """Spelling of an edit's tags in training: `[Edit][Audio]` or `[Edit] [Audio]`."""
    letters: bool = False
    """Whether the text encoder reads the words to be spoken letter by letter, so that a small model
    learns pronunciation from spelling; the paper's models read them as they stand."""
    wording: str = "paper"
    """Whose templates the weights were trained with: `paper`, or `release` for imported weights."""
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
    clean_text: bool = False
    """Whether numbers and abbreviations in the words to be spoken become words by default."""
    speaking_rate: SpeakingRate | None = None
    """How fast it speaks; None takes the rate of people who read aloud."""
    quantization: str = ""
    """Type of the stored weights of the blocks' linear layers: int8, or empty for floating
    point."""
    domain: Domain | None = None
    """Words, sounds and text lengths that the weights know; None claims no limit."""

    def __post_init__(self) -> None:
        """Validate the fields."""
        for name, most in MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise InputError(
                    f"{name} is {shown(getattr(self, name))}; it must be above 0 and at most "
                    f"{most:,}."
                )
        for name in ("guidance_scale", "edit_guidance_scale", "removal_guidance_scale"):
            if not 0 <= getattr(self, name) <= 100:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 0 to 100.")
        if not 0 <= self.speech_temperature <= 2:
            raise InputError(
                f"speech_temperature is {self.speech_temperature}; it must be from 0 to 2."
            )
        for name in ("default_seconds", "zero_shot_seconds"):
            if getattr(self, name) > self.max_seconds:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it must not exceed max_seconds, "
                    f"{self.max_seconds}."
                )
        for solver in (self.solver, self.fast_solver):
            if solver not in SOLVERS:
                raise InputError(f"There is no solver {solver!r}; use one of {', '.join(SOLVERS)}.")
        for name in ("speech_seconds", "sample_seconds", "source_rms", "dither"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or above.")
        if self.sample_seconds > self.max_seconds:
            raise InputError(
                f"sample_seconds is {self.sample_seconds}; it must not exceed max_seconds, "
                f"{self.max_seconds}."
            )
        if not 0 <= self.text_window <= MOST_TOKENS:
            raise InputError(
                f"text_window is {self.text_window}; it must be a number of tokens up to "
                f"{MOST_TOKENS:,}, or 0 for the user's turn alone."
            )
        if self.edit_tag_spelling not in EDIT_TAG_SPELLINGS:
            raise InputError(
                f"edit_tag_spelling is {self.edit_tag_spelling!r}; "
                f"use {' or '.join(map(repr, EDIT_TAG_SPELLINGS))}."
            )
        if self.quantization not in ("", "int8"):
            raise InputError(f"quantization is {self.quantization!r}; use 'int8' or leave it out.")
        if self.wording not in WORDINGS:
            raise InputError(f"wording is {self.wording!r}; use {' or '.join(WORDINGS)}.")

    @property
    def longest_speech(self) -> float:
        """Seconds of the longest speech without a reference where no length is given."""
        return max(self.default_seconds, min(self.speech_seconds, self.max_seconds))

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
        """Layers of the text encoder that the fusion reads: those of all blocks, or none."""
        return self.layer_picks if FUSIONS[self.backbone.fusion].fresh else ()

    @property
    def layer_picks(self) -> tuple[int, ...]:
        """Layer of the text encoder that each block reads, 1-based."""
        return layer_picks(self.text_layers, self.backbone.blocks)


def _full_size(name: str, *, rate: int, fusion: str = "O", blocks: int, llm: str = "7b") -> Variant:
    """Make one of the paper's models, which differ in codec, depth, fusion and language model."""
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
            fast_steps=12,
            guidance_scale=6.0,
            edit_guidance_scale=6.0,
            removal_guidance_scale=1.0,
            removal_steps=4,
            keep_source=True,
            hold_reference=True,
            letters=True,
            clean_text=True,
            speaking_rate=SpeakingRate(english=0.076, chinese=0.22),
            default_seconds=2.56,
            speech_seconds=3.84,
            zero_shot_seconds=2.56,
        ),
    )
}


def find_variant(name: str) -> Variant:
    """Look a variant up by name.

    Args:
        name: A key of `VARIANTS`.

    Returns:
        The variant.

    Raises:
        InputError: If the name is unknown; the message lists all names.
    """
    if name not in VARIANTS:
        raise InputError(f"There is no variant {name!r}; use one of {', '.join(VARIANTS)}.")
    return VARIANTS[name]
