"""Normalizes texts before words are counted: Seed-TTS's way, and nano's."""

import re
import string
from collections.abc import Callable
from types import MappingProxyType

from unison_audio.errors import InputError
from unison_audio.evaluation.models.weights import missing_package

CHINESE_PUNCTUATION = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】"
    "〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏﹑﹔·．！？｡。"
)
"""What the package zhon calls punctuation (``zhon.hanzi.punctuation``); a test compares them."""

REMOVED = (CHINESE_PUNCTUATION + string.punctuation).replace("'", "")
"""Characters that `seed_tts` removes. The apostrophe of ASCII stays; the typographic one goes."""

_REMOVE = str.maketrans("", "", REMOVED)


def seed_tts(text: str, language: str = "en") -> str:
    """Normalizes a text as Seed-TTS does (Anastassiou et al. 2024) before errors are counted.

    Punctuation is removed, nothing put in its place ("twenty-one" -> "twentyone"), the rest is in
    lower case. Numbers, abbreviations and symbols such as "€" stay as they are: "21" is not
    "twenty one". Chinese is simplified and split into characters; Latin letters and digits in it
    too.

    Args:
        text: Reference or transcript.
        language: Key of `LANGUAGES`.

    Returns:
        Words, in Chinese characters, with one space between them.

    Raises:
        InputError: If the language is another one, or a package for it is missing.
    """
    if language not in LANGUAGES:
        raise InputError(
            f"There is no normalization of texts in the language {language!r}; take one of "
            f"{', '.join(LANGUAGES)}"
        )
    return " ".join(LANGUAGES[language](text.translate(_REMOVE).lower()))


def spaced(text: str) -> str:
    """Lower case, a space for every mark but the apostrophe: "Red, well-known" -> 3 words."""
    words = re.sub(r"[^\w\s']|_", " ", text.lower().replace("’", "'"))
    return " ".join(words.split())


def _characters(text: str) -> list[str]:
    try:
        import zhconv
    except ModuleNotFoundError:
        raise missing_package("zhconv") from None
    return list("".join(zhconv.convert(text, "zh-cn").split()))


LANGUAGES: MappingProxyType[str, Callable[[str], list[str]]] = MappingProxyType(
    {"en": str.split, "zh": _characters}
)
"""Language -> function that splits a normalized text into the units that are counted."""
