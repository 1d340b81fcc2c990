"""The words to be spoken in an instruction, cleaned; nothing else of it changes."""

from unison_audio.tasks.quotes import outside_quotes
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.text.cleaning import clean_text


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
        heard = None if reference_text is None else clean_text(reference_text)
        return instruction[:start] + words + instruction[end:], heard

    parts, quotes = outside_quotes(instruction)
    said = [quote.marked[0] + clean_text(quote.text) + quote.marked[-1] for quote in quotes]
    joined = "".join(part + quote for part, quote in zip(parts, [*said, ""], strict=True))
    return joined, reference_text
