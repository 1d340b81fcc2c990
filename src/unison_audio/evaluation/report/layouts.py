"""The layouts of the paper's Tables 1-8: test sets, rows, columns and the format of figures."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How a metric's figures are shown."""

    title: str
    better: Literal["higher", "lower"]
    digits: int
    """Digits after the point, as in the paper."""
    paper: str = ""
    """The paper's metric model (§4.2); "" for metrics beyond the paper."""
    mark: str = ""
    """A pattern that matches the name of the paper's metric model only."""

    @property
    def name(self) -> str:
        """The title without its unit."""
        return self.title.removesuffix(" %")

    @property
    def percent(self) -> bool:
        """Whether a share is shown in percent."""
        return self.title.endswith(" %")


_CLAP = "LAION-CLAP, checkpoint not named"
_WHISPER, _GENDER = r"large[- ]?v3(?![- ]?turbo)", r"wav2vec2-large-xlsr-53-gender"
_ROWS: tuple[tuple[str, str, Literal["higher", "lower"], int, str, str], ...] = (
    ("fad", "FAD", "lower", 3, "VGGish", r"vggish"),
    ("fd", "FD", "lower", 2, "PANNs", r"panns|cnn14"),
    ("kl", "KL", "lower", 3, "PANNs", r"panns|cnn14"),
    ("is", "IS", "higher", 2, "PANNs", r"panns|cnn14"),
    ("clap", "CLAP", "higher", 3, _CLAP, r"laion|630k"),
    ("segment_clap", "CLAP by segment", "higher", 3, _CLAP, r"laion|630k"),
    ("wer", "WER %", "lower", 2, "Whisper-large-v3", _WHISPER),
    ("cer", "CER %", "lower", 2, "Paraformer", r"paraformer"),
    # No model can match: the paper names none.
    ("lsd", "LSD", "lower", 2, "a formula that it does not give", r"(?!)"),
    ("gender", "Gender accuracy %", "higher", 1, "wav2vec2-large-XLSR-53 for gender", _GENDER),
    ("removal", "Removal %", "higher", 2, "Silero VAD", r"silero"),
    ("fad_inf", "FAD∞", "lower", 3, "", ""),
    ("similarity", "Similarity", "higher", 3, "", ""),
    ("similarity_wavlm", "Similarity (WavLM)", "higher", 3, "", ""),
    ("dnsmos", "DNSMOS", "higher", 2, "", ""),
)

SHOWN: dict[str, Shown] = {
    metric: Shown(title=title, better=better, digits=digits, paper=paper, mark=mark)
    for metric, title, better, digits, paper, mark in _ROWS
}
"""Metric -> how it is shown."""


def shown(metric: str) -> Shown:
    """The format of a metric's figures; title and direction of `table.METRICS` by default."""
    if metric in SHOWN:
        return SHOWN[metric]
    from unison_audio.evaluation.metrics import table as metric_table

    known = metric_table.METRICS.get(metric)
    if known is None:
        return Shown(title=metric, better="higher", digits=3)
    return Shown(title=known.title, better=known.better, digits=3)


def as_in_paper(metric: str, model: str) -> bool:
    """Whether a metric model is of the kind that the paper names for a metric."""
    how = shown(metric)
    return bool(how.paper) and re.search(how.mark, model, re.IGNORECASE) is not None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of figures."""

    metric: str
    task: str | None = None
    """Task; None is the sub-task of the row."""
    language: str = ""
    """Language; "" for all."""
    part: str = ""
    """Requested gender: "male" or "female"; "" for all."""
    label: str = ""
    """Addition to the metric in the title."""


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """A table of the paper.

    Systems are rows here in all of them; in the paper's Tables 3, 4 and 7 they are columns.
    """

    number: int
    """Table number in the paper."""
    title: str
    sets: tuple[str, ...]
    columns: tuple[Column, ...]
    benchmark: str = ""
    """The public test set of the paper's rows."""
    blocks: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    """Sub-tasks with their titles in the rows; "" is the whole set."""
    facts: tuple[str, ...] = ()
    """Facts about systems in the table."""


LAYOUTS: tuple[TableLayout, ...] = (
    TableLayout(
        number=1,
        title="Text to audio",
        benchmark="AudioCaps test",
        sets=("audiocaps",),
        columns=tuple(Column(metric=m, task="t2a") for m in ("fad", "fd", "kl", "is", "clap")),
        facts=("architecture", "parameters"),
    ),
    TableLayout(
        number=2,
        title="Text to speech",
        benchmark="Seed-TTS test",
        sets=("seed-tts",),
        columns=(
            Column(metric="wer", task="tts", language="en", label="pure, EN"),
            Column(metric="wer", task="zero_shot_tts", language="en", label="zero-shot, EN"),
            Column(metric="cer", task="tts", language="zh", label="pure, ZH"),
            Column(metric="cer", task="zero_shot_tts", language="zh", label="zero-shot, ZH"),
        ),
        facts=("parameters",),
    ),
    TableLayout(
        number=3,
        title="Gender-controlled text to speech",
        sets=("gender-tts",),
        columns=(
            Column(metric="gender", task="tts"),
            Column(metric="wer", task="tts", language="en", label="EN"),
            Column(metric="cer", task="tts", language="zh", label="ZH"),
            Column(metric="wer", task="tts", language="en", part="male", label="male"),
            Column(metric="wer", task="tts", language="en", part="female", label="female"),
            Column(metric="cer", task="tts", language="zh", part="male", label="male"),
            Column(metric="cer", task="tts", language="zh", part="female", label="female"),
        ),
    ),
    TableLayout(
        number=4,
        title="Speech and sound in one output",
        sets=("t2as",),
        columns=(
            Column(metric="clap", task="t2as"),
            Column(metric="wer", task="t2as", language="en", label="EN"),
            Column(metric="cer", task="t2as", language="zh", label="ZH"),
            Column(metric="lsd", task="t2as"),
        ),
    ),
    TableLayout(
        number=5,
        title="Audio editing",
        sets=("audio-editing",),
        columns=(Column(metric="fd"), Column(metric="lsd"), Column(metric="clap")),
        blocks={
            "edit_add": "Add",
            "edit_remove": "Remove",
            "edit_replace": "Replace",
            "": "Overall",
        },
    ),
    TableLayout(
        number=6,
        title="Speech-in-scene editing",
        sets=("speech-editing",),
        columns=(
            Column(metric="clap"),
            Column(metric="lsd"),
            Column(metric="wer", language="en", label="EN"),
            Column(metric="cer", language="zh", label="ZH"),
            Column(metric="removal"),
        ),
        blocks={
            "speech_insert": "Insert",
            "speech_delete": "Delete",
            "speech_rewrite": "Rewrite",
        },
    ),
    TableLayout(
        number=7,
        title="Timed composition",
        sets=("timed",),
        columns=(
            Column(metric="segment_clap", task="timed"),
            Column(metric="clap", task="timed", label="overall"),
        ),
    ),
    TableLayout(
        number=8,
        title="Ablations",
        sets=("audiocaps", "seed-tts"),
        columns=(
            Column(metric="fd", task="t2a"),
            Column(metric="clap", task="t2a"),
            Column(metric="wer", task="tts", language="en", label="EN"),
        ),
        facts=("conditioning", "architecture", "parameters"),
    ),
)
"""The paper's tables; the last takes the rows of ablations, the others those of systems."""

ABLATIONS = 8
"""Number of the table of ablations."""

TASK_WORDS = {"tts": "pure", "zero_shot_tts": "zero-shot"}
"""Names of tasks in column titles, where several share a table."""

SOLE_TASKS = {"audiocaps": "t2a", "t2as": "t2as", "gender-tts": "tts", "timed": "timed"}
"""Sets of one task: what is said of the whole set is said of the task."""

GROUND_TRUTH, LARGER = "ground truth", "larger data or preference optimisation"
"""Kinds of rows; the others are "comparison" and "UNISON". Those of `LARGER` are outside the
paper's comparison (Table 1). The mark itself is lost in the paper's web text; its §4.2 and §4.3.1
name GenAU-L."""

FACTS = ("conditioning", "architecture", "parameters")
"""Entries that say what a system is; all others are measured."""

REMARKS: dict[int, tuple[str, ...]] = {
    1: (
        "The paper gives UniSonate 1.34B parameters in its tables and 1.30B in its text (§2).",
        "GenAU-L had far more training data and is left out of the paper's comparison.",
    ),
    5: (
        "The paper's text says that D20 has the lower LSD; its table says so of Add, Replace and "
        "Overall, not of Remove.",
        "Audio-Omni's overall CLAP (0.217) is not the mean of its three sub-tasks' (0.215), as the "
        "other systems' is.",
    ),
    8: (
        "The paper's text finds the lowest CLAP of the D24 variants in L (0.175) and the highest "
        "WER in OL (5.52); that leaves out the 3B variant (0.174 and 5.61).",
    ),
}
"""Table number -> remarks below the table."""


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """One entry of one table."""

    table: int
    """Table number in the paper."""
    system: str
    """System. UNISON's two sizes have one name in all tables; the rows of Table 8 have those of the
    paper's §4.4."""
    group: str
    """Kind of row: `GROUND_TRUTH`, `LARGER`, "comparison" or "UNISON"."""
    task: str
    """Key of `tasks.table.TASKS`; "" for facts, and for the overall rows of Table 5."""
    part: str
    """Of which items: "male" or "female" in Table 3, "" for all."""
    language: str
    """"en" or "zh" where the entry is of one language."""
    metric: str
    """Key of `metrics.table.METRICS`, or one of `FACTS`."""
    value: str
    """As printed, without the sign of percent."""

    @property
    def number(self) -> float:
        """The figure; error rates, removal rate and accuracy are in percent.

        Raises:
            ValueError: The entry is one of `FACTS`.
        """
        return float(self.value)


@cache
def paper_results() -> tuple[PaperResult, ...]:
    """Every entry of Tables 1-8, in the paper's order; cells that are empty there are not here."""
    text = (resources.files("unison_audio.evaluation.report") / "paper_results.tsv").read_text(
        "utf-8"
    )
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(PaperResult(**{**row, "table": int(row["table"])}) for row in rows)  # type: ignore[arg-type]
