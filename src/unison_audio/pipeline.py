"""Unison: everything a user calls, from a checkpoint to sound."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from unison_audio import audio, checkpoint
from unison_audio.errors import InputError
from unison_audio.frozen import codec as codecs
from unison_audio.frozen.codec import CODECS, AudioCodec
from unison_audio.frozen.nano_codec import NanoCodec
from unison_audio.frozen.text import TEXT_ENCODERS, TextEncoder, TextSetup
from unison_audio.model import sampling
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.request import FADE_IN_SECONDS, PEAK, Request, Sound, check_sampling, prepare
from unison_audio.sound import Audio
from unison_audio.tasks.latents import Condition, condition
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.variants import VARIANTS, Variant

T = TypeVar("T")

MAX_BATCH = 16
"""Items that `generate` samples at once."""


class Unison:
    """A variant with its weights: generates and edits sound from instructions.

    Args:
        variant: What it is.
        backbone: The trained part.
        codec: The variant's codec.
        text_encoder: The variant's text encoder.
        device: Where the backbone and the codec run.
    """

    def __init__(
        self,
        variant: Variant,
        backbone: UnisonBackbone,
        codec: AudioCodec,
        text_encoder: TextEncoder,
        device: torch.device | str = "cpu",
    ) -> None:
        self.variant, self.device = variant, torch.device(device)
        self.backbone = backbone.to(self.device).eval()
        self.codec, self.text_encoder = codec, text_encoder
        if isinstance(codec, nn.Module):
            codec.to(self.device)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] = "nano", device: torch.device | str = "cpu"
    ) -> "Unison":
        """Load a checkpoint with its codec and its text encoder.

        Args:
            name_or_path: "nano" for the weights that come with the package, a folder, or
                `owner/name` of a repository on the Hugging Face hub.
            device: Where to run.

        Raises:
            InputError: If there is no such checkpoint, it is damaged, or a part that its variant
                needs is not in this release.
        """
        where = _folder(name_or_path)
        variant = checkpoint.read_config(where / checkpoint.CONFIG_FILE)
        encoder = _part(TEXT_ENCODERS, variant.text_encoder, "text encoder", variant)
        load_codec = _part(CODECS, variant.codec, "codec", variant)
        variant, backbone = checkpoint.load(where)
        codec = load_codec(where, None)
        _require_codec_of(variant, codec, where)
        return cls(variant, backbone, codec, encoder(TextSetup(picks=variant.layer_picks)), device)

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write a checkpoint that `from_pretrained` loads, nano's codec included.

        Args:
            directory: Where to; made if missing.
            dtype: Type of the backbone's weights in the file, float32 or float16. The nano codec
                is always stored as float16.

        Raises:
            InputError: If a weight is not finite in that type.
        """
        checkpoint.save(directory, self.variant, self.backbone, dtype=dtype)
        if isinstance(self.codec, NanoCodec):
            codecs.save_nano_codec(Path(directory), self.codec)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, dtype: torch.dtype = torch.float32
    ) -> str:
        """Upload to the Hugging Face hub what `save_pretrained` writes.

        Args:
            repo_id: `owner/name`; the repository is made if it is missing.
            private: Whether a new repository is hidden from others.
            dtype: As for `save_pretrained`.

        Returns:
            The address of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            message = f"Upload {self.variant.name}"
            return checkpoint.upload(folder, repo_id, message=message, private=private)

    @overload
    def generate(
        self,
        instruction: str,
        *,
        source: Sound | None = ...,
        reference: Sound | None = ...,
        reference_text: str | None = ...,
        duration: float | None = ...,
        steps: int | None = ...,
        guidance_scale: float | None = ...,
        seed: int = ...,
        on_step: Callable[[int, int], None] | None = ...,
    ) -> Audio: ...

    @overload
    def generate(
        self,
        instruction: list[str],
        *,
        source: Sound | list[Sound | None] | None = ...,
        reference: Sound | list[Sound | None] | None = ...,
        reference_text: str | list[str | None] | None = ...,
        duration: float | list[float | None] | None = ...,
        steps: int | None = ...,
        guidance_scale: float | None = ...,
        seed: int | list[int] = ...,
        on_step: Callable[[int, int], None] | None = ...,
    ) -> list[Audio]: ...

    def generate(
        self,
        instruction: str | list[str],
        *,
        source: Sound | list[Sound | None] | None = None,
        reference: Sound | list[Sound | None] | None = None,
        reference_text: str | list[str | None] | None = None,
        duration: float | list[float | None] | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | list[int] = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Audio | list[Audio]:
        """Do what an instruction, or each of several, says.

        The task follows from the instruction's tags and the inputs. With a list of instructions
        every other input is one for all, or a list with one an instruction; what a list gives is
        what single calls with the same seeds give. A source is brought to the level that its task
        was trained with and the result is brought back, so that what is not edited keeps its
        level. A result whose peak would exceed 1 is scaled as a whole to a peak of 0.99.

        Args:
            instruction: With the tags of the task table.
            source: The recording to edit: a path, an `Audio`, or (waveform, sample_rate).
            reference: The recording whose voice is to speak.
            reference_text: The words of the reference.
            duration: Seconds of the result, for zero-shot speech of the new speech alone. Without
                it an edit is as long as its source; anything else has the variant's default.
            steps: Euler steps; the variant's default if None.
            guidance_scale: Strength of the guidance (paper section 3.5); likewise.
            seed: Of the noise; the same seed gives the same sound.
            on_step: Called after each step with the steps done and the steps in all.

        Returns:
            The sound, or a list of as many as there are instructions.

        Raises:
            InputError: If an input cannot be used, or does not fit the instruction.
        """
        single = not isinstance(instruction, list)
        instructions = instruction if isinstance(instruction, list) else [instruction]
        count = None if single else len(instructions)
        inputs = {
            "source": _per_item(source, count, "source"),
            "reference": _per_item(reference, count, "reference"),
            "reference_text": _per_item(reference_text, count, "reference_text"),
            "duration": _per_item(duration, count, "duration"),
            "seed": _per_item(seed, count, "seed"),
        }
        requests = [
            prepare(self.variant, self.codec, text, **{name: v[i] for name, v in inputs.items()})
            for i, text in enumerate(instructions)
        ]
        sounds = self._answer(requests, *self._sampling(steps, guidance_scale), on_step)
        return sounds[0] if single else sounds

    @torch.no_grad()
    def run(
        self,
        batch: TaskBatch,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Do what a built batch asks for, on its waveforms as they are; evaluation calls this.

        Args:
            batch: What a task's builder made at the variant's sample rate.
            steps: Euler steps; the variant's default if None.
            guidance_scale: Likewise.
            seed: Item i's noise has the seed `seed + i`.
            on_step: Called after each step with the steps done and the steps in all.

        Returns:
            (B, samples) of the target's length, zero-shot's reference region included.
        """
        count, samples = batch.target.shape
        steps, guidance_scale = self._sampling(steps, guidance_scale)
        given = condition(
            self.codec,
            TASKS[batch.task],
            self.codec.frames(samples / self.variant.sample_rate),
            count,
            batch.source.to(self.device) if batch.source is not None else None,
            batch.reference_samples,
        )
        seeds = [seed + i for i in range(count)]
        return self._sample(given, batch.instructions, seeds, steps, guidance_scale, on_step)[
            :, :samples
        ]

    def _sampling(self, steps: int | None, guidance_scale: float | None) -> tuple[int, float]:
        """Fill in the variant's defaults."""
        steps = self.variant.steps if steps is None else steps
        guidance_scale = self.variant.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(steps, guidance_scale)
        return steps, guidance_scale

    @torch.no_grad()
    def _answer(
        self,
        requests: Sequence[Request],
        steps: int,
        guidance_scale: float,
        on_step: Callable[[int, int], None] | None,
    ) -> list[Audio]:
        """Run requests, those of equal length together, and hand out sounds in their order."""
        by_frames: defaultdict[int, list[int]] = defaultdict(list)
        for row, request in enumerate(requests):
            by_frames[request.layout.frames].append(row)
        passes = [
            rows[start : start + MAX_BATCH]
            for rows in by_frames.values()
            for start in range(0, len(rows), MAX_BATCH)
        ]
        sounds: dict[int, Audio] = {}
        for done, rows in enumerate(passes):

            def count(step: int, of: int, done: int = done) -> None:
                if on_step is not None:
                    on_step(done * of + step, len(passes) * of)

            chosen = [requests[row] for row in rows]
            waveforms = self._sample(
                _stack([self._condition(request) for request in chosen]),
                [request.instruction for request in chosen],
                [request.seed for request in chosen],
                steps,
                guidance_scale,
                count,
            )
            for row, request, waveform in zip(rows, chosen, waveforms, strict=True):
                sounds[row] = self._finish(request, waveform)
        return [sounds[row] for row in range(len(requests))]

    def _condition(self, request: Request) -> Condition:
        """Encode one item by itself, so that it does not depend on its neighbours."""
        layout = request.layout
        if layout.source is None:
            return condition(self.codec, request.task, layout.frames, 1)
        edges = torch.tensor([layout.reference_samples]) if layout.reference_samples else None
        source = layout.source[None].to(self.device)
        return condition(self.codec, request.task, layout.frames, 1, source, edges)

    def _sample(
        self,
        given: Condition,
        instructions: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        on_step: Callable[[int, int], None] | None,
    ) -> Tensor:
        """Sample and decode one batch: (B, samples of all frames) on the CPU."""
        text = self.text_encoder.encode(instructions)
        shape = given.z_s.shape[1:]
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        z = sampling.sample(
            self.backbone,
            given.z_s.to(self.device),
            given.m.to(self.device),
            text.hidden_states.to(self.device),
            text.mask.to(self.device),
            noise=torch.stack(noise).to(self.device),
            steps=steps,
            guidance=sampling.Guidance(scale=guidance_scale),
            on_step=on_step,
        )
        return self.codec.decode(z).float().cpu()

    def _finish(self, request: Request, waveform: Tensor) -> Audio:
        """Cut out what was asked for, at its level."""
        layout = request.layout
        cut = waveform[layout.first : layout.first + layout.samples] / layout.gain
        if layout.reference_samples:
            cut = audio.fade(cut, round(FADE_IN_SECONDS * self.variant.sample_rate), 0)
        peak = float(cut.abs().max())
        return Audio(
            cut * (PEAK / peak) if peak > 1.0 else cut.clone(),
            self.variant.sample_rate,
            instruction=request.asked,
            task=request.task.name,
            seed=request.seed,
        )


def _folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a checkpoint; a variant's name means the weights inside the package."""
    name = os.fspath(name_or_path)
    if name not in VARIANTS:
        return checkpoint.resolve(name, also=(codecs.CONFIG_FILE, codecs.WEIGHTS_FILE))
    folder = Path(str(resources.files("unison_audio"))) / "weights" / name
    if folder.is_dir():
        return folder
    if name == "nano":
        raise InputError(
            f"The weights of nano are not in this installation ({folder}); install the package "
            "again, or give the folder of a checkpoint."
        )
    raise InputError(
        f"There are no weights of {name} in this release, which runs nano; use nano, or give the "
        "folder of a checkpoint."
    )


def _part(table: dict[str, T], key: str, what: str, variant: Variant) -> T:
    if key not in table:
        raise InputError(
            f"The {what} {key!r} of variant {variant.name!r} is not in this release, which runs "
            f"nano; use one of {', '.join(map(repr, table))}."
        )
    return table[key]


def _require_codec_of(variant: Variant, codec: AudioCodec, folder: Path) -> None:
    """Refuse a codec whose latents are not the backbone's."""
    wanted = (variant.sample_rate, variant.latent_channels, variant.hop)
    found = (codec.sample_rate, codec.channels, codec.hop)
    if wanted != found:
        raise InputError(
            f"The codec in {folder} has sample rate, channels and hop {found} where the model "
            f"needs {wanted}; take the two from one checkpoint."
        )


def _per_item(value: Any, count: int | None, name: str) -> list[Any]:
    """One value an instruction; `count` is None for a single instruction."""
    if not isinstance(value, list):
        return [value] * (1 if count is None else count)
    if count is None or len(value) != count:
        raise InputError(
            f"{name} is a list of {len(value)} for {'one' if count is None else count} "
            "instruction(s); give one value for all, or as many as there are instructions."
        )
    return value


def _stack(conditions: Sequence[Condition]) -> Condition:
    """Conditions of one item each -> of a batch."""
    return Condition(
        z_s=torch.cat([one.z_s for one in conditions]),
        m=torch.cat([one.m for one in conditions]),
        loss_mask=torch.cat([one.loss_mask for one in conditions]),
    )
