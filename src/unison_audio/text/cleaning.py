"""Text as it is spoken, in English and Chinese: without markup, and numbers as words."""

import re

from unison_audio.text.chinese_words import chinese_words
from unison_audio.text.english_words import english_words
from unison_audio.text.markup import strip_markup

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_LATIN = re.compile(r"[a-zA-Z]")

CHINESE_SHARE = 0.2
"""A line is Chinese where more than this share of its letters is: a Chinese letter says more than a
Latin one."""


def clean_text(text: str) -> str:
    """Write a text as it is spoken.

    Args:
        text: Words to speak, of any number of lines; each line is English or Chinese.

    Returns:
        The words. A text of words and punctuation alone comes back as it is.

    Raises:
        InputError: There are numbers in Chinese, and the package for them is missing.
    """
    words = "\n".join(map(_in_words, strip_markup(text).split("\n")))
    if words == text:
        return text
    # What was taken out leaves blanks, some of them before marks.
    tidy = re.sub(r"[ \t]+", " ", words)
    return re.sub(r" (?=[,.;:!?\n]|$)|(?<=\n) |^ ", "", tidy)


def _in_words(line: str) -> str:
    chinese = len(_CHINESE.findall(line))
    if chinese > CHINESE_SHARE * (chinese + len(_LATIN.findall(line))):
        return chinese_words(line)
    return english_words(line)
