"""The words of a reference, joined with the words to be spoken in its voice."""

import functools
import re

from unison_audio.tasks.quotes import outside_quotes
from unison_audio.tasks.templates import TEMPLATES

# Removed from the end of the reference's text, so that the joint text is one sentence and not a
# finished one followed by a comma.
_CLOSING = (
    " \t\r\n.,;:!?…。，、；：！？"
    + "\"'“”‘’„«»「」『』"
    + "-–—―~～"
    + "()[]{}<>（）【】〔〕《》〈〉"
)

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_TAG = re.compile(r"\s*\[\s*speech\s+with\s+voice\s*\]\s*", re.IGNORECASE)

_CHINESE_FORMS = ("说", "请说", "念", "用这个声音说", "用同样的声音说", "用同一个声音说")
"""Chinese wordings before a quoted text; the templates are English."""


def join_reference_text(reference_text: str, text: str) -> str:
    """Join the reference's text and the new text as zero-shot instructions contain them.

    The reference's closing punctuation, quotes, dashes and brackets are replaced by a comma: by
    `，` where either side contains Chinese. The released weights were trained on this form,
    `{reference text}, {text}` (paper Table 10).
    """
    head = reference_text.strip().rstrip(_CLOSING)
    if not head:
        return text
    return f"{head}，{text}" if _CHINESE.search(head + text) else f"{head}, {text}"


def new_text_span(instruction: str) -> tuple[int, int]:
    """Find the words to be spoken in a zero-shot instruction.

    They are all that follows the tag, with the quotation marks inside it. Only where the whole
    instruction has the form of a template with quotes, such as `Say "..."`, they are what stands
    between the quotes: the wording around it is not spoken.

    Args:
        instruction: With `[Speech with voice]`.

    Returns:
        Positions of their start and their end.
    """
    tag = _TAG.match(instruction)
    start = tag.end() if tag else 0
    parts, quotes = outside_quotes(instruction[start:])
    if len(quotes) == 1 and tuple(map(_wording, parts)) in _quoted_forms():
        return start + quotes[0].start + 1, start + quotes[0].end - 1
    return start, max(start, len(instruction.rstrip()))


def with_reference_text(instruction: str, reference_text: str) -> str:
    """Insert the reference's text before the whole new text of a zero-shot instruction."""
    start, end = new_text_span(instruction)
    joined = join_reference_text(reference_text, instruction[start:end])
    return instruction[:start] + joined + instruction[end:]


def _wording(part: str) -> str:
    """Words around a quote, without what makes no difference."""
    return " ".join(part.lower().split()).strip(" .!:,，：。！")


@functools.cache
def _quoted_forms() -> frozenset[tuple[str, ...]]:
    """What stands before and after the text in templates with quotes, and around quotes alone."""
    forms = [_TAG.sub("", form, count=1) for form in TEMPLATES["zero_shot_tts"]]
    quoted = [form.split('"{text}"') for form in forms if '"{text}"' in form]
    chinese = [[form, ""] for form in _CHINESE_FORMS]
    return frozenset(tuple(map(_wording, parts)) for parts in [["", ""], *quoted, *chinese])
