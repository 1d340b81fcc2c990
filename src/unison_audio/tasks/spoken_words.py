"""The words to be spoken in an instruction, cleaned; nothing else of it changes."""

import re

from unison_audio.tasks.reference_text import new_text_span
from unison_audio.text.cleaning import clean_text

_QUOTES = re.compile(r'(")([^"]*)(")|(“)([^”]*)(”)|(「)([^」]*)(」)')


def clean_words(
    instruction: str, reference_text: str | None, cloned: bool
) -> tuple[str, str | None]:
    """Write the words to be spoken as words: numbers, money, dates, units and abbreviations.

    Args:
        instruction: Of any task.
        reference_text: The words of a reference.
        cloned: Whether a reference's voice speaks: all that follows the tag are words then.

    Returns:
        Both; what needs no cleaning comes back as it is.

    Raises:
        InputError: There are numbers in Chinese, and the package for them is missing.
    """
    if cloned:
        start, end = new_text_span(instruction)
        words = clean_text(instruction[start:end])
        said = None if reference_text is None else clean_text(reference_text)
        return instruction[:start] + words + instruction[end:], said

    def cleaned(quote: re.Match[str]) -> str:
        opening, words, closing = (part for part in quote.groups() if part is not None)
        return opening + clean_text(words) + closing

    return _QUOTES.sub(cleaned, instruction), reference_text
