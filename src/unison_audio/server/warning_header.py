"""The header that carries warnings: what was ignored, and what lies outside a variant's domain."""

import json
from collections.abc import Iterable

WARNINGS = "X-Unison-Warnings"
"""A JSON list of sentences, in ASCII."""

_MOST = 4000
"""Characters; clients refuse longer headers."""


def warning_header(warnings: Iterable[str]) -> dict[str, str]:
    """The header for some warnings; nothing without one.

    Args:
        warnings: Sentences. Those that do not fit are counted in a last one.
    """
    found = list(warnings)
    if not found:
        return {}
    kept = [one if len(one) <= 600 else f"{one[:600]}..." for one in found]
    while len(text := _json(kept, len(found) - len(kept))) > _MOST:
        kept.pop()
    return {WARNINGS: text}


def unknown_fields(names: Iterable[str]) -> list[str]:
    """The warning about fields that a route does not know."""
    found = sorted(str(name) for name in names)
    if not found:
        return []
    return [f"Unknown and ignored: {', '.join(found)}."]


def _json(kept: list[str], left: int) -> str:
    more = [f"{left} more warnings did not fit."] if left else []
    return json.dumps([*kept, *more], ensure_ascii=True)
