"""Takes out of a text what is not meant to be read aloud: Markdown, HTML tags, emoji, addresses.

Chat programs and documents give text with marks that a voice would speak.
"""

import re
import unicodedata

# Blanks are bounded where two runs of them could meet: a search then takes linear time.
_LINE_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^[ \t]{0,9}(?:```|~~~).*$", re.MULTILINE), ""),  # a fence of code
    (re.compile(r"^[ \t]{0,3}(?:[-*_][ \t]{0,9}){3,}$", re.MULTILINE), ""),  # a horizontal rule
    (  # what stands under the head of a table
        re.compile(
            r"^[ \t]{0,9}\|?[ \t]{0,9}:?-+:?[ \t]{0,9}(?:\|[ \t]{0,9}:?-+:?[ \t]{0,9})*\|?$",
            re.MULTILINE,
        ),
        "",
    ),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(?=\S)", re.MULTILINE), ""),
    (re.compile(r"^[ \t]{0,9}>(?:[ \t]?>)*[ \t]?", re.MULTILINE), ""),
    (re.compile(r"^[ \t]{0,9}[-*+•][ \t]+(?:\[[ xX]\][ \t]+)?", re.MULTILINE), ""),
)
"""Marks at the beginning of lines."""

_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\n]{0,300})\](?:\([^)\n]{0,2000}\)|\[[^\]\n]{0,300}\])")

_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,300}>")

_ADDRESS = re.compile(
    r"<?\b(?:https?://|ftp://|www\.)([^\s<>()（）\[\]\"“”，。！？；：]{1,2000})>?", re.IGNORECASE
)

_MAIL = re.compile(r"<?(?:mailto:)?\b([\w.+-]{1,64})@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})>?")

_EMPHASIS = re.compile(
    r"(?<![^\W_])(\*{1,3}|_{1,3}|~~|`{1,3})(?=\S)|(?<=\S)(\*{1,3}|_{1,3}|~~|`{1,3})(?![^\W_])"
)

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufeff\u00ad"
"""Joiners and selectors, which leave nothing where they are taken out."""

_SPOKEN_SYMBOLS = "°℃℉"
"""Symbols of the category of emoji that are read aloud."""

_CHINESE = re.compile(r"[\u3400-\u9fff]")


def strip_markup(text: str) -> str:
    """Take out Markdown, HTML tags, emoji and control characters; addresses become words.

    Of a link its text stays, of a web address its domain. A table's cells are separated by commas.

    Args:
        text: Any text. Its line breaks stay, since they separate paragraphs.

    Returns:
        The text as it is spoken; one without marks comes back as it is.
    """
    chinese = _CHINESE.search(text) is not None
    for pattern, replacement in _LINE_RULES:
        text = pattern.sub(replacement, text)
    text = _IMAGE_OR_LINK.sub(r"\1", text)
    text = _MAIL.sub(lambda found: _mail(found, chinese), text)
    text = _ADDRESS.sub(lambda found: _address(found[1], chinese), text)
    text = _TAG.sub(" ", text)
    text = _EMPHASIS.sub("", text)
    text = "\n".join(_cells(line) for line in text.split("\n"))
    return "".join(_spoken(character) for character in text)


def _mail(found: re.Match[str], chinese: bool) -> str:
    at = "艾特" if chinese else " at "
    return f"{_dotted(found[1], chinese)}{at}{_dotted(found[2], chinese)}"


def _address(address: str, chinese: bool) -> str:
    end = re.search(r"[.,;:!?'*_]*$", address)
    host = re.split(r"[/?#:]", address, maxsplit=1)[0].rstrip(".,;:!?'*_")
    host = re.sub(r"^www\.", "", host, flags=re.IGNORECASE)
    return _dotted(host, chinese) + (end[0].replace("*", "").replace("_", "") if end else "")


def _dotted(name: str, chinese: bool) -> str:
    return re.sub(r"[_-]", " ", name).replace(".", "点" if chinese else " dot ")


def _cells(line: str) -> str:
    """A row of a table as its cells with commas between; other lines as they are."""
    stripped = line.strip()
    if not (stripped.startswith("|") and stripped.endswith("|") and len(stripped) > 2):
        return line
    cells = (cell.strip() for cell in stripped.strip("|").split("|"))
    return ", ".join(cell for cell in cells if cell)


def _spoken(character: str) -> str:
    if character in "\n\t" or character in _SPOKEN_SYMBOLS:
        return character
    if character in _INVISIBLE:
        return ""
    kind = unicodedata.category(character)
    # Symbols of other kinds are emoji; modifiers of their skin are of the kind Sk.
    emoji = kind in ("So", "Cc", "Cf", "Co", "Cs", "Cn") or 0x1F3FB <= ord(character) <= 0x1F3FF
    return " " if emoji else character
