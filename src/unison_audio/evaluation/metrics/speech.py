"""Metrics of speech: words, spectra, gender, what was removed, voices, quality (paper §4.2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import signal as metrics
from unison_audio.evaluation.metrics.metric import (
    Judge,
    Metric,
    Tools,
    heard,
    mean_score,
    target_of,
)
from unison_audio.evaluation.models import asr as recognisers
from unison_audio.evaluation.models import speaker as voices
from unison_audio.evaluation.models.asr import SPEECH_RATE
from unison_audio.evaluation.models.speech_quality import PresenceListener, QualityListener
from unison_audio.evaluation.test_sets.manifest import Sample
from unison_audio.nano.recognisers import NanoRecognisers

LSD_RATE = 44_100
"""Hz at which spectra are compared (spec of the paper's LSD)."""

TOLERATED_SECONDS = 0.1
"""By which output and target may differ in length before they cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class ItemJudge:
    """A judge that gives each sample a score of its own; the figure is their mean.

    A silent output is judged: otherwise a model that says nothing would be spared its mistakes.
    """

    model: str
    """Name of the model and of the checkpoint."""
    scores: Callable[[Sequence[Sample]], Sequence[float]]
    """Scores samples, one figure each."""
    identity: str
    """What tells the model from others of the same name."""
    hears_silence: bool = True
    """Whether silence is an answer to be judged."""

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """The score of each sample, ()."""
        return [np.asarray(score, np.float64) for score in self.scores(samples)]

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """The mean score."""
        return mean_score(described)


def word_judge(tools: Tools) -> Judge:
    """Word error rate of English: Whisper, or nano's recognisers where judges are offline."""
    if tools.offline_judges and tools.path("whisper") is None:
        nano = tools.model("nano's recognisers", NanoRecognisers)

        def rates(samples: Sequence[Sample]) -> list[float]:
            return [
                nano.rate(_text(sample, "en"), heard(sample.output, SPEECH_RATE))
                for sample in samples
            ]

        return ItemJudge(model=nano.model, identity=nano.identity, scores=rates)
    source = tools.path("whisper") or recognisers.WHISPER
    whisper = tools.model("whisper", lambda: recognisers.load_whisper(source, tools.device))
    return error_rate_judge(whisper, "en")


def character_judge(tools: Tools) -> Judge:
    """Character error rate of Mandarin: Paraformer.

    Raises:
        InputError: If judges are offline; no package brings a recogniser of Mandarin.
    """
    source = tools.path("paraformer")
    if source is None and tools.offline_judges:
        raise InputError(
            "No offline judge hears Mandarin; give the folder of a Paraformer in funasr's layout "
            "as 'paraformer', or leave the metric 'cer' out"
        )
    paraformer = tools.model(
        "paraformer",
        lambda: recognisers.Paraformer(source or recognisers.PARAFORMER, tools.device),
    )
    return error_rate_judge(paraformer, "zh")


def error_rate_judge(recogniser: recognisers.Recognisers, language: str) -> Judge:
    """Error rates of what a recogniser hears, each utterance's own (Seed-TTS).

    Args:
        recogniser: Who hears.
        language: ``en``, words are counted, or ``zh``, characters.
    """
    metrics.word_error_rate("1", "1", language)  # what it needs is there

    def rates(samples: Sequence[Sample]) -> list[float]:
        texts = [_text(sample, language) for sample in samples]
        waves = [heard(sample.output, SPEECH_RATE) for sample in samples]
        said = recognisers.transcripts(recogniser, waves)
        return [metrics.word_error_rate(a, b, language) for a, b in zip(texts, said, strict=True)]

    return ItemJudge(model=recogniser.model, identity=recogniser.identity, scores=rates)


def spectral_judge(tools: Tools) -> Judge:
    """Log-spectral distance from the target.

    In 64-bit floats: in 32 bits the transform's own rounding is louder than what a resampled
    waveform has above its old band; it moved one distance from 0.538 to 0.542.
    """
    del tools

    def distance(sample: Sample) -> float:
        output, target = (
            load(path, sample_rate=LSD_RATE).double() for path in (sample.output, target_of(sample))
        )
        length = min(len(output), len(target))
        if abs(len(output) - len(target)) > TOLERATED_SECONDS * LSD_RATE:
            raise InputError(
                f"{sample.output} lasts {len(output) / LSD_RATE:.2f} s and its target "
                f"{len(target) / LSD_RATE:.2f} s; a log-spectral distance needs equal lengths"
            )
        return float(metrics.lsd(target[None, :length], output[None, :length], LSD_RATE))

    return ItemJudge(model="log-spectral distance", identity="lsd", scores=_each(distance))


def gender_judge(tools: Tools) -> Judge:
    """Share of voices of the gender asked for: wav2vec 2.0, or pitch where judges are offline."""
    source = tools.path("gender")
    if source is None and tools.offline_judges:
        return gender_accuracy(voices.PitchGender())
    named = source or voices.GENDER_MODEL
    return gender_accuracy(
        tools.model("gender", lambda: voices.Wav2Vec2Gender(named, tools.device))
    )


def gender_accuracy(listener: voices.Genders) -> Judge:
    """Scores 1 where the gender asked for is heard, 0 where another one or no voice is."""

    def right(samples: Sequence[Sample]) -> list[float]:
        for sample in samples:
            if sample.item.gender not in ("female", "male"):
                raise InputError(
                    f"Item {sample.item.id} asks for the gender {sample.item.gender!r} where "
                    "'female' or 'male' is needed; leave the metric 'gender' out for its set"
                )
        told = listener.genders([heard(sample.output, SPEECH_RATE) for sample in samples])
        return [float(a == b.item.gender) for a, b in zip(told, samples, strict=True)]

    return ItemJudge(model=listener.model, identity=listener.identity, scores=right)


def removal_judge(tools: Tools) -> Judge:
    """Share of the source's speech that is gone; below 0 where there is more than before."""
    listener = tools.model("silero", PresenceListener)
    listener.seconds(torch.zeros(SPEECH_RATE), SPEECH_RATE)  # loads it

    def removed(sample: Sample) -> float:
        if sample.source is None:
            raise InputError(
                f"Item {sample.item.id} has no source that speech could be removed from; leave the "
                f"metric 'removal' out for the set {sample.item.set}"
            )
        before, after = (
            listener.seconds(load(path, sample_rate=SPEECH_RATE), SPEECH_RATE)
            for path in (sample.source, sample.output)
        )
        if before == 0:
            raise InputError(f"Silero hears no speech in {sample.source} that could be removed")
        return 1 - after / before

    named = f"Silero VAD {version('silero-vad')}"
    return ItemJudge(model=named, identity=named, scores=_each(removed))


def resemblyzer_judge(tools: Tools) -> Judge:
    """Likeness of the voice to the reference's by Resemblyzer."""
    return similarity(tools.model("resemblyzer", voices.ResemblyzerVoices))


def wavlm_judge(tools: Tools) -> Judge:
    """Likeness of the voice to the reference's by WavLM."""
    source = tools.path("wavlm") or voices.SPEAKER_MODEL
    return similarity(tools.model("wavlm", lambda: voices.WavLMVoices(source, tools.device)))


def similarity(listener: voices.Voices) -> Judge:
    """Cosine of the output's voice with the reference's; 0 of a silent output."""

    def alike(samples: Sequence[Sample]) -> list[float]:
        paths = [path for sample in samples for path in (sample.output, _reference(sample))]
        vectors = listener.embed([heard(path, SPEECH_RATE) for path in paths])
        return [float(a @ b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]

    return ItemJudge(model=listener.model, identity=listener.identity, scores=alike)


def quality_judge(tools: Tools) -> Judge:
    """Overall quality of speech by DNSMOS P.835, from 1 to 5.

    Of recordings longer than its 9.01 s windows a second apart are averaged, as its authors do.
    """
    listener = tools.model("dnsmos", QualityListener)
    listener.overall(torch.zeros(SPEECH_RATE), SPEECH_RATE)  # loads it

    span = int(listener.seconds * SPEECH_RATE)

    def overall(sample: Sample) -> float:
        wave = load(sample.output, sample_rate=SPEECH_RATE)
        starts = range(0, max(1, len(wave) - span + 1), SPEECH_RATE)
        windows = [wave[start : start + span] for start in starts]
        return sum(listener.overall(window, SPEECH_RATE) for window in windows) / len(windows)

    return ItemJudge(
        model="DNSMOS P.835 overall (sig_bak_ovr.onnx)",
        identity="dnsmos sig_bak_ovr",
        scores=_each(overall),
    )


SPEECH: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="wer", title="WER", better="lower", sample_rate=SPEECH_RATE, judge=word_judge),
        Metric(
            name="cer", title="CER", better="lower", sample_rate=SPEECH_RATE, judge=character_judge
        ),
        Metric(name="lsd", title="LSD", better="lower", sample_rate=LSD_RATE, judge=spectral_judge),
        Metric(
            name="gender",
            title="Gender accuracy",
            better="higher",
            sample_rate=SPEECH_RATE,
            judge=gender_judge,
        ),
        Metric(
            name="removal",
            title="Removal rate",
            better="higher",
            sample_rate=SPEECH_RATE,
            judge=removal_judge,
        ),
        Metric(
            name="similarity",
            title="Speaker similarity (Resemblyzer)",
            better="higher",
            sample_rate=SPEECH_RATE,
            judge=resemblyzer_judge,
        ),
        Metric(
            name="similarity_wavlm",
            title="Speaker similarity (WavLM)",
            better="higher",
            sample_rate=SPEECH_RATE,
            judge=wavlm_judge,
        ),
        Metric(
            name="dnsmos",
            title="DNSMOS",
            better="higher",
            sample_rate=SPEECH_RATE,
            judge=quality_judge,
        ),
    )
}
"""Metrics of speech by name; rates are shares, not percents."""


def _each(score: Callable[[Sample], float]) -> Callable[[Sequence[Sample]], list[float]]:
    return lambda samples: [score(sample) for sample in samples]


def _text(sample: Sample, language: str) -> str:
    """The words that an item asks for."""
    item = sample.item
    if item.language != language or not item.text:
        raise InputError(
            f"Item {item.id} asks for no words in the language {language!r}; leave it out of this "
            "metric"
        )
    return item.text


def _reference(sample: Sample) -> Path:
    """The recording whose voice is to speak."""
    if sample.reference is None:
        raise InputError(
            f"Item {sample.item.id} has no reference whose voice could be compared; leave the "
            f"speaker similarity out for the set {sample.item.set}"
        )
    return sample.reference
