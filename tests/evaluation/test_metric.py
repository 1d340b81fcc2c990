"""Metrics over sets: what is kept, what fails, intervals; posteriors by hand."""

import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from unison_audio import audio
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.distribution import divergence, inception_score, softmax
from unison_audio.evaluation.metrics.feature_cache import FeatureCache, feature_key
from unison_audio.evaluation.metrics.measure import measure
from unison_audio.evaluation.metrics.metric import Metric, MetricContext, windows
from unison_audio.evaluation.test_sets.manifest import EvaluationSample, TestItem


class Level(Metric):
    """The RMS of an output; counts what it measures; fails for the item named ``bad``."""

    name, title, better, sample_rate = "level", "Level", "higher", 16_000
    model = "level meter"

    def __init__(self, context: MetricContext) -> None:
        self.measured: list[str] = []

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        if any(sample.item.id == "bad" for sample in samples):
            raise RuntimeError("overflow")
        self.measured += [sample.item.id for sample in samples]
        return super().extract_features(samples)

    def score(self, sample: EvaluationSample) -> float:
        return float(audio.load(sample.output, sample_rate=16_000).square().mean().sqrt())


class LevelRange(Level):
    """A figure of the set: the range of levels, which few samples bias downwards."""

    features, feature_shape = "levels", (1,)

    def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
        return [score[None] for score in super().extract_features(samples)]

    def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
        return float(np.ptp(np.concatenate(pooled)))


def write(folder: Path, name: str, level: float, caption: str = "a tone") -> EvaluationSample:
    path = folder / f"{name}.flac"
    wave = level * torch.sin(torch.arange(1600) * 0.3)
    audio.save(path, wave, 16_000)
    item = TestItem(
        id=name, set="t", task="t2a", instruction="a tone", seconds=0.1, caption=caption
    )
    return EvaluationSample(item=item, output=path, target=None, source=None)


@pytest.fixture
def samples(tmp_path: Path) -> list[EvaluationSample]:
    return [write(tmp_path, f"s{k}", 0.1 * (k + 1)) for k in range(8)]


def test_the_mean_and_its_interval(samples: list[EvaluationSample]) -> None:
    score = measure(Level, samples, MetricContext(), bootstrap=2000)
    levels = np.arange(1, 9) * 0.1 * math.sqrt(0.5)
    assert score.value == pytest.approx(levels.mean(), rel=1e-2)
    assert list(score.per_item or {}) == [f"s{k}" for k in range(8)]
    assert score.count == 8
    assert not score.failed
    assert score.model == "level meter"
    # The bootstrap's spread of a mean is the root of the (biased) variance over n.
    half = 1.96 * levels.std() / math.sqrt(8)
    assert score.high - score.value == pytest.approx(half, rel=0.1)
    assert score.value - score.low == pytest.approx(half, rel=0.1)
    again = measure(Level, samples, MetricContext(), bootstrap=2000)
    assert (again.low, again.high) == (score.low, score.high)
    assert math.isnan(measure(Level, samples, MetricContext(), bootstrap=0).low)


def test_intervals_of_sets_are_freed_of_their_bias(samples: list[EvaluationSample]) -> None:
    score = measure(LevelRange, samples, MetricContext())
    assert score.per_item is None
    assert score.low < score.value < score.high  # draws as such never exceed the value


def test_nothing_is_measured_twice(samples: list[EvaluationSample], tmp_path: Path) -> None:
    metric, cache = Level, tmp_path / "kept"
    first = MetricContext(cache=cache)
    before = measure(metric, samples, first, bootstrap=0)
    second = MetricContext(cache=cache)
    after = measure(metric, samples, second, bootstrap=0)
    assert (after.value, after.per_item) == (before.value, before.per_item)
    assert second.open(metric).measured == []  # type: ignore[attr-defined]
    # A changed file and a changed caption are new; a renamed item is not.
    changed = [write(tmp_path, "s0", 0.55), write(tmp_path, "s1", 0.2, "another"), *samples[2:]]
    third = MetricContext(cache=cache)
    renewed = measure(metric, changed, third, bootstrap=0)
    assert third.open(metric).measured == ["s0", "s1"]  # type: ignore[attr-defined]
    assert (renewed.per_item or {})["s0"] == pytest.approx(0.55 * math.sqrt(0.5), rel=1e-2)


def test_another_model_is_asked_anew(samples: list[EvaluationSample]) -> None:
    keys = {
        feature_key(samples[0], "level", 1, "one"),
        feature_key(samples[0], "level", 1, "two"),
        feature_key(samples[0], "level", 2, "one"),
        feature_key(samples[0], "other", 1, "one"),
    }
    assert len(keys) == 4


def test_another_version_of_a_metric_extracts_anew(
    samples: list[EvaluationSample], tmp_path: Path
) -> None:
    class Renewed(Level):
        version = 2

    measure(Level, samples, MetricContext(cache=tmp_path / "kept"), bootstrap=0)
    for metric, measured in ((Level, []), (Renewed, [sample.item.id for sample in samples])):
        context = MetricContext(cache=tmp_path / "kept")
        measure(metric, samples, context, bootstrap=0)
        assert context.open(metric).measured == measured  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(2,), (1, 1), ()])
def test_features_have_the_declared_shape(
    samples: list[EvaluationSample], shape: tuple[int, ...]
) -> None:
    class Misdeclared(LevelRange):
        feature_shape = shape

    with pytest.raises(ValueError, match=r"shape \(1,\) where"):
        measure(Misdeclared, samples, MetricContext())


def test_every_sample_has_features(samples: list[EvaluationSample]) -> None:
    class Short(Level):
        def extract_features(self, samples: Sequence[EvaluationSample]) -> list[np.ndarray]:
            return []

    with pytest.raises(ValueError, match="gave 0 features for 1 samples"):
        measure(Short, samples, MetricContext())


def test_a_metric_without_a_score_says_so(samples: list[EvaluationSample]) -> None:
    class Nothing(Metric):
        name, title, better, sample_rate = "nothing", "Nothing", "higher", 16_000

    with pytest.raises(NotImplementedError, match="Nothing has no score"):
        measure(Nothing, samples, MetricContext())


def test_what_fails_is_named(samples: list[EvaluationSample], tmp_path: Path) -> None:
    mute = write(tmp_path, "mute", 0.0)
    corrupt = write(tmp_path, "corrupt", 0.5)
    corrupt.output.write_bytes(corrupt.output.read_bytes()[:200])
    absent = write(tmp_path, "absent", 0.5)
    absent.output.unlink()
    bad = write(tmp_path, "bad", 0.5)
    context = MetricContext(cache=tmp_path / "kept")
    every = [mute, corrupt, *samples, absent, bad]
    score = measure(Level, every, context, bootstrap=10)
    assert score.failed == ("mute", "corrupt", "absent", "bad")
    assert score.count == 8
    assert "silent" in score.reasons["mute"]
    assert "overflow" in score.reasons["bad"]
    assert "corrupt" in score.reasons["corrupt"]
    assert score.value == pytest.approx(measure(Level, samples, MetricContext()).value)


def test_a_metric_that_never_works_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="overflow"):
        measure(Level, [write(tmp_path, "bad", 0.5)], MetricContext())


def test_silence_may_be_an_answer(tmp_path: Path) -> None:
    class Patient(Level):
        scores_silence = True

    class Comparing(Level):
        needs = ("target",)

    mute = [write(tmp_path, "mute", 0.0)]
    assert measure(Patient, mute, MetricContext(), bootstrap=0).value == 0
    score = measure(Comparing, mute, MetricContext(), bootstrap=0)
    assert score.failed == ("mute",)
    assert "no target" in score.reasons["mute"]
    assert math.isnan(score.value)


def test_a_figure_that_needs_more_samples_is_missing(samples: list[EvaluationSample]) -> None:
    class Pair(LevelRange):
        def aggregate(self, pooled: Sequence[np.ndarray]) -> float:
            raise InputError("give two")

    score = measure(Pair, samples[:1], MetricContext())
    assert math.isnan(score.value)
    assert score.reasons[""] == "give two"


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing at"):
        MetricContext(paths={"vggish": tmp_path / "no"}).path("vggish")


def _write_often(folder: Path, value: float) -> None:
    for _ in range(15):
        FeatureCache(folder).write("ab" * 32, np.full((50, 40), value))


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_write_often, args=(tmp_path, float(k))) for k in range(3)]
    for worker in workers:
        worker.start()
    seen = set()
    while any(worker.is_alive() for worker in workers):
        array = FeatureCache(tmp_path).read("ab" * 32)
        if array is not None:
            assert array.shape == (50, 40)
            assert len(np.unique(array)) == 1  # never a mixture
            seen.add(float(array[0, 0]))
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert seen
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".npy"]


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "other"])
def test_a_damaged_entry_is_missing(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.write("cd" * 32, np.arange(9.0))
    [path] = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    spoilt = {"cut": whole[:-5], "empty": b"", "longer": whole + b"x", "other": b"not an array"}
    path.write_bytes(spoilt[damage])
    assert cache.read("cd" * 32) is None
    cache.write("cd" * 32, np.arange(3.0))
    assert (cache.read("cd" * 32) == np.arange(3.0)).all()


def test_windows_cover_a_sound() -> None:
    sound = np.arange(25)
    assert [w.tolist() for w in windows(sound, 30)] == [sound.tolist()]
    parts = windows(sound, 10)
    assert [part[0] for part in parts] == [0, 8, 15]
    assert set(np.concatenate(parts)) == set(range(25))
    assert [w.tolist() for w in windows(sound, 23, tolerated=2)] == [list(range(23))]


def test_divergence_by_hand() -> None:
    target, output = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.75, 0.0])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(target, output, eps=0) == pytest.approx(expected)
    assert divergence(target, target) == pytest.approx(0, abs=1e-5)
    # What the output excludes counts as 1e-6.
    assert divergence(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(6 * math.log(10))
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, 4.0]])
    p, q = logits.double().softmax(dim=1)
    kl = torch.nn.functional.kl_div((q + 1e-6).log(), p, reduction="sum")
    assert divergence(*softmax(logits.numpy())) == pytest.approx(float(kl))


def test_inception_score_by_hand() -> None:
    # Four classes, each certain and equally frequent in every split: as many as classes.
    certain = np.tile(np.eye(4), (100, 1))
    assert inception_score(certain, splits=1) == pytest.approx(4)
    assert inception_score(np.full((30, 7), 1 / 7)) == pytest.approx(1)
    # One split of p = (.9, .1) and (.1, .9): exp(log 2 - H(.9)).
    pair = np.array([[0.9, 0.1], [0.1, 0.9]])
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert inception_score(pair, splits=1) == pytest.approx(2 * math.exp(-entropy))
    # Fewer samples than splits: each is alone with itself.
    assert inception_score(pair) == pytest.approx(1)


def test_a_metric_is_opened_once() -> None:
    context = MetricContext()
    assert context.open(Level) is context.open(Level)
