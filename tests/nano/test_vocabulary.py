import random

from unison_audio.nano.vocabulary import (
    VOCABULARY,
    held_out_texts,
    random_sentence,
    random_sequence,
    random_text,
)


def test_the_vocabulary_is_about_120_different_words_of_two_letters_or_more():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert 100 <= len(VOCABULARY) <= 130
    assert min(len(word) for word in VOCABULARY) >= 2


def test_every_text_stays_inside_the_vocabulary():
    rng = random.Random(0)
    for _ in range(500):
        for text in (random_sentence(rng), random_text(rng), random_sequence(rng, 6)):
            assert set(text.split()) <= set(VOCABULARY), text


def test_sequences_have_the_asked_length_and_no_word_twice():
    rng = random.Random(0)
    for words in range(1, 7):
        sequence = random_sequence(rng, words).split()
        assert len(sequence) == len(set(sequence)) == words


def test_held_out_texts_are_fixed_different_and_of_all_lengths():
    texts = held_out_texts()
    assert texts == held_out_texts()
    assert len(texts) == len(set(texts)) == 560
    assert {len(text.split()) for text in texts[:400]} == {1, 2, 3, 4, 5, 6}
    alone = [text for text in texts if " " not in text]
    assert 5 <= len(alone) <= len(VOCABULARY) // 10  # most words are heard alone in training
