"""Speech of any length: windows of a text spoken in one voice, joined in silence, as they finish.

The first window is sampled alone, so that sound comes early; the others follow in batches, which
bounds the memory. Every window has a seed of its own, derived from the one that was asked for.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.checks import check_reference_text
from unison_audio.errors import InputError
from unison_audio.frame_layout import MAX_REFERENCE_SECONDS, PEAK, REFERENCE_SECONDS
from unison_audio.input_audio import Sound, read_sound
from unison_audio.longform.edit_windows import derive_seed
from unison_audio.longform.text_windows import (
    LENGTH_MARGIN,
    SpeechPace,
    TextWindow,
    cut_text,
    longest_window,
    pace_of,
    split_instruction,
)
from unison_audio.provenance.origin import Origin
from unison_audio.sampling_params import OPTIONS, merge_options, resolve_sampling
from unison_audio.spectrogram import log_mel
from unison_audio.tasks.table import TASKS
from unison_audio.transcription import AsrModel
from unison_audio.values import check_seed, require_text
from unison_audio.variants import Variant

WINDOWS_AT_ONCE = 8
"""Windows that are sampled in one batch, which bounds the memory."""

TIMBRE_DB = 7.0
"""Mean spectra of two utterances of one of nano's voices differ by 2 to 7 dB, those of two voices
by 8 and more: this distance correlates with Resemblyzer's similarity by -0.87 (56 pairs)."""

ROUNDS = ((0, 1), (2,))
"""Tries of a window, those of one round in one batch; the second round is for windows whose voice
still differs. The nearest voice is kept. A noise decides which of the training voices speaks, so
that more tries find a nearer one, and fewer candidates for each of them cost as much less: two
tries of two candidates are as much work as one of four, and bring the similarity to the first
window from 0.69 to 0.75 (Resemblyzer, 16 texts, each as the first)."""

_FADE_IN_SECONDS, _FADE_OUT_SECONDS = 0.01, 0.03

_REFERENCE_SILENCE_SECONDS = 0.1 + 0.1
"""Silence that `prepare_reference` appends, and up to one latent frame of any codec."""


class Speaker(Protocol):
    """The part of `pipeline.Unison` that speech needs."""

    variant: Variant

    @property
    def generate(self) -> Callable[..., Any]:
        """`Unison.generate`, called with a list of instructions."""
        ...


@dataclass(frozen=True, kw_only=True)
class LongSpeech:
    """A long text with all that decides how it sounds, checked."""

    template: str
    """The instruction with `{text}` for the words."""
    text: str
    """The words to speak."""
    reference: Tensor | None
    """(samples,) a recording of the voice at the variant's rate, silence cut off."""
    reference_text: str | None
    """Words of the reference; None to have them transcribed."""
    asr: AsrModel
    """What transcribes them."""
    seed: int
    """Seed that the windows' seeds are derived from."""
    variant: Variant
    """The variant that speaks."""
    clean: bool
    """Whether numbers and abbreviations become words."""

    @property
    def pace(self) -> SpeechPace:
        """Speaking rate of the variant."""
        return pace_of(self.variant)

    @property
    def longest(self) -> float:
        """Maximum duration of a window in seconds."""
        cloned = self.reference is not None or self.pace.clones
        wanted = longest_window(self.variant, cloned) * LENGTH_MARGIN
        if not cloned:
            return wanted
        rate = self.variant.sample_rate
        known = REFERENCE_SECONDS
        if self.reference is not None:
            known = min(known, len(self.reference) / rate)
        return min(wanted, self.variant.max_seconds - known - _REFERENCE_SILENCE_SECONDS)

    def windows(self) -> Iterator[TextWindow]:
        """The windows of the text."""
        makes_reference = self.reference is None and self.pace.clones
        # A reference is cut at 3 s, and its text must be what is said in it.
        first = REFERENCE_SECONDS / LENGTH_MARGIN / LENGTH_MARGIN if makes_reference else None
        return cut_text(self.text, self.pace, self.longest / LENGTH_MARGIN, first, clean=self.clean)

    def seconds(self, window: TextWindow) -> float:
        """Duration with which a window is generated."""
        becomes_reference = window.index == 0 and self.reference is None and self.pace.clones
        if becomes_reference:
            return min(self.longest, REFERENCE_SECONDS)
        if self.variant.sample_seconds:  # what is cropped is sampled all the same
            return self.longest
        wanted = window.seconds * LENGTH_MARGIN + 0.1
        return min(self.longest, max(self.pace.shortest, wanted))


@dataclass(frozen=True, kw_only=True)
class SpokenWindow:
    """A window as it sounds."""

    window: TextWindow
    """The words of the window."""
    start: float
    """Seconds from the beginning of the whole."""
    speech: Tensor
    """(samples,), without the pause."""
    pause: int
    """Samples of silence that follow; 0 after the last."""
    seed: int
    """Seed that gives this window again. Where `ROUNDS` are sampled, with half the candidates."""
    sample_rate: int
    """Samples per second."""

    @property
    def times(self) -> tuple[TextWindow, float, float]:
        """The window, and the seconds when its speech begins and ends."""
        return self.window, self.start, self.start + len(self.speech) / self.sample_rate


def plan_speech(
    variant: Variant,
    instruction: str,
    *,
    text: str | None = None,
    reference: Sound | None = None,
    reference_text: str | None = None,
    seed: int = 0,
    asr: AsrModel = None,
    clean: bool | None = None,
) -> LongSpeech:
    """Check a long text and what speaks it.

    Args:
        variant: What will run it.
        instruction: `[Speech] A male voice`, `[Speech with voice]`, or with the words in it.
        text: The words, where the instruction has none.
        reference: A recording of the voice, for `[Speech with voice]`.
        reference_text: Its words; None to have them transcribed.
        seed: Seed of the noise.
        asr: What transcribes them.
        clean: Whether numbers and abbreviations become words; None for the variant's default.

    Raises:
        InputError: If something does not fit; the message says what does.
    """
    require_text(instruction, "The instruction")
    for given, name in ((text, "The text"), (reference_text, "The reference text")):
        if given is not None:
            require_text(given, name)
    template, words = split_instruction(instruction)
    if text is not None and words:
        raise InputError(
            f"The instruction {instruction!r} has words and there is a text besides; leave one out."
        )
    said = words if text is None else text
    cloned = "with voice" in template.lower()
    if cloned != (reference is not None):
        how = "needs a reference" if cloned else "takes no reference; write [Speech with voice]"
        raise InputError(f"The instruction {instruction!r} {how}.")
    if cloned:
        check_reference_text(instruction, "zero_shot_tts", reference_text, asr)
    seed = check_seed(seed)
    rate = variant.sample_rate
    voice = None
    if reference is not None:
        voice = audio.trim_silence(
            read_sound(reference, "reference", rate, MAX_REFERENCE_SECONDS), rate
        )
    speech = LongSpeech(
        template=template,
        text=said,
        reference=voice,
        reference_text=reference_text,
        asr=asr,
        seed=seed,
        variant=variant,
        clean=variant.clean_text if clean is None else clean,
    )
    next(speech.windows())  # an empty text is refused now, not after the model is loaded
    return speech


def speak(
    unison: Speaker,
    speech: LongSpeech,
    on_window: Callable[[int], None] | None = None,
    **options: Any,
) -> Iterator[SpokenWindow]:
    """Speak a long text.

    Args:
        unison: The model.
        speech: What `plan_speech` made.
        on_window: Called with the windows done.
        **options: Sampling options, as for `Unison.generate`.

    Yields:
        The windows in order, as soon as they are finished.
    """
    rate = speech.variant.sample_rate
    windows = speech.windows()
    voice: tuple[Tensor, str] | None = None
    level = timbre = None
    start, done = 0.0, 0
    batch = list(islice(windows, 1))
    while batch:
        following = list(islice(windows, WINDOWS_AT_ONCE))
        sounds = _sample(unison, speech, batch, voice, timbre, options)
        for window, (waveform, seed) in zip(batch, sounds, strict=True):
            if level is None and len(waveform):  # the first window that is not silent
                level, timbre = _active_level(waveform, rate), _timbre(waveform, rate)
                if speech.reference is None and speech.pace.clones:
                    voice = (waveform, window.text)
            last = window is batch[-1] and not following
            pause = 0 if last else round(window.pause * rate)
            spoken = SpokenWindow(
                window=window,
                start=start,
                speech=_leveled(waveform, level, rate),
                pause=pause,
                seed=seed,
                sample_rate=rate,
            )
            start += (len(spoken.speech) + pause) / rate
            done += 1
            if on_window is not None:
                on_window(done)
            yield spoken
        batch = following


def pieces(spoken: Iterator[SpokenWindow], speech: LongSpeech) -> Iterator[Audio]:
    """Windows as sounds that play one after the other, the pauses at their ends.

    Args:
        spoken: What `speak` yields.
        speech: The long text.
    """
    task = "tts" if speech.reference is None else "zero_shot_tts"
    for part in spoken:
        yield Audio(
            torch.cat([part.speech, part.speech.new_zeros(part.pause)]),
            part.sample_rate,
            instruction=speech.template.replace("{text}", part.window.text),
            task=task,
            seed=part.seed,
            origin=Origin(task=task, variant=speech.variant.name),
        )


def _sample(
    unison: Speaker,
    speech: LongSpeech,
    windows: list[TextWindow],
    voice: tuple[Tensor, str] | None,
    timbre: Tensor | None,
    options: dict[str, Any],
) -> list[tuple[Tensor, int]]:
    """Sample windows, and those again whose voice differs; the nearest of each with its seed."""
    best: list[tuple[float, Tensor, int]] = [(math.inf, torch.zeros(0), 0) for _ in windows]
    left = list(range(len(windows)))
    searched = timbre is not None and not speech.pace.clones
    if searched:
        options = options | {"num_candidates": _candidates_a_try(speech.variant, options)}
    for attempts in ROUNDS if searched else ((0,),):
        tried = [(i, attempt) for i in left for attempt in attempts]
        seeds = [
            derive_seed(derive_seed(speech.seed, windows[i].index), attempt) for i, attempt in tried
        ]
        sounds = _generate(unison, speech, [windows[i] for i, _ in tried], seeds, voice, options)
        for (i, _), waveform, seed in zip(tried, sounds, seeds, strict=True):
            away = 0.0 if len(waveform) else 2 * TIMBRE_DB
            if timbre is not None and len(waveform):
                away = _distance(timbre, _timbre(waveform, speech.variant.sample_rate))
            if away < best[i][0]:
                best[i] = (away, waveform, seed)
        left = [i for i in left if best[i][0] > TIMBRE_DB]
        if not left:
            break
    return [(waveform, seed) for _, waveform, seed in best]


def _candidates_a_try(variant: Variant, options: dict[str, Any]) -> int:
    """Half of the candidates that the options ask for, which a round's two tries share."""
    own = {key: value for key, value in options.items() if key in OPTIONS}
    settings = resolve_sampling(variant, merge_options(options.get("sampling"), own))
    return -(-settings.for_task(TASKS["tts"]).num_candidates // 2)


def _generate(
    unison: Speaker,
    speech: LongSpeech,
    windows: list[TextWindow],
    seeds: list[int],
    voice: tuple[Tensor, str] | None,
    options: dict[str, Any],
) -> list[Tensor]:
    """Sample windows once: waveforms with the silence around them cut off."""
    rate = speech.variant.sample_rate
    inputs: dict[str, Any] = {"seed": seeds, "duration": [speech.seconds(w) for w in windows]}
    template = speech.template
    reference, reference_text = speech.reference, speech.reference_text
    if voice is not None:
        template = "[Speech with voice] {text}"
        reference, reference_text = voice
    if reference is not None:
        inputs |= {"reference": (reference, rate), "reference_text": reference_text}
        inputs["asr"] = [speech.asr] * len(windows)
    instructions = [template.replace("{text}", window.text) for window in windows]
    sounds = unison.generate(instructions, **inputs, **options)
    return [audio.trim_silence(sound.waveform, rate) for sound in sounds]


def _active_level(waveform: Tensor, rate: int) -> float:
    """RMS of the frames that are within 25 dB of the loudest."""
    levels = audio.frame_levels(waveform, round(0.02 * rate))
    active = levels[levels > levels.max() - 25]
    return float((10 ** (active / 10)).mean().sqrt())


def _leveled(waveform: Tensor, level: float | None, rate: int) -> Tensor:
    """At the level of the first window, its ends faded into the silence around."""
    if level is None or len(waveform) == 0:
        return waveform
    gain = min(level / _active_level(waveform, rate), PEAK / float(waveform.abs().max()))
    return audio.fade(
        waveform * gain, round(_FADE_IN_SECONDS * rate), round(_FADE_OUT_SECONDS * rate)
    )


def _timbre(waveform: Tensor, rate: int) -> Tensor:
    """The mean mel spectrum in dB, its own mean taken off: a picture of the voice, (bands,)."""
    power = 10 ** (log_mel(waveform, rate) / 10)  # (bands, frames)
    energy = power.sum(dim=0)
    mean = power[:, energy >= 0.05 * energy.mean()].mean(dim=1)
    decibels = 10 * (mean / mean.sum().clamp_min(1e-12) + 1e-6).log10()
    return decibels - decibels.mean()


def _distance(first: Tensor, second: Tensor) -> float:
    """Root mean square difference in dB."""
    return float((first - second).square().mean().sqrt())
