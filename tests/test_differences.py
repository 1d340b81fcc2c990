"""The table of wordings in "differences from the release" is that of the code."""

import re
from pathlib import Path

import pytest

from unison_audio.tasks.clauses import respell
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import pool_of, render

PAGE = Path(__file__).parents[1] / "docs" / "differences.md"
FIELDS = {
    "gender": "female",
    "text": "go home",
    "new": "go home",
    "caption": "rain on a roof",
    "first": "rain",
    "last": "a dog",
    "event": "burst, pop",
    "old": "rain",
    "start": "0.0",
    "end": "2.5",
}


def documented() -> dict[str, str]:
    section = PAGE.read_text("utf-8").partition("## Wording of each task")[2]
    return dict(re.findall(r"^\| (\w+) \| `(.+?)` \|", section, flags=re.MULTILINE))


def test_every_task_has_a_row() -> None:
    wordings = {name: respell(pool_of(name, "release")[0], "[Edit] [Audio]") for name in TASKS}
    assert documented() == wordings


@pytest.mark.parametrize("name", TASKS)
def test_its_wording_is_understood_as_that_task(name: str) -> None:
    fields: dict[str, object] = dict(FIELDS)
    if name == "timed":
        fields["events"] = [FIELDS]
    if name == "edit_replace":
        fields["new"] = "a dog"
    instruction = render(pool_of(name, "release")[0], fields)
    needs = TASKS[name].needs
    found = parse_instruction(instruction, "source" in needs, "reference" in needs)
    assert found == name or (found, name) == ("t2a", "t2a_mix")  # one sentence either way
