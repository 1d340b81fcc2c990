"""Unison: everything a user calls, from a checkpoint to sound."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Unpack, overload

import torch
from torch import Tensor, nn

from unison_audio import audio, checkpoint
from unison_audio.audio import Audio
from unison_audio.codecs import table as codecs
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.inputs import FADE_IN_SECONDS, PEAK, Request, Sound, prepare
from unison_audio.loading import Loading, Part, open_parts
from unison_audio.longform import pieces, plan_speech, speak
from unison_audio.model import rerank as ranking
from unison_audio.model import sampling
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.native_audio import NativeAudio
from unison_audio.preserve import keep_source
from unison_audio.regions import edit_regions
from unison_audio.sampling_params import Pace, Sampling, SamplingOptions, sampling_for
from unison_audio.tasks.conditioning import Condition, condition
from unison_audio.tasks.table import REFERENCE, TASKS, Task, TaskBatch
from unison_audio.text.states import TextEncoder, TextStates
from unison_audio.times import Region
from unison_audio.variants import Variant

MAX_BATCH = 16
"""Items that `generate` samples at once."""


class Unison:
    """A variant with its weights: generates and edits sound from instructions.

    Args:
        variant: What it is.
        backbone: The trained part, or how it is loaded.
        codec: The variant's codec, likewise.
        text_encoder: The variant's text encoder, likewise.
        device: Where the backbone and the codec run; models given loaded are moved there.
    """

    def __init__(
        self,
        variant: Variant,
        backbone: UnisonBackbone | Part[UnisonBackbone],
        codec: AudioCodec | Part[AudioCodec],
        text_encoder: TextEncoder | Part[TextEncoder],
        device: torch.device | str = "cpu",
    ) -> None:
        self.variant, self.device = variant, torch.device(device)
        self._backbone = _as_part(backbone, self.device)
        self._codec = _as_part(codec, self.device)
        self._text_encoder = _as_part(text_encoder, self.device)

    @property
    def backbone(self) -> UnisonBackbone:
        """The trained part."""
        return self._backbone.get()

    @property
    def codec(self) -> AudioCodec:
        """The variant's codec."""
        return self._codec.get()

    @property
    def text_encoder(self) -> TextEncoder:
        """The variant's text encoder."""
        return self._text_encoder.get()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "nano",
        device: torch.device | str = "cpu",
        *,
        dtype: torch.dtype | None = None,
        low_memory: bool | None = None,
        codec_files: str | os.PathLike[str] | None = None,
        text_files: str | os.PathLike[str] | None = None,
        compiled: bool = False,
    ) -> "Unison":
        """Open a checkpoint with its codec and its text encoder.

        Args:
            name_or_path: "nano" for the weights that come with the package, a folder, or
                `owner/name` of a repository on the Hugging Face hub.
            device: Where to run.
            dtype: Type the backbone computes in; by default bfloat16 on a GPU that has it, and
                float32 on a CPU.
            low_memory: One model in memory at a time, a large language model layer by layer from
                the disk. By default so where they do not fit together.
            codec_files: Folder of the codec's own files, if they are not to be downloaded.
            text_files: Folder of the language model, likewise.
            compiled: Whether the backbone's blocks go through torch.compile.

        Raises:
            InputError: If there is no such checkpoint, it is damaged, a part is not known, or it
                does not fit into memory.
        """
        how = Loading(
            device=device,
            dtype=dtype,
            low_memory=low_memory,
            codec_files=None if codec_files is None else Path(codec_files),
            text_files=None if text_files is None else Path(text_files),
            compiled=compiled,
        )
        parts = open_parts(name_or_path, how)
        unison = cls(parts.variant, parts.backbone, parts.codec, parts.text_encoder, device)
        if parts.resident:  # what is wrong with a file is said now, not at the first sound
            unison._backbone.get(), unison._codec.get(), unison._text_encoder.get()
        return unison

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
        seed: int = ...,
        on_step: Callable[[int, int], None] | None = ...,
        **options: Unpack[SamplingOptions],
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
        seed: int | list[int] = ...,
        on_step: Callable[[int, int], None] | None = ...,
        **options: Unpack[SamplingOptions],
    ) -> list[Audio]: ...

    def generate(
        self,
        instruction: str | list[str],
        *,
        source: Sound | list[Sound | None] | None = None,
        reference: Sound | list[Sound | None] | None = None,
        reference_text: str | list[str | None] | None = None,
        duration: float | list[float | None] | None = None,
        seed: int | list[int] = 0,
        on_step: Callable[[int, int], None] | None = None,
        **options: Unpack[SamplingOptions],
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
            seed: Of the noise; the same seed gives the same sound.
            on_step: Called after each step with the steps done and the steps in all.
            **options: Of sampling, where they are not to be the variant's: see `SamplingOptions`.

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
        settings = sampling_for(self.variant, **options)
        with self._codec.use() as codec:
            requests = [
                prepare(self.variant, codec, text, **{name: v[i] for name, v in inputs.items()})
                for i, text in enumerate(instructions)
            ]
            conditions = [self._condition(codec, request) for request in requests]
        sounds = self._answer(requests, conditions, settings, on_step)
        return sounds[0] if single else sounds

    def edit(
        self,
        instruction: str,
        source: Sound,
        *,
        regions: Sequence[Region] | None = None,
        seed: int = 0,
        on_window: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> NativeAudio:
        """Edit a recording of any length, everywhere or only in named regions.

        Args:
            instruction: An edit, with the tags of the task table.
            source: The recording, at any rate and with any number of channels.
            regions: Seconds, from and to, outside of which no sample changes; None for everywhere.
            seed: Seed of the noise; each window has one derived from it.
            on_window: Called with the windows done and the windows in all.
            **options: Options of sampling, as for `generate`.

        Returns:
            The recording at the source's rate, channels and depth. What no window changed is the
            source's own samples.

        Raises:
            InputError: If an input cannot be used.
        """
        return edit_regions(
            self,
            instruction,
            source,
            regions=regions,
            seed=seed,
            on_window=on_window,
            **options,
        )

    def stream(
        self,
        instruction: str,
        *,
        text: str | None = None,
        reference: Sound | None = None,
        reference_text: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Iterator[Audio]:
        """Speak a text of any length, piece by piece.

        Args:
            instruction: `[Speech] A male voice`, `[Speech with voice]`, or with the words in it.
            text: The words, where the instruction has none.
            reference: A recording of the voice, for `[Speech with voice]`.
            reference_text: The words of the reference.
            seed: Seed of the noise; each piece has one derived from it.
            **options: Options of sampling, as for `generate`.

        Returns:
            Sounds to play one after the other, each as soon as it is finished.

        Raises:
            InputError: If an input cannot be used.
        """
        speech = plan_speech(
            self.variant,
            instruction,
            text=text,
            reference=reference,
            reference_text=reference_text,
            seed=seed,
        )
        return pieces(speak(self, speech, **options), speech)

    def check(self, instruction: str, **inputs: Any) -> None:
        """Refuse what `generate` would refuse, without running it.

        Args:
            instruction: With the tags of the task table.
            **inputs: source, reference, reference_text, duration and seed, as for `generate`.

        Raises:
            InputError: If an input cannot be used, or does not fit the instruction.
        """
        with self._codec.use() as codec:
            prepare(self.variant, codec, instruction, **inputs)

    @torch.no_grad()
    def run(
        self,
        batch: TaskBatch,
        *,
        seed: int = 0,
        on_step: Callable[[int, int], None] | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Tensor:
        """Do what a built batch asks for, on its waveforms as they are; evaluation calls this.

        Args:
            batch: What a task's builder made at the variant's sample rate.
            seed: Item i's noise has the seed `seed + i`.
            on_step: Called after each step with the steps done and the steps in all.
            **options: Of sampling, where they are not to be the variant's: see `SamplingOptions`.

        Returns:
            (B, samples) of the target's length, zero-shot's reference region included.
        """
        count, samples = batch.target.shape
        settings = sampling_for(self.variant, **options)
        with self._codec.use() as codec:
            given = condition(
                codec,
                TASKS[batch.task],
                codec.frames(samples / self.variant.sample_rate),
                count,
                batch.source.to(self.device) if batch.source is not None else None,
                batch.reference_samples,
            )
        text = self._read(batch.instructions)
        seeds = [seed + i for i in range(count)]
        task = TASKS[batch.task]
        z = self._sample(given, text, seeds, settings.solver, settings.pace(task), on_step)
        with self._codec.use() as codec:
            sound = codec.decode(z).float().cpu()[:, :samples]
            if batch.source is None or not settings.keeps(task):
                return sound
            again = codec.decode(given.z_s).float().cpu()[:, :samples]
        source = batch.source.cpu()
        return _keep_for(task, source, again, sound)

    @torch.no_grad()
    def _answer(
        self,
        requests: Sequence[Request],
        conditions: Sequence[Condition],
        settings: Sampling,
        on_step: Callable[[int, int], None] | None,
    ) -> list[Audio]:
        """Run requests in batches of any tasks and lengths, and hand out sounds in their order."""
        if not requests:
            return []
        text = self._read([request.instruction for request in requests])
        # Neighbours of similar length waste the least; equal lengths share their attention.
        order = sorted(range(len(requests)), key=lambda row: requests[row].layout.frames)
        paces = [settings.pace(request.task) for request in requests]
        batches = [
            rows[start : start + size]
            for pace in dict.fromkeys(paces)
            for rows in [[row for row in order if paces[row] == pace]]
            for size in [max(1, MAX_BATCH // pace.candidates)]
            for start in range(0, len(rows), size)
        ]
        latents: dict[int, Tensor] = {}
        total, before = sum(paces[rows[0]].passes for rows in batches), 0
        with self._backbone.use():
            for rows in batches:

                def count(step: int, of: int, before: int = before) -> None:
                    if on_step is not None:
                        on_step(before + step, total)

                frames = [requests[row].layout.frames for row in rows]
                z = self._sample(
                    _pad([conditions[row] for row in rows], max(frames)),
                    _choose(text, rows),
                    [requests[row].seed for row in rows],
                    settings.solver,
                    paces[rows[0]],
                    count,
                    frames,
                )
                before += paces[rows[0]].passes
                latents |= {row: z[i, :, : frames[i]] for i, row in enumerate(rows)}
        sounds: dict[int, Audio] = {}
        with self._codec.use() as codec:
            for _, same in groupby(order, key=lambda row: requests[row].layout.frames):
                rows = list(same)
                for start in range(0, len(rows), MAX_BATCH):
                    some = rows[start : start + MAX_BATCH]
                    waveforms = codec.decode(torch.stack([latents[row] for row in some])).float()
                    for row, waveform in zip(some, waveforms.cpu(), strict=True):
                        request = requests[row]
                        if settings.keeps(request.task):
                            again = codec.decode(conditions[row].z_s).float().cpu()
                            waveform = _keep(request, again, waveform)
                        sounds[row] = self._finish(request, waveform)
        return [sounds[row] for row in range(len(requests))]

    @torch.no_grad()
    def _condition(self, codec: AudioCodec, request: Request) -> Condition:
        """Encode one item by itself, so that it does not depend on its neighbours."""
        layout = request.layout
        if layout.source is None:
            return condition(codec, request.task, layout.frames, 1)
        edges = torch.tensor([layout.reference_samples]) if layout.reference_samples else None
        source = layout.source[None].to(self.device)
        return condition(codec, request.task, layout.frames, 1, source, edges)

    def _read(self, instructions: Sequence[str]) -> TextStates:
        """Encode instructions."""
        with self._text_encoder.use() as encoder:
            return encoder.encode(instructions)

    def _sample(
        self,
        given: Condition,
        text: TextStates,
        seeds: Sequence[int],
        solver: str,
        pace: Pace,
        on_step: Callable[[int, int], None] | None,
        frames: Sequence[int] | None = None,
    ) -> Tensor:
        """Sample one batch: latents (B, C, T'), of each row the candidate that fits best."""
        rows, channels, longest = given.z_s.shape
        lengths = [longest] * rows if frames is None else list(frames)
        noise = torch.zeros(rows, pace.candidates, channels, longest)
        for row, seed in enumerate(seeds):  # an item's noise depends on its own length only
            generator = torch.Generator().manual_seed(seed)
            for candidate in noise[row]:
                drawn = torch.randn(channels, lengths[row], generator=generator)
                candidate[:, : lengths[row]] = drawn
        which = [row for row in range(rows) for _ in range(pace.candidates)]
        given, text = given.to(self.device), _choose(text, which)
        inputs: dict[str, Any] = {
            "z_s": given.z_s[which],
            "m": given.m[which],
            "hidden_states": text.hidden_states.to(self.device)
            if self.variant.read_layers
            else None,
            "text_mask": text.mask.to(self.device),
            "penultimate": None if text.penultimate is None else text.penultimate.to(self.device),
            "frames": [lengths[row] for row in which],
        }

        def count(done: int) -> None:
            if on_step is not None:
                on_step(done, pace.passes)

        with self._backbone.use() as backbone:
            z = sampling.sample(
                backbone,
                held=(inputs["m"] == REFERENCE) & self.variant.hold_reference,
                noise=pace.temperature * noise.flatten(0, 1).to(self.device),
                steps=pace.steps,
                solver=solver,
                guidance=pace.guidance,
                on_step=lambda done, of: count(done),
                **inputs,
            )
            if pace.candidates == 1:
                return z
            misfit = ranking.misfit(
                backbone,
                z,
                loss_mask=given.loss_mask[which],
                on_pass=lambda done: count(pace.steps + done),
                **inputs,
            )
        best = misfit.view(rows, pace.candidates).argmin(dim=1)
        return z.view(rows, pace.candidates, channels, longest)[torch.arange(rows), best.cpu()]

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


def _as_part(value: Any, device: torch.device) -> Part[Any]:
    """A model that is loaded already, or one that will be."""
    if isinstance(value, Part):
        return value
    if isinstance(value, nn.Module):
        value = value.to(device).eval()
    return Part(lambda: value)


def _keep_for(task: Task, source: Tensor, source_again: Tensor, result: Tensor) -> Tensor:
    """`keep_source` as a task needs it."""
    return keep_source(
        source,
        source_again,
        result,
        adds=task.adds,
        removes=task.removes,
        clears_speech=task.clears_speech,
    )


def _keep(request: Request, source_again: Tensor, waveform: Tensor) -> Tensor:
    """An edit's result (samples,) made of its source."""
    source = request.layout.source
    if source is None:
        raise AssertionError("an edit has a source")
    length = min(len(source), len(waveform))
    parts = (part[None, :length] for part in (source, source_again[0], waveform))
    return _keep_for(request.task, *parts)[0]


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


def _pad(conditions: Sequence[Condition], frames: int) -> Condition:
    """Conditions of one item each -> of a batch, padded to a number of frames."""

    def pad(name: str) -> Tensor:
        rows = [getattr(one, name) for one in conditions]
        return torch.cat([nn.functional.pad(x, (0, frames - x.shape[-1])) for x in rows])

    return Condition(z_s=pad("z_s"), m=pad("m"), loss_mask=pad("loss_mask"))


def _choose(text: TextStates, rows: Sequence[int]) -> TextStates:
    """Some items' text."""
    chosen = list(rows)
    return TextStates(
        hidden_states=text.hidden_states[chosen],
        mask=text.mask[chosen],
        penultimate=None if text.penultimate is None else text.penultimate[chosen],
    )
