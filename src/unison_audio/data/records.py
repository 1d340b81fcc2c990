"""WebDataset shards of clips: writing them whole or not at all, and reading them back."""

import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import torch
import webdataset
from webdataset.gopen import gopen

from unison_audio.errors import InputError

MAX_CHARACTERS = 2000
"""Longer texts cannot be an instruction: the text encoder takes 256 tokens."""

ZERO_SHOT_SECONDS = 3.0
"""Speech at least this long can give a reference and a target (paper, appendix C)."""

EMPTY = "no text or caption"

TOO_LONG = f"text longer than {MAX_CHARACTERS} characters"

NOT_UTF8 = "text is not UTF-8"

SPEAKS_OF_SPEECH = "caption speaks of speech"

_SPOKEN = (
    "speak speaks speaking spoke spoken speech speeches talk talks talked talking say says said "
    "saying voiceover voiceovers converse converses conversed conversing conversation "
    "conversations conversational dialog dialogs dialogue dialogues monologue monologues narrate "
    "narrates narrated narrating narration narrator narrators announce announces announced "
    "announcing announcement announcements announcer announcers lecture lectures lectured "
    "lecturing lecturer sermon sermons preach preaches preached preaching preacher interview "
    "interviews interviewed interviewing interviewer commentator commentators commentary "
    "whisper whispers whispered whispering mumble mumbles mumbled mumbling mutter mutters "
    "muttered muttering shout shouts shouted shouting yell yells yelled yelling recite recites "
    "recited reciting recitation chat chats chatted chatting discuss discusses discussed "
    "discussing discussion discussions debate debates debated debating argue argues argued arguing "
    "argument arguments ask asks asked asking tell tells told telling gossip gossips gossiping "
    "storytelling podcast podcasts newscast newscaster newsreader audiobook"
)
"""Words that are about speaking whatever stands beside them."""

_DOUBTFUL = "chatter chatters chattered chattering babble babbles babbling murmur murmurs murmuring"
"""Monkeys and brooks do that too: counted only beside a word of ``_PEOPLE``."""

_PEOPLE = (
    "people person persons human man men woman women male males female females boy boys girl girls "
    "child children kid kids baby babies infant adult adults someone somebody crowd crowds "
    "audience guests students passengers customers voice voices radio police"
)

_SUNG = r"\b(?:sing|sings|singing|sung|sang|singer|singers|song|songs|choir|choral|vocals)\b"


def _any_word(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words.split())})\b", re.IGNORECASE)


_SPOKEN_WORD, _DOUBTFUL_WORD, _PEOPLE_WORD = map(_any_word, (_SPOKEN, _DOUBTFUL, _PEOPLE))

_VOICE_WORD, _SUNG_WORD = re.compile(r"\bvoices?\b", re.I), re.compile(_SUNG, re.I)

# Chinese has no word boundaries: a bare 说 would also hit 小说 (novel) and 据说 (it is said).
_CHINESE = re.compile(
    "说话|讲话|谈话|对话|交谈|攀谈|聊天|演讲|演说|讲演|朗读|朗诵|诵读|旁白|播音|解说|讲解|讲述|叙述|"
    "低语|耳语|私语|嘀咕|大喊|叫喊|呼喊|喊叫|喊道|人声|语音|话音|嗓音|说着|说道|说了|在说|说出|"
    "广播员|主持人|访谈|采访|辩论|讨论|争吵|议论"
)


def speaks_of_speech(caption: str) -> bool:
    """Tells whether a caption mentions speaking, in English or Chinese.

    Such clips are left out of the pool of sounds, whose captions must not promise words that
    nobody wrote down (paper, appendix C: about 390,000 of the audio clips). Whole words count:
    "a loudspeaker hums" and "a parrot whistles" stay, "a parrot talking" does not. "Voice" counts
    unless somebody sings; chattering, babbling and murmuring count beside people only.
    """
    if _SPOKEN_WORD.search(caption) or _CHINESE.search(caption):
        return True
    if _VOICE_WORD.search(caption) and not _SUNG_WORD.search(caption):
        return True
    return bool(_DOUBTFUL_WORD.search(caption) and _PEOPLE_WORD.search(caption))


def text_fault(text: str) -> str:
    """Names what makes a text unusable, whatever it says; "" if nothing does.

    Args:
        text: As decoded with ``errors="surrogateescape"``, so that wrong bytes show as surrogates.
    """
    if len(text) > MAX_CHARACTERS:
        return TOO_LONG
    if any("\ud800" <= character <= "\udfff" for character in text):
        return NOT_UTF8
    return "" if text.strip() else EMPTY


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What is known of one recording."""

    key: str
    """Name, unique in the corpus."""
    kind: str
    """``speech`` or ``sound``."""
    split: str
    """``train``, ``heldout`` (unheard texts or clips) or ``speakers`` (unheard voices, held out as
    well)."""
    seconds: float
    """Length."""
    licence: str
    """Licence of the recording or of the voice."""
    source: str
    """Package and path, or the voice that spoke it."""
    text: str = ""
    """What is said; empty where nobody wrote it down."""
    speaker: str = ""
    """Who speaks."""
    gender: str = ""
    """``male``, ``female`` or empty."""
    label: str = ""
    """Event label that fits into "Add ..."."""
    caption: str = ""
    """A sentence on what is heard."""
    language: str = ""
    """Of the text or the caption: ``en``, ``zh`` or another code; empty where nobody said."""
    sample_rate: int = 0
    """Of the recording in the shard, in Hz; 0 in corpora of one rate, such as nano's."""
    channels: int = 1
    """Of the recording in the shard."""

    @property
    def zero_shot(self) -> bool:
        """Whether it is long enough to give a reference and a target (paper, appendix C)."""
        return self.kind == "speech" and bool(self.text) and self.seconds >= ZERO_SHOT_SECONDS


def in_split(split: str, wanted: str | None) -> bool:
    """Whether a clip of a split is wanted.

    Args:
        split: The clip's.
        wanted: One of a clip's splits; ``heldout`` takes unheard voices too, None takes all.
    """
    return wanted in (None, split) or (wanted == "heldout" and split == "speakers")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A recording with what is known of it."""

    record: ClipRecord
    """Its record."""
    waveform: torch.Tensor
    """(samples,) float32, mono."""


def write_shard(path: Path, clips: Iterable[Clip], sample_rate: int) -> list[ClipRecord]:
    """Writes a shard of 16-bit FLAC and JSON pairs; the file appears only when it is complete.

    Args:
        path: The ``.tar`` to write.
        clips: What goes in.
        sample_rate: Of the waveforms, in Hz.

    Returns:
        The records written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    records = []
    with webdataset.TarWriter(str(partial), mtime=0) as writer:
        for clip in clips:
            sound = io.BytesIO()
            soundfile.write(sound, clip.waveform.numpy(), sample_rate, "PCM_16", format="FLAC")
            record = asdict(clip.record)
            writer.write({"__key__": clip.record.key, "flac": sound.getvalue(), "json": record})
            records.append(clip.record)
    partial.replace(path)
    return records


def read_shard(path: Path, sample_rate: int) -> Iterator[Clip]:
    """Reads a shard in its order.

    Raises:
        InputError: If the shard is damaged or of another sample rate.
    """
    try:
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
            samples, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
            if rate != sample_rate:
                raise InputError(
                    f"The shard {path} holds {rate} Hz audio where {sample_rate} Hz is expected; "
                    "build the corpus again"
                )
            record = ClipRecord(**json.loads(sample["json"]))
            yield Clip(record=record, waveform=torch.from_numpy(np.ascontiguousarray(samples)))
    except (OSError, EOFError, KeyError, TypeError, tarfile.TarError) as error:
        raise InputError(
            f"The shard {path} is damaged ({error}); delete it and build the corpus again"
        ) from error


INDEX_FILE = "index.json"

OLD_INDEX_FILE = "manifest.json"
"""What `unison-audio data nano` wrote before all corpora had one format."""

FORMAT = 1

PROGRAMS = {
    "http": "curl",
    "https": "curl",
    "hf": "curl",
    "gs": "gsutil",
    "s3": "aws",
}
"""Schemes of URLs that are read, and the program that webdataset has fetch each."""


@dataclass(frozen=True, kw_only=True)
class CorpusIndex:
    """What is known of a corpus without opening a shard; a few dozen bytes a shard."""

    name: str
    """Of the corpus."""
    base: str
    """Folder or URL that the shards lie in."""
    names: np.ndarray
    """(S,) file names of the shards, as bytes of one length."""
    clips: np.ndarray
    """(S,) int64, clips in each shard."""
    seconds: float
    """Of all these shards together; 0 where the index does not say."""

    def url(self, shard: int) -> str:
        """Path or URL of a shard."""
        return f"{self.base}/{self.names[shard].decode()}"


def is_url(location: str) -> bool:
    """Whether something is fetched instead of opened."""
    return "://" in location


def open_url(url: str) -> IO[bytes]:
    """Opens a file of this machine, or what webdataset's openers fetch.

    ``http(s)://`` and ``hf://`` go through curl, ``gs://`` through gsutil; ``s3://``, for which
    webdataset has no opener, through ``aws s3 cp URL -``, with that program's own credentials. A
    fetched stream can only be read forwards; closing it raises ``OSError`` if the program failed.

    Raises:
        OSError: If it cannot be opened.
        InputError: If the scheme is not known or its program is missing.
    """
    if not is_url(url):
        return Path(url).open("rb")
    scheme = url.partition("://")[0]
    if scheme not in PROGRAMS:
        raise InputError(
            f"{url} has the scheme {scheme!r}; use a path or one of {', '.join(PROGRAMS)}"
        )
    if shutil.which(PROGRAMS[scheme]) is None:
        raise InputError(f"{url} is read with {PROGRAMS[scheme]}, which is missing; install it")
    if scheme == "s3":
        url = f"pipe:aws s3 cp --only-show-errors {shlex.quote(url)} -"
    return gopen(url)


def read_index(
    location: str | Path, *, kind: str | None = None, split: str | None = None
) -> CorpusIndex:
    """Reads the index of a corpus that ``unison-audio data`` wrote.

    Args:
        location: The corpus' folder, its ``index.json``, or the URL of either.
        kind: Only shards with ``speech`` or with ``sound``; all if None.
        split: Only shards with clips of this split, as `in_split` takes it; all if None.

    Raises:
        InputError: If there is no index that can be read.
    """
    path = str(location).rstrip("/")
    if not path.endswith(".json"):
        path = f"{path}/{INDEX_FILE}"
    try:
        with open_url(path) as file:
            content = file.read()
    except OSError as error:
        if _is_old(path):
            raise InputError(
                f"{location} holds a corpus in an earlier format (manifest.json); run "
                f"unison-audio data nano --out {location} again, which keeps the finished shards"
            ) from error
        raise InputError(
            f"There is no index {path} ({error}); give the folder or the URL of a corpus that "
            "unison-audio data wrote"
        ) from error
    try:
        index = json.loads(content)
        if index["format"] != FORMAT:
            raise InputError(
                f"{path} has the format {index['format']!r} where {FORMAT} is understood; build "
                "the corpus again"
            )
        wanted = [
            (str(shard["name"]).encode(), int(shard["clips"]), float(shard.get("seconds", 0.0)))
            for shard in index["shards"]
            if kind in (None, *shard.get("kinds", [kind]))
            and any(in_split(one, split) for one in shard.get("splits", [split or ""]))
        ]
        name = str(index["corpus"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no index ({error!r}); build the corpus again") from error
    names = [shard for shard, _, _ in wanted]
    if any(b"/" in shard or b"\\" in shard for shard in names):
        raise InputError(f"{path} names shards in other folders; build the corpus again")
    return CorpusIndex(
        name=name,
        base=path.rpartition("/")[0] or ".",
        names=np.array(names, dtype=bytes),
        clips=np.array([clips for _, clips, _ in wanted], dtype=np.int64),
        seconds=sum(seconds for _, _, seconds in wanted),
    )


def _is_old(path: str) -> bool:
    """Whether a missing index belongs to a corpus written before all corpora had one."""
    return not is_url(path) and Path(path).with_name(OLD_INDEX_FILE).is_file()
