"""What must stay as it is while the source is reshaped: one test for each recorded row.

A change that is meant is recorded anew with `python tests/invariants/record.py AREA`, and the
commit says which figure changed and why.
"""

import pytest
from invariants.areas import AREAS
from invariants.pins import Area, check, recorded

CASES = [
    pytest.param(area, row, id=f"{area.name}-{row}".replace(" ", "-"))
    for area in AREAS
    for row in area.rows()
]


@pytest.mark.parametrize(("area", "row"), CASES)
def test_nothing_has_changed(area: Area, row: str) -> None:
    check(area, row)


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_every_recorded_row_is_compared(area: Area) -> None:
    assert list(recorded(area.path)["rows"]) == list(area.rows())
