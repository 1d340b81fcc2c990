import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.tasks.reference import frame_edge, prepare_reference
from unison_audio.tasks.reference_text import join_reference_text, with_reference_text

RATE = 16000


def test_a_short_reference_is_kept_whole_at_the_rms_with_silence_after():
    wave = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    out = prepare_reference(wave, RATE)
    assert out.shape == (RATE + 1600,)
    assert float(out[:RATE].square().mean().sqrt()) == pytest.approx(0.1, rel=1e-4)
    assert not out[RATE:].any()
    mono = wave.mean(dim=0)
    assert torch.allclose(out[:RATE] / out[0], mono / mono[0], rtol=1e-3, atol=1e-3)


def test_a_long_reference_is_cut_at_a_silence_within_half_a_second():
    wave = torch.randn(5 * RATE, generator=torch.Generator().manual_seed(0))
    wave[round(2.6 * RATE) : round(2.8 * RATE)] *= 1e-3
    assert len(prepare_reference(wave, RATE)) == round(2.9 * RATE)  # 2.8 s and the silence


def test_a_long_reference_without_a_silence_in_reach_is_cut_at_its_limit():
    wave = torch.randn(5 * RATE, generator=torch.Generator().manual_seed(0))
    wave[round(2.0 * RATE) : round(2.4 * RATE)] *= 1e-3  # too far back
    out = prepare_reference(wave, RATE)
    assert len(out) == round(3.1 * RATE)
    assert out[3 * RATE - 1].abs() < 1e-3  # no click at the cut
    assert len(prepare_reference(wave, RATE, max_seconds=2.0)) == round(2.1 * RATE)


def test_a_silent_reference_is_refused():
    with pytest.raises(InputError, match="reference is silent"):
        prepare_reference(torch.zeros(RATE), RATE)


@pytest.mark.parametrize(
    ("reference", "text", "joined"),
    [
        ("The dog is red.", "A blue cat.", "The dog is red, A blue cat."),
        ("Stop!! ", "go", "Stop, go"),
        ("no mark", "go", "no mark, go"),
        ("今天天气很好。", "明天下雨。", "今天天气很好，明天下雨。"),
        ("他说 OK。", "好", "他说 OK，好"),
        ("OK.", "好", "OK，好"),
        ("你好", "go", "你好，go"),
        ('He said "stop."', "go", 'He said "stop, go'),
        ("a dog (red) —", "go", "a dog (red, go"),
        ("Wait -- ", "go", "Wait, go"),
        ("他说：“好。”", "走", "他说：“好，走"),
        ("", "go", "go"),
        ("...", "go", "go"),
    ],
)
def test_texts_are_joined_after_the_closing_punctuation(reference, text, joined):
    assert join_reference_text(reference, text) == joined


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Speech with voice] go home", "[Speech with voice] stop, go home"),
        ("  [speech with voice]go", "  [speech with voice]stop, go"),
        # The text itself holds quotation marks: all of it is spoken.
        (
            '[Speech with voice] He said "red, go" twice',
            '[Speech with voice] stop, He said "red, go" twice',
        ),
        (
            '[Speech with voice] "Go," he said, "home."',
            '[Speech with voice] stop, "Go," he said, "home."',
        ),
        ("[Speech with voice] 他说“走”", "[Speech with voice] stop，他说“走”"),
        # A template of the pool with quotes, as training fills it in.
        ('[Speech with voice] Say "go home"', '[Speech with voice] Say "stop, go home"'),
        ("[Speech with voice] say “go”.", "[Speech with voice] say “stop, go”."),
        (
            '[Speech with voice] Speak "go" in this voice',
            '[Speech with voice] Speak "stop, go" in this voice',
        ),
        ('[Speech with voice] "go"', '[Speech with voice] "stop, go"'),
    ],
)
def test_the_words_of_the_reference_precede_the_whole_new_text(text, expected):
    assert with_reference_text(text, "stop.") == expected


def test_frame_edge():
    assert [frame_edge(n, 1024) for n in (0, 1, 1024, 1025)] == [0, 1024, 1024, 2048]
