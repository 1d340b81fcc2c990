import math

import pytest
import torch
import torch.nn.functional as F

from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.nano import event_classifier as sound_classes
from unison_audio.nano.event_classifier import (
    ClassifierConfig,
    ClassifierNet,
    EventClassifier,
    load_classifier,
    log_mel,
    mel_power,
    save_classifier,
    what_is_new,
)
from unison_audio.nano.event_classifier_training import (
    ClassifierRecipe,
    Scenes,
    smear,
    train_classifier,
)

RATE = 8000
LABELS = {"a low hum": 150.0, "a whistle": 1500.0, "a bell": 600.0}
TINY = ClassifierRecipe(
    steps=40, batch=12, encoded_steps=8, seconds=(0.64,), perceptron_steps=60, speeds=(1.0,)
)


class BandEncoder:
    """Describes a sound by the logarithms of its mean spectrum."""

    def features(self, waveform, sample_rate):
        spectrum = torch.stft(waveform, 128, window=torch.hann_window(128), return_complex=True)
        return (spectrum.abs().mean(dim=1) + 1e-3).log()


def clip(kind, wave, label="", key="k"):
    record = ClipRecord(
        key=key,
        kind=kind,
        split="train",
        seconds=len(wave) / RATE,
        licence="CC0-1.0",
        source=f"made-{'abcd'[int(key[-1])]}" if key[-1].isdigit() else "made",
        label=label,
    )
    return Clip(record=record, waveform=wave)


def tone(frequency, seconds=0.5, phase=0.0):
    time = torch.arange(round(seconds * RATE)) / RATE
    return 0.2 * torch.sin(2 * math.pi * frequency * time + phase)


@pytest.fixture(scope="module")
def clips():
    made = [
        clip("sound", tone(frequency * (1 + 0.03 * k), 0.3 + 0.1 * k), label, f"{label}{k}")
        for label, frequency in LABELS.items()
        for k in range(4)
    ]
    generator = torch.Generator().manual_seed(0)
    return [*made, clip("speech", 0.1 * torch.randn(RATE // 2, generator=generator))]


@pytest.fixture(scope="module")
def classifier(clips):
    return train_classifier(clips, RATE, BandEncoder(), TINY)


def test_learns_from_clips_to_classify_others(classifier):
    waves = torch.stack([tone(f * 1.015, 0.6, 1.0) for f in LABELS.values()])
    assert classifier.ranks(waves, RATE, list(LABELS)) == [1, 1, 1]


def test_ranks_both_events_of_a_mix_and_leaves_the_base_out(classifier):
    mix = (tone(150.0) + tone(1500.0))[None]
    ranks = [classifier.ranks(mix, RATE, [label])[0] for label in LABELS]
    assert ranks[2] == 3
    assert classifier.ranks(mix, RATE, ["a low hum"], [["a whistle"]]) == [1]
    assert classifier.ranks(mix, RATE, ["a whistle"], [["a low hum", "a bell"]]) == [1]


def test_alike_labels_count_as_one_class(clips, classifier, monkeypatch):
    deep = tone(150.0)[None]
    assert classifier.ranks(deep, RATE, ["a bell"])[0] > 1
    monkeypatch.setattr(sound_classes, "MERGED", {"a bell": "deep", "a low hum": "deep"})
    merged = EventClassifier(classifier.config, classifier.net, classifier.encoder)
    assert set(merged.classes) == {"deep", "a whistle"}
    assert merged.ranks(deep, RATE, ["a bell"]) == [1]
    assert merged.ranks(deep, RATE, ["a whistle"]) == [2]
    assert merged.ranks(deep, RATE, ["a whistle"], [["a bell"]]) == [1]


def test_what_is_not_ranked_does_not_compete(classifier, monkeypatch):
    monkeypatch.setattr(sound_classes, "UNRANKED", frozenset({"a low hum"}))
    fewer = EventClassifier(classifier.config, classifier.net, classifier.encoder)
    ranks = [fewer.ranks(tone(150.0)[None], RATE, [label])[0] for label in ("a bell", "a whistle")]
    assert sorted(ranks) == [1, 2]
    assert fewer.ranks(tone(600.0)[None], RATE, ["a bell"], [["a low hum"]]) == [1]
    with pytest.raises(InputError, match="does not rank 'a low hum'"):
        fewer.ranks(tone(150.0)[None], RATE, ["a low hum"])


def test_hears_what_an_edit_added():
    base, event = tone(150.0, 1.0), F.pad(tone(1500.0, 0.4), (0, RATE - round(0.4 * RATE)))
    new = what_is_new((base + event)[None], base[None])[0]
    assert float((new - event).square().mean()) < 0.05 * float(event.square().mean())
    assert float(what_is_new(base[None], base[None]).abs().max()) == 0.0


def test_smearing_keeps_level_and_place(clips):
    wave = F.pad(tone(600.0, 0.5), (0, RATE // 2))[None]
    smeared = smear(wave, RATE, torch.Generator().manual_seed(0))
    assert smeared.shape == wave.shape
    assert not torch.allclose(smeared, wave, atol=1e-2)
    inside, outside = (
        smeared[0, : RATE // 2].square().sum(),
        smeared[0, -RATE // 4 :].square().sum(),
    )
    assert 0.3 < float(inside / wave.square().sum()) < 3
    assert float(outside) < 0.05 * float(inside)


def test_the_level_does_not_matter(classifier):
    wave = tone(600.0)[None]
    loud, low = classifier.net.logits_of_mel(
        log_mel(mel_power(torch.cat([wave, 0.01 * wave]), classifier.config))
    )
    torch.testing.assert_close(loud, low, atol=1e-3, rtol=0)


def test_the_same_seed_gives_the_same_classifier(clips):
    short = ClassifierRecipe(
        steps=3, batch=4, encoded_steps=2, seconds=(0.64,), perceptron_steps=3, speeds=(1.0,)
    )
    torch.manual_seed(5)
    first = train_classifier(clips, RATE, BandEncoder(), short).net.state_dict()
    torch.manual_seed(6)
    second = train_classifier(clips, RATE, BandEncoder(), short).net.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_is_stored_and_read(classifier, tmp_path):
    save_classifier(tmp_path / "classifier", classifier)
    again = load_classifier(tmp_path / "classifier", BandEncoder())
    wave = tone(440.0)[None]
    torch.testing.assert_close(again.scores(wave, RATE), classifier.scores(wave, RATE))
    assert again.config == classifier.config


def test_refuses_what_it_cannot_classify(classifier, tmp_path):
    with pytest.raises(InputError, match=r"'a dog'.*delete"):
        classifier.ranks(tone(440.0)[None], RATE, ["a dog"])
    with pytest.raises(InputError, match="delete the folder"):
        load_classifier(tmp_path, BandEncoder())
    with pytest.raises(InputError, match="no sound"):
        train_classifier([], RATE, BandEncoder(), TINY)


def test_scenes_say_what_they_hold(clips):
    recipe = ClassifierRecipe(batch=200, second_event=0.5, speech=0.5, noise=0.0, speeds=(1.0,))
    scenes = Scenes(clips, list(LABELS), RATE, recipe)
    waves, targets = scenes.draw(RATE, torch.Generator().manual_seed(0))
    assert torch.isfinite(waves).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(200))
    spectrum = torch.fft.rfft(waves).abs()
    for index, frequency in enumerate(LABELS.values()):
        band = slice(round(frequency * 0.95), round(frequency * 1.15))
        share = spectrum[:, band].square().sum(dim=1) / spectrum.square().sum(dim=1)
        held = targets[:, index] > 0
        assert share[held].min() > share[~held].max()
    assert 0.3 < float((targets[:, -1] > 0).float().mean()) < 0.7


def test_the_network_takes_any_length():
    config = ClassifierConfig(labels=("a", "b"), sample_rate=RATE, features=65)
    classifier = EventClassifier(config, ClassifierNet(config), BandEncoder())
    for seconds in (0.1, 0.5, 3.0):
        assert classifier.scores(tone(200.0, seconds)[None], RATE).shape == (1, 2)
