"""Gate A: does a small UNISON learn open-vocabulary speech from spelled transcripts?

python benchmarks/spelled_speech.py data --root gate
python benchmarks/spelled_speech.py train --root gate --mode spelled --steps 12000
python benchmarks/spelled_speech.py evaluate --root gate --mode spelled
python benchmarks/spelled_speech.py table --root gate --figure gate-a.png

The frozen text encoder reads the transcript spelled ("t h e | r e d | d o g") or, for comparison,
as word pieces. Two of flite's voices speak; word errors are of sentences with words never trained.
Rerun a command to resume it: the result of training is bit-identical.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from spelled_data import LAYERS, SpeechParts, build
from spelled_evaluation import SETS, evaluate, write_table
from spelled_texts import TRANSCRIPTS, write_texts

from unison_audio import checkpoint
from unison_audio.codecs.table import AudioCodec
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.pipeline import Unison
from unison_audio.tasks.conditioning import condition
from unison_audio.tasks.table import TASKS
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup, TextStates
from unison_audio.training.batches import BatchStream, CorpusInMemory, EncodedBatch
from unison_audio.training.checkpoints import step_generator
from unison_audio.training.loop import train_backbone
from unison_audio.training.objective import velocity_error
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import BackboneRecipe, Phase
from unison_audio.training.trainer import BackboneTrainer
from unison_audio.variants import Variant

HELD_OUT = {"unseen_words": 1, "unseen_sentences": 1}
"""Held-out parts."""
PARTS = {**HELD_OUT, "words": 16, "sentences": 23, "sequences": 16}
"""All parts, in the order in which they are made."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of the curriculum."""

    until_step: int | None
    """First step that is no longer part of it; None for the last."""
    parts: dict[str, int]
    """Kind of texts -> how many parts of it."""
    longest: int
    """Longest clip in latent frames."""


STAGES = (
    Stage(until_step=1500, parts={"words": 16}, longest=28),
    Stage(until_step=4000, parts={"words": 8, "sentences": 12, "sequences": 8}, longest=40),
    Stage(until_step=12_000, parts={"words": 4, "sentences": 12, "sequences": 8}, longest=80),
    Stage(until_step=None, parts={"words": 4, "sentences": 23, "sequences": 16}, longest=80),
)
"""Short texts first: alignment is learnt where it is easiest."""


def make_recipe(steps: int, cooldown: int) -> BackboneRecipe:
    """Nano's recipe for speech alone, at a constant rate up to the cooldown."""
    return BackboneRecipe(
        phases=(Phase(until_step=None, probabilities={"tts": 1.0}, t_mean=0.6),),
        frames_per_batch=960,
        steps=steps,
        peak_lr=1e-3,
        warmup=200,
        cooldown=cooldown,
        checkpoint_every=500,
        validate_every=250,
        sample_every=500,
    )


class StoredSpeech(BatchStream):
    """Batches out of stored latents and text states, stage by stage.

    Args:
        variant: What is trained.
        recipe: How.
        codec: The variant's codec, for its shape alone.
        folder: Where the parts are.
        mode: Key of `TRANSCRIPTS`.
        stages: The curriculum.
    """

    def __init__(
        self,
        variant: Variant,
        recipe: BackboneRecipe,
        codec: AudioCodec,
        folder: Path,
        mode: str,
        stages: Sequence[Stage] = STAGES,
    ) -> None:
        # Clips and instructions are encoded already: there is nothing to draw from or to encode.
        source = CorpusInMemory((), codec.sample_rate)
        super().__init__(variant, recipe, source=source, codec=codec, text_encoder=None)
        self.folder, self.mode, self.stages = folder, mode, stages
        self.loaded: dict[int, SpeechParts] = {}

    def parts(self, number: int) -> SpeechParts:
        """The utterances of a stage; one stage is open at a time."""
        if number not in self.loaded:
            picks = self.variant.layer_picks
            parts = SpeechParts(self.folder, self.mode, self.stages[number].parts, picks)
            self.loaded = {number: parts}
        return self.loaded[number]

    def make(self, step: int, number: int, task: str) -> EncodedBatch:
        """As in `BatchStream`: drawn from a generator of the step's own."""
        ends = [stage.until_step for stage in self.stages]
        stage = next(i for i, end in enumerate(ends) if end is None or step < end)
        parts, longest = self.parts(stage), self.stages[stage].longest
        generator = step_generator(self.recipe.seed, step)
        length, which = parts.draw(longest, self.recipe.frames_per_batch, generator)
        return self.batch(parts, which, length)

    def batch(self, parts: SpeechParts, which: Sequence[int], length: int) -> EncodedBatch:
        """A batch of some utterances at one length in frames."""
        return EncodedBatch(
            z=parts.latents(which, length),
            condition=condition(self.codec, TASKS["tts"], length, len(which)),
            text=parts.text(which),
            task="tts",
            sampler_state=self.sampler.state_dict(),
        )


class HeldOutLoss:
    """Held-out batches whose loss is logged, also with another utterance's text.

    How much the loss grows with the wrong text says how much the model reads the text.

    Args:
        stream: The run's batches.
        parts: Kind of texts -> how many parts.
        batches: Of each kind.
    """

    def __init__(self, stream: StoredSpeech, parts: dict[str, int], batches: int = 3) -> None:
        self.stream, self.batches = stream, {}
        longest = stream.stages[-1].longest
        for kind, count in parts.items():
            held_out = SpeechParts(
                stream.folder, stream.mode, {kind: count}, stream.variant.layer_picks
            )
            self.batches[kind] = []
            for number in range(batches):
                generator = step_generator(stream.recipe.seed + 4, number)
                length, which = held_out.draw(longest, stream.recipe.frames_per_batch, generator)
                self.batches[kind].append(stream.batch(held_out, which, length))

    @torch.no_grad()
    def losses(self, backbone: UnisonBackbone) -> dict[str, float]:
        """Mean loss by kind, with the right text and with another."""
        found = {}
        for kind, batches in self.batches.items():
            right = list(self._losses(backbone, batches, 0))
            wrong = list(self._losses(backbone, batches, 1))
            found[kind] = sum(right) / len(right)
            found[f"{kind}, other text"] = sum(wrong) / len(wrong)
        return found

    def _losses(
        self, backbone: UnisonBackbone, batches: Sequence[EncodedBatch], shift: int
    ) -> Iterator[float]:
        """Losses where each utterance has the text of its neighbour `shift` rows away."""
        for number, batch in enumerate(batches):
            text = TextStates(
                hidden_states=batch.text.hidden_states.roll(shift, 0),
                mask=batch.text.mask.roll(shift, 0),
            )
            given = EncodedBatch(**{**vars(batch), "text": text})
            generator = step_generator(self.stream.recipe.seed + 3, number)
            yield float(velocity_error(backbone, given, generator, 0.0, 0.6))


class SpeechTrainer(BackboneTrainer):
    """A trainer that keeps averaged weights in place of samples: the evaluation makes those."""

    def write_samples(self, folder: Path, step: int) -> None:
        """Writes the averaged weights as a checkpoint in float16."""
        target = folder / f"{step:08d}"
        checkpoint.save(target, self.stream.variant, self.averaged(), dtype=torch.float16)


def train(
    stream: StoredSpeech, run: Path, start: UnisonBackbone | None, precision: str = "bf16"
) -> UnisonBackbone:
    """Trains, or resumes the run in the folder.

    Args:
        stream: The batches.
        run: The run's folder.
        start: Weights that a new run starts from; fresh ones if None.
        precision: "bf16" or "no": type of the products.
    """
    torch.set_num_threads(1)
    trainer = SpeechTrainer(stream, Parallel(cpu=True, mixed_precision=precision))
    if start is not None:
        trainer.start_from(start)
    return train_backbone(trainer, run, validation=HeldOutLoss(stream, HELD_OUT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("data", "train", "evaluate", "table"))
    parser.add_argument("--root", type=Path, required=True, help="folder of data, runs and scores")
    parser.add_argument("--mode", choices=tuple(TRANSCRIPTS), default="spelled")
    parser.add_argument("--kinds", nargs="*", default=tuple(PARTS), help="data: which kinds")
    parser.add_argument("--most", type=int, default=100, help="data: most parts of a kind")
    parser.add_argument("--run", help="train: name, MODE or MODE-SUFFIX; the mode if left out")
    parser.add_argument("--steps", type=int, default=20_000, help="train: in all")
    parser.add_argument("--cooldown", type=int, default=2_000, help="train: of falling rate")
    parser.add_argument("--init", choices=("nano", "fresh"), default="nano")
    parser.add_argument("--system", help="evaluate: recordings, codec or a run; --mode if left out")
    parser.add_argument("--step", type=int, help="evaluate: weights of this step, not the newest")
    parser.add_argument("--items", type=int, default=200, help="evaluate: of each held-out set")
    parser.add_argument("--sets", nargs="*", default=SETS, help="evaluate: which held-out sets")
    parser.add_argument("--figure", type=Path, help="table: where to draw the loss curves")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data, runs = arguments.root / "data", arguments.root / "runs"
    if arguments.command == "table":
        write_table(arguments.root, arguments.figure)
        return
    unison = Unison.from_pretrained("nano")
    if arguments.command == "data":
        encoder = MiniLmEncoder(TextSetup(picks=LAYERS))
        parts = {k: min(n, arguments.most) for k, n in PARTS.items() if k in arguments.kinds}
        texts = write_texts(data / "texts.json")
        build(data, texts, unison.codec, encoder, parts=parts, modes=tuple(TRANSCRIPTS))
    elif arguments.command == "train":
        recipe = make_recipe(arguments.steps, arguments.cooldown)
        stream = StoredSpeech(unison.variant, recipe, unison.codec, data, arguments.mode)
        start = unison.backbone if arguments.init == "nano" else None
        train(stream, runs / (arguments.run or arguments.mode), start)
    else:
        system = arguments.system or arguments.mode
        evaluate(arguments.root, system, arguments.step, arguments.items, arguments.sets)


if __name__ == "__main__":
    main()
