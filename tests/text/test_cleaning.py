"""Text as it is spoken: numbers and abbreviations as words, markup left out."""

import sys
import time

import pytest

from unison_audio.errors import InputError
from unison_audio.nano.vocabulary import VOCABULARY
from unison_audio.text import chinese_words
from unison_audio.text.cleaning import clean_text

ENGLISH = {
    "we see 12 and 20": "we see twelve and twenty",
    "$100": "one hundred dollars",
    "$3.50, €1 and £0.99": "three dollars and fifty cents, one euro and ninety nine pence",
    "$1.5 million or $2k": "one point five million dollars or two thousand dollars",
    "9:30": "nine thirty",
    "at 9:05 am": "at nine oh five a m",
    "9:00 to 10:00 o'clock": "nine o'clock to ten o'clock",
    "at 21:30": "at twenty one thirty",
    "5 km": "five kilometers",
    "It is 1km away, at 100 km/h.": "It is one kilometer away, at one hundred kilometers per hour.",
    "12.5% of 1,234": "twelve point five percent of one thousand two hundred and thirty four",
    "-5°C": "minus five degrees Celsius",
    "the 3rd, 21st and 102nd": "the third, twenty first and one hundred and second",
    "2024-05-06": "May sixth, twenty twenty four",
    "05/06/2024": "May sixth, twenty twenty four",
    "Jan. 5, 1999": "January fifth, nineteen ninety nine",
    "the 4th of July": "the fourth of July",
    "in 1815, the 1990s": "in eighteen fifteen, the nineteen nineties",
    "in 2024.": "in twenty twenty four.",
    "1/2 cup, 2 3/4 cups": "one half cup, two and three quarters cups",
    "5-7 days": "five to seven days",
    "555-1234": "five five five, one two three four",
    "Version 2.0.1": "Version two point zero point one",
    "007": "zero zero seven",
    "H2O and B12": "H two O and B twelve",
    "Dr. Smith vs. Mrs. Green, etc.": "Doctor Smith versus Missus Green, et cetera.",
    "St. John St. is no. 5": "Saint John Street is number five",
    "Chapter XIV": "Chapter fourteen",
    "2 + 2 = 4": "two plus two equals four",
    "a & b": "a and b",
    "1234567890123": "one two three four five six seven eight nine zero one two three",
    "May I go in March?": "May I go in March?",
}

MARKUP = {
    "# Title #1\n\n* one\n1. two": "Title number one\n\none\none. two",
    "a **bold** _word_ and `code` in snake_case": "a bold word and code in snake_case",
    "see [the page](http://x.org/a_b) now": "see the page now",
    "https://www.example.com/a/b?c=1, or bob@site.org!": "example dot com, or bob at site dot org!",
    "Great 👍🏽 job 🎉!": "Great job!",
    "<b>bold</b> text<br>": "bold text",
    "> said\n---\n- [x] done": "said\n\ndone",
    "| a | b |\n|---|:-:|\n| 1 | 2 |": "a, b\n\none, two",
    "```python\nx\n```": "\nx\n",
}

CHINESE = {
    "我有12只狗。": "我有十二只狗。",
    "价格是$100": "价格是一百美元",
    "上午9:30开会，共1,234人": "上午九点三十分开会，共一千二百三十四人",
    "2024年5月6日": "二零二四年五月六日",
    "跑5km": "跑五公里",
}


@pytest.mark.parametrize("text", [*ENGLISH, *MARKUP])
def test_english_becomes_words(text: str) -> None:
    expected = {**ENGLISH, **MARKUP}[text]
    assert clean_text(text) == expected
    assert clean_text(expected) == expected


@pytest.mark.parametrize("text", CHINESE)
def test_chinese_becomes_words(text: str) -> None:
    pytest.importorskip("wetext")
    assert clean_text(text) == CHINESE[text]


def test_words_and_punctuation_stay_as_they_are() -> None:
    for text in (
        " ".join(VOCABULARY),
        "Don't stop -- the red bird's on the water!  (Yes; no: maybe...)",
        "今天下雨，“好”。",
        " two  spaces\tand a tab ",
        'quotes "inside" — and “curly” ones',
    ):
        assert clean_text(text) == text


def test_no_digit_stays() -> None:
    marks = ("", " ", ".", ",", ":", "/", "-", "$", "%", "km", "th", "a", "0", "+", "'", "s")
    numbers = ("1", "07", "12", "1999", "3.5", "1,000", "123456789012345678")
    for before in marks:
        for number in numbers:
            for after in marks:
                for text in (before + number + after, f"x {number}{after}{number}{before} y"):
                    assert not any(letter.isdigit() for letter in clean_text(text)), text


def test_chinese_numbers_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wetext", None)
    chinese_words._normalizer.cache_clear()
    assert clean_text("今天下雨。") == "今天下雨。"
    with pytest.raises(InputError, match=r"pip install 'unison-audio\[chinese\]'"):
        clean_text("我有12只狗。")


@pytest.mark.parametrize(
    "text", ["1", "[", "*", "1,", "<a", "a@", "1/", "- ", " ", "# ", "|-", "`a"]
)
def test_long_texts_take_linear_time(text: str) -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        clean_text(text * count)
        return time.process_time() - start

    clean_text(text * 100)
    assert seconds(20_000) < 12 * seconds(4_000) + 0.2
