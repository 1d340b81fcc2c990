"""Texts of any English words: what is held out, and where they come from."""

import itertools
import random
import sys
import types

import pytest

from unison_audio.errors import InputError
from unison_audio.nano import open_texts

SYLLABLES = ("ba", "de", "ki", "lo", "mu", "sha", "tro", "vel")
WORDS = ["".join(pair) for pair in itertools.product(SYLLABLES, repeat=2)]
GLOSSES = (
    '  1 licence | "not a gloss at all"',
    '00 n | an animal; "The dog, it barked!"; "a dog"; "the dog barked in 1990"',
)


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.setattr(open_texts, "COMMONEST", 10)
    rng = random.Random(0)
    sentences = [" ".join(rng.sample(WORDS, 4)) for _ in range(200)]
    return open_texts.split_texts(WORDS, sentences)


def test_training_says_no_held_out_word_nor_its_family(texts):
    held_out, trained = set(texts.held_out), set(texts.trained)
    assert held_out
    families = [{open_texts.family(word) for word in words} for words in (held_out, trained)]
    assert not families[0] & families[1]
    assert not held_out & set(WORDS[:10])
    for text in (*texts.sentences, *texts.unseen_sentences):
        assert set(text.split()) <= trained
    for text in texts.unseen_words:
        assert set(text.split()) & held_out
        assert set(text.split()) <= held_out | trained
    assert not set(texts.sentences) & set(texts.unseen_sentences)
    for kind in ("words", "sequences", "sentences"):
        for text in open_texts.draw_texts(texts, kind, 3, 50):
            assert set(text.split()) <= trained


def test_families_join_inflections():
    family = open_texts.family
    assert len({family(w) for w in ("walk", "walks", "walked", "walking", "walker")}) == 1
    assert len({family(w) for w in ("stop", "stops", "stopped", "stopping")}) == 1
    assert family("red") != family("bread")


def test_wordnet_examples_are_found_and_cleaned():
    words = {"the", "a", "dog", "it", "barked"}
    assert open_texts.example_sentences(GLOSSES, words) == ["the dog it barked"]


def test_frequent_words_are_those_of_the_dictionary(monkeypatch):
    ranked = ["the", "a", "usa", "b", "it's", "dog", "x-ray", "cat"]
    fake = types.SimpleNamespace(top_n_list=lambda language, count: ranked)
    monkeypatch.setitem(sys.modules, "wordfreq", fake)
    dictionary = {"the", "a", "b", "it's", "dog", "x-ray", "cat"}
    assert open_texts.frequent_words(4, dictionary) == ["the", "a", "it's", "dog"]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(InputError, match=r"wordfreq is missing.*unison-audio\[corpus\]"):
        open_texts.frequent_words(4, {"the"})
