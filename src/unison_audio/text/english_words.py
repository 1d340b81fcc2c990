"""Numbers, dates, times, money, units and abbreviations of English text as words.

`num2words` says the numbers; this file finds what a number is. Digits that no rule claims are said
as plain numbers, so that no digit stays.
"""

import functools
import re
from collections.abc import Callable
from decimal import Decimal

from unison_audio.text.english_names import (
    ABBREVIATIONS,
    MONEY,
    MONEY_CODES,
    MONTH_SHORT,
    MONTHS,
    SCALES,
    UNITS,
)

_ROMAN_AFTER = (
    r"(?:[Cc]hapter|[Pp]art|[Vv]olume|[Bb]ook|[Aa]ct|[Ss]cene|[Ss]ection|[Aa]ppendix|[Ww]ar)"
)

_YEAR_BEFORE = r"(?:in|since|by|from|until|till|of|year|before|after|during|around|circa)"

_SCALE_WORDS = r"(?:hundred|thousand|million|billion|trillion)"

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"

_LONGEST = 40
"""Characters of a number; the digits of longer ones are read one by one."""

_unit_names = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))


def english_words(text: str) -> str:
    """Write the numbers and abbreviations of an English text as words.

    Args:
        text: Without markup.

    Returns:
        The text without digits; one without digits, signs and abbreviations comes back as it is.
    """
    for pattern, words in _ABBREVIATION_RULES:
        text = pattern.sub(words, text)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text


@functools.lru_cache(maxsize=4096)
def _say(number: str | int) -> str:
    """A number in words, without hyphens and commas."""
    from num2words import num2words

    if len(str(number)) > _LONGEST:
        return _digits(re.sub(r"\D", "", str(number)))
    value = Decimal(str(number).replace(",", ""))
    words = num2words(int(value) if value == value.to_integral_value() else value, lang="en")
    if "." in str(number):  # the digits after the point, with zeros at the end: 2.50, 3.0
        whole, digits = str(number).replace(",", "").split(".")
        words = f"{_say(whole or '0')} point {_digits(digits)}"
    return _plain(words)


def _plain(words: str) -> str:
    return words.replace("-", " ").replace(",", "")


@functools.lru_cache(maxsize=4096)
def _ordinal(number: str | int) -> str:
    from num2words import num2words

    return _plain(num2words(int(str(number).replace(",", "")), to="ordinal", lang="en"))


@functools.lru_cache(maxsize=4096)
def _year(number: str | int) -> str:
    from num2words import num2words

    return _plain(num2words(int(number), to="year", lang="en"))


def _digits(digits: str) -> str:
    return " ".join(_say(digit) if digit != "0" else "zero" for digit in digits)


def _one(number: str) -> bool:
    return number.replace(",", "") == "1"


def _date(month: int, day: int, year: str | None) -> str:
    said = f"{MONTHS[month - 1]} {_ordinal(day)}"
    return f"{said}, {_year(year)}" if year else said


def _iso_date(found: re.Match[str]) -> str:
    year, month, day = found[1], int(found[2]), int(found[3])
    if 1 <= month <= 12 and 1 <= day <= 31:
        return _date(month, day, year)
    return f"{_say(year)} {_say(month)} {_say(day)}"


def _slash_date(found: re.Match[str]) -> str:
    """Month before day, as in American English, unless that is no month."""
    first, second, year = int(found[1]), int(found[2]), found[3]
    if first > 12 and second <= 12:
        first, second = second, first
    if 1 <= first <= 12 and 1 <= second <= 31:
        return _date(first, second, year if len(year) == 4 else f"20{year}")
    return f"{_say(first)} slash {_say(second)} slash {_say(year)}"


def _month_day(found: re.Match[str]) -> str:
    month = MONTH_SHORT[found[1][:3].lower()]
    year = f", {_year(found[3])}" if found[3] else ""
    return f"{month} {_ordinal(found[2])}{year}"


def _day_month(found: re.Match[str]) -> str:
    month = MONTH_SHORT[found[2][:3].lower()]
    year = f", {_year(found[3])}" if found[3] else ""
    return f"the {_ordinal(found[1])} of {month}{year}"


def _time(found: re.Match[str]) -> str:
    hour, minute, second, half = found[1], found[2], found[3], found[4]
    if int(hour) > 24 or int(minute) > 59:
        return f"{_say(hour)} to {_say(minute)}{half or ''}"
    if half and "clock" in half:
        letters = " o'clock" if minute == "00" else ""
    elif half:
        letters = f" {half.strip()[0].lower()} m"
    elif minute == "00" and not second and 1 <= int(hour) <= 12:
        letters = " o'clock"
    else:
        letters = ""
    said = _say(hour)
    if minute != "00":
        said += f" oh {_say(minute[1])}" if minute[0] == "0" else f" {_say(minute)}"
    elif not letters:
        said += " hundred" if hour != "0" else " zero zero"
    if second:
        said += f" and {_say(second)} second{'' if _one(second.lstrip('0')) else 's'}"
    return said + letters


def _hour(found: re.Match[str]) -> str:
    return f"{_say(found[1])} {found[2].strip()[0].lower()} m"


def _money(sign: str, number: str, scale: str | None) -> str:
    one, several, cent, cents = MONEY[sign]
    if scale:
        return f"{_say(number)} {SCALES.get(scale.lower(), scale)} {several}"
    whole, point, rest = number.replace(",", "").partition(".")
    if len(rest) != 2 or not point:
        return f"{_say(number)} {one if _one(number) else several}"
    parts = []
    if int(whole or 0) or not int(rest):
        parts.append(f"{_say(whole or '0')} {one if whole == '1' else several}")
    if int(rest):
        parts.append(f"{_say(int(rest))} {cent if int(rest) == 1 else cents}")
    return " and ".join(parts)


def _sign_money(found: re.Match[str]) -> str:
    minus = "minus " if found[1] else ""
    return minus + _money(found[2], found[3], found[4] or found[5])


def _unit(found: re.Match[str]) -> str:
    minus = "minus " if found[1] else ""
    return f"{minus}{_say(found[2])} {UNITS[found[3]][0 if _one(found[2]) else 1]}"


def _fraction(found: re.Match[str]) -> str:
    whole, above, below = found[1], int(found[2]), int(found[3])
    if above == below or (above, below) == (24, 7):  # fifty fifty, twenty four seven
        return f"{whole or ''}{_say(above)} {_say(below)}"
    if below == 0:
        return f"{whole or ''}{_say(above)} over zero"
    if below == 2:
        name = "half" if above == 1 else "halves"
    elif below == 4:
        name = "quarter" if above == 1 else "quarters"
    elif below <= 100 and below != 1:
        name = _ordinal(below) + ("" if above == 1 else "s")
    else:
        name = f"over {_say(below)}"
    said = f"{'a' if whole and above == 1 else _say(above)} {name}"
    return f"{_say(whole.strip())} and {said}" if whole else said


def _phone(found: re.Match[str]) -> str:
    groups = re.findall(r"\d+", found[0])
    plus = "plus " if found[0].startswith("+") else ""
    return plus + ", ".join(_digits(group) for group in groups)


def _decade(found: re.Match[str]) -> str:
    year = re.sub(r"\D", "", found[1])
    words = _year(year) if len(year) == 4 else _say(year)
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + "s"


def _roman(found: re.Match[str]) -> str:
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    numbers = [values[letter] for letter in found[2]]
    total = sum(
        -value if value < max(numbers[i:], default=0) else value for i, value in enumerate(numbers)
    )
    return f"{found[1]} {_say(total)}"


def _version(found: re.Match[str]) -> str:
    return " point ".join(_say(part) for part in found[0].split("."))


def _plain_number(found: re.Match[str]) -> str:
    minus, number = ("minus " if found[1] else ""), found[2]
    # Zeros in front, and very long numbers, are read digit by digit.
    if "." not in number and "," not in number and (re.match(r"0\d", number) or len(number) > 9):
        return minus + _digits(number)
    return minus + _say(number)


_month_names = "|".join(MONTHS) + r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b\.?"

_HALF = r"\s?(?:[ap]\.m\.|[ap]m\b|[AP]M\b|[AP]\.M\.)"

_ABBREVIATION_RULES = [
    (re.compile(rf"(?<![\w.]){pattern}"), words) for pattern, words in ABBREVIATIONS
]

_RULES: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(rf"\b({_ROMAN_AFTER}) ([IVXLC]+)\b"), _roman),
    (re.compile(r"(?<![\w-])(\d{4})-(\d{2})-(\d{2})(?![\w-])"), _iso_date),
    (re.compile(r"(?<![\w/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\w/])"), _slash_date),
    (
        re.compile(
            rf"\b({_month_names})\s+(\d{{1,2}})(?:st|nd|rd|th)?(?![\d:.]\d)\b(?:,?\s+(\d{{4}}))?(?!\d)"
        ),
        _month_day,
    ),
    (
        re.compile(
            r"(?<![\w.:])(?:the )?(\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?"
            rf"({_month_names})(?:,?\s+(\d{{4}}))?(?!\w)"
        ),
        _day_month,
    ),
    (
        re.compile(
            rf"(?<![\w:.])(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?(?![\d:])({_HALF}|\s?o['’]clock)?"
        ),
        _time,
    ),
    (re.compile(rf"(?<![\w:.])(\d{{1,2}})({_HALF})"), _hour),
    (re.compile(r"(?<=\d)\s?[-–]\s?(?=[$€£¥]\d)"), lambda found: " to "),
    (
        re.compile(
            rf"(?<!\w)([-−])?([$€£¥])\s?({_NUMBER})(?:\s({_SCALE_WORDS})\b|(k|K|m|M|b|B|bn|t|T)\b)?"
        ),
        _sign_money,
    ),
    (
        re.compile(rf"(?<![\w.,])({_NUMBER})\s?({'|'.join(MONEY_CODES)})\b"),
        lambda found: _money(MONEY_CODES[found[2]], found[1], None),
    ),
    (
        re.compile(r"(?<![\w-])(?:\+\d{1,3}[ -])?(?:\(\d{3}\) ?|\d{3}-)?\d{3}-\d{4}(?![\w-])"),
        _phone,
    ),
    (re.compile(r"(?<![\w.])\d+\.\d+\.\d+(?:\.\d+)*(?![\w])"), _version),
    (re.compile(r"(?<![\w/.])(\d+ )?(\d{1,3})/(\d{1,3})(?![\w/])"), _fraction),
    (
        re.compile(rf"(?<=\d)\s?[-–]\s?(?=(?:{_NUMBER})(?:\s?(?:{_unit_names})(?!\w)|\b(?!-)))"),
        lambda found: " to ",
    ),
    (re.compile(r"(?<![\w.,])((?:1[1-9]|20)\d0|['‘’]?[2-9]0)['’]?s\b"), _decade),
    (
        re.compile(rf"(?<![\w.,])([-−])?({_NUMBER})\s?({_unit_names})(?![\w²³])"),
        _unit,
    ),
    (
        re.compile(r"(?<![\w.])(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE),
        lambda found: _ordinal(found[1]),
    ),
    (
        re.compile(rf"\b({_YEAR_BEFORE})(\s+)(1[1-9]\d\d|20\d\d)\b(?![.,]\d)", re.IGNORECASE),
        lambda found: f"{found[1]}{found[2]}{_year(found[3])}",
    ),
    (re.compile(r"(?<![\w.,-])(?:19|20)\d\d(?![\w-]|[.,]\d)"), lambda found: _year(found[0])),
    (
        re.compile(r"(?<![\w.,])(\d{1,2})['′]\s?(\d{1,2})[\"″]"),
        lambda found: f"{_say(found[1])} feet {_say(found[2])}",
    ),
    (re.compile(r"#(?=\d)"), lambda found: "number "),
    (re.compile(r"(?<=\d)\s?[x×]\s?(?=\d)"), lambda found: " by "),
    (re.compile(r"(?<=\d)\s?\*\s?(?=\d)"), lambda found: " times "),
    (re.compile(r"(?<=\d)\s?\+\s?(?=\d)"), lambda found: " plus "),
    (re.compile(r"(?<=\w)\s?=\s?(?=\w)"), lambda found: " equals "),
    (re.compile(r"(?<=\w)\s?&\s?(?=\w)"), lambda found: " and "),
    (re.compile(rf"(?<![\w.,])([-−])?({_NUMBER})(?!\w)"), _plain_number),
    # What is left stands inside a word, such as H2O, B12 or 3D.
    (re.compile(r"(?<=[^\W\d_])-?(\d+)(?=[^\W\d_])"), lambda found: f" {_say(found[1])} "),
    (re.compile(r"(?<=[^\W\d_])-?(\d+)"), lambda found: f" {_say(found[1])}"),
    (re.compile(r"(\d+)(?=[^\W\d_])"), lambda found: f"{_say(found[1])} "),
    (re.compile(r"\d+"), lambda found: _say(found[0])),
]
"""Pattern -> words, in this order: what is more special comes first."""
