import pytest
import torch

from unison_audio.tasks import scene


def test_repeat_crossfades_to_a_constant():
    out = scene.repeat(torch.ones(100), 1000, gap=0, fade=10)
    assert torch.allclose(out, torch.ones(1000), atol=1e-6)


def test_repeat_with_pauses_and_whole_repetitions():
    out = scene.repeat(torch.ones(100), 1000, gap=50, fade=10)
    assert out.shape == (1000,)
    sounding = (out > 0).int()
    assert int((sounding.diff() == 1).sum()) == 6  # 7 repetitions, the pauses squeezed to 50
    assert out[0] == out[-1] == 1
    assert not out[100:149].any()
    whole = scene.repeat(torch.ones(100), 1000, gap=50, fade=10, whole=True)
    assert whole.shape == (100 + 6 * 150,)
    assert scene.repeat(torch.ones(100), 990, gap=50, fade=10, whole=True).shape == (850,)
    assert torch.equal(scene.repeat(torch.ones(100), 50, gap=0, fade=10), torch.ones(100))


@pytest.mark.parametrize("length", [101, 150, 199, 200, 201, 260, 299, 300, 500, 777])
@pytest.mark.parametrize("gap", [1, 20, 50])
def test_repetitions_with_pauses_end_with_the_stretch(length, gap):
    out = scene.repeat(torch.ones(100), length, gap=gap, fade=10)
    assert out.shape == (length,)
    assert out[-1] > 0
    assert out.max() <= 1 + 1e-6
    assert float((out > 0).float().mean()) > 0.6


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_repeat_of_a_few_samples(size):
    assert scene.repeat(torch.ones(size), 100, gap=0, fade=10).shape == (100,)


def test_crop_avoids_silence():
    clip = torch.zeros(1000)
    clip[600:700] = 1.0
    for seed in range(20):
        cut = scene.crop(clip, 100, torch.Generator().manual_seed(seed))
        assert cut.shape == (100,)
        assert cut.sum() >= 2.5
    starts = {
        float(scene.crop(torch.arange(1000.0), 900, torch.Generator().manual_seed(seed))[0])
        for seed in range(20)
    }
    assert len(starts) > 10


def test_levels_are_measured_in_the_span():
    sound = scene.layer([torch.ones(50), torch.full((20,), 2.0)], [10, 0], 100, 0)
    assert sound.level().tolist() == pytest.approx([1.0, 2.0])
    assert sound.at(0.1).level().tolist() == pytest.approx([0.1, 0.1])
    silent = scene.layer([torch.zeros(50)], [0], 100, 0).at(0.1)
    assert not silent.wave.any()


def test_headroom_scales_an_item_by_one_factor():
    one, two = torch.tensor([[2.0, 0.5], [0.5, 0.5]]), torch.tensor([[1.0, 1.0], [0.1, 0.1]])
    gains, (a, b) = scene.headroom(0.99, one, two)
    assert gains.tolist() == pytest.approx([0.495, 1.0])
    assert torch.equal(a[1], one[1])
    assert float(b[0, 0]) == pytest.approx(0.495)
