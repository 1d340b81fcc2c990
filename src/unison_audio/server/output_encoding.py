"""The formats of answers: the one door by which sound leaves the server."""

import tempfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import numpy as np

from unison_audio.audio import Audio
from unison_audio.audio_encoder import AudioEncoder
from unison_audio.audio_writer import SampleLayout, write_audio
from unison_audio.errors import InputError
from unison_audio.loudness import require_loudness_filter
from unison_audio.output_format import OutputFormat, merge_output
from unison_audio.sample_codings import Samples
from unison_audio.server.api_errors import full_disk
from unison_audio.server.batching import Ticket

SPEECH_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
"""Formats of OpenAI's speech route."""

PCM_RATE = 24_000
"""Sample rate of pcm: clients have it built in, since a stream without a header cannot say it."""

CHUNK_BYTES = 1 << 16
"""Bytes of a file that are sent at once."""


def speech_format(
    name: str,
    sample_rate: int | None = None,
    bit_rate: int | None = None,
    loudness: float | None = None,
) -> OutputFormat:
    """The options of a format for an answer.

    Args:
        name: A format's name.
        sample_rate: Samples per second, where the client asks for some.
        bit_rate: Kilobits per second, where the client asks for some.
        loudness: LUFS, where the client asks for some.

    Raises:
        InputError: The format has no such rate, or the loudness cannot be measured here.
    """
    if loudness is not None:
        require_loudness_filter()
    if name == "pcm" and sample_rate is None:
        sample_rate = PCM_RATE
    options = {"format": name, "sample_rate": sample_rate, "bit_rate": bit_rate}
    return merge_output(None, {**options, "loudness": loudness})


def streamed(
    sounds: Iterable[Audio], output: OutputFormat, ticket: Ticket, rate: int
) -> Iterator[bytes]:
    """Code sounds that play one after the other, through one encoder.

    With a loudness they are coded at the end, as a whole: a part has no loudness of its own.

    Args:
        sounds: Of one sample rate.
        output: Format and options.
        ticket: The request, whose seconds of sound are counted.
        rate: The sounds' sample rate.

    Yields:
        Bytes as soon as there are some.
    """
    if output.loudness is not None:
        yield from whole(sounds, output, ticket, rate)
        return
    encoder: AudioEncoder | None = None
    for sound in sounds:
        # Made with the first sound, whose origin the tags at the beginning state.
        if encoder is None:
            encoder = AudioEncoder(output, rate, origin=sound.origin)
        ticket.audio_seconds += sound.seconds
        part = encoder.write(sound.waveform)
        if part:
            yield part
    if encoder is not None:
        yield encoder.finish()


def whole(
    sounds: Iterable[Audio], output: OutputFormat, ticket: Ticket, rate: int
) -> Iterator[bytes]:
    """Code sounds as a file of known length, whose header states it.

    libsndfile reads no FLAC stream to its end, and some players show a WAV stream as hours long.

    Args:
        sounds: Of one sample rate.
        output: Format and options.
        ticket: The request, whose seconds of sound are counted.
        rate: The sounds' sample rate.

    Yields:
        The bytes of the file.
    """
    origin = None
    blocks: list[Samples] = []
    for sound in sounds:
        origin = sound.origin
        ticket.audio_seconds += sound.seconds
        blocks.append(np.asarray(sound.waveform.numpy(), np.float32)[:, None])
    layout = SampleLayout(sample_rate=rate, origin=origin)
    yield from as_file(blocks, layout, output, ticket)


def as_file(
    blocks: Iterable[Samples], layout: SampleLayout, output: OutputFormat, ticket: Ticket
) -> Generator[bytes, None, None]:
    """Write a file of sound, and give its bytes.

    Args:
        blocks: (samples, channels) each.
        layout: Rate, channels and number type of the blocks.
        output: Format and options.
        ticket: The request, which gets the warnings.

    Yields:
        The bytes of the file, in pieces.

    Raises:
        InputError: The format cannot hold the sound.
        ApiError: The disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="unison-answer-") as folder:
        path = Path(folder, f"answer.{output.format}")
        try:
            write_audio(path, blocks, layout, output, ticket.warn)
        except InputError as error:
            if isinstance(error.__cause__, OSError):
                raise full_disk() from error
            raise InputError(str(error).replace(str(path), "the answer")) from error
        with path.open("rb") as file:
            while part := file.read(CHUNK_BYTES):
                yield part
