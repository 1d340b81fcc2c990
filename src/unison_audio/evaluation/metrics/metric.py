"""What a metric is, where judges' models come from, and a metric's figure over a set."""

import dataclasses
import hashlib
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from unison_audio.audio import load, require_sound
from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.manifest import Sample

NAMES_ONLY = ("id", "set", "source", "target", "reference")
"""Fields of an item on which no description depends: names and paths."""


def sample_key(sample: Sample, described_as: str, version: int, identity: str) -> str:
    """Names what a description depends on.

    Args:
        sample: What is described: its output, target, source and reference, by their contents,
            and what the item says.
        described_as: What is described.
        version: Of the computation that describes it, `Metric.version`.
        identity: The model that describes.

    Returns:
        A sha256 in hexadecimal.

    Raises:
        OSError: If a file cannot be read.
    """
    said = dataclasses.asdict(sample.item)
    about = {
        "described_as": described_as,
        "version": version,
        "model": identity,
        "item": {name: value for name, value in said.items() if name not in NAMES_ONLY},
        "files": {
            name: digest(path) if path is not None else ""
            for name in ("output", "target", "source", "reference")
            for path in [getattr(sample, name, None)]
        },
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """Sha256 of a file in hexadecimal.

    Raises:
        OSError: If it cannot be read.
    """
    seen = path.stat()
    return _digest(str(path.resolve()), seen.st_size, seen.st_mtime_ns, seen.st_ino)


@lru_cache(maxsize=1 << 16)
def _digest(path: str, size: int, modified: int, inode: int) -> str:
    """Hashes a file once as long as it stays as it is."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FeatureCache:
    """Arrays by key in a folder that several processes may share.

    An array appears whole or not at all; one that was damaged later counts as missing.

    Args:
        folder: Where; made when the first array is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> np.ndarray | None:
        """The array of a key; None where there is none."""
        try:
            with self._place(key).open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                return array if not file.read(1) else None
        except (OSError, ValueError, EOFError):
            return None

    def write(self, key: str, array: np.ndarray) -> None:
        """Keeps an array.

        Raises:
            OSError: If it cannot be written.
        """
        place = self._place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{key}.{secrets.token_hex(4)}.partial")
        try:
            with partial.open("wb") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"


Model = TypeVar("Model")

logger = logging.getLogger(__name__)

BATCH = 32
"""Samples given to a judge at once; what it says of them is kept before the next are begun."""

CONFIDENCE = 0.95
"""Of the bootstrap's intervals."""


class Judge(Protocol):
    """What describes samples and makes one figure of what it described.

    It may also have the attributes

    - ``identity`` (str): what tells its model from others of the same name, such as a checksum of
      the weights; `model` if it has none;
    - ``described_as`` (str): the name under which descriptions are kept; the metric's if it has
      none. Judges that describe alike share one, and the work;
    - ``needs_target`` (bool): whether a sample without a target is a failure; not if there is no
      such attribute;
    - ``hears_silence`` (bool): whether a silent output is an answer to be judged; it is a failure
      if there is no such attribute;
    - ``most_draws`` (int): the most draws of the bootstrap, for figures that are slow to make;
    - ``condense`` (method): makes what `reduce` takes of a description, an array of an array; the
      description itself where there is none. A result () is the sample's own score.
    """

    @property
    def model(self) -> str:
        """Name of the model and of the checkpoint; printed with every figure."""
        ...

    def describe(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Describes samples.

        Args:
            samples: What to describe; at most `BATCH`.

        Returns:
            One array a sample: (), the sample's own score, or features of any shape.

        Raises:
            Exception: If a sample cannot be described; the samples are then given one by one.
        """
        ...

    def reduce(self, described: Sequence[np.ndarray]) -> float:
        """Makes one figure of descriptions; of scores their mean.

        Raises:
            InputError: If it takes more samples than these.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measure, and who judges it."""

    name: str
    """Short name, the key in `METRICS`."""
    title: str
    """As tables show it."""
    better: Literal["higher", "lower"]
    """Which direction is better."""
    sample_rate: int
    """At which the judge hears, in Hz."""
    version: int = 1
    """Version of the computation. Raise it with any change of the descriptions; those of other
    versions in the cache are then not used."""
    unit: str = ""
    """Of the figure; empty if it has none."""
    judge: Callable[["Tools"], Judge]
    """Loads the judge and its model; raises `InputError` where the model cannot be had. Use it
    through `Tools.judge`, which does so once."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric's figure over a set."""

    metric: str
    """Name of the metric."""
    value: float
    """The figure; NaN where no sample could be judged, or too few."""
    low: float
    """Lower end of the bootstrap's interval of `CONFIDENCE`."""
    high: float
    """Upper end."""
    count: int
    """Samples that the figure is made of."""
    failed: tuple[str, ...]
    """Ids of those that could not be judged."""
    model: str
    """Who judged."""
    per_item: dict[str, float] | None = None
    """Each sample's own score by id; None for metrics that describe sets only."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each of `failed` could not be judged; under "" why the set could not."""


@dataclass(kw_only=True)
class Tools:
    """Where judges find their models, and what they share."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    """Local files or folders of models by name, such as ``vggish``, ``cnn14`` and ``clap``; those
    left out come out of a package, the cache or the hub."""
    device: str = "cpu"
    """On which the models run."""
    cache: Path | None = None
    """Folder where descriptions are kept; None keeps none."""
    offline_judges: bool = False
    """Whether judges whose models come with packages stand in for models that are not in `paths`,
    for use without a network."""
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def path(self, name: str) -> Path | None:
        """The local file or folder of a model; None where none is given.

        Raises:
            InputError: If a path is given and nothing is there.
        """
        path = self.paths.get(name)
        if path is not None and not Path(path).exists():
            raise InputError(
                f"There is nothing at {path}, given for the judge {name!r}; check the path"
            )
        return Path(path) if path is not None else None

    def model(self, key: str, load_it: Callable[[], Model]) -> Model:
        """Loads a model once for all judges that use it.

        Args:
            key: Its name among all.
            load_it: Loads it.
        """
        if key not in self._kept:
            self._kept[key] = load_it()
        return self._kept[key]

    def judge(self, metric: Metric) -> Judge:
        """The judge of a metric, loaded once."""
        return self.model(f"judge of {metric.name}", lambda: metric.judge(self))


def measure(
    metric: Metric,
    samples: Sequence[Sample],
    tools: Tools,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Score:
    """Measures a set of samples.

    What the judge says of a sample is kept in the cache, so that a run that was killed goes on. A
    sample that cannot be judged is named in the result with the reason.

    Args:
        metric: What to measure.
        samples: Of whom; their ids are unique.
        tools: Where the judge finds its model.
        bootstrap: How often samples are drawn anew for the interval; 0 gives none (NaN). A judge's
            ``most_draws`` is the most.
        seed: Of these draws.

    Raises:
        InputError: If the judge's model cannot be had.
    """
    judge = tools.judge(metric)
    described, reasons = _describe(metric, judge, samples, tools)
    failed = tuple(sample.item.id for sample in samples if sample.item.id in reasons)
    if failed:
        logger.warning("%s: %d of %d samples failed", metric.name, len(failed), len(samples))
    condense = getattr(judge, "condense", None)
    if condense is not None:
        described = {name: np.asarray(condense(array)) for name, array in described.items()}
    arrays = list(described.values())
    own = bool(arrays) and all(array.ndim == 0 for array in arrays)
    value = low = high = math.nan
    try:
        if arrays:
            value = judge.reduce(arrays)
            low, high = _interval(judge, arrays, value, own, bootstrap, seed)
    except InputError as error:
        reasons[""] = str(error)
        logger.warning("%s: %s", metric.name, error)
    return Score(
        metric=metric.name,
        value=float(value),
        low=low,
        high=high,
        count=len(arrays),
        failed=failed,
        model=judge.model,
        per_item={name: float(array) for name, array in described.items()} if own else None,
        reasons=reasons,
    )


def mean_score(described: Sequence[np.ndarray]) -> float:
    """Averages scores: the `Judge.reduce` of metrics that judge each sample by itself."""
    return float(np.mean(np.stack([np.asarray(score, np.float64) for score in described])))


def heard(path: Path, sample_rate: int) -> np.ndarray:
    """Reads a file as a judge hears it.

    Args:
        path: The file.
        sample_rate: In Hz.

    Returns:
        (samples,), mono, float32.

    Raises:
        InputError: If the file cannot be read, or holds values that are not finite.
    """
    return load(path, sample_rate=sample_rate).numpy()


def windows(waveform: np.ndarray, span: int, *, tolerated: int = 0) -> list[np.ndarray]:
    """Cuts a sound into the fewest windows that cover it, evenly spaced.

    Args:
        waveform: (samples,).
        span: Samples of a window; a shorter sound is its own window.
        tolerated: Samples at the end that need not be covered.
    """
    over = len(waveform) - span
    if over <= 0:
        return [waveform]
    count = 1 + max(0, math.ceil((over - tolerated) / span))
    starts = [round(over * k / (count - 1)) for k in range(count)] if count > 1 else [0]
    return [waveform[start : start + span] for start in starts]


def target_of(sample: Sample) -> Path:
    """The file that a sample's output is compared with.

    Raises:
        InputError: If it has none.
    """
    if sample.target is None:
        raise InputError(
            f"Item {sample.item.id} has no target to be compared with; leave this metric out for "
            f"the set {sample.item.set}"
        )
    return sample.target


def _describe(
    metric: Metric, judge: Judge, samples: Sequence[Sample], tools: Tools
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Descriptions, and reasons of failure, by id; from the cache where it has them."""
    name = getattr(judge, "described_as", metric.name)
    cache = FeatureCache(tools.cache / name) if tools.cache is not None else None
    identity = getattr(judge, "identity", judge.model)
    found: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    unknown: list[tuple[Sample, str]] = []
    for sample in samples:
        key = ""
        if sample.target is None and getattr(judge, "needs_target", False):
            reasons[sample.item.id] = "there is no target to compare it with"
            continue
        if cache is not None:
            try:
                key = sample_key(sample, name, metric.version, identity)
            except OSError as error:
                reasons[sample.item.id] = f"{error.filename}: {error.strerror}"
                continue
            kept = cache.read(key)
            if kept is not None:
                found[sample.item.id] = kept
                continue
        unknown.append((sample, key))
    fault: Exception | None = None
    for start in range(0, len(unknown), BATCH):
        usable = []
        for sample, key in unknown[start : start + BATCH]:
            try:
                _require_usable(sample, judge, metric.sample_rate)
                usable.append((sample, key))
            except InputError as error:
                reasons[sample.item.id] = str(error)
        for (sample, key), said in zip(usable, _judged(judge, usable), strict=True):
            if isinstance(said, Exception):
                fault = fault if isinstance(said, InputError) else said
                reasons[sample.item.id] = str(said) or type(said).__name__
                continue
            found[sample.item.id] = said
            if cache is not None:
                cache.write(key, said)
    if fault is not None and not found:
        raise fault  # the judge does not work at all
    order = [sample.item.id for sample in samples]
    return {name: found[name] for name in order if name in found}, reasons


def _judged(judge: Judge, batch: Sequence[tuple[Sample, str]]) -> list[np.ndarray | Exception]:
    """Describes a batch, one by one where it cannot be described as a whole."""
    if not batch:
        return []
    try:
        said = judge.describe([sample for sample, _ in batch])
        assert len(said) == len(batch), "a judge describes every sample"
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [entry for pair in batch for entry in _judged(judge, [pair])]
    return [
        array if np.isfinite(array).all() else InputError("the judge's answer is not finite")
        for array in (np.asarray(entry) for entry in said)
    ]


def _require_usable(sample: Sample, judge: Judge, sample_rate: int) -> None:
    """Refuses an output that cannot be read, or that is silent where silence is no answer.

    Raises:
        InputError: With the reason.
    """
    output = load(sample.output, sample_rate=sample_rate)
    if not getattr(judge, "hears_silence", False):
        require_sound(output, str(sample.output))


def _interval(
    judge: Judge,
    arrays: Sequence[np.ndarray],
    value: float,
    own: bool,
    bootstrap: int,
    seed: int,
) -> tuple[float, float]:
    """The bootstrap's interval: samples are drawn anew with replacement.

    Figures of sets, such as Frechet distances, are biased in few samples, and more so in draws,
    which repeat some. Their draws are therefore moved so that their mean is the figure; the
    interval tells the spread between sets, not the bias.
    """
    bootstrap = min(bootstrap, getattr(judge, "most_draws", bootstrap))
    if bootstrap <= 0 or not arrays:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    if own:
        scores = np.stack(arrays).astype(np.float64)
        draws = np.stack(
            [scores[rng.integers(len(scores), size=len(scores))].mean() for _ in range(bootstrap)]
        )
    else:
        draws = np.array(
            [
                judge.reduce([arrays[i] for i in rng.integers(len(arrays), size=len(arrays))])
                for _ in range(bootstrap)
            ]
        )
        draws += value - draws.mean()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
