"""Metrics of speech: words, spectra, gender, removal, voices, quality (paper §4.2)."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import signal
from unison_audio.evaluation.metrics.metric import Metric, MetricContext, load_audio, path_of
from unison_audio.evaluation.models.asr import (
    PARAFORMER,
    SAMPLE_RATE,
    WHISPER,
    Asr,
    Paraformer,
    load_whisper,
)
from unison_audio.evaluation.models.speaker import (
    GENDER_MODEL,
    SPEAKER_MODEL,
    GenderClassifier,
    PitchGender,
    Resemblyzer,
    SpeakerEncoder,
    Wav2Vec2Gender,
    WavLmSpeaker,
)
from unison_audio.evaluation.models.speech_quality import Dnsmos, SileroVad
from unison_audio.evaluation.test_sets.manifest import EvaluationSample

LSD_RATE = 44_100
"""Hz at which spectra are compared (spec of the paper's LSD)."""

TOLERATED_SECONDS = 0.1
"""Largest difference in length between an output and its target that can be compared."""


class _SpeechMetric(Metric):
    """A metric of speech. Silent outputs are scored too, so that a silent system is not spared."""

    better: ClassVar[Literal["higher", "lower"]] = "higher"
    sample_rate = SAMPLE_RATE
    scores_silence = True


class WordErrorRate(_SpeechMetric):
    """Word error rate of English by Whisper, each utterance's own (Seed-TTS).

    Offline, the two small models of nano stand in.
    """

    name, title, better, needs = "wer", "WER", "lower", ("text",)
    language: ClassVar[str] = "en"
    """``en``, words are counted, or ``zh``, characters."""

    def __init__(self, context: MetricContext) -> None:
        signal.word_error_rate("1", "1", self.language)  # fails now if a package is missing
        self.asr = self.load(context)
        self.model, self.identity = self.asr.model, self.asr.identity

    def load(self, context: MetricContext) -> Asr:
        """The speech recognition model."""
        if context.stands_in("whisper"):
            from unison_audio.nano.vocabulary_asr import NanoAsr

            return context.model("nano asr", NanoAsr)
        source = context.path("whisper") or WHISPER
        return context.model("whisper", lambda: load_whisper(source, context.device))

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """The error rate of each sample, ()."""
        texts = [self._text(sample) for sample in samples]
        waves = [load_audio(sample.output, SAMPLE_RATE) for sample in samples]
        pairs = self.asr.transcript_pairs(waves, texts)
        return [np.asarray(signal.word_error_rate(*pair, self.language)) for pair in pairs]

    def _text(self, sample: EvaluationSample) -> str:
        item = sample.item
        if item.language != self.language:
            raise InputError(
                f"Item {item.id} asks for no words in the language {self.language!r}; leave it out "
                "of this metric"
            )
        return item.text


class CharacterErrorRate(WordErrorRate):
    """Character error rate of Mandarin by Paraformer, each utterance's own (Seed-TTS)."""

    name, title, language = "cer", "CER", "zh"

    def load(self, context: MetricContext) -> Asr:
        """The speech recognition model.

        Raises:
            InputError: If models are offline; no package has a model for Mandarin.
        """
        source = context.path("paraformer")
        if source is None and context.offline and "paraformer" not in context.models:
            raise InputError(
                "No offline model transcribes Mandarin; give the folder of a Paraformer in "
                "funasr's layout as 'paraformer', or leave the metric 'cer' out"
            )
        return context.model("paraformer", lambda: Paraformer(source or PARAFORMER, context.device))


class LogSpectralDistance(_SpeechMetric):
    """Log-spectral distance from the target.

    In 64-bit floats: in 32 bits the transform's own rounding is louder than what a resampled
    waveform has above its old band; it moved one distance from 0.538 to 0.542.
    """

    name, title, better, needs = "lsd", "LSD", "lower", ("target",)
    sample_rate: ClassVar[int] = LSD_RATE
    eps: ClassVar[float] = signal.LSD_EPS
    """Power of a bin that is next to silence."""
    model, identity = "log-spectral distance", "lsd"

    def score(self, sample: EvaluationSample) -> float:
        """The distance.

        Raises:
            InputError: The lengths differ by more than `TOLERATED_SECONDS`.
        """
        output, target = (
            load(path, sample_rate=self.sample_rate).double()
            for path in (sample.output, path_of(sample, "target"))
        )
        rate = self.sample_rate
        length = min(len(output), len(target))
        if abs(len(output) - len(target)) > TOLERATED_SECONDS * rate:
            raise InputError(
                f"{sample.output} lasts {len(output) / rate:.2f} s and its target "
                f"{len(target) / rate:.2f} s; a log-spectral distance needs equal lengths"
            )
        waves = target[None, :length], output[None, :length]
        return float(signal.lsd(*waves, rate, eps=self.eps))


class GenderAccuracy(_SpeechMetric):
    """Share of voices with the requested gender: 1 if it is recognized, 0 otherwise.

    By wav2vec 2.0; offline by the median pitch.
    """

    name, title = "gender", "Gender accuracy"

    def __init__(self, context: MetricContext) -> None:
        self.classifier = self.load(context)
        self.model, self.identity = self.classifier.model, self.classifier.identity

    def load(self, context: MetricContext) -> GenderClassifier:
        """The classifier of genders."""
        if context.stands_in("gender"):
            return PitchGender()
        source = context.path("gender") or GENDER_MODEL
        return context.model("gender", lambda: Wav2Vec2Gender(source, context.device))

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """1 or 0 for each sample, ()."""
        for sample in samples:
            if sample.item.gender not in ("female", "male"):
                raise InputError(
                    f"Item {sample.item.id} asks for the gender {sample.item.gender!r} where "
                    "'female' or 'male' is needed; leave the metric 'gender' out for its set"
                )
        found = self.classifier.genders([load_audio(s.output, SAMPLE_RATE) for s in samples])
        return [np.asarray(float(a == b.item.gender)) for a, b in zip(found, samples, strict=True)]


class RemovalRate(_SpeechMetric):
    """Share of the source's speech that was removed; negative if there is more than before."""

    name, title, needs = "removal", "Removal rate", ("source",)

    def __init__(self, context: MetricContext) -> None:
        self.vad = context.model("silero", SileroVad)
        self.model, self.identity = self.vad.model, self.vad.identity

    def score(self, sample: EvaluationSample) -> float:
        """The share.

        Raises:
            InputError: There is no speech in the source.
        """
        source = path_of(sample, "source")
        before, after = (
            self.vad.speech_seconds(load(path, sample_rate=SAMPLE_RATE), SAMPLE_RATE)
            for path in (source, sample.output)
        )
        if before == 0:
            raise InputError(f"Silero finds no speech in {source} that could be removed")
        return 1 - after / before


class SpeakerSimilarity(_SpeechMetric):
    """Cosine of the output's voice with the reference's by Resemblyzer; 0 of a silent output."""

    name, title = "similarity", "Speaker similarity (Resemblyzer)"
    needs = ("reference",)

    def __init__(self, context: MetricContext) -> None:
        self.encoder = self.load(context)
        self.model, self.identity = self.encoder.model, self.encoder.identity

    def load(self, context: MetricContext) -> SpeakerEncoder:
        """The speaker encoder."""
        return context.model("resemblyzer", Resemblyzer)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        """The cosine of each sample, ()."""
        paths = [path for s in samples for path in (s.output, path_of(s, "reference"))]
        vectors = self.encoder.embed([load_audio(path, SAMPLE_RATE) for path in paths])
        cosines = [float(a @ b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
        return [np.asarray(cosine) for cosine in cosines]


class WavLmSimilarity(SpeakerSimilarity):
    """Cosine of the output's voice with the reference's by WavLM; 0 of a silent output."""

    name, title = "similarity_wavlm", "Speaker similarity (WavLM)"

    def load(self, context: MetricContext) -> SpeakerEncoder:
        """The speaker encoder."""
        source = context.path("wavlm") or SPEAKER_MODEL
        return context.model("wavlm", lambda: WavLmSpeaker(source, context.device))


class SpeechQuality(_SpeechMetric):
    """Overall quality of speech by DNSMOS P.835, from 1 to 5.

    Of recordings longer than its 9.01 s windows a second apart are averaged, as its authors do.
    """

    name, title = "dnsmos", "DNSMOS"

    def __init__(self, context: MetricContext) -> None:
        self.quality = context.model("dnsmos", Dnsmos)
        self.model, self.identity = self.quality.model, self.quality.identity

    def score(self, sample: EvaluationSample) -> float:
        """The mean over the windows."""
        wave = load(sample.output, sample_rate=SAMPLE_RATE)
        span = int(self.quality.seconds * SAMPLE_RATE)
        starts = range(0, max(1, len(wave) - span + 1), SAMPLE_RATE)
        scores = [self.quality.overall(wave[k : k + span], SAMPLE_RATE) for k in starts]
        return sum(scores) / len(scores)


SPEECH: tuple[type[Metric], ...] = (
    WordErrorRate,
    CharacterErrorRate,
    LogSpectralDistance,
    GenderAccuracy,
    RemovalRate,
    SpeakerSimilarity,
    WavLmSimilarity,
    SpeechQuality,
)
"""Metrics of speech; rates are shares, not percents."""
