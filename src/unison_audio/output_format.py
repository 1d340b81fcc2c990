"""`OutputFormat`: the formats of sound that are written, and their options.

The command line, jobs files, Python and streams share this one dataclass. Nothing here imports
torch or numpy, so that a bad option is refused at once.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from unison_audio.errors import InputError
from unison_audio.values import as_real, as_whole, shown

FormatName = Literal["wav", "flac", "ogg", "mp3", "opus", "m4a", "aac", "pcm"]

BitDepth = Literal[16, 24, 32]

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

AAC_RATES = (*MP3_RATES, 64_000, 88_200, 96_000)

MAX_RATE = 655_350
"""Highest sample rate that FLAC can state."""


@dataclass(frozen=True, kw_only=True)
class FormatInfo:
    """What one format of files can hold."""

    container: str
    """libsndfile's name of the container; empty where PyAV writes it."""
    coding: str
    """libsndfile's name of the coding, for formats without a bit depth."""
    media_type: str
    """Content type of HTTP."""
    bit_depths: tuple[int, ...] = ()
    """Bit depths; 32 is float. None in lossy formats."""
    rates: tuple[int, ...] = ()
    """Sample rates that it has; empty for any."""
    lossy: bool = False
    """Whether the decoded samples differ from those that were written."""
    has_bit_rate: bool = False
    """Whether its bit rate can be chosen."""
    streams: bool = True
    """Whether it can be written to a pipe."""


_M4A = FormatInfo(
    container="",
    coding="aac",
    media_type="audio/mp4",
    rates=AAC_RATES,
    lossy=True,
    has_bit_rate=True,
    streams=False,
)

FORMATS: dict[str, FormatInfo] = {
    "wav": FormatInfo(
        container="WAV", coding="PCM_16", media_type="audio/wav", bit_depths=(16, 24, 32)
    ),
    "flac": FormatInfo(
        container="FLAC", coding="PCM_16", media_type="audio/flac", bit_depths=(16, 24)
    ),
    "ogg": FormatInfo(
        container="OGG", coding="VORBIS", media_type="audio/ogg", lossy=True, streams=False
    ),
    "mp3": FormatInfo(
        container="MP3",
        coding="MPEG_LAYER_III",
        media_type="audio/mpeg",
        rates=MP3_RATES,
        lossy=True,
        has_bit_rate=True,
    ),
    "opus": FormatInfo(
        container="OGG",
        coding="OPUS",
        media_type="audio/ogg",
        rates=OPUS_RATES,
        lossy=True,
        has_bit_rate=True,
    ),
    "m4a": _M4A,
    "aac": replace(_M4A, media_type="audio/aac", streams=True),
    "pcm": FormatInfo(container="RAW", coding="PCM_16", media_type="audio/pcm", bit_depths=(16,)),
}
"""Name -> format. The name is also the suffix of its files."""

SUFFIXES: tuple[str, ...] = tuple(f".{name}" for name in FORMATS)
"""Suffixes of the files that can be written."""

_CODINGS = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}

LOWEST_LOUDNESS, HIGHEST_LOUDNESS = -70.0, -5.0
"""Range of the loudness in LUFS. EBU R128 measures nothing below the lowest."""

MARKS_VARIABLE = "UNISON_AUDIO_MARKS"
"""Environment variable with the layers of marks that are on by default."""

MOST_PAYLOAD = (1 << 16) - 1
"""Highest number that can be hidden in a sound."""

MISSING_AV = "pip install 'unison-audio[formats]'"


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """Format of the sound that is written; None keeps the default."""

    format: FormatName | None = None
    """wav, flac, ogg, mp3, opus, m4a, aac, or pcm for 16-bit samples without a header; by default
    the suffix of the output."""
    bit_depth: BitDepth | None = None
    """Bits of a sample: 16, 24, or 32 for float, in wav and flac; by default those of the source,
    or 16."""
    bit_rate: int | None = None
    """Kilobits per second, in mp3, opus, m4a and aac."""
    sample_rate: int | None = None
    """Samples per second; by default the sound's own, or the next that the format has."""
    loudness: float | None = None
    """Loudness of the whole output in LUFS after EBU R128, -70 to -5, such as -16 or -23; by
    default the sound keeps its level. The true peak stays below -1 dB."""
    metadata: bool | None = None
    """Say in the file's tags that the sound is generated, and by what; by default yes."""
    watermark: bool | None = None
    """Hide a watermark in the sound; by default no."""
    payload: int | None = None
    """Hide this number, 0 to 65535, in the sound; by default none."""
    sign_cert: Path | None = None
    """Certificate chain (PEM) to sign a C2PA manifest with; needs --sign-key."""
    sign_key: Path | None = None
    """Private key (PEM) of the certificate."""

    def __post_init__(self) -> None:
        """Check the options, together with the format where it is given."""
        names = get_args(FormatName)
        if self.format is not None and self.format not in names:
            raise InputError(
                f"There is no output format {self.format!r}; use one of {', '.join(names)}."
            )
        depths = get_args(BitDepth)
        if self.bit_depth is not None and as_whole(self.bit_depth) not in depths:
            raise InputError(
                f"The bit depth is {self.bit_depth!r}; use 16, 24, or 32 for float samples."
            )
        object.__setattr__(self, "bit_depth", as_whole(self.bit_depth))
        for name, most in (("bit_rate", 512), ("sample_rate", MAX_RATE)):
            value = getattr(self, name)
            number = as_whole(value)
            if value is not None and (number is None or not 0 < number <= most):
                raise InputError(f"{name} is {shown(value)}; give a whole number from 1 to {most}.")
            object.__setattr__(self, name, number)
        if self.loudness is not None:
            self._check_loudness()
        for name in ("metadata", "watermark"):
            if not isinstance(getattr(self, name), bool | None):
                raise InputError(f"{name} is {getattr(self, name)!r}; give true or false.")
        payload = as_whole(self.payload)
        if self.payload is not None and (payload is None or not 0 <= payload <= MOST_PAYLOAD):
            raise InputError(
                f"payload is {shown(self.payload)}; give a whole number from 0 to {MOST_PAYLOAD}."
            )
        object.__setattr__(self, "payload", payload)
        if self.payload is not None and self.watermark:
            raise InputError(
                "payload and watermark are two marks in the same sound; leave one of them out."
            )
        for name in ("sign_cert", "sign_key"):
            if not isinstance(getattr(self, name), str | Path | None):
                raise InputError(f"{name} is {getattr(self, name)!r}; give a path.")
        if (self.sign_cert is None) != (self.sign_key is None):
            missing = "sign_key" if self.sign_key is None else "sign_cert"
            raise InputError(f"{missing} is missing; a signature needs a certificate and its key.")
        if self.format is not None:
            self._check_options(self.format)

    def _check_loudness(self) -> None:
        loudness = as_real(self.loudness)
        if loudness is None or not LOWEST_LOUDNESS <= loudness <= HIGHEST_LOUDNESS:
            raise InputError(
                f"The loudness is {shown(self.loudness)}; give LUFS from {LOWEST_LOUDNESS:g} to "
                f"{HIGHEST_LOUDNESS:g}, such as -16 for the web or -23 for broadcasts."
            )
        object.__setattr__(self, "loudness", float(loudness))

    def chosen(self) -> dict[str, str | float | bool]:
        """The options that are set, as JSON values."""
        set_ones = ((name, getattr(self, name)) for name in OUTPUT_OPTIONS)
        return {
            name: value if isinstance(value, int | float) else str(value)
            for name, value in set_ones
            if value is not None
        }

    def marks(self, layer: str) -> bool:
        """Whether a layer of marks, "metadata" or "watermark", is on.

        Raises:
            InputError: If `UNISON_AUDIO_MARKS` holds something else.
        """
        chosen: bool | None = getattr(self, layer)
        return layer in default_marks() if chosen is None else chosen

    def _check_options(self, name: str) -> None:
        """Refuse options that the format does not have."""
        info = FORMATS[name]
        if self.bit_depth is not None and self.bit_depth not in info.bit_depths:
            having = ", ".join(
                other for other, found in FORMATS.items() if self.bit_depth in found.bit_depths
            )
            raise InputError(
                f"{name} has no bit depth of {self.bit_depth}; leave bit_depth out, or write "
                f"{having}."
            )
        if self.bit_rate is not None and not info.has_bit_rate:
            having = ", ".join(other for other, found in FORMATS.items() if found.has_bit_rate)
            raise InputError(
                f"The bit rate of {name} cannot be chosen; leave bit_rate out, or write {having}."
            )
        if self.sample_rate is not None and info.rates and self.sample_rate not in info.rates:
            raise InputError(
                f"{name} has no sample rate of {self.sample_rate}; use one of "
                f"{', '.join(map(str, info.rates))}."
            )

    def of_file(self, path: Path) -> "OutputFormat":
        """These options with the format that a file's name and `format` ask for.

        Raises:
            InputError: They disagree, there is no such format, or it lacks an option.
        """
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            if self.format is None or suffix:
                raise InputError(
                    f"Cannot write {path}: the suffix must be one of {', '.join(SUFFIXES)}; rename "
                    "the file."
                )
            return self
        if self.format is not None and suffix != f".{self.format}":
            raise InputError(
                f"Cannot write {path}: the format is {self.format}; name the file "
                f"{path.with_suffix(f'.{self.format}').name}, or leave the format out."
            )
        return merge_output(self, {"format": suffix[1:]})

    def of_stream(self) -> "OutputFormat":
        """These options for a pipe, by default as wav.

        Raises:
            InputError: The format cannot be written to a pipe.
        """
        name = self.format or "wav"
        if self.loudness is not None:
            raise InputError(
                "The loudness of a stream is known only at its end; leave the loudness out, or "
                "write a file."
            )
        if not FORMATS[name].streams:
            having = ", ".join(other for other, found in FORMATS.items() if found.streams)
            raise InputError(f"{name} cannot be written to a pipe; use one of {having}.")
        return replace(self, format=name)

    @property
    def info(self) -> FormatInfo:
        """The format, which must be known by now."""
        if self.format is None:
            raise ValueError("the format is not known yet; call of_file or of_stream first")
        return FORMATS[self.format]

    @property
    def coding(self) -> str:
        """Name of the coding, as libsndfile has it."""
        if self.bit_depth is None or not self.info.bit_depths:
            return self.info.coding
        return _CODINGS[self.bit_depth]

    def rate_for(self, sample_rate: int) -> int:
        """Sample rate of the file for a sound of `sample_rate`.

        A rate that the format lacks becomes the next higher one, or the highest.
        """
        if self.sample_rate is not None:
            return self.sample_rate
        rates = self.info.rates
        if not rates or sample_rate in rates:
            return sample_rate
        return min((rate for rate in rates if rate > sample_rate), default=max(rates))

    def bits_per_second(self, rate: int, channels: int) -> int | None:
        """Bits per second that are asked for, or None for the encoder's own.

        Raises:
            InputError: The format has no such bit rate at this sample rate.
        """
        if self.bit_rate is None:
            return None
        least, most = bit_rate_limits(str(self.format), rate, channels)
        if not least <= self.bit_rate <= most:
            raise InputError(
                f"The bit rate is {self.bit_rate}; {self.format} at {rate} Hz with {channels} "
                f"channel{'s' * (channels > 1)} takes {least} to {most} kbit/s."
            )
        return 1000 * self.bit_rate


OUTPUT_OPTIONS: tuple[str, ...] = tuple(field.name for field in fields(OutputFormat))
"""Names of the options."""


def bit_rate_limits(name: str, rate: int, channels: int) -> tuple[int, int]:
    """Lowest and highest bit rate of a format in kbit/s."""
    if name == "mp3":  # MPEG-1, MPEG-2 and MPEG-2.5 have tables of their own
        return (32, 320) if rate >= 32_000 else (8, 160) if rate >= 16_000 else (8, 64)
    if name == "opus":
        return 6 * channels, 256 * channels
    # At most 6,144 bits for a channel's frame of 1,024 samples.
    return 8 * channels, 6 * rate * channels // 1000


def default_marks() -> frozenset[str]:
    """The layers of marks that are on where nothing else is asked for.

    Raises:
        InputError: If `UNISON_AUDIO_MARKS` holds something else.
    """
    given = os.environ.get(MARKS_VARIABLE, "metadata")
    layers = frozenset(part.strip() for part in given.split(",") if part.strip())
    if layers == {"none"}:
        return frozenset()
    if not layers <= {"metadata", "watermark"}:
        raise InputError(
            f"{MARKS_VARIABLE} is {given!r}; give metadata, watermark, both with a comma, or none."
        )
    return layers


def merge_output(base: OutputFormat | None, options: Mapping[str, Any]) -> OutputFormat:
    """Put options by name over an output format.

    Args:
        base: The format to start from; None for the defaults.
        options: Name -> value.

    Raises:
        InputError: A name is unknown or a value out of its range.
    """
    unknown = [name for name in options if name not in OUTPUT_OPTIONS]
    if unknown:
        raise InputError(
            f"Unknown output option {', '.join(unknown)}; the options are "
            f"{', '.join(OUTPUT_OPTIONS)}."
        )
    if not isinstance(base, OutputFormat | None):
        raise InputError(
            f"The output format is {shown(base)}; give an OutputFormat, or options by name, such "
            "as format='flac'."
        )
    return replace(base or OutputFormat(), **options)


def needs_av(output: OutputFormat, stream: bool) -> bool:
    """Whether PyAV writes a format: m4a and aac, and mp3 and opus where they are streamed."""
    return not output.info.container or (stream and output.info.lossy)


def require_av(what: str) -> Any:
    """Import PyAV.

    Args:
        what: What needs it, at the beginning of the message.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(
            f"{what} needs the package av, which is missing; install it with: {MISSING_AV}"
        ) from None
    return av
