"""How nano and its codec are trained."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from unison_audio import checkpoint
from unison_audio.codecs.table import load_nano_codec, save_nano_codec
from unison_audio.data.records import Clip
from unison_audio.data.whole_corpus import read_corpus
from unison_audio.device import preferred_dtype
from unison_audio.domain import Domain, extend_domain
from unison_audio.errors import InputError
from unison_audio.nano.codec_training import CodecRecipe, train_codec
from unison_audio.nano.vocabulary import LETTERS_PER_SECOND, MAX_LETTERS_PER_SECOND
from unison_audio.text.cache import CachingTextEncoder
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.training.batches import CorpusInMemory, ExampleStream
from unison_audio.training.checkpoints import full_disk_told
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import _STAGE1, BackboneRecipe, Phase
from unison_audio.training.trainer import BackboneTrainer, train_backbone
from unison_audio.variants import find_variant

NANO_CODEC = CodecRecipe()
"""The nano codec: encoder and decoder, then the decoder alone."""


def _mostly(share: float, own: Mapping[str, float], rest: Mapping[str, float]) -> dict[str, float]:
    """Blends a warm-up's own probabilities with those of a stage."""
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

# Words, most of all behind a reference, and edits take longest to learn, so that they come oftener
# than in the paper's Table 12.
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
        # Words one by one in short clips first: alignment is learnt where it is easiest.
        Phase(
            until_step=800,
            probabilities={"tts": 0.75, "t2a": 0.25},
            seconds={"": (1.28,)},
            max_words=2,
            t_mean=0.5,
        ),
        Phase(
            until_step=5000,
            probabilities=_mostly(0.6, {"tts": 1.0}, _STAGE1),
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
    floor_dbfs=(-85.0, -55.0),
    speed=(0.87, 1.15),
)
"""Nano: a length curriculum, then every task; on a laptop's CPU."""


def train_nano_codec(
    corpus: Path, run: Path, *, init: Path | None = None, recipe: CodecRecipe = NANO_CODEC
) -> Path:
    """Trains the nano codec on a corpus; the result is ``run/weights``.

    Args:
        corpus: What ``unison-audio data`` wrote; it is read into memory.
        run: Folder of the run; one that was cut off is gone on with.
        init: Folder of a codec that the run begins with, and near whose latents it stays.
        recipe: How to train.
    """
    start = None if init is None else load_nano_codec(init)
    if start is not None and start.config != recipe.model:
        raise InputError(
            f"The codec in {init} has the shape {start.config}, the recipe's is {recipe.model}; "
            "begin with a codec of the recipe's shape."
        )
    clips = read_corpus(corpus, recipe.model.sample_rate, split="train")
    with full_disk_told(run):
        train_codec(clips, run, recipe, start)
    return run / "weights"


def train_nano(
    corpus: Path,
    run: Path,
    *,
    codec: Path,
    init: Path | None = None,
    recipe: BackboneRecipe = NANO,
    workers: int = 1,
    mixed_precision: str | None = None,
    dtype: str = "float16",
) -> Path:
    """Trains the nano backbone on a corpus; the result, codec included, is ``run/weights``.

    Args:
        corpus: What ``unison-audio data`` wrote; it is read into memory.
        run: Folder of the run; one that was cut off is gone on with.
        codec: Folder of the codec's weights.
        init: Folder of a checkpoint whose weights a fresh run starts from.
        recipe: How to train.
        workers: Processes that make batches ahead.
        mixed_precision: "bf16" or "no"; None for bf16 where the processor multiplies it well.
        dtype: Type of the stored weights.
    """
    if dtype not in ("float16", "float32"):
        raise InputError(f"The weights' type is {dtype!r}; choose float16 or float32")
    variant = find_variant("nano")
    nano_codec = load_nano_codec(codec)
    text_encoder = CachingTextEncoder(
        TEXT_ENCODERS[variant.text_encoder](TextSetup(picks=variant.layer_picks))
    )
    clips = read_corpus(corpus, variant.sample_rate, split="train")
    source = CorpusInMemory(clips, variant.sample_rate)
    stream = ExampleStream(variant, recipe, source, nano_codec, text_encoder)
    if mixed_precision is None:
        mixed_precision = "bf16" if preferred_dtype("cpu") == torch.bfloat16 else "no"
    trainer = BackboneTrainer(stream, Parallel(cpu=True, mixed_precision=mixed_precision))
    if init is not None:
        trainer.start_from(checkpoint.load(init)[1])
    backbone = train_backbone(trainer, run, workers)
    variant = dataclasses.replace(variant, domain=_domain(clips))
    checkpoint.save(run / "weights", variant, backbone, dtype=getattr(torch, dtype))
    save_nano_codec(run / "weights", nano_codec)
    return run / "weights"


def _domain(clips: Sequence[Clip]) -> Domain | None:
    """The domain of weights that were trained on some clips."""
    empty = Domain(
        words=(),
        sounds=(),
        max_words=1,
        letters_per_second=LETTERS_PER_SECOND,
        max_letters_per_second=MAX_LETTERS_PER_SECOND,
    )
    return extend_domain(empty, [clip.record for clip in clips])
