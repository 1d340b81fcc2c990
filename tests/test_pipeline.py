"""The pipeline: seeds, batches, levels, lengths, refusals, checkpoints."""

import base64
import dataclasses
import io
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_unison import StubEncoder, random_backbone, tiny_variant
from torch import Tensor, nn

from unison_audio import audio, best_of_n, checkpoint, request_batches
from unison_audio.audio import Audio, fade
from unison_audio.errors import InputError
from unison_audio.inputs import ShortenedWarning
from unison_audio.model.rerank import EVALUATIONS
from unison_audio.pipeline import Unison
from unison_audio.reference_check import ReferenceWarning
from unison_audio.sampling_params import SamplingParams
from unison_audio.tasks.table import TASKS, TaskBatch
from unison_audio.variants import VARIANTS

RATE = 16_000
TTS = '[Speech] A male voice saying "red dog"'
DELETE = "[Edit][Speech] Remove the speech"
CLONE = "[Speech with voice] red dog"


def noise(seconds: float, rms: float = 0.05, seed: int = 0, channels: int = 0) -> Tensor:
    shape = (channels, round(seconds * RATE)) if channels else (round(seconds * RATE),)
    return rms * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class BlockCodec:
    """An exact codec: a latent frame is the frame's own samples."""

    sample_rate, channels, hop = RATE, 1024, 1024

    def frames(self, seconds: float) -> int:
        return max(1, -(-round(seconds * RATE) // 1024))

    def encode(self, waveform: Tensor) -> Tensor:
        padded = nn.functional.pad(waveform, (0, -waveform.shape[-1] % 1024))
        return padded.unflatten(-1, (-1, 1024)).transpose(1, 2)  # (B, C, T')

    def decode(self, latent: Tensor) -> Tensor:
        return latent.transpose(1, 2).flatten(1)


class Leading(nn.Module):
    """A flow that leads exactly to a goal: z_s itself, or a constant. Notes what it was given."""

    config, dtype, graphed = tiny_variant().backbone, torch.float32, False

    def __init__(self, goal: float | None = None) -> None:
        super().__init__()
        self.goal = goal
        self.seen: Tensor | None = None

    def project_text(self, hidden_states: Any, penultimate: Any = None) -> None:
        return None

    def embed(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.transpose(1, 2)

    def modulations(self, t: Tensor) -> list[tuple[Tensor]]:
        return [(t[:, None, None],)]

    def decode_tokens(self, audio: Tensor, text: Any, modulations: Any, layout: Any) -> Tensor:
        z_t, z_s, _ = audio.split((1024, 1024, 1), dim=-1)
        goal = z_s if self.goal is None else torch.full_like(z_s, self.goal)
        return (z_t - goal) / modulations[0][0]


def leading(goal: float | None = None) -> Unison:
    return Unison(tiny_variant(), Leading(goal), BlockCodec(), StubEncoder())  # type: ignore[arg-type]


def same(first: Audio, second: Audio) -> bool:
    return torch.equal(first.waveform, second.waveform)


def test_the_same_seed_gives_the_same_bits(tiny: Unison) -> None:
    first = tiny.generate(TTS, seed=7)
    assert same(first, tiny.generate(TTS, seed=7))
    assert not torch.allclose(first.waveform, tiny.generate(TTS, seed=8).waveform)
    assert (first.task, first.seed, first.instruction) == ("tts", 7, TTS)


def test_every_input_matters(tiny: Unison) -> None:
    options: dict[str, Any] = {"source": (noise(1.0), RATE), "seed": 1}
    base = tiny.generate(DELETE, **options)
    other_source = tiny.generate(DELETE, **{**options, "source": (noise(1.0, seed=5), RATE)})
    for other in (
        other_source,
        tiny.generate("[Edit][Audio] Remove rain", **options),
        tiny.generate(DELETE, **options, steps=5),
        tiny.generate(DELETE, **options, guidance_scale=3.0),
    ):
        assert not torch.allclose(base.waveform, other.waveform, rtol=1e-2, atol=1e-6)


def test_free_wording_where_the_task_is_named(tiny: Unison) -> None:
    source, free = (noise(1.0), RATE), "I never want to hear rain again"
    named = tiny.generate(free, source=source, task="edit_remove")
    assert named.task == "edit_remove"
    assert same(named, tiny.generate(f"[Edit][Audio] {free}", source=source, task="edit_remove"))
    both = tiny.generate([free, TTS], source=[source, None], task=["edit_remove", None])
    assert [sound.task for sound in both] == ["edit_remove", "tts"]
    tiny.check(free, source=source, task="edit_remove")
    edited = tiny.edit(free, source, task="edit_remove")
    assert edited.samples.shape[0] == RATE
    for given in ({}, {"task": "edit_undo"}, {"task": "tts"}, {"task": 3}):
        with pytest.raises(InputError):
            tiny.generate(free, source=source, **given)


@pytest.mark.parametrize("at_once", [2, 16])
def test_a_list_gives_what_single_calls_give(
    tiny: Unison, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_batches, "MAX_BATCH", at_once)
    jobs: list[tuple[str, dict[str, Any]]] = [
        (TTS, {"seed": 3}),
        (DELETE, {"source": (noise(2.56), RATE), "seed": 3}),
        ("[Audio] rain and a bell ringing", {"seed": 4}),
        (CLONE, {"reference": (noise(1.0), RATE), "reference_text": "go", "seed": 5}),
        ("[Audio] a much longer text about a bell ringing in the house", {"duration": 1.0}),
        ("[Edit][Audio] Add rain", {"source": (noise(0.7, seed=2), RATE), "seed": 6}),
    ]
    steps: list[tuple[int, int]] = []
    names = ("source", "reference", "reference_text", "duration")
    together = tiny.generate(
        [text for text, _ in jobs],
        **{name: [options.get(name) for _, options in jobs] for name in names},
        seed=[options.get("seed", 0) for _, options in jobs],
        on_step=lambda done, total: steps.append((done, total)),
    )
    for (text, options), sound in zip(jobs, together, strict=True):
        alone = tiny.generate(text, **options)
        assert alone.waveform.shape == sound.waveform.shape
        torch.testing.assert_close(sound.waveform, alone.waveform, rtol=1e-3, atol=1e-6)
    # Removals have a guidance of their own: they are sampled apart.
    passes = sum(-(-count // at_once) for count in (1, len(jobs) - 1))
    assert steps == [(k + 1, 3 * passes) for k in range(3 * passes)]


@pytest.mark.parametrize("at_once", [3, 16])
def test_the_candidate_with_the_lowest_denoising_error_is_kept(
    tiny: Unison, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_batches, "MAX_BATCH", at_once)
    texts = [TTS, "[Audio] rain"]
    durations: list[float | None] = [1.0, 0.5]
    steps: list[tuple[int, int]] = []
    rated: list[tuple[Tensor, Tensor]] = []
    rate = best_of_n.denoising_error

    def note(backbone: Any, inputs: Any, z: Tensor, **more: Any) -> Tensor:
        rated.append((z, rate(backbone, inputs, z, **more)))
        return rated[-1][1]

    monkeypatch.setattr(best_of_n, "denoising_error", note)
    chosen = tiny.generate(
        texts,
        duration=durations,
        seed=4,
        num_candidates=3,
        on_step=lambda done, total: steps.append((done, total)),
    )
    passes = (3 + EVALUATIONS) * (2 if at_once == 3 else 1)
    assert steps == [(k + 1, passes) for k in range(passes)]
    latents = torch.cat([nn.functional.pad(z, (0, 16 - z.shape[-1])) for z, _ in rated])
    errors = torch.cat([error for _, error in rated]).view(2, 3)
    assert errors.std(dim=1).min() > 0
    # The shorter one is sampled first; each was drawn from its own seed's generator.
    for sound, z, error, alone in zip(
        chosen,
        latents.view(2, 3, *latents.shape[1:]).flip(0),
        errors.flip(0),
        [tiny.generate(text, duration=d, seed=4) for text, d in zip(texts, durations, strict=True)],
        strict=True,
    ):
        frames = -(-len(sound.waveform) // 1024)
        drawn = tiny.codec.decode(z[:, :, :frames])[:, : len(sound.waveform)]
        if sound.task == "t2a":  # 5 ms at both ends
            drawn = fade(drawn, 80, 80)
        torch.testing.assert_close(sound.waveform, drawn[error.argmin()], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(alone.waveform, drawn[0], rtol=1e-3, atol=1e-6)
        assert not torch.allclose(drawn[0], drawn[1], rtol=1e-2, atol=1e-6)


def test_temperature_scales_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Tensor] = []

    def note(*inputs: Any, noise: Tensor, **more: Any) -> Tensor:
        started.append(noise)
        return noise

    monkeypatch.setattr(best_of_n, "sample", note)
    unison = leading()
    unison.generate(TTS, seed=3, temperature=1.0)
    unison.generate(TTS, seed=3, temperature=0.25)
    assert 0.9 < started[0].std() < 1.1
    assert torch.equal(started[1], 0.25 * started[0])


def test_options_by_keyword_are_those_of_sampling_params(tiny: Unison) -> None:
    params = SamplingParams(steps=5, guidance_scale=3.0)
    base = tiny.generate(TTS, sampling=params)
    assert same(base, tiny.generate(TTS, steps=5, guidance_scale=3.0))
    assert same(
        base, tiny.generate(TTS, sampling=SamplingParams(steps=9), steps=5, guidance_scale=3)
    )
    assert not same(base, tiny.generate(TTS, sampling=params, steps=6))
    batch = built("tts", 1)
    assert torch.equal(tiny.run(batch, sampling=params), tiny.run(batch, steps=5, guidance_scale=3))
    with pytest.raises(InputError, match=r"Unknown sampling option speed; the options are preset"):
        tiny.generate(TTS, speed=2)


def test_old_names_of_options_still_work_and_say_so(tiny: Unison) -> None:
    with pytest.warns(FutureWarning, match="candidates is now called num_candidates") as caught:
        old = tiny.generate(TTS, candidates=2)
    assert len(caught) == 1
    assert same(old, tiny.generate(TTS, num_candidates=2))


def test_one_value_serves_all_of_a_list(tiny: Unison) -> None:
    sounds = tiny.generate([TTS, TTS], duration=0.5, seed=2)
    assert same(sounds[0], sounds[1])
    assert tiny.generate([]) == []
    for wrong in ({"seed": [1]}, {"duration": [1.0, 1.0, 1.0]}):
        with pytest.raises(InputError, match="for 2 instruction"):
            tiny.generate([TTS, TTS], **wrong)
    with pytest.raises(InputError, match="list of 2 for one instruction"):
        tiny.generate(TTS, seed=[1, 2])  # type: ignore[call-overload]


def test_durations(tiny: Unison) -> None:
    assert tiny.generate(TTS).seconds == 2.56
    assert tiny.generate(TTS, duration=1.2345).waveform.shape == (round(1.2345 * RATE),)
    assert tiny.generate(TTS, duration=5.12).seconds == 5.12
    source = (noise(1.2345), RATE)
    assert tiny.generate(DELETE, source=source).waveform.shape == source[0].shape
    assert tiny.generate(DELETE, source=source, duration=2.0).seconds == 2.0
    with pytest.raises(InputError, match=r"0\.5 s is shorter than the source, 1\.23 s"):
        tiny.generate(DELETE, source=source, duration=0.5)
    for wrong in (0, -1.0, 5.13, float("nan"), float("inf"), True, "2"):
        with pytest.raises(InputError, match=r"duration is .*5\.12 s"):
            tiny.generate(TTS, duration=wrong)  # type: ignore[call-overload]


@pytest.mark.parametrize("kept", [True, False])
def test_an_edit_is_done_to_the_recording_itself_where_asked(tiny: Unison, kept: bool) -> None:
    source = (noise(1.0), RATE)
    made = tiny.generate(DELETE, source=source, seed=3, preserve_source=kept)
    (batch_made,) = tiny.generate([DELETE], source=[source], seed=3, preserve_source=kept)
    torch.testing.assert_close(made.waveform, batch_made.waveform, rtol=1e-3, atol=1e-6)
    other = tiny.generate(DELETE, source=source, seed=3, preserve_source=not kept)
    assert not torch.allclose(made.waveform, other.waveform, atol=1e-4)


def test_what_is_not_edited_keeps_its_level() -> None:
    for level in (1e-4, 0.02, 0.3):
        source = noise(1.5, level)
        source = source / max(1.0, float(source.abs().max()))
        unison = leading()
        result = unison.generate('[Edit][Speech] Add a voice saying "hello"', source=(source, RATE))
        torch.testing.assert_close(result.waveform, source, rtol=1e-3, atol=1e-3 * level)
        seen = unison.backbone.seen  # type: ignore[attr-defined]
        given = seen[0, 1024:2048].T.flatten()[: source.numel()]
        expected = TASKS["speech_insert"].source_rms
        assert float(audio.rms(given)) == pytest.approx(expected, rel=1e-4)
        assert set(seen[:, 2048].flatten().tolist()) == {1.0}


def test_a_source_with_high_peaks_is_not_driven_over_full_scale() -> None:
    source = torch.zeros(RATE)
    source[::2000] = 0.5
    unison = leading()
    result = unison.generate(DELETE, source=(source, RATE))
    torch.testing.assert_close(result.waveform, source, rtol=1e-4, atol=1e-5)
    given = unison.backbone.seen[0, 1024:2048]  # type: ignore[attr-defined]
    assert float(given.abs().max()) == pytest.approx(0.99, abs=1e-5)


def test_a_result_over_full_scale_is_scaled_as_a_whole() -> None:
    loud = leading(3.0).generate(TTS, duration=0.5).waveform
    torch.testing.assert_close(loud, torch.full_like(loud, 0.99), rtol=1e-4, atol=0.0)
    quiet = leading(0.4).generate(TTS, duration=0.5).waveform
    torch.testing.assert_close(quiet, torch.full_like(quiet, 0.4), rtol=1e-4, atol=0.0)


def test_zero_shot_is_conditioned_cropped_and_faded() -> None:
    unison = leading(0.5)
    options: dict[str, Any] = {"reference": (noise(2.0), RATE), "reference_text": "go home."}
    result = unison.generate(CLONE, **options)
    edge = 33  # 2.0 s and 0.1 s of silence are 32.8 frames
    seen = unison.backbone.seen[0]  # type: ignore[attr-defined]
    assert seen.shape[1] == edge + 40
    assert seen[2048].tolist() == [2.0] * edge + [0.0] * 40
    assert not seen[1024:2048, edge:].any()
    reference = seen[1024:2048, :edge].T.flatten()
    expected = audio.normalize_rms(noise(2.0))
    torch.testing.assert_close(reference[: 2 * RATE], expected, rtol=1e-4, atol=1e-6)
    assert not reference[2 * RATE :].any()
    assert result.seconds == 2.56
    fade = round(0.02 * RATE)
    rise = 0.25 - 0.25 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
    np.testing.assert_allclose(result.waveform[:fade], rise, atol=1e-4)
    np.testing.assert_allclose(result.waveform[fade:], 0.5, atol=1e-4)
    assert leading(0.5).generate(CLONE, duration=1.0, **options).seconds == 1.0
    with pytest.raises(InputError, match=r"2\.11 s of the 5\.12 s .* leaves 3\.01 s .* 4\.00 s"):
        unison.generate(CLONE, duration=4.0, **options)


def test_the_words_of_the_reference_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    unison = leading()
    encode = unison.text_encoder.encode
    monkeypatch.setattr(
        unison.text_encoder, "encode", lambda texts: (heard.extend(texts), encode(texts))[1]
    )
    result = unison.generate(CLONE, reference=(noise(1.0), RATE), reference_text="Go home.")
    assert heard == ["[Speech with voice] Go home, red dog"]
    assert result.instruction == CLONE
    unison.generate("[Edit] [Audio] Remove rain", source=(noise(1.0), RATE))
    assert heard[1] == "[Edit][Audio] Remove rain"


def test_a_reference_without_a_voice_is_told_or_refused() -> None:
    given = (noise(1.0, rms=1e-4), RATE)
    with pytest.warns(ReferenceWarning) as caught:
        result = leading().generate(CLONE, reference=given, reference_text="no words " * 20)
    said = [str(one.message) for one in caught if one.category is ReferenceWarning]
    assert list(result.warnings) == said
    for note, part in zip(said, ("very quiet", "voiced sound", "nobody speaks"), strict=True):
        assert part in note
    assert {one.filename for one in caught if one.category is ReferenceWarning} == {__file__}
    with pytest.raises(InputError, match="holds 10 ms of sound, too little for a voice"):
        leading().generate(CLONE, reference=(noise(0.01), RATE), reference_text="go")


def test_a_long_reference_is_cut_and_said_so() -> None:
    expected = r"4\.00 s long; only its beginning is used, up to 3\.00 s of the recording"
    with pytest.warns(ShortenedWarning, match=expected) as caught:
        result = leading(0.5).generate(CLONE, reference=(noise(4.0), RATE), reference_text="go")
    assert caught[0].filename == __file__
    # A silence before the cut is found, and the silence before the words counts in its place.
    quiet = noise(4.0)
    quiet[round(2.6 * RATE) : round(2.8 * RATE)] = 0
    given = torch.cat([torch.zeros(RATE), quiet])
    with pytest.warns(ShortenedWarning, match=r"up to 3\.80 s of the recording"):
        leading(0.5).generate(CLONE, reference=(given, RATE), reference_text="go")
    assert 1.0 <= result.seconds <= 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ShortenedWarning)
        for given in (noise(3.0), torch.cat([torch.zeros(RATE), noise(2.5), torch.zeros(RATE)])):
            leading().generate(CLONE, reference=(given, RATE), reference_text="go")


def test_sources_of_any_format(tiny: Unison, tmp_path: Path) -> None:
    seconds = 1.5
    for name, rate, channels in (
        ("a.wav", 44_100, 2),
        ("b.flac", 8_000, 1),
        ("c.ogg", 48_000, 2),
        ("d.mp3", 22_050, 1),
        ("e.wav", 16_000, 6),
    ):
        time = np.arange(round(seconds * rate)) / rate
        tone = 0.1 * np.sin(2 * np.pi * 440 * time)
        soundfile.write(tmp_path / name, np.stack([tone] * channels, axis=1), rate)
        sound = tiny.generate(DELETE, source=tmp_path / name)
        assert sound.seconds == pytest.approx(seconds, abs=0.15 if name == "d.mp3" else 0.001)
        from_text = tiny.generate(DELETE, source=str(tmp_path / name))
        assert same(sound, from_text)


def test_sources_in_memory(tiny: Unison, tmp_path: Path) -> None:
    stereo = noise(1.0, channels=2)
    mono = stereo.mean(dim=0)
    expected = tiny.generate(DELETE, source=(mono, RATE))
    for given in ((stereo, RATE), (stereo.numpy(), RATE), Audio(mono, RATE)):
        assert same(tiny.generate(DELETE, source=given), expected)
    tiny.generate(DELETE, source=expected)
    expected.save(tmp_path / "x.wav")
    back = audio.load(tmp_path / "x.wav", sample_rate=RATE)
    torch.testing.assert_close(back, expected.waveform, rtol=0.0, atol=1e-4)


BAD_SOURCES: list[tuple[Any, str]] = [
    ("nowhere.wav", "no file nowhere.wav"),
    ((noise(5.2), RATE), r"5\.20 s long where at most 5\.12 s"),
    ((torch.zeros(RATE), RATE), "silent"),
    ((torch.full((100,), float("nan")), RATE), "not finite"),
    ((torch.zeros(0), RATE), "at least one sample"),
    ((noise(1.0, channels=2).T, RATE), r"shape \(16000, 2\)"),
    ((torch.ones(RATE, dtype=torch.complex64), RATE), "floats"),
    ((noise(1.0), 0), "sample rate 0"),
    ((noise(1.0), 44_100.0), "sample rate 44100.0"),
    (([0.1, 0.2], RATE), "is a list"),
    (noise(1.0), "is a Tensor"),
    (17, "is a int"),
]


@pytest.mark.parametrize(("source", "message"), BAD_SOURCES)
def test_sources_that_cannot_be_used(tiny: Unison, source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny.generate(DELETE, source=source)


def test_files_that_cannot_be_used(tiny: Unison, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.ones(6 * RATE) * 0.1, RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").touch()
    for name, message in (
        ("long.wav", r"6\.00 s long"),
        ("silent.wav", "silent"),
        ("text.wav", "cannot be read"),
        ("empty.wav", "empty"),
    ):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name)) + ".*" + message):
            tiny.generate(DELETE, source=tmp_path / name)


@pytest.mark.parametrize(
    ("instruction", "inputs", "message"),
    [
        ("a dog", {}, "does not begin with a tag"),
        ("", {}, "does not begin with a tag"),
        (None, {}, "must be a text"),
        (DELETE, {}, "needs a source"),
        (TTS, {"source": (noise(1.0), RATE)}, "takes no source"),
        (CLONE, {}, "needs a reference"),
        (CLONE, {"reference": (noise(1.0), RATE)}, "needs the words of the reference"),
        (
            CLONE,
            {"reference": (noise(1.0), RATE), "reference_text": " "},
            "needs the words of the reference",
        ),
        (TTS, {"reference_text": "go"}, "without a reference"),
        (TTS, {"steps": 0}, "steps is 0"),
        (TTS, {"steps": 2.5}, "steps is 2.5"),
        (TTS, {"guidance_scale": float("nan")}, "guidance scale is nan"),
        (TTS, {"seed": -1}, "seed is -1"),
        (TTS, {"seed": 1 << 63}, "seed is"),
        (TTS, {"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_inputs_that_do_not_fit(
    tiny: Unison, instruction: Any, inputs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny.generate(instruction, **inputs)


def built(name: str, items: int, seconds: float = 1.28) -> TaskBatch:
    source = noise(seconds * items).unflatten(0, (items, -1))
    return TaskBatch(
        task=name,
        instructions=[f"{TASKS[name].templates[0]} {k}" for k in range(items)],
        target=torch.zeros_like(source),
        source=source if TASKS[name].needs else None,
        reference_samples=torch.tensor([4096, 8192][:items]) if name == "zero_shot_tts" else None,
        details=[{} for _ in range(items)],
    )


def test_run_gives_each_item_its_own_seed(tiny: Unison) -> None:
    batch = built("edit_remove", 2)
    together = tiny.run(batch, seed=5)
    assert together.shape == batch.target.shape
    assert batch.source is not None
    for k in range(2):
        one = dataclasses.replace(
            batch,
            instructions=batch.instructions[k : k + 1],
            target=batch.target[k : k + 1],
            source=batch.source[k : k + 1],
        )
        torch.testing.assert_close(tiny.run(one, seed=5 + k)[0], together[k], rtol=1e-3, atol=1e-6)


def test_run_and_generate_agree(tiny: Unison) -> None:
    batch = dataclasses.replace(built("tts", 2), instructions=[TTS, TTS.replace("red", "big")])
    waves = tiny.run(batch, seed=11)
    for k, instruction in enumerate(batch.instructions):
        alone = tiny.generate(instruction, duration=1.28, seed=11 + k)
        torch.testing.assert_close(waves[k], alone.waveform, rtol=1e-3, atol=1e-6)


def test_run_takes_a_built_batch_as_it_is() -> None:
    batch = built("speech_delete", 2)
    torch.testing.assert_close(leading().run(batch), batch.source, rtol=1e-3, atol=1e-5)
    zero_shot = built("zero_shot_tts", 2)
    assert zero_shot.source is not None
    waves = leading().run(zero_shot)
    for wave, source, edge in zip(waves, zero_shot.source, (4096, 8192), strict=True):
        torch.testing.assert_close(wave[:edge], source[:edge], rtol=1e-3, atol=1e-5)
        assert float(wave[edge:].abs().max()) < 1e-5


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_reference_is_fixed_where_the_variant_says_so(candidates: int) -> None:
    batch = built("zero_shot_tts", 2)
    assert batch.source is not None
    for hold in (False, True):
        variant = dataclasses.replace(tiny_variant(), hold_reference=hold)
        unison = Unison(variant, Leading(0.25), BlockCodec(), StubEncoder())  # type: ignore[arg-type]
        waves = unison.run(batch, num_candidates=candidates)
        for wave, source, edge in zip(waves, batch.source, (4096, 8192), strict=True):
            wanted = source[:edge] if hold else torch.full((edge,), 0.25)
            torch.testing.assert_close(wave[:edge], wanted, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(wave[edge:], torch.full_like(wave[edge:], 0.25))


def test_a_checkpoint_comes_back_as_it_was(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With the real text encoder."""
    unison = Unison.from_pretrained(tiny_checkpoint)
    expected = unison.generate(TTS, duration=1.0)
    assert torch.isfinite(expected.waveform).all()
    assert not torch.allclose(expected.waveform, unison.generate(TTS + "!", duration=1.0).waveform)
    unison.save_pretrained(tmp_path / "copy")
    names = {"config.json", "model.safetensors", "codec.json", "codec.safetensors", "README.md"}
    assert {file.name for file in (tmp_path / "copy").iterdir()} == names
    again = Unison.from_pretrained(tmp_path / "copy").generate(TTS, duration=1.0)
    assert same(expected, again)


def test_the_hub(
    tiny_checkpoint: Path, tmp_path: Path, stub_text: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            assert (repo_id, options) == ("me/tiny", {"private": True, "exist_ok": True})

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
            shutil.copytree(folder_path, tmp_path / "hub")
            return type("Commit", (), {"commit_url": f"hub/{repo_id}"})

    def download(name: str, *, allow_patterns: list[str]) -> str:
        (tmp_path / "local").mkdir()
        for pattern in allow_patterns:
            shutil.copy(tmp_path / "hub" / pattern, tmp_path / "local")
        return str(tmp_path / "local")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    unison = Unison.from_pretrained(tiny_checkpoint)
    assert unison.push_to_hub("me/tiny", private=True) == "hub/me/tiny"
    loaded = Unison.from_pretrained("me/tiny")
    assert same(loaded.generate(TTS), unison.generate(TTS))


def test_checkpoints_that_cannot_be_run(
    tiny_checkpoint: Path, tmp_path: Path, stub_text: None
) -> None:
    with pytest.raises(InputError, match=r"weights of d24-16k do not come with the package"):
        Unison.from_pretrained("d24-16k")
    with pytest.raises(InputError, match="no folder"):
        Unison.from_pretrained("nothing")
    for part, missing in (("codec", "mp3"), ("text_encoder", "parrot")):
        variant = dataclasses.replace(tiny_variant(), **{part: missing})
        checkpoint.save(tmp_path / part, variant, random_backbone(variant))
        with pytest.raises(InputError, match=f"{missing}.* is not known; use one of"):
            Unison.from_pretrained(tmp_path / part)
    shutil.copytree(tiny_checkpoint, tmp_path / "bare")
    (tmp_path / "bare" / "codec.json").unlink()
    with pytest.raises(InputError, match=r"codec\.json is missing"):
        Unison.from_pretrained(tmp_path / "bare")
    other = dataclasses.replace(tiny_variant(), hop=512)
    checkpoint.save(tmp_path / "mixed", other, random_backbone(other))
    for name in ("codec.json", "codec.safetensors"):
        shutil.copy(tiny_checkpoint / name, tmp_path / "mixed")
    with pytest.raises(InputError, match="take the two from one checkpoint"):
        Unison.from_pretrained(tmp_path / "mixed")


def test_players_in_notebooks() -> None:
    sound = Audio(noise(0.5), RATE, instruction='[Speech] "<b>"')
    page = sound._repr_html_()
    assert "&lt;b&gt;" in page
    data = re.search(r"base64,([^\"]+)", page)
    assert data is not None
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data[1])))
    assert rate == RATE
    np.testing.assert_allclose(samples, sound.waveform, atol=1e-4)


def test_defaults_of_the_variants() -> None:
    assert (VARIANTS["nano"].default_seconds, VARIANTS["nano"].zero_shot_seconds) == (2.56, 2.56)
    assert VARIANTS["d24-16k"].default_seconds == 10.0
    with pytest.raises(InputError, match="default_seconds is 6"):
        dataclasses.replace(VARIANTS["nano"], default_seconds=6.0)


def test_samples_that_would_overflow_are_refused() -> None:
    loud = torch.randn(16_000) * 1e30
    with pytest.raises(InputError, match="full scale is 1"):
        leading().generate("[Edit][Audio] Add rain", source=(loud, RATE))
