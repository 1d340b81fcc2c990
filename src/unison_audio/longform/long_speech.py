"""Speech of any length: windows of a text spoken in one voice, joined in silence, as they finish.

The first window is sampled alone, so that sound comes early; the others follow in batches, which
bounds the memory. Every window has a seed of its own, derived from the one that was asked for.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.checks import (
    check_reference_text,
    domain_warning,
    outside_domain,
    refuse_outside,
)
from unison_audio.domain import Outside
from unison_audio.errors import InputError
from unison_audio.frame_layout import MAX_REFERENCE_SECONDS, PEAK, REFERENCE_SECONDS
from unison_audio.input_audio import Sound, read_sound
from unison_audio.inputs import DomainWarning
from unison_audio.longform.edit_windows import WindowModel, derive_seed
from unison_audio.longform.text_windows import (
    SpeechPace,
    TextWindow,
    cut_text,
    longest_window,
    pace_of,
    split_instruction,
)
from unison_audio.provenance.origin import Origin
from unison_audio.spectrogram import log_mel
from unison_audio.transcription import AsrModel
from unison_audio.values import check_seed, require_text
from unison_audio.variants import LENGTH_MARGIN, Variant

WINDOWS_AT_ONCE = 8
"""Windows that are sampled in one batch, which bounds the memory."""

MOST_AHEAD = 16
"""Windows that are sorted by length into batches, which are padded less for it: nano's windows one
by one take 1, batches of 8 in the text's order 0.65, sorted ones 0.59 of the time. Only 8 follow
the first window, so that a listener does not wait."""

TIMBRE_DB = 10.0
"""A window whose mean spectrum is so far from the first one's is sampled once more. Those of two
utterances of one of nano's voices differ by 2 to 7 dB, those of two voices by 8 and more. Second
tries from 8 dB on take more time than batches may: 0.75 of the windows one by one."""

_FADE_IN_SECONDS, _FADE_OUT_SECONDS = 0.01, 0.03

_REFERENCE_SILENCE_SECONDS = 0.1 + 0.1
"""Silence that `prepare_reference` appends, and up to one latent frame of any codec."""


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

    @cached_property
    def outside(self) -> Outside:
        """The words that the variant does not know, of all windows."""
        if self.variant.domain is None:
            return Outside()
        instructions = (self.template.replace("{text}", own.text) for own in self.windows())
        found = (outside_domain(self.variant, own).words for own in instructions)
        return Outside(words=tuple(dict.fromkeys(word for words in found for word in words)))

    @property
    def pace(self) -> SpeechPace:
        """Speaking rate of the variant."""
        return pace_of(self.variant)

    @property
    def clones(self) -> bool:
        """Whether windows are clones: of the reference, or of the first window."""
        return self.reference is not None or self.pace.clones

    @property
    def longest(self) -> float:
        """Maximum duration of a window in seconds."""
        wanted = longest_window(self.variant, self.clones) * LENGTH_MARGIN
        if not self.clones:
            return wanted
        known = REFERENCE_SECONDS
        if self.reference is not None:
            known = min(known, len(self.reference) / self.variant.sample_rate)
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
class _FirstWindow:
    """The first window with sound, whose voice and level the others take."""

    window: TextWindow
    """Its words."""
    waveform: Tensor
    """(samples,), silence around it cut off."""
    level: float
    """RMS where it is active."""
    timbre: Tensor
    """Mean mel spectrum."""

    @classmethod
    def of(cls, window: TextWindow, waveform: Tensor, rate: int) -> "_FirstWindow":
        """Measure a window."""
        return cls(
            window=window,
            waveform=waveform,
            level=_active_level(waveform, rate),
            timbre=_timbre(waveform, rate),
        )


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
    """Seed that gives this window again, beside the first one where that is the voice."""
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


def require_known_words(speech: LongSpeech) -> None:
    """Refuse a text with words that the variant does not know, before the first window.

    Raises:
        InputError: There are such words.
    """
    refuse_outside(speech.variant, speech.outside)


def warn_of_unknown_words(speech: LongSpeech) -> None:
    """Give one warning for all windows, where each would give its own.

    Warns:
        DomainWarning: There are words that the variant does not know.
    """
    if speech.outside:
        warnings.warn(DomainWarning(domain_warning(speech.variant, speech.outside)), stacklevel=3)


def speak(
    unison: WindowModel,
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
        The windows in order, as soon as they are finished. Unknown words give no warning; see
        `warn_of_unknown_words`.
    """
    options["domain_warned"] = True
    rate = speech.variant.sample_rate
    windows = speech.windows()
    first: _FirstWindow | None = None
    start, done = 0.0, 0
    batch = list(islice(windows, 1))
    while batch:
        following = list(islice(windows, min(WINDOWS_AT_ONCE * len(batch), MOST_AHEAD)))
        sounds = _sample(unison, speech, batch, first, options)
        for window, (waveform, seed) in zip(batch, sounds, strict=True):
            if first is None and len(waveform):
                first = _FirstWindow.of(window, waveform, rate)
            last = window is batch[-1] and not following
            pause = 0 if last else round(window.pause * rate)
            spoken = SpokenWindow(
                window=window,
                start=start,
                speech=_leveled(waveform, first, rate),
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
    unison: WindowModel,
    speech: LongSpeech,
    windows: list[TextWindow],
    first: _FirstWindow | None,
    options: dict[str, Any],
) -> list[tuple[Tensor, int]]:
    """Sample windows, and once more those that are silent or in another voice.

    Returns:
        The waveform of each window, silence around it cut off, with its seed.
    """
    seeds = [derive_seed(speech.seed, window.index) for window in windows]
    best = list(zip(_generate(unison, speech, windows, seeds, first, options), seeds, strict=True))
    away = [_away(speech, waveform, first) for waveform, _ in best]
    far = [i for i, distance in enumerate(away) if distance > TIMBRE_DB]
    if far:
        others = [derive_seed(seeds[i], 1) for i in far]
        again = _generate(unison, speech, [windows[i] for i in far], others, first, options)
        for i, waveform, seed in zip(far, again, others, strict=True):
            if _away(speech, waveform, first) < away[i]:
                best[i] = (waveform, seed)
    return best


def _away(speech: LongSpeech, waveform: Tensor, first: _FirstWindow | None) -> float:
    """How far a window's spectrum is from the first one's in dB; infinite if it is silent."""
    if not len(waveform):
        return math.inf
    if first is None or speech.pace.clones:
        return 0.0
    return _distance(first.timbre, _timbre(waveform, speech.variant.sample_rate))


def _generate(
    unison: WindowModel,
    speech: LongSpeech,
    windows: list[TextWindow],
    seeds: list[int],
    first: _FirstWindow | None,
    options: dict[str, Any],
) -> list[Tensor]:
    """Sample windows once, in batches: waveforms with the silence around them cut off."""
    durations = [speech.seconds(window) for window in windows]
    order = sorted(range(len(windows)), key=durations.__getitem__)
    sounds: dict[int, Tensor] = {}
    for start in range(0, len(order), WINDOWS_AT_ONCE):
        rows = order[start : start + WINDOWS_AT_ONCE]
        inputs = {"seed": [seeds[i] for i in rows], "duration": [durations[i] for i in rows]}
        batch = _batch(unison, speech, [windows[i] for i in rows], first, inputs | options)
        sounds |= dict(zip(rows, batch, strict=True))
    return [sounds[i] for i in range(len(windows))]


def _batch(
    unison: WindowModel,
    speech: LongSpeech,
    windows: list[TextWindow],
    first: _FirstWindow | None,
    inputs: dict[str, Any],
) -> list[Tensor]:
    """Sample one batch."""
    rate = speech.variant.sample_rate
    template = speech.template
    reference, reference_text = speech.reference, speech.reference_text
    if first is not None and reference is None:
        if speech.clones:
            template = "[Speech with voice] {text}"
            reference, reference_text = first.waveform, first.window.text
        else:
            inputs["voice"] = (first.waveform, rate)
    if reference is not None:
        inputs |= {"reference": (reference, rate), "reference_text": reference_text}
        inputs["asr"] = [speech.asr] * len(windows)
    instructions = [template.replace("{text}", window.text) for window in windows]
    sounds = unison.generate(instructions, **inputs)
    return [audio.trim_silence(sound.waveform, rate) for sound in sounds]


def _active_level(waveform: Tensor, rate: int) -> float:
    """RMS of the frames that are within 25 dB of the loudest."""
    levels = audio.frame_levels(waveform, round(0.02 * rate))
    active = levels[levels > levels.max() - 25]
    return float((10 ** (active / 10)).mean().sqrt())


def _leveled(waveform: Tensor, first: _FirstWindow | None, rate: int) -> Tensor:
    """At the level of the first window, its ends faded into the silence around."""
    if first is None or len(waveform) == 0:
        return waveform
    gain = min(first.level / _active_level(waveform, rate), PEAK / float(waveform.abs().max()))
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
