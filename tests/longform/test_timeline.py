"""Timelines that are longer than a window."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from unison_audio.audio import Audio
from unison_audio.cli import main as cli
from unison_audio.errors import InputError
from unison_audio.longform.timeline import compose, plan_timeline
from unison_audio.variants import VARIANTS

NANO = VARIANTS["nano"]
SPARSE = "[Audio] " + " ".join(f"From {10 * k + 1}s to {10 * k + 3}s, rain." for k in range(12))
DENSE = "[Audio] From 0s to 12s, rain. From 4s to 6s, a dog barking."


class Level:
    """In place of the model: each event is a constant level at its time."""

    variant = NANO

    def generate(self, instruction: list[str], *, duration: list[float], seed: list[int]) -> Any:
        from unison_audio.longform.subtitles import event_cues

        sounds = []
        for text, seconds in zip(instruction, duration, strict=True):
            assert seconds <= 5.12
            wave = torch.zeros(round(seconds * 16_000))
            for cue in event_cues(text):
                wave[round(cue.start * 16_000) : round(cue.end * 16_000)] += 0.25
            sounds.append(Audio(wave, 16_000))
        return sounds


def test_events_sound_in_their_windows_and_nowhere_else() -> None:
    windows = plan_timeline(NANO, SPARSE)
    assert all(window.stop - window.start <= 5.12 + 1e-9 for window in windows)
    assert not any(window.joined for window in windows)
    pieces = list(compose(Level(), windows))
    whole = torch.cat([piece.waveform for piece in pieces])
    assert len(whole) == 113 * 16_000
    for second in range(113):
        part = whole[second * 16_000 + 1600 : (second + 1) * 16_000 - 1600]
        assert torch.all(part == (0.25 if second % 10 in (1, 2) else 0.0)), second


def test_an_event_that_is_cut_goes_on_without_a_step() -> None:
    windows = plan_timeline(NANO, DENSE)
    assert [window.joined for window in windows] == [False, True, True]
    whole = torch.cat([piece.waveform for piece in compose(Level(), windows)])
    assert len(whole) == 12 * 16_000
    inner = whole[1000:-1000]
    assert float(inner.min()) == pytest.approx(0.25, abs=1e-5)
    dog = whole[round(4.1 * 16_000) : round(4.5 * 16_000)]
    assert torch.allclose(dog, torch.full_like(dog, 0.5), atol=1e-5)


def test_no_window_is_too_long_by_rounding() -> None:
    events = " ".join(f"From {6 * k + 1}s to {6 * k + 3}s, rain." for k in range(20))
    assert len(list(compose(Level(), plan_timeline(NANO, f"[Audio] {events}", 120.0)))) > 20


def test_timelines_that_are_refused() -> None:
    with pytest.raises(InputError, match="after the duration"):
        plan_timeline(NANO, SPARSE, duration=60.0)
    with pytest.raises(InputError, match="at most 86400 s"):
        plan_timeline(NANO, SPARSE, duration=1e9)
    with pytest.raises(InputError, match="seed"):
        plan_timeline(NANO, SPARSE, seed=-1)
    with pytest.raises(InputError, match="no timeline"):
        plan_timeline(NANO, "[Audio] rain")


def test_the_command_makes_minutes(tiny_checkpoint: Path, stub_text: None, tmp_path: Path) -> None:
    out = tmp_path / "x.wav"
    flags = ("-o", out, "--subtitles", tmp_path / "x.json", "--duration", 14, "--steps", 1)
    arguments = ("generate", DENSE, *flags, "--variant", tiny_checkpoint)
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert soundfile.info(out).duration == pytest.approx(14, abs=0.01)
    assert "a dog barking" in (tmp_path / "x.json").read_text()
