import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.frozen.text import CachingTextEncoder, MiniLmEncoder, TextSetup
from unison_audio.variants import VARIANTS


@pytest.fixture(scope="module")
def encoder():
    return MiniLmEncoder(TextSetup(picks=VARIANTS["nano"].layer_picks))


TEXTS = [
    '[Speech] A female voice saying "red dog"',
    "[Audio] a dog barking",
    '[Speech] A male voice saying "stop"',
]


def test_states_are_those_of_the_picked_layers(encoder):
    states = encoder.encode(TEXTS[:1])
    ids = encoder.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        output = encoder.model(**ids, output_hidden_states=True)
    for k, layer in enumerate(VARIANTS["nano"].layer_picks):
        expected = output.hidden_states[layer][0]
        assert torch.allclose(states.hidden_states[0, k], expected, atol=1e-5)
    assert states.hidden_states.shape[-1] == VARIANTS["nano"].backbone.text_dim
    assert states.mask.all()


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
