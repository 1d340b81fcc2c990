"""`AnyLength`: methods of `Unison` for long texts, long recordings, and parts of recordings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unison_audio.audio import Audio
from unison_audio.input_audio import Sound
from unison_audio.longform.edit_windows import WindowModel
from unison_audio.longform.gap_fill import fill_recording
from unison_audio.longform.gap_plan import Extension, plan_extension, plan_inpainting
from unison_audio.longform.long_speech import (
    pieces,
    plan_speech,
    require_known_words,
    speak,
    warn_of_unknown_words,
)
from unison_audio.longform.native_audio import NativeAudio, Source
from unison_audio.longform.regions import edit_recording, plan_edit
from unison_audio.sampling_params import cleans_text, merge_options
from unison_audio.tasks.times import Region
from unison_audio.transcription import AsrModel


class AnyLength:
    """Methods that call `generate` for one window after the other."""

    def edit(
        self: WindowModel,
        instruction: str,
        source: Source,
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
        edit = plan_edit(
            self.variant, instruction, source, regions, seed, extract=extract, task=task
        )
        return edit_recording(self, edit, on_window, **options)

    def inpaint(
        self: WindowModel,
        instruction: str,
        source: Source,
        regions: Sequence[Region],
        *,
        seed: int = 0,
        task: str | None = None,
        on_window: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> NativeAudio:
        """Replace regions of a recording by something new that joins what is around them.

        Args:
            instruction: What the regions are to hold, such as `[Audio] rain`. If it speaks, its
                words are all those that are said within two seconds around the region.
            source: The recording, at any rate, of any length and with any number of channels.
            regions: Seconds, from and to, outside of which no sample changes.
            seed: Seed of the noise; each window has one derived from it.
            task: The task, for an instruction in free wording or without tags.
            on_window: Called with the windows done and the windows in all.
            **options: Options of sampling, as for `generate`.

        Returns:
            The recording at the source's rate, channels and depth.

        Raises:
            InputError: If an input cannot be used.
        """
        filling = plan_inpainting(self.variant, instruction, source, regions, seed, task=task)
        return fill_recording(self, filling, on_window, **options)

    def extend(
        self: WindowModel,
        instruction: str,
        source: Source,
        *,
        after: float = 0.0,
        before: float = 0.0,
        seed: int = 0,
        task: str | None = None,
        on_window: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> NativeAudio:
        """Let a recording go on after its end, or begin earlier.

        Args:
            instruction: What the new parts are to hold, such as `[Audio] rain`.
            source: The recording, at any rate, of any length and with any number of channels.
            after: Seconds to add at the end.
            before: Seconds to add at the beginning.
            seed: Seed of the noise; each window has one derived from it.
            task: The task, for an instruction in free wording or without tags.
            on_window: Called with the windows done and the windows in all.
            **options: Options of sampling, as for `generate`.

        Returns:
            The longer recording at the source's rate, channels and depth. The source's samples are
            in it as they were.

        Raises:
            InputError: If an input cannot be used.
        """
        extension = Extension(before=before, after=after)
        filling = plan_extension(self.variant, instruction, source, extension, seed, task=task)
        return fill_recording(self, filling, on_window, **options)

    def extract(
        self: WindowModel,
        instruction: str,
        source: Source,
        *,
        regions: Sequence[Region] | None = None,
        seed: int = 0,
        task: str | None = None,
        on_window: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> NativeAudio:
        """Give only what an instruction names of a recording.

        Args:
            instruction: `[Audio] a dog barking`, `[Speech]`, or an edit that removes something.
            source: The recording, at any rate, of any length and with any number of channels.
            regions: Seconds, from and to, outside of which the result is silent.
            seed: Seed of the noise; each window has one derived from it.
            task: The task, for an instruction in free wording or without tags.
            on_window: Called with the windows done and the windows in all.
            **options: Options of sampling, as for `generate`.

        Returns:
            A recording of the source's length, rate, channels and depth.

        Raises:
            InputError: If an input cannot be used.
        """
        edit = plan_edit(self.variant, instruction, source, regions, seed, extract=True, task=task)
        return edit_recording(self, edit, on_window, **options)

    def stream(
        self: WindowModel,
        instruction: str,
        *,
        text: str | None = None,
        reference: Sound | None = None,
        reference_text: str | None = None,
        seed: int = 0,
        asr: AsrModel = None,
        **options: Any,
    ) -> Iterator[Audio]:
        """Speak a text of any length, piece by piece.

        Args:
            instruction: `[Speech] A male voice`, `[Speech with voice]`, or with the words in it.
            text: The words, where the instruction has none.
            reference: A recording of the voice, for `[Speech with voice]`.
            reference_text: The words of the reference; None to have them transcribed.
            seed: Seed of the noise; each piece has one derived from it.
            asr: What transcribes the reference, as for `generate`.
            **options: Options of sampling, as for `generate`.

        Returns:
            Sounds to play one after the other, each as soon as it is finished.

        Raises:
            InputError: If an input cannot be used.
        """
        params = merge_options(options.pop("sampling", None), options)
        speech = plan_speech(
            self.variant,
            instruction,
            text=text,
            reference=reference,
            reference_text=reference_text,
            seed=seed,
            asr=asr,
            clean=cleans_text(self.variant, params),
        )
        if params.strict:
            require_known_words(speech)
        warn_of_unknown_words(speech)
        return pieces(speak(self, speech, sampling=params), speech)
