"""`Unison.edit` and `Unison.stream`."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unison_audio import Unison
from unison_audio.errors import InputError

TEXT = "The red bird is on the water. My dog is big. We see the small green tree. " * 2


def test_edit_gives_the_recording_back_with_the_region_changed(tiny: Unison) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 7 * 8_000)).astype(np.float32)
    result = tiny.edit("[Edit][Audio] Remove rain", (noise, 8_000), regions=[(2, 3)], steps=2)
    after = result.read(0, result.frames).T
    assert after.dtype == np.float32
    assert np.array_equal(after[:, :16_000], noise[:, :16_000])
    assert np.array_equal(after[:, 24_000:], noise[:, 24_000:])
    assert not np.array_equal(after, noise)


def test_an_edit_can_be_saved_and_edited_again(tiny: Unison, tmp_path: Path) -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 16_000)).float()
    result = tiny.edit("[Edit][Audio] Remove rain", (noise, 8_000), steps=2)
    result.save(tmp_path / "x.wav")
    again = tiny.edit(
        "[Edit][Audio] Add rain", tmp_path / "x.wav", regions=[(0, 0.5)], steps=2
    ).read(0, 16_000)
    assert np.array_equal(again[4000:], result.read(4000, 16_000))


def test_stream_gives_sound_before_the_text_is_done(tiny: Unison) -> None:
    calls = []
    generate = tiny.generate

    def counted(*arguments, **options):
        calls.append(len(arguments[0]))
        return generate(*arguments, **options)

    tiny.generate = counted
    try:
        stream = tiny.stream("[Speech] A male voice", text=TEXT, steps=2)
        first = next(stream)
        assert calls == [1]
        pieces = [first, *stream]
    finally:
        del tiny.generate
    assert len(pieces) > 3
    assert all(piece.sample_rate == 16_000 and piece.task == "tts" for piece in pieces)
    assert 'saying "' in first.instruction
    again = list(tiny.stream("[Speech] A male voice", text=TEXT, steps=2))
    assert all(torch.equal(a.waveform, b.waveform) for a, b in zip(pieces, again, strict=True))


def test_stream_refuses_before_it_begins(tiny: Unison) -> None:
    with pytest.raises(InputError, match="no words"):
        tiny.stream("[Speech] A male voice", text=" ")
