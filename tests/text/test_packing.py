import torch

from unison_audio.text.packing import pack


def test_texts_see_the_prefix_and_themselves_only():
    (one,) = pack([[5, 6], [7]], prefix=2, most=10)
    assert one.tokens == [5, 6, 7]
    assert one.positions.tolist() == [2, 3, 2]
    assert one.spans == [(0, slice(0, 2)), (1, slice(2, 3))]
    expected = [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert torch.equal(one.mask, torch.tensor(expected, dtype=torch.bool))


def test_only_a_text_without_a_prefix_needs_no_mask():
    (one,) = pack([[5, 6]], prefix=0, most=10)
    assert one.mask is None
    assert one.positions.tolist() == [0, 1]
    (one,) = pack([[5, 6]], prefix=1, most=10)
    assert one.mask.tolist() == [[True, True, False], [True, True, True]]
    assert one.positions.tolist() == [1, 2]


def test_packs_hold_each_text_once_and_no_more_than_allowed():
    texts = [[1] * length for length in (3, 4, 2, 9, 1, 1, 5)]
    packs = pack(texts, prefix=2, most=6)
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
