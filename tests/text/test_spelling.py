"""Words to be spoken, read letter by letter."""

import dataclasses

import pytest
import torch

from unison_audio.checkpoint_files import config_text
from unison_audio.data.records import ClipRecord
from unison_audio.domain import Domain, extend_domain, read_domain
from unison_audio.text.minilm import MiniLmEncoder
from unison_audio.text.spelling import letters, spelled
from unison_audio.text.states import TextSetup
from unison_audio.variants import find_variant

LETTERS = TextSetup(picks=(1, 6), letters=True, edit_tag_spelling="[Edit][Audio]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red dog", "t h e | r e d | d o g"),
        ("Hello Peter, how are you?", "h e l l o | p e t e r , h o w | a r e | y o u"),
        ("It’s well-known.", "i t ' s | w e l l | k n o w n"),
        ("no... yes! (now)", "n o , y e s , n o w"),
        (" , here", "h e r e"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_words_become_letters_and_marks_a_pause(text: str, expected: str) -> None:
    assert letters(text) == expected


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ('[Speech] A male voice saying "go home"', '[Speech] A male voice saying "g o | h o m e"'),
        ("[Speech with voice] we go, you stay", "[Speech with voice] w e | g o , y o u | s t a y"),
        ('[Speech with voice] Say "go on"', '[Speech with voice] Say "g o | o n"'),
        ("[Audio] rain and thunder", "[Audio] rain and thunder"),
        (
            '[edit] [audio] Remove rain [edit][speech] add a voice saying "no"',
            '[Edit][Audio] Remove rain [Edit][Speech] add a voice saying "n o"',
        ),
        ("[Edit][Audio] Remove the dog's bark", "[Edit][Audio] Remove the dog's bark"),
    ],
)
def test_only_the_words_to_be_spoken_are_spelled(instruction: str, expected: str) -> None:
    assert spelled([instruction], LETTERS) == [expected]
    plain = dataclasses.replace(LETTERS, letters=False)
    assert spelled(["[Speech with voice] go on"], plain) == ["[Speech with voice] go on"]


def test_the_encoder_reads_what_is_spelled() -> None:
    plain = MiniLmEncoder(dataclasses.replace(LETTERS, letters=False))
    given = MiniLmEncoder(LETTERS).encode(['[Speech] A voice saying "Go home!"'])
    by_hand = plain.encode(['[Speech] A voice saying "g o | h o m e"'])
    assert torch.equal(given.hidden_states, by_hand.hidden_states)


def test_a_config_says_so_only_where_it_holds() -> None:
    nano = dataclasses.replace(find_variant("nano"), domain=None)
    assert '"letters"' not in config_text(dataclasses.replace(nano, letters=False))
    assert '"letters": true' in config_text(dataclasses.replace(nano, letters=True))


def test_a_domain_that_spells_knows_every_word_of_letters() -> None:
    domain = Domain(
        words=(),
        sounds=("rain",),
        max_words=9,
        letters_per_second=14.0,
        max_letters_per_second=25.0,
        spells=True,
    )
    said = '[Speech] A voice saying "Peter\'s zyxwv, 你好 über"'
    assert domain.outside(said).words == ("你好", "über")
    assert read_domain(domain.as_json()) == domain
    plain = dataclasses.replace(domain, spells=False)
    assert "spells" not in plain.as_json()
    assert read_domain(plain.as_json()) == plain
    record = ClipRecord(
        key="a", kind="speech", split="train", seconds=1.0, licence="", source="", text="peter 7"
    )
    extended, of_plain = extend_domain(domain, [record]), extend_domain(plain, [record])
    assert extended is not None
    assert extended.words == ("7",)
    assert of_plain is not None
    assert of_plain.words == ("peter", "7")
