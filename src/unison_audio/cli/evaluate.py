"""The commands that measure models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from unison_audio.cli.options import MachineFlags, SamplingFlags, Weights
from unison_audio.errors import InputError
from unison_audio.files import check_folder, require_folders
from unison_audio.training.configs import at_least_one

if TYPE_CHECKING:
    from unison_audio.evaluation.set_plans import EvaluationConfig, MetricOptions
    from unison_audio.evaluation.systems import ModelChoice
    from unison_audio.sampling_params import SamplingParams

evaluate = App(name="evaluate", help="Measure a model. Rerun a killed command to resume it.")

Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]

NAMES = {
    "test set": (
        *("audiocaps", "seed-tts", "gender-tts", "t2as"),
        *("audio-editing", "speech-editing", "timed"),
    ),
    "system": (
        *("ground-truth", "through-codec", "copy-source", "sdedit", "zeta", "unison"),
        "source-through-codec",
    ),
    "metric": (
        *("fad", "fad_inf", "fd", "kl", "is", "clap", "segment_clap", "wer", "cer", "lsd"),
        *("gender", "removal", "similarity", "similarity_wavlm", "dnsmos"),
    ),
    "stage": ("build", "generate", "score"),
}
"""What an option names -> its valid names. The tables that they come from load torch, which takes
seconds; a test compares the two."""

Old = Parameter(show=False)
"""A flag's name before 0.2.0; it works until 0.3.0 and stands in no help."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """How an evaluation runs."""

    sets: Names = None
    """Test sets of the paper's kinds; all by default."""
    systems: Names = None
    """Systems to run: ground-truth, through-codec, copy-source, sdedit, zeta, unison; all by
    default."""
    seed: int = 0
    """Seed of the test sets, the noise and the bootstrap."""
    batch: int = 8
    """Items in a batch."""
    ray_address: str | None = None
    """Address of a Ray cluster that shares the work; auto uses this machine's, local starts one."""
    workers: int = 2
    """Concurrent Ray jobs."""

    def check(self) -> None:
        """Raises `InputError` for an unknown name or a count below 1."""
        _check_names("test set", self.sets)
        _check_names("system", self.systems)
        at_least_one(batch=self.batch, workers=self.workers)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SetFlags:
    """What is built and run."""

    outputs: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None
    """Folders with outputs of other systems, one file per item id; the folder's name is the
    system's."""
    counts: Names = None
    """Item counts that differ from the paper's, such as audiocaps=100 timed=20."""
    stages: Names = None
    """Stages to run: build, generate, score; all by default."""

    def item_counts(self) -> dict[str, int]:
        """The item counts that differ, after a check of all fields.

        Raises:
            InputError: If a name is unknown, a count is no number, or a folder is missing.
        """
        _check_names("stage", self.stages)
        require_folders(*(self.outputs or ()))
        return {name: _number(name, value) for name, value in _pairs("counts", self.counts or ())}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MetricFlags:
    """Metrics and the models behind them."""

    metrics: Names = None
    """Metrics; by default those of the tasks."""
    metric_models: Names = None
    """Local files of metric models, such as whisper=FOLDER cnn14=FILE."""
    metric_device: str | None = None
    """Device of the metric models; by default that of the model."""
    offline_models: Annotated[bool, Parameter(negative="")] = False
    """Use the metric models that come with packages where no file is given, so that no network is
    needed."""
    bootstrap: int = 1000
    """Bootstrap resamples for the confidence intervals."""
    judges: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", show=False)
    ] = None
    """The old name of --metric-models."""
    judge_device: Annotated[str | None, Old] = None
    """The old name of --metric-device."""
    offline_judges: Annotated[bool, Parameter(negative="", show=False)] = False
    """The old name of --offline-models."""

    def files(self) -> dict[str, Path]:
        """The local files of metric models, after a check of all names.

        Raises:
            InputError: If a name is unknown, or a file is missing.
        """
        at_least_one(bootstrap=self.bootstrap)
        _check_names("metric", self.metrics)
        pairs = _pairs("metric-models", [*(self.metric_models or ()), *(self.judges or ())])
        for name, value in pairs:
            if not Path(value).exists():
                raise InputError(f"--metric-models has {name}={value}; there is no such file.")
        return {name: Path(value) for name, value in pairs}

    def options(self, device: str) -> "MetricOptions":
        """The options as the library takes them."""
        from unison_audio.evaluation.set_plans import MetricOptions

        return MetricOptions(
            paths=self.files(),
            device=self.metric_device or self.judge_device or device,
            offline=self.offline_models or self.offline_judges,
            bootstrap=self.bootstrap,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BarFlags:
    """The items of nano's table of targets."""

    items: int = 100
    """Items of each task; sequences (of random words) have three times as many."""
    tasks: Names = None
    """Tasks of the table of bars, codec, or sequences (of random words); by default all."""
    classifier: Path | None = None
    """Folder of the event classifier; it is trained there where it is missing."""

    def check(self) -> None:
        """Raises `InputError` for an unknown task or a count below 1."""
        from unison_audio.tasks.table import TASKS

        at_least_one(items=self.items)
        known = ("codec", *TASKS, "sequences")
        for name in self.tasks or ():
            if name not in known:
                raise InputError(f"There is no task {name!r} to evaluate; use {', '.join(known)}.")


@evaluate.command(name="nano")
def evaluate_nano(
    *,
    corpus: Path,
    out: Path,
    variant: Weights = "nano",
    tables: Literal["all", "bars", "sets"] = "all",
    bars: BarFlags | None = None,
    run: RunFlags | None = None,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Measure nano against its bars and on test sets of the paper's kinds, without a network.

    Runs of different tasks may share a folder, also at the same time. A last run of all tasks
    reuses their work and prints the whole table.

    Args:
        corpus: What 'unison-audio data nano' wrote.
        out: Folder of test sets, sounds, features and the report.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        tables: Only the table of bars, only the tables of the paper's kinds, or all.
        bars: What the bars are measured on; each option has its own flag.
        run: How to run; each option has its own flag.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.nano.corpus_name import require_nano_corpus

    # Importing torch takes longer than all of these checks, so bad input is refused before it.
    bars, run, machine = bars or BarFlags(), run or RunFlags(), machine or MachineFlags()
    bars.check()
    run.check()
    check_folder(out)
    require_folders(machine.codec_files, machine.text_files)
    _check_model(variant)
    require_nano_corpus(corpus, "Measuring nano")
    from unison_audio.evaluation.set_plans import MetricOptions
    from unison_audio.nano import evaluation as nano

    choice = _choice(variant, run.seed, sampling, machine)
    options = nano.BarOptions(items=bars.items, tasks=bars.tasks, classifier=bars.classifier)
    config = _config(choice, out, run, metric_options=MetricOptions(offline=True))
    nano.evaluate_nano(config, corpus, tables=tables, options=options)
    _print_report(out, tables=tables != "bars")


@evaluate.command(name="paper")
def evaluate_paper(
    *,
    data: Path,
    out: Path,
    variant: Weights = "d24-16k",
    test_sets: SetFlags | None = None,
    run: RunFlags | None = None,
    metric: MetricFlags | None = None,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Build the paper's test sets, answer and score them, and print its tables with ours beside.

    Args:
        data: Folder with audiocaps/ and seedtts_testset/ as they are published.
        out: Folder of test sets, sounds, features and the report.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        test_sets: What is built and answered; each option has its own flag.
        run: How to run; each option has its own flag.
        metric: What is measured; each option has its own flag.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    test_sets, run = test_sets or SetFlags(), run or RunFlags()
    metric, machine = metric or MetricFlags(), machine or MachineFlags()
    run.check()
    check_folder(out)
    metric.files()
    counts = test_sets.item_counts()
    require_folders(data, machine.codec_files, machine.text_files)
    _check_model(variant)
    from unison_audio.evaluation import set_plans, suite

    config = _config(
        _choice(variant, run.seed, sampling, machine),
        out,
        run,
        outputs={folder.name: folder for folder in test_sets.outputs or ()},
        counts=counts,
        stages=tuple(test_sets.stages or set_plans.STAGES),
        metrics=metric.metrics,
        metric_options=metric.options(machine.device),
    )
    suite.evaluate_paper(config, data)
    if "score" in config.stages:
        _print_report(out)


def _config(choice: "ModelChoice", out: Path, run: RunFlags, **settings: Any) -> "EvaluationConfig":
    from unison_audio.evaluation.set_plans import EvaluationConfig
    from unison_audio.evaluation.systems import DEFAULT_SYSTEMS

    return EvaluationConfig(
        choice=choice,
        out=out,
        sets=run.sets,
        systems=run.systems or DEFAULT_SYSTEMS,
        seed=run.seed,
        batch=run.batch,
        ray_address=run.ray_address,
        workers=run.workers,
        **settings,
    )


def _choice(
    model: str, seed: int, sampling: "SamplingParams | None", machine: MachineFlags
) -> "ModelChoice":
    import torch

    from unison_audio.evaluation.systems import ModelChoice

    files = {
        name: None if folder is None else str(folder.resolve())
        for name, folder in (
            ("codec_files", machine.codec_files),
            ("text_files", machine.text_files),
        )
    }
    return ModelChoice(
        model=model,
        device=machine.device,
        dtype=None if machine.dtype is None else getattr(torch, machine.dtype),
        quantize=machine.quantize,
        low_memory=machine.low_memory,
        seed=seed,
        options={} if sampling is None else sampling.given(),
        **files,
    )


def _check_names(what: str, names: Sequence[str] | None) -> None:
    for name in names or ():
        if name not in NAMES[what]:
            raise InputError(f"There is no {what} {name!r}; use {', '.join(NAMES[what])}.")


def _check_model(variant: str) -> None:
    """Refuses a checkpoint that is not there; a variant may have its weights elsewhere."""
    from unison_audio.checkpoint_files import open_checkpoint
    from unison_audio.variants import VARIANTS

    if variant not in VARIANTS:
        open_checkpoint(variant)


def _pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """NAME=VALUE, several times."""
    pairs = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"--{option} has {text!r}; give NAME=VALUE.")
        pairs.append((name, value))
    return pairs


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise InputError(f"--counts has {name}={value}; give a whole number of items.")
    return int(value)


def _print_report(out: Path, *, tables: bool = True) -> None:
    if tables:
        print((out / "tables.md").read_text("utf-8"))
    print(f"The report is {out / 'report.html'}.")
