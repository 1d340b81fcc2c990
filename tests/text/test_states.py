import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.text.cache import CachingTextEncoder
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.states import TextSetup, TextStates, split, stack
from unison_audio.variants import VARIANTS


@pytest.fixture(scope="module")
def encoder():
    return MiniLmEncoder(TextSetup(picks=VARIANTS["nano"].layer_picks))


TEXTS = [
    '[Speech] A female voice saying "red dog"',
    "[Audio] a dog barking",
    '[Speech] A male voice saying "stop"',
]


def test_a_text_does_not_depend_on_its_batch(encoder):
    together, alone = encoder.encode(TEXTS), encoder.encode(TEXTS[1:2])
    tokens = int(together.mask[1].sum())
    assert tokens < together.mask.shape[1]
    ours = together.hidden_states[1, :, :tokens]
    assert torch.allclose(ours, alone.hidden_states[0], atol=1e-5)
    assert (together.hidden_states[1, :, tokens:] == 0).all()


def test_the_cache_gives_the_same_and_encodes_a_text_once(encoder):
    class Counting:
        seen = 0

        def encode(self, instructions):
            self.seen += len(instructions)
            return encoder.encode(instructions)

    counting = Counting()
    cached = CachingTextEncoder(counting)
    first = cached.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    second = cached.encode([TEXTS[1], TEXTS[2]])
    assert counting.seen == 3
    plain = encoder.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert torch.equal(first.mask, plain.mask)
    assert torch.allclose(first.hidden_states, plain.hidden_states, atol=1e-5)
    assert second.hidden_states.shape[0] == 2


def test_the_cache_keeps_to_its_budget(encoder):
    one = encoder.encode(TEXTS[:1]).hidden_states.nbytes
    cached = CachingTextEncoder(encoder, budget_bytes=one + 1)
    cached.encode(TEXTS[:1])
    cached.encode(TEXTS[1:])
    assert cached.used <= one + 1


def test_too_long_and_empty_texts_are_refused(encoder):
    with pytest.raises(InputError, match="at most 256"):
        encoder.encode(["dog " * 300])
    with pytest.raises(InputError, match="empty"):
        encoder.encode(["  "])


def test_the_cache_carries_the_penultimate_states():
    encoder = MiniLmEncoder(TextSetup(picks=(2,), penultimate=True))
    cached = CachingTextEncoder(encoder)
    for _ in range(2):
        states = cached.encode([TEXTS[1], TEXTS[0], TEXTS[1]])
        for row, text in enumerate([TEXTS[1], TEXTS[0], TEXTS[1]]):
            alone = encoder.encode([text])
            tokens = alone.mask.shape[1]
            assert torch.allclose(states.penultimate[row, :tokens], alone.penultimate, atol=1e-5)
    (kept,) = {kept.penultimate.untyped_storage().nbytes() for kept in [cached.kept[TEXTS[1]]]}
    assert kept == cached.kept[TEXTS[1]].penultimate.nbytes  # not a view that keeps the batch
    both = cached.kept.values()
    assert cached.used == sum(e.hidden_states.nbytes + e.penultimate.nbytes for e in both)


def test_a_system_prompt_is_refused_where_none_is_understood():
    with pytest.raises(InputError, match=r"takes no system prompt.*'You listen'"):
        MiniLmEncoder(TextSetup(picks=(1,), system_prompt="You listen"))


def test_split_undoes_stack():
    parts = [
        TextStates(
            hidden_states=torch.full((1, 2, tokens, 3), float(tokens)),
            mask=torch.ones(1, tokens, dtype=torch.bool),
            penultimate=torch.full((1, tokens, 3), -1.0),
        )
        for tokens in (2, 4, 1)
    ]
    batch = stack(parts)
    assert batch.hidden_states.shape == (3, 2, 4, 3)
    assert batch.mask.sum(dim=1).tolist() == [2, 4, 1]
    assert batch.hidden_states.sum() == sum(part.hidden_states.sum() for part in parts)
    for one, other in zip(split(batch), parts, strict=True):
        assert torch.equal(one.hidden_states, other.hidden_states)
        assert torch.equal(one.penultimate, other.penultimate)
        assert one.mask.all()


def test_states_move_and_change_their_type():
    states = TextStates(
        hidden_states=torch.ones(1, 2, 3, 4), mask=torch.ones(1, 3).bool(), penultimate=None
    ).to("meta", torch.bfloat16)
    assert states.hidden_states.dtype == torch.bfloat16
    assert (states.mask.device.type, states.mask.dtype) == ("meta", torch.bool)
