"""`Unison`: the public interface, from a checkpoint and an instruction to sound."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from unison_audio import audio, checkpoint
from unison_audio.audio import Audio
from unison_audio.checkpoint_files import OpenCheckpoint
from unison_audio.checks import domain_message, require_domain
from unison_audio.codecs import table as codecs
from unison_audio.codecs.nano import NanoCodec
from unison_audio.codecs.table import AudioCodec
from unison_audio.errors import InputError
from unison_audio.inputs import (
    FADE_IN_SECONDS,
    PEAK,
    DomainWarning,
    ItemInputs,
    Request,
    ShortenedWarning,
    Sound,
    prepare,
)
from unison_audio.loading import LazyModel, LoadOptions, open_models
from unison_audio.longform.long_speech import pieces, plan_speech, speak
from unison_audio.longform.native_audio import NativeAudio
from unison_audio.longform.regions import edit_regions
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.rerank import denoising_error
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.model_card import CardInfo
from unison_audio.preserve import preserve_source
from unison_audio.release_inputs import batch_source, dithered, sampled_frames
from unison_audio.sampling_params import (
    GroupSettings,
    ResolvedSampling,
    SamplingParams,
    merge_options,
    resolve_sampling,
)
from unison_audio.tasks.conditioning import Condition, condition
from unison_audio.tasks.table import REFERENCE, TASKS, Task, TaskBatch
from unison_audio.tasks.times import Region
from unison_audio.text.neighbors import NearestTexts
from unison_audio.text.states import TextEncoder, TextStates
from unison_audio.variants import Variant

MAX_BATCH = 16
"""Items that `generate` samples at once."""

OnStep = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Requests that are sampled together."""

    rows: list[int]
    """Positions of the requests, shortest first."""
    settings: GroupSettings
    """Settings of all of them."""


class Unison:
    """A variant with its weights, which generates and edits sound from instructions.

    Args:
        variant: The variant of the models.
        backbone: The trained model, loaded or to be loaded on first use.
        codec: The variant's codec, loaded or to be loaded on first use.
        text_encoder: The variant's text encoder, loaded or to be loaded on first use.
        device: Device of the backbone and the codec; loaded models are moved there.
    """

    def __init__(
        self,
        variant: Variant,
        backbone: UnisonBackbone | LazyModel[UnisonBackbone],
        codec: AudioCodec | LazyModel[AudioCodec],
        text_encoder: TextEncoder | LazyModel[TextEncoder],
        device: torch.device | str = "cpu",
    ) -> None:
        self.variant, self.device = variant, torch.device(device)
        self._backbone = _as_lazy(backbone, self.device)
        self._codec = _as_lazy(codec, self.device)
        self._text_encoder = _as_lazy(text_encoder, self.device)
        self._known_sounds = NearestTexts(variant.domain.sounds if variant.domain else ())

    @property
    def backbone(self) -> UnisonBackbone:
        """The trained model."""
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
        name_or_path: str | os.PathLike[str] | OpenCheckpoint = "nano",
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
            name_or_path: "nano" for the weights that come with the package, a folder,
                `owner/name` of a repository on the Hugging Face hub, or an open checkpoint.
            device: Device to run on.
            dtype: Computing type of the backbone; by default bfloat16 on a GPU that has it, and
                float32 on a CPU.
            low_memory: Hold one model in memory at a time, and read a large language model layer
                by layer from the disk. By default only where the models do not fit together.
            codec_files: Folder of the codec's files; None downloads them.
            text_files: Folder of the language model; None downloads it.
            compiled: Whether the backbone's blocks are compiled by torch.compile.

        Raises:
            InputError: If there is no such checkpoint, it is damaged, its codec or text encoder is
                unknown, or it does not fit into memory.
        """
        how = LoadOptions(
            device=device,
            dtype=dtype,
            low_memory=low_memory,
            codec_files=None if codec_files is None else Path(codec_files),
            text_files=None if text_files is None else Path(text_files),
            compiled=compiled,
        )
        parts = open_models(name_or_path, how)
        unison = cls(parts.variant, parts.backbone, parts.codec, parts.text_encoder, device)
        if parts.resident:  # a damaged file is refused now, not at the first sound
            unison._backbone.get(), unison._codec.get(), unison._text_encoder.get()
        return unison

    def save_pretrained(
        self,
        directory: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        card: CardInfo | None = None,
    ) -> None:
        """Write a checkpoint that `from_pretrained` loads, nano's codec and a model card included.

        Args:
            directory: Folder to write to; made if missing.
            dtype: Type of the backbone's weights in the file, float32 or float16. The nano codec
                is always stored as float16.
            card: License, data and results for the model card. A card by hand stays.

        Raises:
            InputError: If a weight is not finite in that type.
        """
        checkpoint.save(directory, self.variant, self.backbone, dtype=dtype, card=card)
        if isinstance(self.codec, NanoCodec):
            codecs.save_nano_codec(Path(directory), self.codec)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        dtype: torch.dtype = torch.float32,
        card: CardInfo | None = None,
    ) -> str:
        """Upload a checkpoint, as `save_pretrained` writes it, to the Hugging Face hub.

        Args:
            repo_id: `owner/name`; the repository is made if it is missing.
            private: Whether a new repository is hidden from others.
            dtype: As for `save_pretrained`, and so `card`.
            card: License, data and results for the model card.

        Returns:
            The address of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype, card=card)
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
        sampling: SamplingParams | None = ...,
        on_step: OnStep | None = ...,
        **options: Any,
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
        sampling: SamplingParams | None = ...,
        on_step: OnStep | None = ...,
        **options: Any,
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
        sampling: SamplingParams | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Audio | list[Audio]:
        """Generate or edit audio from an instruction.

        The task follows from the instruction's tags and the inputs. With a list of instructions,
        every other input is one value for all or a list with one value for each; the results equal
        those of single calls with the same seeds. A source is scaled to the level of its task's
        training sources and the result is scaled back, so that unedited parts keep their level. A
        result whose peak would exceed 1 is scaled as a whole to a peak of 0.99.

        Args:
            instruction: Instruction with the tags of the task table.
            source: The recording to edit: a path, an `Audio`, or (waveform, sample_rate).
            reference: The recording of the voice to speak in.
            reference_text: The words of the reference.
            duration: Seconds of the result; for zero-shot speech, of the new speech alone. By
                default an edit is as long as its source, and other results have the variant's
                default length.
            seed: Seed of the noise; the same seed gives the same sound.
            sampling: Sampling options; None takes the variant's default preset.
            on_step: Called after each step with the steps done and the steps in all.
            **options: Fields of `SamplingParams`, such as `steps=20`, over those of `sampling`; and
                `task`, the name of the task, or a list of names, for instructions in free wording
                or without tags.

        Returns:
            The sound, or a list of one sound for each instruction. An instruction outside the
            variant's domain gives a warning, which `Audio.warnings` holds too.

        Raises:
            InputError: If an input cannot be used or does not fit the instruction, or if `strict`
                is set and the instruction is outside the variant's domain.
        """
        # 1. Check the inputs: one set for each instruction, and the settings of every task group.
        task = options.pop("task", None)
        params = merge_options(sampling, options)
        settings = resolve_sampling(self.variant, params)
        items = _items(
            instruction,
            source=source,
            reference=reference,
            reference_text=reference_text,
            duration=duration,
            seed=seed,
            task=task,
        )
        # 2. Read the recordings, find each task, encode sources and references.
        with self._codec.use() as codec:
            requests = [prepare(self.variant, codec, *item) for item in items]
            # Each item is encoded alone, so that its latents do not depend on its neighbors.
            conditions = [self._condition(codec, request) for request in requests]
        if params.strict:
            for request in requests:
                require_domain(self.variant, request.asked, request.notes)
        if not requests:
            return []
        # 3. Encode the instructions. The text encoder is done before the backbone is needed, which
        # is what low memory relies on; so are sampling and decoding below.
        with self._text_encoder.use() as encoder:
            text = encoder.encode([request.instruction for request in requests])
            notes = [self._warnings(request, encoder) for request in requests]
        for note in {str(note): note for own in notes for note in own}.values():
            warnings.warn(note, stacklevel=2)
        # 4. Sample latents, in batches of equal settings and similar length.
        batches = _plan_batches(requests, settings)
        total, done = sum(batch.settings.progress_steps for batch in batches), 0
        latents = []  # one (B, C, T') for each batch
        with self._backbone.use():
            for batch in batches:
                frames = [requests[row].layout.frames for row in batch.rows]
                latents.append(
                    self._sample(
                        _pad([conditions[row] for row in batch.rows], max(frames)),
                        _choose(text, batch.rows),
                        [requests[row].seed for row in batch.rows],
                        batch.settings,
                        _shifted(on_step, done, total),
                        frames,
                    )
                )
                done += batch.settings.progress_steps
        # 5. Decode, and apply edits to the recordings themselves where the settings say so.
        sounds: dict[int, Audio] = {}
        with self._codec.use() as codec:
            for batch, z in zip(batches, latents, strict=True):
                for row, waveform in self._decode(codec, batch, z, requests):
                    request = requests[row]
                    if settings.for_task(request.task).preserve_source:
                        decoded_source = self._decode_latents(codec, conditions[row].z_s)
                        waveform = _preserve(request, decoded_source[0], waveform)
                    # 6. Cut out the result and bring it back to its level.
                    sound = self._finish(request, waveform)
                    sounds[row] = replace(sound, warnings=tuple(map(str, notes[row])))
        return [sounds[row] for row in range(len(sounds))] if _is_list(instruction) else sounds[0]

    def edit(
        self,
        instruction: str,
        source: Sound,
        *,
        regions: Sequence[Region] | None = None,
        seed: int = 0,
        extract: bool = False,
        task: str | None = None,
        on_window: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> NativeAudio:
        """Edit a recording of any length, everywhere or only in named regions.

        Args:
            instruction: An edit, with the tags of the task table.
            source: The recording, at any rate and with any number of channels.
            regions: Seconds, from and to, outside of which no sample changes; None for everywhere.
            seed: Seed of the noise; each window has one derived from it.
            extract: Whether the result is what a removal takes away, instead of what it leaves.
            task: The task, for an instruction in free wording or without tags.
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
            extract=extract,
            task=task,
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
        """Refuse all that `generate` would refuse, without sampling.

        Args:
            instruction: Instruction with the tags of the task table.
            **inputs: source, reference, reference_text, duration, seed and task, as for `generate`.

        Raises:
            InputError: If an input cannot be used, or does not fit the instruction.
        """
        with self._codec.use() as codec:
            prepare(self.variant, codec, instruction, ItemInputs(**inputs))

    @torch.no_grad()
    def run(
        self,
        batch: TaskBatch,
        *,
        seed: int = 0,
        sampling: SamplingParams | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Tensor:
        """Answer a batch of a task's builder.

        The waveforms are used as they are, but where the checkpoint's config asks for a level, a
        length or dither.

        Args:
            batch: The batch, built at the variant's sample rate.
            seed: Item i's noise has the seed `seed + i`.
            sampling: Sampling options; None takes the variant's default preset.
            on_step: Called after each step with the steps done and the steps in all.
            **options: Fields of `SamplingParams`, over those of `sampling`.

        Returns:
            (B, samples) of the target's length, zero-shot's reference region included.
        """
        task = TASKS[batch.task]
        count, samples = batch.target.shape
        params = merge_options(sampling, options)
        settings = resolve_sampling(self.variant, params).for_task(task)
        seeds = [seed + i for i in range(count)]
        encoded, gains = None, torch.ones(count, 1)
        if batch.source is not None:
            encoded, gains = batch_source(self.variant, task, batch.source.cpu(), seeds)
        with self._codec.use() as codec:
            given = condition(
                codec,
                task,
                sampled_frames(self.variant, codec, samples),
                count,
                None if encoded is None else encoded.to(self.device),
                batch.reference_samples,
            )
        text = self._encode_text(batch.instructions)
        z = self._sample(given, text, seeds, settings, on_step)
        with self._codec.use() as codec:
            sound = self._decode_latents(codec, z)[:, :samples] / gains
            if batch.source is None or not settings.preserve_source:
                return sound
            decoded_source = self._decode_latents(codec, given.z_s)[:, :samples] / gains
        return _preserve_for(task, batch.source.cpu(), decoded_source, sound)

    def _warnings(self, request: Request, encoder: TextEncoder) -> list[UserWarning]:
        """Warnings about one request."""
        found: list[UserWarning] = []
        if request.shortened:
            found.append(ShortenedWarning(request.shortened))
        if request.outside:
            sounds = request.outside.sounds
            nearest = {sound: self._known_sounds.find(encoder, sound) for sound in sounds}
            message = domain_message(self.variant, request.outside, nearest)
            found.append(DomainWarning(f"{message}; expect a poor result."))
        found += [DomainWarning(f"{note[:1].upper()}{note[1:]}.") for note in request.notes]
        return found

    @torch.no_grad()
    def _condition(self, codec: AudioCodec, request: Request) -> Condition:
        """Encode the source or the reference of one request."""
        layout = request.layout
        if layout.source is None:
            return condition(codec, request.task, layout.frames, 1)
        edges = torch.tensor([layout.reference_samples]) if layout.reference_samples else None
        source = dithered(self.variant, layout.source[None], [request.seed]).to(self.device)
        return condition(codec, request.task, layout.frames, 1, source, edges)

    def _encode_text(self, instructions: Sequence[str]) -> TextStates:
        """Encode instructions."""
        with self._text_encoder.use() as encoder:
            return encoder.encode(instructions)

    @torch.no_grad()
    def _sample(
        self,
        given: Condition,
        text: TextStates,
        seeds: Sequence[int],
        settings: GroupSettings,
        on_step: OnStep | None,
        frames: Sequence[int] | None = None,
    ) -> Tensor:
        """Sample one batch: latents (B, C, T'), the best candidate of each row."""
        rows, channels, longest = given.z_s.shape
        count, total = settings.num_candidates, settings.progress_steps
        lengths = [longest] * rows if frames is None else list(frames)
        noise = torch.zeros(rows, count, channels, longest)
        for row, seed in enumerate(seeds):
            # A generator for each item, over the item's own length: its noise, and so its sound,
            # is the same alone and in any batch.
            generator = torch.Generator().manual_seed(seed)
            for candidate in noise[row]:
                drawn = torch.randn(channels, lengths[row], generator=generator)
                candidate[:, : lengths[row]] = drawn
        which = [row for row in range(rows) for _ in range(count)]  # row of each candidate
        given, text = given.to(self.device), _choose(text, which).to(self.device)
        inputs = ModelInputs(
            z_s=given.z_s[which],
            m=given.m[which],
            hidden_states=text.hidden_states if self.variant.read_layers else None,
            text_mask=text.mask,
            penultimate=text.penultimate,
            frames=[lengths[row] for row in which],
        )

        def report(done: int) -> None:
            if on_step is not None:
                on_step(done, total)

        with self._backbone.use() as backbone:
            z = sample(
                backbone,
                inputs,
                noise=settings.temperature * noise.flatten(0, 1).to(self.device),
                steps=settings.steps,
                solver=settings.solver,
                guidance=settings.guidance,
                fixed=(inputs.m == REFERENCE) & self.variant.hold_reference,
                on_step=lambda done, of: report(done),
            )
            if count == 1:
                return z
            error = denoising_error(
                backbone,
                inputs,
                z,
                loss_mask=given.loss_mask[which],
                on_evaluation=lambda done: report(settings.steps + done),
            )
        best = error.view(rows, count).argmin(dim=1)
        return z.view(rows, count, channels, longest)[torch.arange(rows), best.cpu()]

    def _decode(
        self, codec: AudioCodec, batch: _Batch, z: Tensor, requests: Sequence[Request]
    ) -> list[tuple[int, Tensor]]:
        """Decode a batch's latents: each request's position and waveform (samples,)."""
        found: list[tuple[int, Tensor]] = []
        # Rows are sorted by length, so that rows of equal length are neighbors and are decoded
        # together, without the padding that would change their ends.
        for frames, same in groupby(batch.rows, key=lambda row: requests[row].layout.frames):
            rows = list(same)
            first = len(found)
            waveforms = self._decode_latents(codec, z[first : first + len(rows), :, :frames])
            found += zip(rows, waveforms, strict=True)
        return found

    @torch.no_grad()
    def _decode_latents(self, codec: AudioCodec, z: Tensor) -> Tensor:
        """(B, C, T') -> waveforms (B, samples) on the CPU."""
        return codec.decode(z).float().cpu()

    def _finish(self, request: Request, waveform: Tensor) -> Audio:
        """Cut out the result and scale it back to the level of its source."""
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


def _as_lazy(value: T | LazyModel[T], device: torch.device) -> LazyModel[T]:
    """Wrap a model that is loaded already; leave one that is loaded later."""
    if isinstance(value, LazyModel):
        return value
    if isinstance(value, nn.Module):
        value = value.to(device).eval()
    return LazyModel(lambda: value)


def _is_list(instruction: object) -> bool:
    """Whether several instructions are given."""
    return isinstance(instruction, list)


def _items(instruction: Any, **inputs: Any) -> list[tuple[Any, ItemInputs]]:
    """Each instruction with its inputs, by the names of `ItemInputs`.

    Raises:
        InputError: If a list has another length than that of the instructions.
    """
    single = not _is_list(instruction)
    instructions = [instruction] if single else instruction
    items: list[dict[str, Any]] = [{} for _ in instructions]
    for name, value in inputs.items():
        if not isinstance(value, list):
            value = [value] * len(items)
        elif single or len(value) != len(items):
            raise InputError(
                f"{name} is a list of {len(value)} for {'one' if single else len(items)} "
                "instruction(s); give one value for all, or as many as there are instructions."
            )
        for item, own in zip(items, value, strict=True):
            item[name] = own
    return [(text, ItemInputs(**item)) for text, item in zip(instructions, items, strict=True)]


def _plan_batches(requests: Sequence[Request], sampling: ResolvedSampling) -> list[_Batch]:
    """Group requests of any tasks and lengths into batches of equal sampling settings.

    Items of similar length are neighbors, which keeps padding short. Candidates count as items.
    """
    groups: dict[GroupSettings, list[int]] = {}
    for row, request in enumerate(requests):
        # How the source is handled does not concern sampling, and must not split a batch.
        settings = replace(sampling.for_task(request.task), preserve_source=False)
        groups.setdefault(settings, []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: requests[row].layout.frames)
    return [
        _Batch(rows=rows[start : start + size], settings=settings)
        for settings, rows in groups.items()
        for size in [max(1, MAX_BATCH // settings.num_candidates)]
        for start in range(0, len(rows), size)
    ]


def _shifted(on_step: OnStep | None, done: int, total: int) -> OnStep:
    """Progress of one batch, reported as progress of all batches."""

    def report(step: int, of: int) -> None:
        if on_step is not None:
            on_step(done + step, total)

    return report


def _preserve_for(task: Task, source: Tensor, decoded_source: Tensor, result: Tensor) -> Tensor:
    """`preserve_source` as a task needs it."""
    return preserve_source(
        source,
        decoded_source,
        result,
        adds=task.adds,
        removes=task.removes,
        clears_speech=task.clears_speech,
    )


def _preserve(request: Request, decoded_source: Tensor, waveform: Tensor) -> Tensor:
    """Apply an edit, (samples,), to its source."""
    source = request.layout.source
    if source is None:
        raise AssertionError("an edit has a source")
    length = min(len(source), len(waveform))
    waves = (wave[None, :length] for wave in (source, decoded_source, waveform))
    return _preserve_for(request.task, *waves)[0]


def _pad(conditions: Sequence[Condition], frames: int) -> Condition:
    """Join conditions of one item each into a batch, padded to a number of frames."""

    def pad(name: str) -> Tensor:
        rows = [getattr(one, name) for one in conditions]
        return torch.cat([nn.functional.pad(x, (0, frames - x.shape[-1])) for x in rows])

    return Condition(z_s=pad("z_s"), m=pad("m"), loss_mask=pad("loss_mask"))


def _choose(text: TextStates, rows: Sequence[int]) -> TextStates:
    """Text states of some rows, which may repeat."""
    chosen = list(rows)
    return TextStates(
        hidden_states=text.hidden_states[chosen],
        mask=text.mask[chosen],
        penultimate=None if text.penultimate is None else text.penultimate[chosen],
    )
