"""SDEdit and ZETA: closed forms on fields that are known, and the systems on real recordings."""

import dataclasses

import pytest
import torch
from benchmark_files import put_data

from unison_audio.audio import load
from unison_audio.errors import InputError
from unison_audio.evaluation.baselines import (
    SDEdit,
    Zeta,
    posterior_mean,
    sdedit,
    times_from,
    zeta,
)
from unison_audio.evaluation.edit_descriptions import describe_edit
from unison_audio.evaluation.engine import generate_set
from unison_audio.evaluation.systems import SYSTEMS
from unison_audio.evaluation.test_sets.build import build_test_set
from unison_audio.evaluation.test_sets.manifest import derived_seed
from unison_audio.evaluation.test_sets.recordings import published
from unison_audio.evaluation.test_sets.scenes import TestSetSpec
from unison_audio.model.guidance import Guidance
from unison_audio.model.sampling import integrate
from unison_audio.model.solvers import Solver

RATE = 16_000
FORM = TestSetSpec(sample_rate=RATE, hop=1024, seconds=1.0, zero_shot_seconds=1.0, longest=5.12)
PLAIN = Guidance(scale=1.0)


class Towards:
    """The exact field of data that is one point: v(z_t, t) = (z_t - point) / t."""

    def __init__(self, point, times):
        self.point, self.times = point, times

    def velocities(self, z_t, step, *, guided):
        v = (z_t - self.point) / self.times[step]
        return v, (z_t + 2.0 if guided else None)


class Crooked:
    """Any field that is not linear and depends on time."""

    def __init__(self, times, shift=0.0):
        self.times, self.shift = times, shift

    def velocities(self, z_t, step, *, guided):
        v = torch.sin(3 * z_t + self.times[step]) + self.shift
        return v, (v.square() - 1 if guided else None)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


Z, EPS = drawn(2, 4, 6), drawn(2, 4, 6, seed=1)


def noises(times):
    return [drawn(2, 4, 6, seed=10 + k) for k in range(len(times) - 1)]


def test_times_are_the_end_of_the_schedule() -> None:
    whole = [*Solver("euler", 10).times.tolist(), 0.0]
    assert times_from(10, 1.0).tolist() == whole
    assert times_from(10, 0.0).tolist() == [0.0]
    some = times_from(10, 0.5).tolist()
    assert some == [t for t in whole if t <= 0.5]
    assert len(some) > 3
    for start in (-0.1, 1.2, float("nan")):
        with pytest.raises(InputError, match="from 0 to 1"):
            times_from(10, start)
    with pytest.raises(InputError, match="at least 1"):
        times_from(0, 0.5)


def test_strength_0_is_the_source_and_1_is_plain_generation() -> None:
    for guidance in (PLAIN, Guidance(scale=4.0)):
        nothing = times_from(7, 0.0)
        assert torch.equal(sdedit(Crooked(nothing), Z, EPS, nothing, guidance), Z)
        assert torch.equal(
            zeta(Crooked(nothing), Crooked(nothing), Z, [], nothing, PLAIN, guidance), Z
        )
        times = times_from(7, 1.0)
        plain = integrate(Crooked(times), EPS, Solver("euler", 7), guidance)
        torch.testing.assert_close(
            sdedit(Crooked(times), Z, EPS, times, guidance), plain, atol=1e-5, rtol=0
        )


def test_sdedit_is_exact_on_a_linear_field() -> None:
    """Its flow lines are straight: from t_0 on they end in the point, whatever the steps."""
    point = drawn(2, 4, 6, seed=5)
    for steps, strength in ((1, 1.0), (5, 0.6), (20, 0.3)):
        times = times_from(steps, strength)
        found = sdedit(Towards(point, times), Z, EPS, times, PLAIN)
        torch.testing.assert_close(found, point, atol=1e-5, rtol=0)


def test_a_constant_field_moves_what_was_noised_by_its_time() -> None:
    class Constant:
        def velocities(self, z_t, step, *, guided):
            return torch.full_like(z_t, 0.5), None

    times = times_from(9, 0.5)
    t = float(times[0])
    expected = (1 - t) * Z + t * EPS - t * 0.5
    found = sdedit(Constant(), Z, EPS, times, PLAIN)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", [0.2, 0.7, 1.0])
def test_zeta_gives_the_source_back_under_one_description(start) -> None:
    times = times_from(12, start)
    for guidance in (PLAIN, Guidance(scale=3.0)):
        found = zeta(Crooked(times), Crooked(times), Z, noises(times), times, guidance, guidance)
        torch.testing.assert_close(found, Z, atol=2e-5, rtol=0)
    other = zeta(Crooked(times), Crooked(times, 0.3), Z, noises(times), times, PLAIN, PLAIN)
    assert (other - Z).abs().max() > 0.02


def test_zeta_is_exact_on_linear_fields() -> None:
    """With data of one point each, the source moves by the way from one point to the other."""
    before, after = drawn(2, 4, 6, seed=5), drawn(2, 4, 6, seed=6)
    for steps, start in ((1, 1.0), (6, 0.7), (15, 1.0)):
        times = times_from(steps, start)
        fields = Towards(before, times), Towards(after, times)
        found = zeta(*fields, Z, noises(times), times, PLAIN, PLAIN)
        torch.testing.assert_close(found, Z + after - before, atol=1e-4, rtol=0)


def test_the_mean_is_that_of_gaussians() -> None:
    """E[x_t' | x_t, z] for x_t = a x_t' + noise, from the joint Gaussian's covariances."""
    z, x, t, after = 0.8, -0.4, 0.6, 0.35
    a = (1 - t) / (1 - after)
    expected = (1 - after) * z + a * after**2 / t**2 * (x - (1 - t) * z)
    v = (torch.tensor(x) - z) / t  # the velocity that tells z: x - t v = z
    torch.testing.assert_close(float(posterior_mean(torch.tensor(x), v, t, after)), expected)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    material = published(put_data(folder / "data"), RATE)
    counts = {"audio-editing": 2, "speech-editing": 1, "seed-tts-en": 1, "seed-tts-zh": 0}
    return {
        name: build_test_set(name, material, folder / "sets" / name, FORM, counts=counts)
        for name in ("audio-editing", "speech-editing", "seed-tts")
    }


def test_edits_are_described_as_generation(sets) -> None:
    items = {item.id.rsplit("-", 1)[0]: item for item in sets["speech-editing"].items}
    insert, delete, rewrite = (items[f"speech_{name}"] for name in ("insert", "delete", "rewrite"))
    assert describe_edit(insert).source == f"[Audio] {insert.source_caption}"
    gender = insert.details["gender"]
    assert describe_edit(insert).target == (
        f'[Speech] A {gender} voice saying "{insert.text}" [Audio] {insert.source_caption}'
    )
    assert describe_edit(delete).target == f"[Audio] {delete.caption}"
    assert f'"{delete.details["text"]}" [Audio] {delete.caption}' in describe_edit(delete).source
    before, after = dataclasses.astuple(describe_edit(rewrite))
    assert before.replace(rewrite.details["old_text"], rewrite.text) == after
    assert before != after
    edit = sets["audio-editing"].items[-1]
    assert dataclasses.astuple(describe_edit(edit)) == (
        f"[Audio] {edit.source_caption}",
        f"[Audio] {edit.caption}",
    )
    with pytest.raises(InputError, match="cannot be described"):
        describe_edit(sets["seed-tts"].items[0])


@pytest.mark.parametrize("kind", [SDEdit, Zeta])
def test_from_time_0_only_the_codec_changes_the_sound(sets, tiny, kind) -> None:
    test_set = sets["audio-editing"]
    option = {SDEdit: "strength", Zeta: "start"}[kind]
    items = test_set.items[:2]
    sounds = kind(tiny, **{option: 0.0}).generate(test_set, items)
    for item, sound in zip(items, sounds, strict=True):
        source = load(test_set.path(item, "source"), sample_rate=RATE)
        gain = min(0.1 / float(source.square().mean().sqrt()), 0.99 / float(source.abs().max()))
        whole = -(-len(source) // 1024) * 1024
        padded = torch.nn.functional.pad(gain * source, (0, whole - len(source)))
        again = tiny.codec.decode(tiny.codec.encode(padded[None]))[0, : len(source)] / gain
        torch.testing.assert_close(sound, again, atol=1e-4, rtol=1e-3)


def test_sdedit_from_time_1_is_what_the_model_generates(sets, tiny) -> None:
    test_set = sets["audio-editing"]
    item = test_set.items[0]
    system = SDEdit(tiny, strength=1.0, steps=2, guidance_scale=2.0, seed=3)
    (sound,) = system.generate(test_set, [item])
    expected = tiny.generate(
        f"[Audio] {item.caption}",
        duration=item.seconds,
        steps=2,
        solver="euler",
        guidance_scale=2.0,
        seed=derived_seed(3, item.id),
    )
    edge = round(0.005 * expected.sample_rate)  # generated sounds are faded over 5 ms at both ends
    inside, whole = sound[edge:-edge], expected.waveform[edge:-edge]
    ratio = float((inside / whole).median())  # up to the level of the source
    torch.testing.assert_close(inside, ratio * whole, atol=1e-4, rtol=1e-3)


def test_the_suite_knows_them(sets, tiny, tmp_path) -> None:
    assert {"sdedit", "zeta"} <= set(SYSTEMS)
    for system in (SDEdit(tiny, steps=3), Zeta(tiny, steps=3)):
        for test_set in sets.values():
            made = generate_set(system, test_set, tmp_path, batch=2)
            assert not made.failed
            assert len(made.items) == (0 if test_set.name == "seed-tts" else len(test_set.items))
        again = generate_set(system, sets["audio-editing"], tmp_path / "again", batch=1)
        for item in again.items:  # alone or in company
            name = f"{item.id}.flac"
            one, other = (
                load(folder / system.name / "audio-editing" / name, sample_rate=RATE)
                for folder in (tmp_path, tmp_path / "again")
            )
            assert (one - other).abs().max() < 2e-3
    assert SDEdit(tiny).identity != SDEdit(tiny, strength=0.5).identity
    assert Zeta(tiny).identity["guidance_scale"] == tiny.variant.guidance_scale
