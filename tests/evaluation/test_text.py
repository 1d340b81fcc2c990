import string
import sys

import pytest

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.evaluation.metrics.text import CHINESE_PUNCTUATION, seed_tts, spaced


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP, please!", "don't stop please"),
        ("It’s “fine” — really…", "its fine really"),
        ("twenty-one well-known", "twentyone wellknown"),
        ("  two   spaces ", "two spaces"),
        ("21 dogs & 3.5 € at 50%", "21 dogs 35 € at 50"),
        ("snake_case @home", "snakecase home"),
        ("...", ""),
    ],
)
def test_english(text, words):
    assert seed_tts(text) == words


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("你好，世界！", "你 好 世 界"),
        # words of Taiwan are replaced as well
        ("軟體後來", "软 件 后 来"),
        ("我有 3 隻 Dog。", "我 有 3 只 d o g"),
        ("「皇后」", "皇 后"),
    ],
)
def test_chinese(text, characters):
    pytest.importorskip("zhconv")
    assert seed_tts(text, "zh") == characters


def test_every_mark_of_both_lists_goes_but_the_apostrophe():
    marks = CHINESE_PUNCTUATION + string.punctuation
    assert seed_tts(f"a{marks}b") == "a'b"


def test_the_list_is_zhons():
    zhon = pytest.importorskip("zhon.hanzi")
    assert set(CHINESE_PUNCTUATION) == set(zhon.punctuation)


def test_errors_of_chinese_are_counted_by_character():
    pytest.importorskip("zhconv")
    assert word_error_rate("今天天气好。", "今天天氣很好", "zh") == pytest.approx(1 / 5)
    assert word_error_rate("今天天气好", "", "zh") == 1.0


def test_rates_are_jiwers():
    jiwer = pytest.importorskip("jiwer")
    said, heard = "the dog and the cat's bed", "a dog in the cat bed now"
    assert word_error_rate("The dog - and the cat's bed.", "A dog in the cat bed, now!") == (
        pytest.approx(jiwer.wer(said, heard))
    )
    assert jiwer.wer(said, heard) == pytest.approx(4 / 6)  # a, in, cat; now


def test_spaced_puts_a_space_for_a_mark():
    assert spaced("It’s well-known: red_dog!") == "it's well known red dog"


def test_refusals(monkeypatch):
    with pytest.raises(InputError, match=r"'de'.*en, zh"):
        seed_tts("Hallo", "de")
    monkeypatch.setitem(sys.modules, "zhconv", None)
    with pytest.raises(InputError, match=r"zhconv.*unison-audio\[evaluation\]"):
        seed_tts("你好", "zh")
