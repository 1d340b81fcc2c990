"""Metric models: the same figure for every batch composition, and at every call."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sound_models import write_clap, write_cnn14
from tiny_speech_models import write_gender
from transformers import Wav2Vec2FeatureExtractor

from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models.clap import Clap
from unison_audio.evaluation.models.cnn14 import Cnn14Tagger
from unison_audio.evaluation.models.speaker import Wav2Vec2Gender


def waves(rate: int, *seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sounds = (0.1 * rng.standard_normal(round(rate * length)) for length in seconds)
    return [sound.astype(np.float32) for sound in sounds]


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Clap:
    folder = write_clap(tmp_path_factory.mktemp("metric models") / "tiny-clap")
    return Clap(MetricContext(paths={"clap": folder}))


@pytest.fixture(scope="module")
def gender(tmp_path_factory: pytest.TempPathFactory) -> Wav2Vec2Gender:
    return Wav2Vec2Gender(write_gender(tmp_path_factory.mktemp("metric models") / "g", "male"))


def test_wav2vec_features_are_those_of_a_recording_alone(gender: Wav2Vec2Gender) -> None:
    sounds = waves(16_000, 1.0, 0.5, 1.0, 2.0)
    sounds[1] += 0.2  # an offset, which a mean over a padded row would change

    def logits(group: list[np.ndarray]) -> list[torch.Tensor]:
        return gender.answer(group, lambda out: list(out.logits), None)

    alone = [logits([sound])[0] for sound in sounds]
    for order in itertools.permutations(range(4)):
        for place, found in zip(order, logits([sounds[k] for k in order]), strict=True):
            torch.testing.assert_close(found, alone[place], atol=1e-5, rtol=1e-4)
    # Padded in one call, as the library does it, one of half the length is at another level.
    extractor = Wav2Vec2FeatureExtractor()
    padded = extractor(sounds, sampling_rate=16_000, padding=True, return_tensors="np")
    single = extractor([sounds[0]], sampling_rate=16_000, return_tensors="np")
    rows = (padded["input_values"][0, :16_000], single["input_values"][0])
    level, expected = (float(row.std()) for row in rows)
    assert expected == pytest.approx(1.0, abs=0.01)
    assert level == pytest.approx(2**0.5, abs=0.01)


def test_tags_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    tagger = Cnn14Tagger(MetricContext(paths={"cnn14": write_cnn14(tmp_path)}))
    sounds = waves(16_000, 1.0, 0.6, 1.0, 1.5)
    alone = [tagger.tag([sound])[0] for sound in sounds]
    for one, together in zip(alone, tagger.tag(sounds), strict=True):
        np.testing.assert_allclose(one, together, atol=1e-5, rtol=1e-5)


def test_clap_repeats_to_the_bit(clap: Clap) -> None:
    """Short, exact, long and very long clips: whatever numpy's global generator is at."""
    sounds = waves(48_000, 3.0, 10.0, 12.0, 25.0)
    np.random.seed(1)
    first = clap.embed_audio(sounds)
    np.random.seed(2)
    assert torch.equal(clap.embed_audio(sounds), first)
    for row, sound in enumerate(sounds):  # and whatever is embedded beside it
        torch.testing.assert_close(clap.embed_audio([sound])[0], first[row], atol=1e-5, rtol=0)
