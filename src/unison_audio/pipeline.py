"""`Unison`: the public interface, from a checkpoint and an instruction to sound."""

import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from unison_audio.audio import Audio
from unison_audio.best_of_n import LatentBatch, OnStep, sample_batch
from unison_audio.checks import domain_warning, require_domain
from unison_audio.codecs.table import AudioCodec
from unison_audio.device import own_settings
from unison_audio.domain import Outside
from unison_audio.edit_check import EditWarning
from unison_audio.errors import InputError
from unison_audio.input_audio import Sound
from unison_audio.inputs import (
    DomainWarning,
    ItemInputs,
    Request,
    ShortenedWarning,
    SourceFormWarning,
    TranscribedWarning,
    clean_item,
    prepare,
)
from unison_audio.longform.methods import AnyLength
from unison_audio.model.voice_target import VoiceTarget
from unison_audio.output_audio import (
    adds_to_quiet,
    apply_edits,
    apply_request,
    decode,
    decode_rows,
    finish,
    outcome_notes,
)
from unison_audio.pretrained import PretrainedModels
from unison_audio.provenance.origin import Origin
from unison_audio.reference_check import ReferenceWarning
from unison_audio.release_inputs import batch_source, dithered, sampled_frames
from unison_audio.request_batches import is_list, item_inputs, pad_conditions, plan_batches
from unison_audio.sampling_params import (
    GroupSettings,
    SamplingParams,
    cleans_text,
    merge_options,
    resolve_sampling,
)
from unison_audio.speech_protection import Halves, protect_speech
from unison_audio.tasks.conditioning import Condition, condition, condition_gap, voice_target
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.text.neighbors import NearestTexts
from unison_audio.text.states import TextEncoder, TextStates
from unison_audio.values import shown

LONG_TEXT = 120
"""Characters from which an instruction may have too many tokens, beside the longest prompt."""


class Unison(AnyLength, PretrainedModels):
    """A variant with its weights, which generates and edits sound from instructions.

    Args:
        variant: The variant of the models.
        backbone: The trained model, loaded or to be loaded on first use.
        codec: The variant's codec, loaded or to be loaded on first use.
        text_encoder: The variant's text encoder, loaded or to be loaded on first use.
        device: Device of the backbone and the codec; loaded models are moved there.
    """

    @cached_property
    def _known_sounds(self) -> NearestTexts:
        """Sounds of the variant's domain, for warnings about others."""
        return NearestTexts(self.variant.domain.sounds if self.variant.domain else ())

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

    @own_settings()
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
            reference_text: The words of the reference; None to have them transcribed.
            duration: Seconds of the result; for zero-shot speech, of the new speech alone. By
                default an edit is as long as its source, and other results have the variant's
                default length.
            seed: Seed of the noise; the same seed gives the same sound.
            sampling: Sampling options; None takes the variant's default preset.
            on_step: Called after each step with the steps done and the steps in all.
            **options: Fields of `SamplingParams`, such as `steps=20`, over those of `sampling`; and
                `task`, the name of the task, or a list of names, for instructions in free wording
                or without tags; `asr`, what transcribes a reference that has no text or is cut: a
                Whisper's folder or name, an object with `transcribe`, or "none"; `voice`,
                speech whose mean latent the result is to have (`model.voice_target`); and
                `domain_warned`, whether the caller has warned of unknown words.

        Returns:
            The sound, or a list of one sound for each instruction. An instruction outside the
            variant's domain gives a warning, which `Audio.warnings` holds too.

        Raises:
            InputError: If an input cannot be used or does not fit the instruction, or if `strict`
                is set and the instruction is outside the variant's domain.
        """
        # 1. Check the inputs: one set for each instruction, and the settings of every task group.
        task, asr, surroundings, voice, domain_warned = (
            options.pop(name, None)
            for name in ("task", "asr", "surroundings", "voice", "domain_warned")
        )
        params = merge_options(sampling, options)
        settings = resolve_sampling(self.variant, params)
        items = item_inputs(
            instruction,
            source=source,
            reference=reference,
            reference_text=reference_text,
            duration=duration,
            seed=seed,
            task=task,
            asr=asr,
            surroundings=surroundings,
            voice=voice,
        )
        if cleans_text(self.variant, params):
            items = [clean_item(*item) for item in items]
        # 2. Read the recordings, find each task, encode sources and references.
        if on_step is not None and not callable(on_step):
            raise InputError(f"on_step is {shown(on_step)}; give a function of two numbers.")
        with self._codec.use() as codec:
            requests = [prepare(self.variant, codec, *item) for item in items]
            # Each item is encoded alone, so that its latents do not depend on its neighbors.
            conditions = [self._condition(codec, request) for request in requests]
            voices = self._voices(codec, requests, [id(own.voice) for _, own in items])
        if params.strict:
            for request in requests:
                require_domain(self.variant, request.asked, request.notes)
        if not requests:
            return []
        own = Halves(self._encode_text, self._sample, self._codec)
        requests = protect_speech(self.variant, requests, conditions, own)
        # 3. Encode the instructions. The text encoder is done before the backbone is needed, which
        # is what low memory relies on; so are sampling and decoding below.
        with self._text_encoder.use() as encoder:
            text = encoder.encode([request.instruction for request in requests])
            if domain_warned:  # for the whole text; each window would repeat it
                requests = [replace(request, outside=Outside()) for request in requests]
            notes = [self._warnings(request, encoder) for request in requests]
        for note in {str(note): note for own in notes for note in own}.values():
            warnings.warn(note, stacklevel=3)  # past `own_settings`, to the caller's line
        # 4. Sample latents, in batches of equal settings and similar length.
        batches = plan_batches(requests, settings)
        total, done = sum(batch.settings.progress_steps for batch in batches), 0
        latents = []  # one (B, C, T') for each batch
        with self._backbone.use():
            for batch in batches:
                frames = [requests[row].layout.frames for row in batch.rows]
                latents.append(
                    self._sample(
                        replace(
                            pad_conditions([conditions[row] for row in batch.rows], max(frames)),
                            voice=VoiceTarget.batch([voices[row] for row in batch.rows]),
                        ),
                        text.select(batch.rows),
                        [requests[row].seed for row in batch.rows],
                        batch.settings,
                        _shifted(on_step, done, total),
                        frames,
                    )
                )
                done += batch.settings.progress_steps
        # 5. Decode, and apply edits to the recordings themselves where the settings say so.
        sounds: dict[int, Audio] = {}
        outcome: dict[str, None] = {}
        with self._codec.use() as codec:
            for batch, z in zip(batches, latents, strict=True):
                frames = [requests[row].layout.frames for row in batch.rows]
                for row, waveform in zip(batch.rows, decode_rows(codec, z, frames), strict=True):
                    request = requests[row]
                    preserves = settings.for_task(request.task).preserve_source
                    if preserves or adds_to_quiet(request):
                        decoded_source = decode(codec, conditions[row].z_s)
                        waveform = apply_request(request, decoded_source[0], waveform)
                    # 6. Cut out the result and bring it back to its level.
                    sound = finish(request, waveform, self.variant.sample_rate)
                    origin = Origin.of_edit(
                        request.task.name, self.variant.name, items[row][1].source
                    )
                    found = [*sound.warnings, *outcome_notes(request, sound)]
                    outcome.update(dict.fromkeys(found))
                    sounds[row] = replace(
                        sound, warnings=(*map(str, notes[row]), *found), origin=origin
                    )
        for said in outcome:
            warnings.warn(EditWarning(said), stacklevel=3)
        return [sounds[row] for row in range(len(sounds))] if is_list(instruction) else sounds[0]

    @own_settings()
    def check(self, instruction: str, **inputs: Any) -> None:
        """Refuse all that `generate` would refuse, without sampling.

        Args:
            instruction: Instruction with the tags of the task table.
            **inputs: source, reference, reference_text, duration, seed, task and asr, as
                for `generate`.

        Raises:
            InputError: If an input cannot be used, or does not fit the instruction.
        """
        known = [field.name for field in fields(ItemInputs)]
        if unknown := [name for name in inputs if name not in known]:
            raise InputError(f"Unknown: {', '.join(unknown)}; the inputs are {', '.join(known)}.")
        item = (instruction, ItemInputs(**inputs))
        if self.variant.clean_text:
            item = clean_item(*item)
        with self._codec.use() as codec:
            request = prepare(self.variant, codec, *item)
        if len(request.instruction) > LONG_TEXT:  # the encoder counts tokens
            self._encode_text([request.instruction])

    @own_settings()
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
            sound = decode(codec, z)[:, :samples] / gains
            if batch.source is None or not settings.preserve_source:
                return sound
            decoded_source = decode(codec, given.z_s)[:, :samples] / gains
        return apply_edits(task, batch.source.cpu(), decoded_source, sound)

    def _warnings(self, request: Request, encoder: TextEncoder) -> list[UserWarning]:
        """Warnings about one request."""
        found: list[UserWarning] = []
        if request.shortened:
            found.append(ShortenedWarning(request.shortened))
        if request.transcribed:
            found.append(TranscribedWarning(request.transcribed))
        if request.reduced:
            found.append(SourceFormWarning(request.reduced))
        found += map(ReferenceWarning, request.about_reference)
        if request.outside:
            sounds = request.outside.sounds
            nearest = {sound: self._known_sounds.find(encoder, sound) for sound in sounds}
            found.append(DomainWarning(domain_warning(self.variant, request.outside, nearest)))
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
        if layout.gap is not None:
            return condition_gap(codec, source, layout.gap)
        return condition(codec, request.task, layout.frames, 1, source, edges)

    def _voices(
        self, codec: AudioCodec, requests: Sequence[Request], given: Sequence[int]
    ) -> list[VoiceTarget | None]:
        """The voices to speak in; a recording that several requests are given is encoded once."""
        found: dict[int, VoiceTarget] = {}
        for request, key in zip(requests, given, strict=True):
            if request.voice is not None and key not in found:
                found[key] = voice_target(codec, request.voice.to(self.device))
        return [found.get(key) for key in given]

    def _encode_text(self, instructions: Sequence[str]) -> TextStates:
        """Encode instructions."""
        with self._text_encoder.use() as encoder:
            return encoder.encode(instructions)

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
        batch = LatentBatch(given=given, text=text, seeds=seeds, frames=frames, settings=settings)
        with self._backbone.use() as backbone:
            return sample_batch(backbone, self.variant, batch, self.device, on_step)


def _shifted(on_step: OnStep | None, done: int, total: int) -> OnStep:
    """Progress of one batch, reported as progress of all batches."""

    def report(step: int, of: int) -> None:
        if on_step is not None:
            on_step(done + step, total)

    return report
