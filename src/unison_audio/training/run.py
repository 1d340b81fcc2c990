"""The assembly of every training run: data, model, trainer, loop, checkpoint.

Each training command fills a `RunConfig`, and `run` does the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unison_audio import checkpoint
from unison_audio.checkpoint_files import OpenCheckpoint, open_checkpoint
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import AudioCodec, save_nano_codec
from unison_audio.data.records import Clip
from unison_audio.data.stream import StreamConfig
from unison_audio.data.stream_pools import StreamPools
from unison_audio.errors import InputError
from unison_audio.loading import LoadOptions, VariantModels, open_models
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.text.states import TextEncoder
from unison_audio.training.adapters import add_adapters, merge_adapters
from unison_audio.training.batches import BatchStream, CorpusInMemory, PoolSource
from unison_audio.training.checkpoints import full_disk_as_input_error
from unison_audio.training.clip_list import OwnClipStream, Pair
from unison_audio.training.loop import train_backbone
from unison_audio.training.objective import FlowMatching, Objective
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe
from unison_audio.training.run_settings import own_run
from unison_audio.training.trainer import BackboneTrainer
from unison_audio.training.validation import Validation
from unison_audio.variants import Variant

PAIR_SHARE = 0.3
"""Shortest utterance of a zero-shot pair, as a share of the longest clip: 3 s of the paper's 10."""


@dataclass(frozen=True, kw_only=True)
class ModelInit:
    """What is trained, and the frozen models around it."""

    variant: Variant
    """The variant, as the result's `config.json` stores it."""
    codec: AudioCodec
    """Its codec."""
    text_encoder: TextEncoder
    """Its text encoder."""
    start: Callable[[], UnisonBackbone] | None = None
    """Loads the weights that the run starts from; None for random ones. It is a function so that
    weights read from a file do not stay in memory beside the copy that is trained."""
    lora_rank: int | None = None
    """Rank of LoRA adapters, which alone are trained then; None trains all weights."""

    def __post_init__(self) -> None:
        """Refuse a codec whose latents the backbone does not take.

        Raises:
            InputError: The numbers of channels or the sample rates differ.
        """
        require_fitting(self.codec, self.variant)


def require_fitting(codec: AudioCodec, variant: Variant) -> None:
    """Check that a backbone takes a codec's latents.

    Raises:
        InputError: The numbers of channels or the sample rates differ.
    """
    takes = (variant.backbone.latent_channels, variant.sample_rate)
    if (codec.channels, codec.sample_rate) != takes:
        raise InputError(
            f"The codec has {codec.channels} channels at {codec.sample_rate} Hz, and the backbone "
            f"of {variant.name} takes {takes[0]} at {takes[1]} Hz; give the codec that it goes "
            "with."
        )


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What a run is trained on: clips in memory, or corpora that are streamed."""

    clips: Sequence[Clip] = ()
    """Clips in memory."""
    label_weights: Mapping[str, float] | None = None
    """Relative frequency of each sound label of the clips; None for equal frequencies."""
    pairs: Sequence[Pair] = ()
    """Instructions with their results, from a user's list."""
    corpora: Sequence[str | Path] = ()
    """Folders or URLs of prepared corpora to stream, in place of clips."""
    held_out: Sequence[str | Path] = ()
    """Prepared corpora whose held-out loss is logged."""
    workers: int = 0
    """Processes that make batches ahead or, with corpora to stream, that decode."""


@dataclass(frozen=True, kw_only=True)
class RunOutput:
    """Where a run goes.

    Raises:
        InputError: If weights cannot be stored in the type.
    """

    folder: Path
    """The run's folder: checkpoints, log, samples, and the result in `weights`."""
    dtype: str = "float32"
    """Type of the stored weights: float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        """Refuses an unknown type now, not after days of training."""
        checkpoint.disk_type(self.dtype)

    @property
    def weights(self) -> Path:
        """Folder of the resulting checkpoint."""
        return self.folder / "weights"


def _one_process() -> Parallel:
    return Parallel(cpu=True)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run."""

    model: ModelInit
    """What is trained."""
    data: RunData
    """What it is trained on."""
    recipe: BackboneRecipe
    """How it is trained."""
    output: RunOutput
    """Where the run goes."""
    parallel: Parallel = field(default_factory=_one_process)
    """The processes of the run."""
    objective: Objective = field(default_factory=FlowMatching)
    """The loss."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the user chose, see `run_settings.own_run`; a resumed run must have the same."""


def open_for_training(
    name_or_path: str, parallel: Parallel
) -> tuple[OpenCheckpoint, VariantModels]:
    """Open what a run starts from: its folder, and its models on the device of this process.

    Args:
        name_or_path: A variant's name, a checkpoint's folder, or `owner/name` on the hub.
        parallel: The processes of the run.

    Raises:
        InputError: There is no such checkpoint, or its weights are int8, which have no gradients.
    """
    opened = open_checkpoint(name_or_path)
    checkpoint.require_unquantized(opened.variant, str(opened.folder))
    return opened, open_models(opened, LoadOptions(device=parallel.device, low_memory=False))


def run(config: RunConfig) -> UnisonBackbone:
    """Trains, or resumes the run in the output folder; the result is a checkpoint.

    Args:
        config: The run.

    Returns:
        The backbone with averaged weights, as in `config.output.weights`.

    Raises:
        InputError: If something cannot be used.
        StoppedError: If the run was asked to stop, after it saved.
    """
    if not config.parallel.main:  # the first process holds the folder for all
        return _run(config)
    with own_run(config.output.folder, config.settings, config.recipe.steps):
        return _run(config)


def _run(config: RunConfig) -> UnisonBackbone:
    parallel, model, data = config.parallel, config.model, config.data

    # 1. Open the data. Workers of a stream of corpora decode; those of clips in memory make whole
    #    batches. Streamed batches stay in this process, which holds the decoded clips.
    source = _open_source(config)
    try:
        stream = make_stream(config, source)
        workers = 0 if isinstance(source, StreamPools) else data.workers

        # 2. Make the model and its optimizer. A resumed run loads its checkpoint over these.
        trainer = BackboneTrainer(
            stream, parallel, lambda: _make_backbone(config), config.objective
        )
        if model.start is not None:
            trainer.start_from(model.start())

        # 3. Encode the held-out batches once.
        validation = _make_validation(config, stream)

        # 4. Train to the last step.
        backbone = train_backbone(trainer, config.output.folder, workers, validation)
    finally:
        source.close()

    # 5. Save an ordinary checkpoint: adapters are merged into the weights.
    if model.lora_rank is not None:
        merge_adapters(backbone)
    if parallel.main:
        _save_weights(config, backbone)
    parallel.wait()
    return backbone


def _open_source(config: RunConfig) -> PoolSource:
    """The source of the training clips."""
    data = config.data
    if not data.corpora:
        rate = config.model.variant.sample_rate
        return CorpusInMemory(data.clips, rate, data.label_weights)
    return _open_corpora(config, data.corpora, "train")


def _open_corpora(config: RunConfig, corpora: Sequence[str | Path], split: str) -> StreamPools:
    """A stream of prepared corpora; the held-out one is whole on every process."""
    longest = config.model.variant.sample_seconds or max(
        max(lengths) for lengths in config.recipe.phases[-1].seconds.values()
    )
    parallel, training = config.parallel, split == "train"
    stream = StreamConfig(
        sample_rate=config.model.variant.sample_rate,
        max_seconds=longest,
        split=split,
        rank=parallel.rank if training else 0,
        world=parallel.world if training else 1,
        workers=config.data.workers if training else 0,
        seed=config.recipe.seed if training else 0,
    )
    return StreamPools(corpora, stream, pair_seconds=PAIR_SHARE * longest)


def make_stream(config: RunConfig, source: PoolSource) -> BatchStream:
    """The batches of this process."""
    model, parallel = config.model, config.parallel
    shared = {"device": parallel.device, "rank": parallel.rank, "world": parallel.world}
    text_encoder = parallel.share(model.text_encoder)
    if config.data.pairs:
        return OwnClipStream(
            config.data.pairs,
            model.variant,
            config.recipe,
            source,
            model.codec,
            text_encoder,
            **shared,
        )
    return BatchStream(model.variant, config.recipe, source, model.codec, text_encoder, **shared)


def _make_backbone(config: RunConfig) -> UnisonBackbone:
    """A fresh backbone, with fresh adapters if they are what is trained."""
    backbone = UnisonBackbone(config.model.variant.backbone)
    if config.model.lora_rank is not None:
        # The backbone above drew random numbers; a seed here makes the adapters independent of
        # its size and of what else was drawn.
        torch.manual_seed(config.recipe.seed)
        add_adapters(backbone, config.model.lora_rank)
    return backbone


def _make_validation(config: RunConfig, stream: BatchStream) -> Validation | None:
    if not config.data.held_out:
        return None
    source = _open_corpora(config, config.data.held_out, "heldout")
    try:
        return Validation(stream, source)
    finally:
        source.close()  # its batches are made


def _save_weights(config: RunConfig, backbone: UnisonBackbone) -> None:
    """Writes the checkpoint, with the codec if it is nano's, which has no files of its own."""
    output, model = config.output, config.model
    with full_disk_as_input_error(output.folder):
        checkpoint.save(
            output.weights, model.variant, backbone, dtype=checkpoint.disk_type(output.dtype)
        )
        if isinstance(model.codec, NanoCodec):
            save_nano_codec(output.weights, model.codec)
