"""Level, length and dither of sources where a checkpoint's config asks for them."""

import dataclasses

import pytest
import torch
from test_pipeline import CLONE, DELETE, RATE, TTS, BlockCodec, noise
from tiny_unison import StubEncoder, random_backbone, tiny_variant
from torch import Tensor

from unison_audio import inputs
from unison_audio.errors import InputError
from unison_audio.inputs import ShortenedWarning
from unison_audio.pipeline import Unison
from unison_audio.release_inputs import batch_source, dithered
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.variants import Variant

LENGTH = 32_000 // 1024 * 1024
"""Samples of the whole latent frames in 2 s."""


class FloorCodec(BlockCodec):
    """Like MMAudio's: a remainder below a frame has none. Notes what it encodes."""

    def __init__(self) -> None:
        self.encoded: list[Tensor] = []

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * RATE) // 1024)

    def encode(self, waveform: Tensor) -> Tensor:
        self.encoded.append(waveform)
        return super().encode(waveform[:, : waveform.shape[-1] // 1024 * 1024])


def released(**changes: float) -> Variant:
    """A small variant whose weights know 2 s."""
    small = tiny_variant()
    config = dataclasses.replace(small.backbone, latent_channels=1024)
    fields = {"max_seconds": 2.0, "default_seconds": 2.0, "zero_shot_seconds": 2.0}
    fields |= {"sample_seconds": 2.0, "source_rms": 0.1, "dither": 1e-4}
    plain = {"keep_source": False, "steps": 2}
    return dataclasses.replace(small, backbone=config, **plain, **fields | changes)


@pytest.fixture
def unison() -> Unison:
    variant = released()
    return Unison(variant, random_backbone(variant), FloorCodec(), StubEncoder())


def test_every_sound_is_sampled_at_the_one_length_and_cropped(
    unison: Unison, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[int] = []
    sample = Unison._sample

    def noted(self: Unison, given, *rest, **more):  # type: ignore[no-untyped-def]
        frames.append(given.z_s.shape[-1])
        return sample(self, given, *rest, **more)

    monkeypatch.setattr(Unison, "_sample", noted)
    whole = unison.generate(TTS, duration=2.0, seed=3)
    short = unison.generate(TTS, duration=0.7, seed=3)
    edited = unison.generate(DELETE, source=(noise(1.1), RATE))
    cloned = unison.generate(
        CLONE, reference=(noise(0.5), RATE), reference_text="blue", duration=0.4
    )
    assert frames == [31] * 4
    assert len(whole.waveform) == LENGTH
    assert [len(x.waveform) for x in (short, edited, cloned)] == [11_200, 17_600, 6_400]
    # The crop of a level-limited sound is the same sound up to one factor.
    part = whole.waveform[:11_200]
    assert torch.allclose(short.waveform * part.norm() / short.waveform.norm(), part, atol=1e-5)


def test_reference_and_new_speech_share_the_length(unison: Unison) -> None:
    reference = (noise(0.5), RATE)
    cloned = unison.generate(CLONE, reference=reference, reference_text="blue")
    edge = -(-round(0.6 * RATE) // 1024) * 1024  # 0.1 s of silence follow the reference
    assert len(cloned.waveform) == LENGTH - edge
    with pytest.raises(InputError, match=r"leaves 1\.34 s for the new speech of 1\.50 s"):
        unison.generate(CLONE, reference=reference, reference_text="blue", duration=1.5)


def test_sources_come_to_the_level_without_a_peak_limit_and_to_the_length(unison: Unison) -> None:
    click = 0.001 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    click[8_000] = 0.9
    unison.generate(DELETE, source=(click, RATE), seed=5)
    (seen,) = unison.codec.encoded
    assert seen.shape == (1, 32_000)
    loud = seen[0, :16_000].abs() > 0.01
    assert float(seen[0, 8_000]) > 1.0  # the mel front end clamps it, as in training
    scaled = click * (0.1 / click.square().mean().sqrt())
    assert torch.allclose(seen[0, :16_000][loud], scaled[loud])


def test_near_silence_becomes_noise_that_the_seed_decides(unison: Unison) -> None:
    source = (noise(1.0, rms=0.05), RATE)
    first, again, other = (
        unison.generate(DELETE, source=source, seed=seed).waveform for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    one, same, another = (seen[0, 16_000:] for seen in unison.codec.encoded)
    assert torch.equal(one, same)
    assert not torch.equal(one, another)
    assert float(one.std()) == pytest.approx(1e-4, rel=0.05)
    quiet = torch.tensor([[0.5, 0.99e-4, -0.99e-4, 1.01e-4, 0.0]])
    changed = dithered(unison.variant, quiet, [0]) != quiet
    assert changed.tolist() == [[False, True, True, False, True]]


def test_built_batches_are_shaped_as_requests_are(unison: Unison) -> None:
    source = torch.stack([noise(1.0, rms=0.02, seed=1), noise(1.0, rms=0.2, seed=2)])
    task = TASKS["speech_delete"]
    shaped, gains = batch_source(unison.variant, task, source, [7, 8])
    assert shaped.shape == (2, 32_000)
    assert gains[:, 0].tolist() == pytest.approx([5.0, 0.5], rel=0.05)
    for row, seed in enumerate((7, 8)):
        unison.generate(DELETE, source=(source[row], RATE), seed=seed)
        torch.testing.assert_close(unison.codec.encoded[-1][0], shaped[row])
    batch = TaskBatch(
        task=task.name,
        instructions=[DELETE] * 2,
        target=source,
        source=source,
        reference_samples=None,
        details=[{}, {}],
    )
    sounds = unison.run(batch, seed=7)
    assert sounds.shape == source.shape
    for row, seed in enumerate((7, 8)):
        alone = unison.generate(DELETE, source=(source[row], RATE), seed=seed).waveform
        factor = sounds[row].norm() / alone.norm()  # a peak above 1 is scaled in `generate` alone
        torch.testing.assert_close(alone * factor, sounds[row], atol=1e-4, rtol=1e-3)


def test_a_source_of_the_whole_length_loses_less_than_a_frame_and_says_so(unison: Unison) -> None:
    with pytest.warns(ShortenedWarning, match=r"is 1\.984 s long.*31 whole latent frames"):
        sound = unison.generate(DELETE, source=(noise(2.0), RATE))
    assert len(sound.waveform) == LENGTH
    assert unison.codec.encoded[-1].shape == (1, 32_000)  # the encoder still sees all of it
    with pytest.raises(InputError, match=r"2\.10 s long where at most 2\.0 s"):
        unison.generate(DELETE, source=(noise(2.1), RATE))


def test_without_the_fields_nothing_is_changed() -> None:
    variant = released(sample_seconds=0.0, source_rms=0.0, dither=0.0)
    codec, source = FloorCodec(), noise(1.0)
    layout = inputs.prepare(variant, codec, DELETE, inputs.ItemInputs(source=(source, RATE))).layout
    assert layout.frames == 16
    same, gains = batch_source(variant, TASKS["speech_delete"], source[None], [0])
    assert torch.equal(same[0], source)
    assert gains.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("field", "value"), [("sample_seconds", 3.0), ("source_rms", -0.1), ("dither", float("nan"))]
)
def test_fields_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{field} is"):
        released(**{field: value})
