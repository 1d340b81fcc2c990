"""The commands that measure models."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from unison_audio.cli.options import MachineFlags, SamplingFlags
from unison_audio.errors import InputError

if TYPE_CHECKING:
    from unison_audio.evaluation.systems import ModelChoice
    from unison_audio.sampling_params import SamplingParams

evaluate = App(name="evaluate", help="Measure a model; what was cut off is gone on with.")

Weights = Annotated[str, Parameter(name=["--variant"])]

Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]


@evaluate.command(name="nano")
def evaluate_nano(
    *,
    corpus: Path,
    out: Path,
    variant: Weights = "nano",
    tables: Literal["all", "bars", "sets"] = "all",
    items: int = 100,
    tasks: Names = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    classifier: Path | None = None,
    sets: Names = None,
    systems: Names = None,
    ray_address: str | None = None,
    workers: int = 2,
) -> None:
    """Measure nano against its bars, and on test sets of the paper's kinds, by offline judges.

    Runs of different tasks may share a folder, also at the same time; a last run of all tasks
    then takes what they left and prints the whole table.

    Args:
        corpus: What 'unison-audio data nano' wrote.
        out: The folder for the tables, the sounds and what the judges heard.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        tables: Only the table of bars, only the tables of the paper's kinds, or all.
        items: Items of tts, t2a, edit_add, edit_remove, speech_insert, speech_delete and denoise;
            the other tasks have a quarter of them, sequences three times as many.
        tasks: Which tasks of the table of bars, codec, or sequences (of random words); by default
            all.
        steps: Steps of sampling.
        guidance: How closely the instruction is followed.
        seed: Of the items and of the noise.
        classifier: Folder of the event classifier that judges sounds; trained there where it is
            missing.
        sets: Which test sets of the paper's kinds; by default all.
        systems: Which systems on them; by default all: the model, references and baselines.
        ray_address: Address of a Ray cluster that shares the work on the test sets; local starts
            one.
        workers: How many work at once, through Ray.
    """
    from unison_audio.evaluation import suite
    from unison_audio.evaluation.systems import SYSTEMS, ModelChoice
    from unison_audio.files import make_folder
    from unison_audio.nano import evaluation
    from unison_audio.nano import evaluation as nano
    from unison_audio.pipeline import Unison

    if items < 1:
        raise InputError(f"items is {items}; it must be at least 1.")
    make_folder(out)
    if tables != "sets":
        nano.evaluate_nano(
            Unison.from_pretrained(variant),
            corpus,
            out,
            items=items,
            steps=steps,
            guidance_scale=guidance,
            seed=seed,
            tasks=tasks,
            classifier=classifier,
        )
    if tables != "bars":
        asked = {"steps": steps, "guidance_scale": guidance}
        evaluation.evaluate_nano_sets(
            ModelChoice(
                model=variant,
                seed=seed,
                options={name: value for name, value in asked.items() if value is not None},
            ),
            corpus,
            out,
            sets=sets,
            systems=systems or tuple(SYSTEMS),
            judging=suite.Judging(
                offline=True, paths={"classifier": nano.classifier_folder(out, classifier)}
            ),
            seed=seed,
            ray_address=ray_address,
            workers=workers,
        )
        _tell(out)


@evaluate.command(name="paper")
def evaluate_paper(
    *,
    data: Path,
    out: Path,
    variant: Weights = "d24-16k",
    sets: Names = None,
    systems: Names = None,
    outputs: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    metrics: Names = None,
    counts: Names = None,
    stages: Names = None,
    judges: Names = None,
    judge_device: str | None = None,
    offline_judges: bool = False,
    bootstrap: int = 1000,
    batch: int = 8,
    seed: int = 0,
    ray_address: str | None = None,
    workers: int = 2,
    sampling: SamplingFlags = None,
    machine: MachineFlags | None = None,
) -> None:
    """Build the paper's test sets, answer and score them, and print its tables with ours beside.

    Args:
        data: Folder with audiocaps/ and seedtts_testset/ as they are published.
        out: The folder for test sets, sounds, what the judges heard, and the report.
        variant: A variant's name, a checkpoint's folder, or owner/name on the hub.
        sets: Which test sets; by default all.
        systems: Which of ground-truth, through-codec, copy-source, sdedit, zeta and unison; by
            default all.
        outputs: Folders of other systems' sounds, named by the items' ids; the folder's name is
            theirs.
        metrics: Which metrics; by default all that the tasks ask for.
        counts: Other numbers of items than the paper's, such as audiocaps=100 timed=20.
        stages: Some of build, generate and score; by default all.
        judges: Local files of judges' models, such as whisper=FOLDER cnn14=FILE.
        judge_device: Where the judges run; by default where the model does.
        offline_judges: Judges out of packages where no others are given.
        bootstrap: Draws for the intervals.
        batch: Items answered at once.
        seed: Of the sets, the noise and the bootstrap.
        ray_address: Address of a Ray cluster that shares the work; auto is this machine's, local
            starts one.
        workers: How many work at once, through Ray.
        sampling: Sampling options; each has its own flag.
        machine: Where to compute; each option has its own flag.
    """
    from unison_audio.evaluation import suite
    from unison_audio.evaluation.systems import SYSTEMS
    from unison_audio.files import make_folder

    machine = machine or MachineFlags()
    suite.evaluate_paper(
        _choice(variant, seed, sampling, machine),
        data,
        make_folder(out),
        sets=sets,
        systems=systems or tuple(SYSTEMS),
        outputs={folder.name: folder for folder in outputs or ()},
        metrics=metrics,
        counts={name: _number(name, value) for name, value in _pairs("counts", counts or ())},
        stages=tuple(stages or suite.STAGES),
        judging=suite.Judging(
            paths={name: Path(value) for name, value in _pairs("judges", judges or ())},
            device=judge_device or machine.device,
            offline=offline_judges,
            bootstrap=bootstrap,
        ),
        seed=seed,
        batch=batch,
        ray_address=ray_address,
        workers=workers,
    )
    if stages is None or "score" in stages:
        _tell(out)


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
        low_memory=machine.low_memory,
        seed=seed,
        options={} if sampling is None else sampling.given(),
        **files,
    )


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


def _tell(out: Path) -> None:
    print((out / "tables.md").read_text("utf-8"))
    print(f"The report is {out / 'report.html'}.")
