import math

import pytest
import torch

from unison_audio.training.discriminators import (
    BANDS,
    COMPRESSION,
    BandDiscriminator,
    BandShape,
    Discriminators,
    PeriodDiscriminator,
    feature_loss,
    fooling_loss,
    judge_loss,
)

RATE = 16_000
SHAPE = BandShape(n_fft=512, bands=4, width=8, layers=2)


def tone(frequency, samples=4096, level=0.3):
    return level * torch.sin(2 * math.pi * frequency * torch.arange(samples) / RATE)[None]


@pytest.mark.parametrize(("frequency", "band"), [(1000.0, 0), (3000.0, 1), (7100.0, 3)])
def test_a_tone_is_in_its_band(frequency, band):
    spectrum = BandDiscriminator(SHAPE).spectrum(tone(frequency))
    energy = spectrum.unflatten(1, (4, -1)).square().sum(dim=(0, 2, 3))
    assert int(energy.argmax()) == band
    assert energy[band] > 5 * energy.sum() / 8


def test_magnitudes_are_compressed_and_phases_kept():
    judge = BandDiscriminator(SHAPE)
    wave = 0.1 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    once, louder = judge.spectrum(wave), judge.spectrum(100 * wave)
    heard = once.abs() > 0.2  # far above the floor that keeps the logarithm's slope finite
    assert heard.float().mean() > 0.8
    torch.testing.assert_close(louder[heard], (100**COMPRESSION * once)[heard], rtol=0.01, atol=0)


def test_a_band_is_judged_by_itself():
    torch.manual_seed(0)
    judge = BandDiscriminator(SHAPE)
    noise = 0.3 * torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    alone, _ = judge(noise)
    joined, _ = judge(noise + tone(7000.0))
    inner = slice(4, -4)  # at the edges a tone is in every band
    moved = (joined - alone)[0, :, inner].abs().amax(dim=1)
    assert moved[3] > 20 * moved[:3].max()


def test_a_period_is_folded_to_rows():
    torch.manual_seed(0)
    judge = PeriodDiscriminator(3)
    wave = torch.zeros(2, 1000)
    silent, _ = judge(wave)
    wave[1, 1::3] = 0.5
    scores, features = judge(wave)
    assert scores.shape[:2] == (6, 1)
    assert len(features) == 3
    same = [torch.equal(a, b) for a, b in zip(scores, silent, strict=True)]
    assert same == [True, True, True, True, False, True]


def test_every_band_divides_its_spectrum():
    for shape in BANDS:
        scores, features = BandDiscriminator(shape)(torch.randn(2, 2048))
        assert scores.shape[:2] == (2, shape.bands)
        assert len(features) == shape.layers


def test_losses_of_known_judgements():
    ones, zeros = torch.ones(2, 1, 5), torch.zeros(2, 1, 5)
    right = [(ones, [ones]), (ones, [2 * ones])]
    wrong = [(zeros, [zeros]), (zeros, [3 * ones])]
    assert float(judge_loss(right, wrong)) == 0.0
    assert float(judge_loss(wrong, right)) == 2.0
    assert float(fooling_loss(right)) == 0.0
    assert float(fooling_loss(wrong)) == 1.0
    assert float(feature_loss(right, wrong)) == pytest.approx((1.0 + 0.5) / 2)


def test_features_pull_the_output_alone():
    ours, theirs = torch.ones(3, requires_grad=True), torch.full((3,), 2.0, requires_grad=True)
    feature_loss([(theirs, [theirs])], [(ours, [ours])]).backward()
    assert theirs.grad is None
    assert (ours.grad < 0).all()


def test_they_learn_to_tell_noise_from_tones():
    torch.manual_seed(0)
    judges = Discriminators()
    optimizer = torch.optim.AdamW(judges.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)

    def batch():
        pitches = 200 + 2000 * torch.rand(4, generator=generator)
        tones = torch.cat([tone(float(pitch), 2048) for pitch in pitches])
        return judges(tones), judges(0.2 * torch.randn(4, 2048, generator=generator))

    first = judge_loss(*batch()).item()
    for _ in range(20):
        optimizer.zero_grad()
        judge_loss(*batch()).backward()
        optimizer.step()
    real, fake = batch()
    assert judge_loss(real, fake).item() < 0.5 * first
    right = [
        float(ours.mean()) > float(theirs.mean())
        for (ours, _), (theirs, _) in zip(real, fake, strict=True)
    ]
    assert all(right)
