"""Wrong kinds from Python give `InputError`; numbers of numpy and the caller's settings work."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_unison import RATE

import unison_audio
from unison_audio import InputError, SamplingParams, Unison

RAIN, DELETE = "[Audio] rain", "[Edit][Speech] Remove the speech"
TONE = 0.2 * torch.sin(torch.arange(RATE) / 10)
SOURCE = (TONE, RATE)
QUICK: dict[str, Any] = {"steps": 2, "duration": 0.5, "seed": 3}


def masked(samples: torch.Tensor) -> np.ma.MaskedArray:
    """Samples of which one is masked."""
    return np.ma.masked_array(samples.numpy(), np.arange(len(samples)) == 3)


WRONG: dict[str, Callable[[Unison], Any]] = {
    "regions as text": lambda u: u.edit(DELETE, SOURCE, regions="1-2"),
    "regions as two numbers": lambda u: u.edit(DELETE, SOURCE, regions=(1, 2)),
    "a region of three": lambda u: u.edit(DELETE, SOURCE, regions=[(0, 1, 2)]),
    "regions as a number": lambda u: u.edit(DELETE, SOURCE, regions=5),
    "a source that is a number": lambda u: u.edit(DELETE, 3),
    "a negative rate": lambda u: u.edit(DELETE, (TONE, -1)),
    "a source of NaN": lambda u: u.edit(DELETE, (TONE * float("nan"), RATE)),
    "a text that is a number": lambda u: list(u.stream("[Speech] A male voice", text=3)),
    "an output that is a number": lambda u: u.generate(RAIN, **QUICK).save(5),
    "no checkpoint": lambda u: Unison.from_pretrained(None),
    "a checkpoint that is a number": lambda u: Unison.from_pretrained(3),
    "a device without values": lambda u: Unison.from_pretrained(device="meta"),
    "a device that is a number": lambda u: Unison.from_pretrained(device=3),
    "a type that is a device": lambda u: Unison.from_pretrained(dtype="meta"),
    "a type of whole numbers": lambda u: Unison.from_pretrained(dtype=torch.int8),
    "a low memory that is a text": lambda u: Unison.from_pretrained(low_memory="x"),
    "a low memory that is a number": lambda u: Unison.from_pretrained(low_memory=1),
    "compiled as a text": lambda u: Unison.from_pretrained(compiled="no"),
    "an unknown option": lambda u: SamplingParams(foo=1),
    "an option without a name": lambda u: SamplingParams(3),
    "half a surrogate pair": lambda u: u.generate("[Audio] \ud800rain"),
    "an instruction that is a number": lambda u: u.generate(3),
    "a seed of 1.5": lambda u: u.generate(RAIN, seed=1.5),
    "a seed that is a truth": lambda u: u.generate(RAIN, seed=True),
    "an endless duration": lambda u: u.generate(RAIN, duration=float("inf")),
    "a duration of no sample": lambda u: u.generate(RAIN, duration=1e-9),
    "a duration of 400 digits": lambda u: u.generate(RAIN, duration=10**400),
    "an interval of one": lambda u: u.generate(RAIN, guidance_interval=[1]),
    "an interval of three": lambda u: u.generate(RAIN, guidance_interval=np.zeros(3)),
    "an unknown keyword": lambda u: u.generate(RAIN, foo=3),
    "an unknown input": lambda u: u.check(RAIN, foo=3),
    "sampling that is a number": lambda u: u.generate(RAIN, sampling=3),
    "pickling": pickle.dumps,
    "channels that cancel": lambda u: u.generate(DELETE, source=(torch.stack([TONE, -TONE]), RATE)),
    "samples of 1e38": lambda u: u.generate(DELETE, source=(TONE * 1e38, RATE)),
    "samples of truths": lambda u: u.generate(DELETE, source=(TONE > 0, RATE)),
    "samples of texts": lambda u: u.generate(DELETE, source=(np.array(["x"]), RATE)),
    "a rate that is none": lambda u: u.generate(DELETE, source=(TONE, float("nan"))),
    "masked samples": lambda u: u.generate(DELETE, source=(masked(TONE), RATE)),
    "a masked seed": lambda u: u.generate(RAIN, seed=np.ma.masked_array(3, True)),
    "samples in a list": lambda u: u.generate(DELETE, source=([0.1, 0.2], RATE)),
    "a source of three": lambda u: u.generate(DELETE, source=(TONE, RATE, 3)),
    "a source that is none": lambda u: u.generate(DELETE, source=3),
    "sparse samples": lambda u: u.generate(DELETE, source=(TONE.to_sparse(), RATE)),
    "samples without values": lambda u: u.generate(DELETE, source=(TONE.to("meta"), RATE)),
    "a rate of all samples": lambda u: u.generate(DELETE, source=(RATE, TONE.numpy())),
    "hours at one sample a second": lambda u: u.generate(DELETE, source=(TONE, 1)),
    "progress that is a number": lambda u: u.generate(RAIN, on_step=3),
    "a format that is a text": lambda u: u.generate(RAIN, **QUICK).save("x.wav", "wav"),
    "a bit rate that is a text": lambda u: u.generate(RAIN, **QUICK).save("x.mp3", bit_rate="96"),
    "a source of bytes": lambda u: u.generate(DELETE, source=b"x.wav"),
    "a task that is a number": lambda u: u.generate(RAIN, task=3),
    "a folder that is a number": lambda u: u.save_pretrained(3),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kind_is_an_input_error(name: str, tiny: Unison) -> None:
    with pytest.raises(InputError) as found:
        WRONG[name](tiny)
    assert 10 < len(str(found.value)) < 600
    assert "\n" not in str(found.value)


def test_kinds_that_were_taken_in_silence_are_named(tiny: Unison) -> None:
    for name, given in (("low_memory", "x"), ("compiled", "no")):
        with pytest.raises(InputError, match=rf"^{name} is '{given}'; give True or False\.$"):
            Unison.from_pretrained(**{name: given})
    with pytest.raises(InputError, match=r"^The source's waveform has 1 masked samples; fill them"):
        tiny.generate(DELETE, source=(masked(TONE), RATE))
    # An array whose mask hides nothing is an array.
    shown = np.ma.masked_array(TONE.numpy(), mask=False)
    found, plain = (
        tiny.generate(DELETE, source=(samples, RATE), steps=1) for samples in (shown, TONE)
    )
    assert torch.equal(found.waveform, plain.waveform)


@pytest.mark.parametrize(
    "name", ["solver", "preset", "guidance_scale", "guidance_interval", "temperature", "task"]
)
def test_a_long_value_is_not_repeated_whole(name: str, tiny: Unison) -> None:
    with pytest.raises(InputError) as found:
        tiny.generate(RAIN, **{name: "x" * 1_000_000})
    assert 10 < len(str(found.value)) <= 1400
    assert pickle.loads(pickle.dumps(found.value)).args == found.value.args


def test_the_error_is_exported() -> None:
    assert unison_audio.InputError is InputError
    assert "InputError" in unison_audio.__all__


def test_numbers_of_numpy_are_numbers(tiny: Unison) -> None:
    expected = tiny.generate(RAIN, guidance_interval=(0.0, 0.9), guidance_scale=2, **QUICK)
    given: dict[str, Any] = {
        "seed": np.int64(3),
        "duration": np.float32(0.5),
        "steps": np.int16(2),
        "guidance_scale": np.float64(2),
    }
    for interval in ([0.0, 0.9], np.array([0.0, 0.9])):
        sound = tiny.generate(RAIN, guidance_interval=interval, **given)
        assert torch.equal(sound.waveform, expected.waveform)
    assert type(sound.seed) is int
    both = tiny.generate([RAIN, RAIN], steps=2, duration=0.5, seed=np.array([3, 4]))
    assert [sound.seed for sound in both] == [3, 4]


def test_samples_of_either_byte_order_and_direction_are_read(tiny: Unison) -> None:
    expected = tiny.generate(DELETE, source=(TONE.flip(0), RATE), steps=1)
    backwards = TONE.numpy()[::-1]
    for source in (backwards, backwards.astype(">f4"), backwards.astype(np.float64)):
        sound = tiny.generate(DELETE, source=(source, RATE), steps=1)
        assert torch.equal(sound.waveform, expected.waveform)


def test_numbers_of_numpy_are_options_of_files(tiny: Unison, tmp_path: Path) -> None:
    sound = tiny.generate(RAIN, **QUICK)
    plain = {"bit_rate": 96, "sample_rate": 48_000}
    sound.save(tmp_path / "a.mp3", **plain)
    sound.save(tmp_path / "b.mp3", **{name: np.int64(value) for name, value in plain.items()})
    assert (tmp_path / "a.mp3").read_bytes() == (tmp_path / "b.mp3").read_bytes()
    sound.save(tmp_path / "a.wav", bit_depth=np.int16(24))
    assert soundfile.info(tmp_path / "a.wav").subtype == "PCM_24"


def test_whole_samples_are_read_at_their_full_scale(tiny: Unison) -> None:
    whole = (TONE * 32768).round().to(torch.int16)
    expected = tiny.generate(DELETE, source=(whole / 32768, RATE), steps=2)
    for source in (whole, whole.numpy()):
        sound = tiny.generate(DELETE, source=(source, RATE), steps=2)
        torch.testing.assert_close(sound.waveform, expected.waveform, atol=1e-6, rtol=0)


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("setting", ["dtype", "device", "autocast"])
def test_the_callers_settings_do_not_change_the_sound(
    setting: str, solver: str, tiny: Unison, tiny_checkpoint: Path, stub_text: None
) -> None:
    expected = tiny.generate(RAIN, solver=solver, **QUICK).waveform
    setup = {
        "dtype": default_dtype,
        "device": lambda: torch.device("meta"),
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    }[setting]
    with setup():
        opened = Unison.from_pretrained(tiny_checkpoint)
        for unison in (tiny, opened):
            assert torch.equal(unison.generate(RAIN, solver=solver, **QUICK).waveform, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 999, 1000])
def test_every_number_of_steps_works_with_every_solver(steps: int) -> None:
    from unison_audio.model.solvers import SOLVERS, Solver

    for name in SOLVERS:
        solver, z = Solver(name, steps), torch.ones(1, 1, 2)
        for number in range(len(solver.times)):
            z = solver.advance(0.1 * torch.ones_like(z), number, z)
        assert z.isfinite().all(), name
