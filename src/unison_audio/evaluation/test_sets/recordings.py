"""What test sets are made from: AudioCaps test, Seed-TTS, or nano's held-out clips.

Published layouts, both under one folder given by the user:

- ``audiocaps/``: a ``test.csv`` (audiocap_id, youtube_id, start_time, caption; five rows a clip)
  and the audio of its clips, anywhere under it and named in any way that `data.corpora.youtube`
  knows.
- ``seedtts_testset/``: ``en/`` and ``zh/`` with a ``meta.lst`` each, whose lines are
  ``utterance|prompt's text|prompt's wav|text`` and may end in ``|recording``; the recording of a
  line without one is ``wavs/{utterance}.wav`` (github.com/BytedanceSpeech/seed-tts-eval).
"""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unison_audio import audio, audio_files
from unison_audio.data.captions import mentions_speech, plain_caption
from unison_audio.data.corpora import youtube
from unison_audio.data.corpora.source import Skipped, SourceClip
from unison_audio.data.corpora.source_files import find, named_rows
from unison_audio.data.records import Recording, UnreadableAudioError
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import gender_of, median_f0
from unison_audio.files import file_hash

GENDER_THRESHOLD_HZ = 165.0
"""Median pitch above which a Seed-TTS voice counts as female; the list does not say genders."""

LANGUAGES = ("en", "zh")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """A recording of a sound."""

    id: str
    label: str
    """The event as a phrase for "Add ..."."""
    captions: tuple[str, ...]
    """Captions by one or several people."""
    read: Callable[[], Tensor]
    """Gives (samples,) at the recordings' rate."""

    @property
    def speechless(self) -> bool:
        """Whether no caption speaks of speech."""
        return not any(mentions_speech(text) for text in (self.label, *self.captions))


@dataclass(frozen=True, kw_only=True, eq=False)
class Utterance:
    """An utterance; its language is "en" or "zh"."""

    id: str
    text: str
    language: str
    speaker: str
    seconds: float
    read: Callable[[], Tensor]
    """Gives (samples,) at the recordings' rate."""
    gender: Callable[[], str]
    """Gives "male" or "female"."""
    prompt: "Utterance | None" = None
    """Another utterance of the same speaker."""


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Recordings to make test sets from."""

    name: str
    """Where it is from."""
    sample_rate: int
    """Of what `read` gives, in Hz."""
    sounds: tuple[Sound, ...] = ()
    """In the order of the publisher's table."""
    voices: tuple[Utterance, ...] = ()
    """Utterances, in the same order."""
    zero_shot: tuple[Utterance, ...] = ()
    """Utterances for zero-shot speech."""
    published: bool = True
    """Whether these are published lists, taken whole; else utterances for which there is no room
    are left out, and noise is laid under clips, which hold digital silence."""
    sound_files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Name -> file or content of all that the sounds come from."""
    voice_files: Mapping[str, Path | bytes] = field(default_factory=dict)
    """The same for the voices."""

    def inputs(self, *, sounds: bool, voices: bool) -> dict[str, str]:
        """SHA-256 of the files that test sets of sounds, voices or both depend on."""
        files = {**(self.sound_files if sounds else {}), **(self.voice_files if voices else {})}
        return {
            name: hashlib.sha256(what).hexdigest() if isinstance(what, bytes) else file_hash(what)
            for name, what in sorted(files.items())
        }


def published(
    data: Path,
    sample_rate: int,
    *,
    sounds: bool = True,
    voices: bool = True,
    languages: Sequence[str] = LANGUAGES,
) -> Recordings:
    """Lists AudioCaps test and Seed-TTS.

    Args:
        data: Holds ``audiocaps/`` and ``seedtts_testset/``.
        sample_rate: Wanted, in Hz.
        sounds: Whether AudioCaps is needed.
        voices: Whether Seed-TTS is needed.
        languages: Languages of Seed-TTS that must be there. Another one may be missing.

    Returns:
        The recordings; the name of a list with one language says which.

    Raises:
        InputError: If a folder, table or recording is missing or cannot be read.
    """
    clips, sound_files = _audiocaps(data / "audiocaps", sample_rate) if sounds else ((), {})
    spoken, voice_files = (
        _seed_tts(data / "seedtts_testset", sample_rate, languages) if voices else ((), {})
    )
    there = [name for name in LANGUAGES if any(voice.language == name for voice in spoken)]
    one = f" ({there[0]})" if len(there) == 1 else ""
    return Recordings(
        name=f"AudioCaps test and Seed-TTS{one}",
        sample_rate=sample_rate,
        sounds=clips,
        voices=spoken,
        zero_shot=spoken,
        sound_files=sound_files,
        voice_files=voice_files,
    )


def _audiocaps(root: Path, rate: int) -> tuple[tuple[Sound, ...], dict[str, Path | bytes]]:
    """AudioCaps' test clips in the order of the table, and what they were read from."""
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}; put AudioCaps there (test.csv and the audio of its clips)."
        )
    table = find(root, ("test.csv",), "fetch the tables of AudioCaps there.")
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    captions: dict[str, list[str]] = {}
    clip_of: dict[str, str] = {}
    for row in named_rows(table, columns):
        # Each of the five captions has its own audiocap_id; video and start name the clip.
        clip = f"{row['youtube_id']}_{row['start_time']}"
        clip_of[row["audiocap_id"]] = clip
        captions.setdefault(clip, []).append(row["caption"].strip())
    rows = _MemoryRows()
    found: dict[str, SourceClip] = {}
    for unit in youtube.audiocaps_units(root, rows):
        if isinstance(unit, Skipped) or ("file" in unit.payload and unit.key not in clip_of):
            continue
        for source in youtube.clips(root, unit.payload, rows):
            if isinstance(source, SourceClip) and source.key in clip_of:
                found.setdefault(clip_of[source.key], _kept(source))
    if not found:
        raise InputError(
            f"None of the {len(captions)} clips in {table} has its audio under {root}; fetch it."
        )
    files: dict[str, Path | bytes] = {"audiocaps/test.csv": table}
    for source in found.values():
        content = source.audio
        files[f"audiocaps/{source.file}"] = content if isinstance(content, Path) else content()
    sounds = tuple(
        Sound(
            id=clip,
            label=plain_caption(said[0]),
            captions=tuple(plain_caption(text) for text in said),
            read=partial(_decoded, found[clip], rate),
        )
        for clip, said in captions.items()
        if clip in found
    )
    return sounds, files


def _kept(source: SourceClip) -> SourceClip:
    """A clip that keeps its content after its archive has been read."""
    if isinstance(source.audio, Path):
        return source
    # An archive's reader is valid only until its next member is asked for.
    content = source.audio()
    return SourceClip(**{**vars(source), "audio": lambda: content})


def _decoded(source: SourceClip, rate: int) -> Tensor:
    """Reads a clip's sound: (samples,)."""
    content = source.audio if isinstance(source.audio, Path) else source.audio()
    try:
        recording = Recording(content, source.file)
        try:
            first, last = 0, recording.frames
            # A longer file is the whole video; the clip is cut out of it.
            if source.start is not None and recording.seconds > source.cut_over:
                assert source.end is not None
                first = round(source.start * recording.sample_rate)
                last = min(last, round(source.end * recording.sample_rate))
            samples = recording.read(first, last)
        finally:
            recording.close()
    except UnreadableAudioError as error:
        raise InputError(f"{source.file} {error}; fetch it again, or delete it.") from error
    waveform = torch.from_numpy(samples).mean(dim=1)
    audio_files.require_finite(
        waveform.numpy(), recording.sample_rate, source.file, advice="fetch it again"
    )
    audio.require_sound(waveform, source.file)
    return audio.resample(waveform, recording.sample_rate, rate)


class _MemoryRows:
    """Rows of annotation by key, in memory."""

    def __init__(self) -> None:
        self._rows: defaultdict[str, list[list[Any]]] = defaultdict(list)

    def put(self, key: str, row: list[Any]) -> None:
        """Adds a row under a key."""
        self._rows[key].append(row)

    def get(self, key: str) -> list[list[Any]]:
        """Gives the rows of a key."""
        return self._rows.get(key, [])


def _seed_tts(
    root: Path, rate: int, languages: Sequence[str]
) -> tuple[tuple[Utterance, ...], dict[str, Path | bytes]]:
    """Seed-TTS' utterances, English first, and the files they were read from."""
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; put the test set of Seed-TTS there.")
    voices: list[Utterance] = []
    files: dict[str, Path | bytes] = {}
    for language in LANGUAGES:
        listing = root / language / "meta.lst"
        if not listing.is_file():
            if language in languages or not any(
                (root / other / "meta.lst").is_file() for other in LANGUAGES
            ):
                raise InputError(
                    f"There is no {listing}; put the test set of Seed-TTS there, or leave the "
                    f"language out with --counts seed-tts-{language}=0 gender-tts-{language}=0."
                )
            warnings.warn(
                f"There is no {listing}: all sets with speech are made of the other language "
                "alone, and compare with no published figure.",
                stacklevel=2,
            )
            continue
        files[f"seedtts_testset/{language}/meta.lst"] = listing
        for number, line in enumerate(listing.read_text("utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            fields = [entry.strip() for entry in line.split("|")]
            if len(fields) not in (4, 5) or not all(fields[:4]):
                raise InputError(
                    f"{listing}, line {number}, has {len(fields)} fields; four or five are "
                    "expected: utterance|prompt's text|prompt's wav|text, and |recording."
                )
            name, said, prompt, text = fields[:4]
            own = fields[4] if len(fields) == 5 else f"wavs/{name}.wav"
            paths = {entry: listing.parent / entry for entry in (prompt, own)}
            files.update({f"seedtts_testset/{language}/{k}": v for k, v in paths.items()})
            reference = _file_voice(prompt, said, language, paths[prompt], rate)
            voices.append(_file_voice(name, text, language, paths[own], rate, reference))
    return tuple(voices), files


def _file_voice(
    name: str, text: str, language: str, path: Path, rate: int, prompt: Utterance | None = None
) -> Utterance:
    # Called only by sets that name the gender: pitch tracking decodes the whole recording.
    def gender() -> str:
        pitch = median_f0(audio.load(path, sample_rate=16_000), 16_000)
        return gender_of(pitch, GENDER_THRESHOLD_HZ) or "male"

    return Utterance(
        id=name,
        text=text,
        language=language,
        speaker=prompt.speaker if prompt is not None else name,
        seconds=audio_files.seconds(path),
        read=lambda: audio.load(path, sample_rate=rate),
        gender=gender,
        prompt=prompt,
    )
