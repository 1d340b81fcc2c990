"""How nano and its codec are trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from unison_audio import checkpoint
from unison_audio.checkpoint_files import content_hash
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.device import preferred_dtype
from unison_audio.domain import Domain, extend_domain
from unison_audio.errors import InputError
from unison_audio.nano.codec_training import CodecRecipe, train_codec
from unison_audio.nano.vocabulary import LETTERS_PER_SECOND, MAX_LETTERS_PER_SECOND
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.training.checkpoints import full_disk_as_input_error
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import STAGE1, BackboneRecipe, Phase
from unison_audio.training.run import ModelInit, RunConfig, RunData, RunOutput, run
from unison_audio.training.run_settings import corpus_hash, own_run
from unison_audio.variants import Variant, find_variant

NANO_CODEC = CodecRecipe()
"""Recipe of the nano codec: encoder and decoder, then the decoder alone."""


def _mostly(share: float, own: Mapping[str, float], rest: Mapping[str, float]) -> dict[str, float]:
    """Mixes a phase's own probabilities with those of a stage."""
    blended = {name: (1 - share) * p for name, p in rest.items()}
    for name, p in own.items():
        blended[name] = blended.get(name, 0.0) + share * p
    return blended


_NANO_SECONDS = {
    "": (2.56, 2.56, 3.84),
    "tts": (1.92, 2.56, 2.56),
    "zero_shot_tts": (1.92, 2.56, 3.84, 3.84),
    "timed": (3.84, 3.84, 5.12),
}

# Words, above all after a reference, and edits take longest to learn. They get larger shares than
# in the paper's Table 12.
_NANO_TASKS = {
    "tts": 0.2,
    "zero_shot_tts": 0.24,
    "t2a": 0.05,
    "t2a_mix": 0.03,
    "t2as": 0.07,
    "timed": 0.07,
    "edit_add": 0.04,
    "edit_remove": 0.07,
    "edit_replace": 0.04,
    "speech_insert": 0.06,
    "speech_delete": 0.02,
    "speech_rewrite": 0.045,
    "denoise": 0.015,
    "audio_to_speech": 0.025,
    "speech_to_audio": 0.025,
}

NANO = BackboneRecipe(
    phases=(
        # Single words in short clips first: the alignment of text and sound is easiest there.
        Phase(
            until_step=800,
            probabilities={"tts": 0.75, "t2a": 0.25},
            seconds={"": (1.28,)},
            max_words=2,
            t_mean=0.5,
        ),
        Phase(
            until_step=5000,
            probabilities=_mostly(0.6, {"tts": 1.0}, STAGE1),
            seconds=_NANO_SECONDS,
            t_mean=0.3,
        ),
        Phase(
            until_step=None,
            probabilities=_NANO_TASKS,
            seconds=_NANO_SECONDS,
            t_mean=0.6,
            t_mean_edits=0.8,
        ),
    ),
    frames_per_batch=960,
    steps=65_000,
    peak_lr=1e-3,
    warmup=300,
    cooldown=50_000,
    ema_decay=0.98,
    first_template_probability=0.7,
    noise_floor_dbfs=(-85.0, -55.0),
    # Weights that never heard speech under an edit of sounds delete it: 14 of 15 trials.
    edit_speech_probability=0.35,
    absent_target_probability=0.1,
    speed=(0.87, 1.15),
)
"""Recipe of nano: first short clips of speech, then every task; made for a laptop's CPU."""


def train_nano_codec(
    corpus: Path, folder: Path, *, init: Path | None = None, recipe: CodecRecipe = NANO_CODEC
) -> Path:
    """Trains the nano codec, or resumes the run.

    Args:
        corpus: A prepared corpus; its clips are kept in memory.
        folder: The run's folder.
        init: Folder of a codec that the run starts from. The latents stay near those of it.
        recipe: How to train.

    Returns:
        Folder of the resulting codec.

    Raises:
        InputError: If something cannot be used.
    """
    start = None if init is None else load_nano_codec(init)
    if start is not None and start.config != recipe.model:
        raise InputError(
            f"The codec in {init} has the shape {start.config}, the recipe's is {recipe.model}; "
            "start from a codec of the recipe's shape."
        )
    clips = read_corpus(corpus, recipe.model.sample_rate, split="train")
    settings = {
        "corpus": corpus_hash(corpus),
        "init": None if init is None else content_hash(init),
    }
    with own_run(folder, settings, recipe.steps), full_disk_as_input_error(folder):
        train_codec(clips, folder, recipe, start)
    return folder / "weights"


def train_nano(
    corpus: Path,
    output: RunOutput,
    *,
    codec: Path,
    init: Path | None = None,
    recipe: BackboneRecipe = NANO,
    workers: int = 1,
    mixed_precision: str | None = None,
) -> Path:
    """Trains the nano backbone, or resumes the run.

    Args:
        corpus: A prepared corpus; its clips are kept in memory.
        output: Where the run goes.
        codec: Folder of the codec; the result holds a copy of it.
        init: Folder of a checkpoint whose weights a fresh run starts from.
        recipe: How to train.
        workers: Processes that make batches ahead.
        mixed_precision: "bf16" or "no"; None chooses bf16 if the processor has instructions for
            it.

    Returns:
        Folder of the resulting checkpoint.

    Raises:
        InputError: If something cannot be used.
    """
    variant = find_variant("nano")
    if mixed_precision is None:
        # Without such instructions bfloat16 is emulated and slower than float32.
        mixed_precision = "bf16" if preferred_dtype("cpu") == torch.bfloat16 else "no"
    clips = read_corpus(corpus, variant.sample_rate, split="train")
    variant = dataclasses.replace(variant, domain=domain_of(variant, clips))
    config = RunConfig(
        model=ModelInit(
            variant=variant,
            codec=load_nano_codec(codec),
            text_encoder=TEXT_ENCODERS[variant.text_encoder](
                TextSetup(picks=variant.read_layers, letters=variant.letters)
            ),
            start=None if init is None else lambda: checkpoint.load(init)[1],
        ),
        data=RunData(clips=clips, workers=workers),
        recipe=recipe,
        output=output,
        parallel=Parallel(cpu=True, mixed_precision=mixed_precision),
        settings={
            "corpus": corpus_hash(corpus),
            "codec": content_hash(codec),
            "init": None if init is None else content_hash(init),
        },
    )
    run(config)
    return output.weights


def domain_of(variant: Variant, clips: Sequence[Clip]) -> Domain | None:
    """The domain of weights that were trained on some clips.

    Args:
        variant: How the weights read words.
        clips: The clips of the training.
    """
    empty = Domain(
        words=(),
        sounds=(),
        max_words=1,
        letters_per_second=LETTERS_PER_SECOND,
        max_letters_per_second=MAX_LETTERS_PER_SECOND,
        spells=variant.letters,
    )
    return extend_domain(empty, [clip.record for clip in clips])
