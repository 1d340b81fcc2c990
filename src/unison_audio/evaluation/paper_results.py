"""The paper's figures: every row of its Tables 1-8, as printed (arXiv:2605.31530v2)."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

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
"""What a reader of a table should know: table -> sentences."""


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """One entry of one table."""

    table: int
    """Its number in the paper."""
    system: str
    """Whose. UNISON's two sizes have one name in all tables; the rows of Table 8 have those of the
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
    """Key of `measures.METRICS`, or one of `FACTS`."""
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
    text = (resources.files("unison_audio.evaluation") / "paper_results.tsv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return tuple(PaperResult(**{**row, "table": int(row["table"])}) for row in rows)  # type: ignore[arg-type]
