"""The text of a speech request as it is spoken: without markdown, emoji and control characters."""

import re
import unicodedata

_LINK = re.compile(r"!?\[([^\]\n]{1,300})\]\([^)\s]{0,2000}\)")

_HEADING = re.compile(r"^[ \t]{0,3}(?:#{1,6}|>|[-*+])[ \t]+", re.MULTILINE)

_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)

_EMPHASIS = re.compile(
    r"(?<![^\W_])(\*{1,3}|_{1,3}|~~|`{1,3})(?=\S)|(?<=\S)(\*{1,3}|_{1,3}|~~|`{1,3})(?![^\W_])"
)

_INVISIBLE = "\u200d\ufe0e\ufe0f"
"""Joiners and selectors that make emoji of other characters."""


def spoken_text(text: str) -> str:
    """Take out of a text what would be read aloud and is not meant to be.

    Chat programs send a model's answer as it is, so asterisks and emoji would be spoken.

    Args:
        text: The client's text.

    Returns:
        The text; line breaks stay, since they separate paragraphs.
    """
    text = _FENCE.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _HEADING.sub("", text)
    text = _EMPHASIS.sub("", text)
    return "".join(_spoken(character) for character in text).strip()


def _spoken(character: str) -> str:
    kind = unicodedata.category(character)
    if character == "\n":
        return character
    if character in _INVISIBLE:
        return ""
    return " " if kind in ("So", "Cc", "Cf", "Co", "Cs", "Cn") else character
