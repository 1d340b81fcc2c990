"""A speech request becomes what is spoken: template, voice, seed, pieces of sound."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from unison_audio.checks import domain_warning, outside_domain
from unison_audio.sampling_params import SamplingParams
from unison_audio.server.api_errors import ApiError
from unison_audio.server.builtin_voices import BUILTIN_VOICES
from unison_audio.server.recording_store import RecordingStore, StoredVoice
from unison_audio.server.remote_model import RemoteModel
from unison_audio.server.request_models import SpeechRequest, VoiceReference
from unison_audio.variants import Variant

_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+;=-]*;base64,(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ChosenVoice:
    """The voice of a request."""

    template: str
    """Instruction without the words: `[Speech] A male voice` or `[Speech with voice]`."""
    seed: int
    """Seed of the noise."""
    reference: tuple[Any, int] | None = None
    """Recording of the voice, (waveform, sample_rate)."""
    reference_text: str | None = None
    """Its words."""


@dataclass(frozen=True, kw_only=True)
class SpeechPlan:
    """A speech request, checked."""

    variant: Variant
    """What speaks."""
    text: str
    """The words."""
    voice: ChosenVoice
    """Who speaks."""
    sampling: SamplingParams
    """Options of sampling."""
    ambient: str = ""
    """The sound behind the speech."""
    duration: float | None = None
    """Seconds, with a sound behind the speech."""

    @property
    def instruction(self) -> str:
        """The whole as one instruction, for the check of the domain."""
        # A quotation mark inside would end the text early, and the rest would count as no words.
        words = self.text.replace('"', " ")
        if self.voice.reference is not None:
            return f"{self.voice.template} {words}"
        spoken = f'{self.voice.template} saying "{words}"'
        return f"{spoken} [Audio] {self.ambient}" if self.ambient else spoken

    def domain_warnings(self) -> list[str]:
        """The warning about words and sounds that the variant does not know."""
        # The length counts window by window, and windows are cut to fit.
        outside = replace(outside_domain(self.variant, self.instruction), text_words=0)
        if not outside:
            return []
        return [domain_warning(self.variant, outside)]

    def sounds(self, model: RemoteModel) -> tuple[Iterator[Any], bool]:
        """Start to speak.

        Args:
            model: The model.

        Returns:
            The sounds, to play one after the other, and whether there is only one.

        Raises:
            InputError: An input cannot be used.
        """
        from unison_audio.longform.long_speech import pieces, plan_speech, speak

        if self.ambient:
            scene = model.generate(
                [self.instruction],
                seed=self.voice.seed,
                duration=self.duration or self._scene_seconds(),
                sampling=self.sampling,
            )
            return iter(scene), True
        speech = plan_speech(
            self.variant,
            self.voice.template,
            text=self.text,
            reference=self.voice.reference,
            reference_text=self.voice.reference_text,
            seed=self.voice.seed,
        )
        # Two windows are enough to know: to cut a whole book would delay its first sound.
        single = len(list(islice(speech.windows(), 2))) == 1
        return pieces(speak(model, speech, sampling=self.sampling), speech), single

    def _scene_seconds(self) -> float:
        """Length of speech with a sound behind it: that of the words, or the variant's default."""
        from unison_audio.longform.text_windows import LENGTH_MARGIN, estimate_seconds, pace_of

        spoken = estimate_seconds(self.text, pace_of(self.variant)) * LENGTH_MARGIN
        return min(self.variant.max_seconds, max(self.variant.default_seconds, spoken))


def choose_voice(
    voice: str | VoiceReference, store: RecordingStore[StoredVoice], seed: int, variant: Variant
) -> ChosenVoice:
    """Find the voice that a request names.

    Args:
        voice: A built-in name, male or female, or a stored voice's id or name.
        store: The stored voices.
        seed: The request's seed.
        variant: What speaks.

    Raises:
        ApiError: There is no such voice.
    """
    name = voice.id if isinstance(voice, VoiceReference) else voice
    built_in = BUILTIN_VOICES.get(name.lower())
    if built_in is not None:
        return ChosenVoice(template=f"[Speech] A {built_in.gender} voice", seed=built_in.seed(seed))
    if name.lower() in ("male", "female"):
        return ChosenVoice(template=f"[Speech] A {name.lower()} voice", seed=seed)
    stored = store.find(name) if name else None
    if stored is None:
        raise ApiError(
            400,
            f"There is no voice {name!r:.120}; use one of {', '.join(BUILTIN_VOICES)}, or upload "
            "one to /v1/audio/voices.",
            param="voice",
            code="voice_not_found",
        )
    return ChosenVoice(
        template="[Speech with voice]",
        seed=seed,
        reference=(store.waveform(stored), stored.sample_rate),
        reference_text=stored.ref_text,
    )


def plan_request(
    body: SpeechRequest,
    variant: Variant,
    voice: ChosenVoice,
    text: str,
    sampling: SamplingParams,
) -> tuple[SpeechPlan, list[str]]:
    """Check a speech request.

    Args:
        body: The request.
        variant: What speaks.
        voice: Who speaks.
        text: The words, cleaned.
        sampling: Options of sampling.

    Returns:
        The plan, and the warnings for the client.

    Raises:
        ApiError: A field does not fit the others.
        InputError: The words cannot be spoken.
    """
    notes = body.ignored
    if body.instructions.strip() not in ("", "None"):  # Home Assistant sends "None"
        notes.append("instructions is ignored: the model takes no style, only a voice.")
    ambient = body.ambient_sound.strip()
    if ambient and re.search(r'[\[\]"“”「」]', ambient):
        raise ApiError(
            400,
            "ambient_sound holds quotes or brackets; describe a sound in plain words.",
            param="ambient_sound",
        )
    if ambient and voice.reference is not None:
        raise ApiError(
            400,
            "ambient_sound goes with a built-in voice only; name one of those.",
            param="ambient_sound",
        )
    if body.duration_seconds is not None and not ambient:
        notes.append("duration_seconds is ignored: the length of speech follows from its words.")
    plan = SpeechPlan(
        variant=variant,
        text=text,
        voice=voice,
        sampling=sampling,
        ambient=ambient,
        duration=body.duration_seconds if ambient else None,
    )
    return plan, [*notes, *plan.domain_warnings()]


def data_url(value: str, most: int) -> bytes:
    """The bytes of a data URL; no other URL, and no path, is ever opened.

    Args:
        value: `data:audio/wav;base64,...`.
        most: Bytes that may be in it.

    Raises:
        ApiError: It is another URL, a path, or not base64.
    """
    match = _DATA_URL.fullmatch(value.strip())
    if match is None:
        raise ApiError(
            400,
            "ref_audio must be a data URL (data:audio/wav;base64,...): this server opens no "
            "addresses and no files that a client names.",
            param="ref_audio",
        )
    try:
        data = base64.b64decode(match[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, "ref_audio holds no valid base64.", param="ref_audio") from error
    if len(data) > most:
        raise ApiError(413, f"ref_audio is larger than {most:,} bytes.", param="ref_audio")
    return data


def require_text(text: str, most: int, name: str) -> None:
    """Refuse a text that is empty or too long.

    Raises:
        ApiError: It is.
    """
    if not text.strip():
        raise ApiError(400, f"{name} is empty; give a text.", param=name)
    if len(text) > most:
        raise ApiError(
            400,
            f"{name} has {len(text):,} characters; at most {most:,} are taken.",
            param=name,
            code="string_above_max_length",
        )
