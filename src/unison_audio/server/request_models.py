"""The bodies of JSON requests. Fields that are not listed are tolerated, and named in a header."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from unison_audio.output_format import OutputFormat
from unison_audio.sampling_params import OPTIONS, RENAMED, SamplingParams, merge_options
from unison_audio.server.output_encoding import speech_format

FormatWord = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

Seed = Annotated[int, Field(ge=0, lt=1 << 63, strict=True)]
"""Seed of the noise."""

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""A length."""

SAMPLING_FIELDS = (*OPTIONS, *RENAMED)
"""Fields of every request that are options of sampling."""

IGNORED = {
    "word_timestamps": "the model gives no times of words",
    "language": "the language follows from the text and the variant",
    "extra_params": "give the options of sampling as fields of the request",
}
"""Fields of speech requests to other servers -> why they do nothing here."""

Rate = Annotated[int, Field(ge=8_000, le=192_000)]
"""Samples per second."""


def read_sampling(base: SamplingParams, values: Mapping[str, Any]) -> SamplingParams:
    """The sampling options among a request's fields.

    Args:
        base: The server's own options, for what the request leaves open.
        values: The fields.

    Raises:
        InputError: One is out of its range.
    """
    given = {name: values[name] for name in SAMPLING_FIELDS if values.get(name) is not None}
    return merge_options(base, given)


class VoiceReference(BaseModel):
    """A stored voice, by its id."""

    id: str = Field(max_length=100)


class TolerantRequest(BaseModel):
    """What all JSON requests of sound have in common."""

    model_config = ConfigDict(extra="allow")

    seed: Seed = 0
    sample_rate: Rate | None = None
    bit_rate: Annotated[int, Field(ge=6, le=512)] | None = None
    loudness: Annotated[float, Field(ge=-70, le=-5, allow_inf_nan=False)] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any, info: Any) -> Any:
        """JSON's null stands for a field that is left out, as many clients send it."""
        field = cls.model_fields.get(info.field_name)
        if value is None and field is not None and not field.is_required():
            return field.get_default()
        return value

    def sampling(self, base: SamplingParams) -> SamplingParams:
        """The sampling options among the further fields.

        Args:
            base: The server's own options, for what the request leaves open.

        Raises:
            InputError: One is out of its range.
        """
        return read_sampling(base, self.model_extra or {})

    @property
    def unknown(self) -> list[str]:
        """Names of the fields that nothing here reads."""
        return [name for name in self.model_extra or {} if name not in SAMPLING_FIELDS]

    def output(self, name: str) -> OutputFormat:
        """The answer's format.

        Args:
            name: The format.

        Raises:
            InputError: It does not have the rate.
        """
        return speech_format(name, self.sample_rate, self.bit_rate, self.loudness)


class SpeechRequest(TolerantRequest):
    """`POST /v1/audio/speech`."""

    model: str = Field(max_length=200)
    input: str
    voice: str | VoiceReference
    instructions: str = Field("", max_length=4096)
    response_format: FormatWord = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0, allow_inf_nan=False)
    stream_format: Literal["audio", "sse"] = "audio"
    ambient_sound: str = Field("", max_length=500)
    duration_seconds: Seconds | None = None
    ref_audio: str = ""
    ref_text: str = Field("", max_length=1000)

    @property
    def unknown(self) -> list[str]:
        """Names of the fields that nothing here reads."""
        # An answer is always sent as it is made, so `stream` is kept.
        return [name for name in super().unknown if name not in ("stream", *IGNORED)]

    @property
    def ignored(self) -> list[str]:
        """Why fields that are known do nothing, where they ask for something."""
        given = self.model_extra or {}
        return [f"{name} is ignored: {why}." for name, why in IGNORED.items() if given.get(name)]


class GenerateRequest(TolerantRequest):
    """`POST /v1/audio/generate`."""

    input: str
    model: str = Field("", max_length=200)
    voice: str | VoiceReference = ""
    task: str = Field("", max_length=100)
    response_format: FormatWord = "wav"
    stream_format: Literal["audio", "sse"] = "audio"
    audio_length: Seconds | None = None
    audio_start: float = 0.0
    negative_prompt: str = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None


class SoundGenerationRequest(TolerantRequest):
    """`POST /v1/sound-generation`, ElevenLabs' route."""

    text: str
    model_id: str = Field("", max_length=200)
    duration_seconds: Annotated[float, Field(ge=0.5, le=30.0, allow_inf_nan=False)] | None = None
    prompt_influence: float = Field(0.3, ge=0.0, le=1.0, allow_inf_nan=False)
    loop: bool = False


class TimelineEvent(BaseModel):
    """One event of a timeline."""

    start: float = Field(ge=0, le=86_400, allow_inf_nan=False)
    end: float = Field(gt=0, le=86_400, allow_inf_nan=False)
    text: str = Field(min_length=1, max_length=500)


class TimelineRequest(TolerantRequest):
    """`POST /v1/audio/timeline`."""

    events: list[TimelineEvent] = Field(min_length=1, max_length=1000)
    model: str = Field("", max_length=200)
    duration: Seconds | None = None
    response_format: FormatWord = "wav"
    stream_format: Literal["audio", "sse"] = "audio"
