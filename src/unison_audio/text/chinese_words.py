"""Numbers, dates, times, money and units of Chinese text as words, by the grammars of wetext."""

import functools
import re
from typing import Any

from unison_audio.errors import InputError

_CLAUSE = re.compile(r'[^"“”「」\\\n，。！？；：、]*[\d%℃℉°＄$￥€£][^"“”「」\\\n，。！？；：、]*')
"""What stands between marks and has something to say as words. Quotes and backslashes are kept out:
wetext escapes them."""

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def chinese_words(text: str) -> str:
    """Write the numbers of a Chinese text as words.

    Args:
        text: Without markup.

    Returns:
        The text; one without digits and signs comes back as it is.

    Raises:
        InputError: There are numbers, and the package wetext is missing.
    """
    # The grammar takes the comma in 1,234 for the end of a number.
    text = _THOUSANDS.sub("", text)
    return _CLAUSE.sub(lambda found: str(_normalizer().normalize(found[0])), text)


@functools.cache
def _normalizer() -> Any:
    try:
        from wetext import Normalizer
    except ModuleNotFoundError:
        raise InputError(
            "Numbers in Chinese text need the package wetext, which is missing; write them as "
            "words, leave clean_text off, or install it with: pip install 'unison-audio[chinese]'"
        ) from None
    return Normalizer(lang="zh", operator="tn")
