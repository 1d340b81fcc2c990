"""The words of a reference, joined with the words to be spoken in its voice."""

import functools
import re

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

_QUOTED_TEXT = r"(?:\"([^\"]*)\"|“([^”]*)”|「([^」]*)」)"


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
    for pattern in _quoted_forms():
        match = pattern.fullmatch(instruction, start)
        if match:
            number = next(n for n, group in enumerate(match.groups(), 1) if group is not None)
            return match.span(number)
    return start, len(instruction.rstrip())


def with_reference_text(instruction: str, reference_text: str) -> str:
    """Insert the reference's text before the whole new text of a zero-shot instruction."""
    start, end = new_text_span(instruction)
    joined = join_reference_text(reference_text, instruction[start:end])
    return instruction[:start] + joined + instruction[end:]


@functools.cache
def _quoted_forms() -> tuple[re.Pattern[str], ...]:
    """Templates with quotes, and quotes alone, as patterns of what follows the tag."""
    quoted = [form for form in TEMPLATES["zero_shot_tts"] if '"{text}"' in form]
    wordings = ["", *(_TAG.sub("", form, count=1) for form in quoted)]
    patterns = []
    for wording in wordings:
        around = [r"\s+".join(map(re.escape, part.split())) for part in wording.split('"{text}"')]
        before, after = around if len(around) == 2 else ("", "")
        patterns.append(
            re.compile(rf"{before}\s*{_QUOTED_TEXT}\s*{after}[\s.!]*", re.IGNORECASE | re.DOTALL)
        )
    return tuple(patterns)
