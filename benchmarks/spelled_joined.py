"""Gate B, second part: all tasks and voices, joined in from the weights that speak from spelling.

python benchmarks/spelled_voices.py --root gate
python benchmarks/spelled_joined.py --root gate --corpus CORPUS --start FOLDER --steps 40000

Most of the speech without a reference comes out of the stored parts of `spelled_speech.py`; the
rest is built as nano's batches are, from nano's corpus and the voices of `spelled_voices.py`.
Rerun the command to resume it: the result is bit-identical.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from spelled_speech import STAGES, HeldOutLoss, SpeechTrainer, StoredSpeech

from unison_audio import checkpoint
from unison_audio.checkpoint_files import open_checkpoint
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.shards import read_corpus
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.nano.recipe import NANO
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup, TextStates
from unison_audio.training.batches import BatchStream, CorpusInMemory, EncodedBatch
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.loop import train_backbone
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.validation import Validation
from unison_audio.variants import Variant, find_variant

STORED_SHARE = 0.7
"""Share of the `tts` batches that come out of the stored parts."""
TASKS = {
    "tts": 0.17,
    "zero_shot_tts": 0.16,
    "t2a": 0.04,
    "t2a_mix": 0.04,
    "t2as": 0.06,
    "timed": 0.04,
    "edit_add": 0.05,
    "edit_remove": 0.08,
    "edit_replace": 0.08,
    "speech_insert": 0.08,
    "speech_delete": 0.03,
    "speech_rewrite": 0.07,
    "denoise": 0.02,
    "audio_to_speech": 0.05,
    "speech_to_audio": 0.03,
}
"""Shares of the batches."""
SECONDS = {
    "": (2.56, 2.56, 3.84),
    "tts": (1.92, 2.56, 3.84),
    "zero_shot_tts": (2.56, 3.84, 5.12),
    "timed": (3.84, 3.84, 5.12),
}
"""Lengths of clips: longer ones than nano's where sentences of any words are spoken."""


def make_recipe(steps: int, cooldown: int, rate: float) -> BackboneRecipe:
    """Nano's recipe, from its last phase on."""
    phase = Phase(
        until_step=None, probabilities=TASKS, seconds=SECONDS, t_mean=0.6, t_mean_edits=0.8
    )
    return dataclasses.replace(
        NANO,
        phases=(phase,),
        steps=steps,
        peak_lr=rate,
        cooldown=cooldown,
        checkpoint_every=500,
        validate_every=500,
        sample_every=1000,
    )


def joined_variant() -> Variant:
    """Nano that reads words in letters."""
    return dataclasses.replace(find_variant("nano"), letters=True, domain=None)


class QuickEncoder:
    """The text encoder in bfloat16, which is faster, for training alone.

    Args:
        variant: Whose layers are picked.
    """

    def __init__(self, variant: Variant) -> None:
        setup = TextSetup(picks=variant.read_layers, letters=True, dtype=torch.bfloat16)
        self.encoder = MiniLmEncoder(setup)

    def encode(self, instructions: Sequence[str]) -> TextStates:
        """As in `TextEncoder`; the states are float32."""
        return self.encoder.encode(instructions).to("cpu", torch.float32)


class JoinedStream(BatchStream):
    """Nano's batches, and stored ones for a part of `tts`.

    Args:
        stream: Nano's batches: how they are built and encoded.
        stored: The stored utterances.
    """

    def __init__(self, stream: BatchStream, stored: StoredSpeech) -> None:
        super().__init__(
            stream.variant,
            stream.recipe,
            stream.source,
            stream.codec,
            stream.text_encoder,
        )
        self.stored = stored

    def make(self, step: int, number: int, task: str) -> EncodedBatch:
        """As in `BatchStream`."""
        generator = step_generator(self.recipe.seed + 5, step)
        if task != "tts" or float(torch.rand((), generator=generator)) >= STORED_SHARE:
            return super().make(step, number, task)
        batch = self.stored.make(step, number, task)
        return dataclasses.replace(batch, sampler_state=self.sampler.state_dict())


class BothLosses:
    """The held-out losses of spelled sentences, and of nano's tasks."""

    def __init__(self, spoken: HeldOutLoss, tasks: Validation) -> None:
        self.spoken, self.tasks = spoken, tasks

    def losses(self, backbone: UnisonBackbone) -> Mapping[str, float]:
        """Both, by name."""
        return {**self.tasks.losses(backbone), **self.spoken.losses(backbone)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of data, runs and scores")
    parser.add_argument("--corpus", type=Path, required=True, help="nano's corpus")
    parser.add_argument("--start", type=Path, help="checkpoint that speaks from spelling")
    parser.add_argument("--run", default="joined", help="name of the run")
    parser.add_argument("--steps", type=int, default=60_000, help="in all")
    parser.add_argument("--cooldown", type=int, default=2_000, help="steps of falling rate")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    variant = joined_variant()
    recipe = make_recipe(arguments.steps, arguments.cooldown, arguments.rate)
    codec = load_nano_codec(open_checkpoint("nano").folder)
    encoder = QuickEncoder(variant)
    rate = variant.sample_rate
    clips = [
        clip
        for folder in (arguments.corpus, arguments.root / "corpus")
        for clip in read_corpus(folder, rate, split="train")
    ]
    held_out = CorpusInMemory(read_corpus(arguments.corpus, rate, split="heldout"), rate)
    built = BatchStream(variant, recipe, CorpusInMemory(clips, rate), codec, encoder)
    data = arguments.root / "data"
    stored = StoredSpeech(variant, recipe, codec, data, "spelled", STAGES[-1:])
    stream = JoinedStream(built, stored)
    trainer = SpeechTrainer(stream, Parallel(cpu=True, mixed_precision="bf16"))
    if arguments.start is not None:
        trainer.start_from(checkpoint.load(arguments.start)[1])
    spoken = HeldOutLoss(stored, {"unseen_words": 1, "unseen_sentences": 1})
    losses = BothLosses(spoken, Validation(built, held_out, batches=3))
    run = arguments.root / "runs" / arguments.run
    train_backbone(trainer, run, 1, losses)


if __name__ == "__main__":
    main()
