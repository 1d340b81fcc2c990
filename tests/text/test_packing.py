import torch

from unison_audio.text.packing import pack


def test_texts_lie_behind_the_prefix_and_see_only_it_and_themselves():
    (one,) = pack([[5, 6], [7]], prefix=[1, 2], most=10)
    assert one.tokens == [1, 2, 5, 6, 7]
    assert one.positions.tolist() == [0, 1, 2, 3, 2]
    assert one.spans == [(0, slice(2, 4)), (1, slice(4, 5))]
    expected = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert torch.equal(one.mask, torch.tensor(expected, dtype=torch.bool))


def test_a_text_alone_needs_no_mask():
    (one,) = pack([[5, 6]], prefix=[1], most=10)
    assert one.mask is None
    assert one.positions.tolist() == [0, 1, 2]


def test_packs_hold_each_text_once_and_no_more_than_allowed():
    texts = [[1] * length for length in (3, 4, 2, 9, 1, 1, 5)]
    packs = pack(texts, prefix=[0, 0], most=6)
    assert [[number for number, _ in each.spans] for each in packs] == [
        [0],
        [1, 2],
        [3],
        [4, 5],
        [6],
    ]
    for each in packs:
        for number, span in each.spans:
            assert each.tokens[span] == texts[number]


def test_the_last_tokens_of_prefix_and_text_are_found():
    (one,) = pack([[5, 6], [7]], prefix=[1, 2, 3], most=10)
    second = one.spans[1][1]
    whole = [1, 2, 3, 7]
    for count in range(1, 5):
        found = [one.tokens[i] for i in one.last(second, count)]
        assert found == whole[-count:]
