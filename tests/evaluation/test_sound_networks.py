"""The networks behind the sound metrics against computations by other means."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d, get_window
from tiny_sound_models import write_clap, write_cnn14, write_vggish

from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.models import clap, cnn14, vggish
from unison_audio.evaluation.models.clap import Clap
from unison_audio.evaluation.models.cnn14 import Cnn14, Cnn14Tagger, LogMel
from unison_audio.evaluation.models.vggish import Vggish, VggishEmbedder, patches
from unison_audio.evaluation.models.weights import read_weights

Weights = dict[str, np.ndarray]


def sound(seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """A falling tone in noise, (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (900 * time - 120 * time**2))
    return (tone + 0.02 * rng.normal(size=len(time))).astype(np.float32)


def convolve(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A 3 x 3 convolution, zeros around: (in, T, F) -> (out, T, F)."""
    return np.stack(
        [
            sum(
                correlate2d(one, kernel, mode="same")
                for one, kernel in zip(maps, kernels, strict=True)
            )
            for kernels in weights
        ]
    )


def pool(maps: np.ndarray, how: str) -> np.ndarray:
    """Halves both sides, an odd end left out."""
    channels, rows, columns = maps.shape
    cut = maps[:, : rows // 2 * 2, : columns // 2 * 2]
    cells = cut.reshape(channels, rows // 2, 2, columns // 2, 2)
    return cells.max(axis=(2, 4)) if how == "max" else cells.mean(axis=(2, 4))


def arrays(path: Path) -> Weights:
    stored = torch.load(path, weights_only=False)
    return {name: value.double().numpy() for name, value in stored.get("model", stored).items()}


def htk_triangles() -> np.ndarray:
    """VGGish's filters bin by bin: 64 bands from 125 to 7500 Hz, straight over the mel scale."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    step = (mel(7500) - mel(125)) / 65
    filters = np.zeros((257, 64))
    for bin_ in range(1, 257):
        for band in range(64):
            left = mel(125) + band * step
            place = (mel(bin_ * 16_000 / 512) - left) / step
            filters[bin_, band] = max(0.0, min(place, 2 - place))
    return filters


def slaney_triangles() -> np.ndarray:
    """Cnn14's filters: 64 bands from 50 to 8000 Hz, Slaney's scale, unit area."""

    def hertz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    def mel(hertz_: float) -> float:
        return hertz_ * 3 / 200 if hertz_ < 1000 else 15 + 27 * math.log(hertz_ / 1000, 6.4)

    edges = [hertz(mel(50) + k * (mel(8000) - mel(50)) / 65) for k in range(66)]
    filters = np.zeros((257, 64))
    for bin_ in range(257):
        for band, (low, top, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
            place = bin_ * 16_000 / 512
            height = min((place - low) / (top - low), (high - place) / (high - top))
            filters[bin_, band] = max(0.0, height) * 2 / (high - low)
    return filters


def test_vggish_patches_frame_by_frame() -> None:
    wave = sound(2.1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for start in range(0, len(wave) - 399, 160):
        magnitudes = np.abs(np.fft.rfft(wave[start : start + 400] * hann, 512))
        rows.append(np.log(magnitudes @ htk_triangles() + 0.01))
    expected = np.array(rows)[: 96 * 2].reshape(2, 96, 64)
    found = patches(torch.from_numpy(wave).double(), vggish.mel_filters().double())
    assert found.shape == (2, 96, 64)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_vggish_layer_by_layer(tmp_path: Path) -> None:
    path = write_vggish(tmp_path)
    weights = arrays(path)
    wave = sound(1.0)
    mels = patches(torch.from_numpy(wave), vggish.mel_filters()).double().numpy()
    x = mels[0][None]
    for place, pooled in zip((0, 3, 6, 8, 11, 13), (1, 1, 0, 1, 0, 1), strict=True):
        x = convolve(x, weights[f"features.{place}.weight"])
        x = np.maximum(0, x + weights[f"features.{place}.bias"][:, None, None])
        x = pool(x, "max") if pooled else x
    x = x.transpose(1, 2, 0).reshape(-1)  # time, bands, channels
    for number in (0, 2, 4):
        x = weights[f"embeddings.{number}.weight"] @ x + weights[f"embeddings.{number}.bias"]
        x = np.maximum(0, x) if number < 4 else x  # nothing is cut off what FAD compares
    assert (x < 0).any()
    ear = VggishEmbedder(MetricContext(paths={"vggish": tmp_path}))
    np.testing.assert_allclose(ear.embed(wave), x[None], rtol=1e-4, atol=1e-4)
    assert "vggish-10086976.pth" in ear.model
    assert ear.embed(sound(10.0)).shape == (10, 4)
    with pytest.raises(InputError, match=r"0\.900 s are too short for VGGish"):
        ear.embed(wave[: int(0.9 * 16_000)])


def test_cnn14_layer_by_layer(tmp_path: Path) -> None:
    path = write_cnn14(tmp_path)
    weights = arrays(path)
    wave = sound(0.7)
    padded = np.pad(wave.astype(np.float64), 256, mode="reflect")
    frames = np.stack([padded[k : k + 512] for k in range(0, len(padded) - 511, 160)])
    power = np.abs(np.fft.rfft(frames * get_window("hann", 512))) ** 2
    x = 10 * np.log10(np.maximum(1e-10, power @ slaney_triangles()))[None]

    def normalise(x: np.ndarray, name: str, axis: int) -> np.ndarray:
        shape = [1, 1, 1]
        shape[axis] = -1
        part = {
            key: weights[f"{name}.{key}"].reshape(shape)
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        scaled = (x - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-5)
        return scaled * part["weight"] + part["bias"]

    x = normalise(x, "bn0", 2)
    for block in range(1, 7):
        for layer in (1, 2):
            x = convolve(x, weights[f"conv_block{block}.conv{layer}.weight"])
            x = np.maximum(0, normalise(x, f"conv_block{block}.bn{layer}", 0))
        x = pool(x, "mean") if block < 6 else x
    over_time = x.mean(axis=2)
    pooled = over_time.max(axis=1) + over_time.mean(axis=1)
    embedding = np.maximum(0, weights["fc1.weight"] @ pooled + weights["fc1.bias"])
    logits = weights["fc_audioset.weight"] @ embedding + weights["fc_audioset.bias"]

    ear = Cnn14Tagger(MetricContext(paths={"cnn14": path}))
    assert ear.width == 6
    expected = np.concatenate([embedding, logits])
    [found] = ear.tag([wave])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    # In a batch, among others, it hears the same.
    batch = ear.tag([sound(1.2, seed=1), wave, sound(0.7, seed=2)])
    np.testing.assert_allclose(batch[1], found, atol=1e-4)
    assert not np.allclose(batch[2], found, atol=1e-2)
    with pytest.raises(InputError, match="too short for Cnn14"):
        ear.tag([wave, wave[:4000]])


def test_published_shapes() -> None:
    """The names and sizes of the published files, as their projects document them."""
    with torch.device("meta"):
        net = Vggish()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    widths = (64, 128, 256, 256, 512, 512)
    expected: dict[str, tuple[int, ...]] = {}
    for place, into, out in zip((0, 3, 6, 8, 11, 13), (1, *widths), widths, strict=False):
        expected[f"features.{place}.weight"] = (out, into, 3, 3)
        expected[f"features.{place}.bias"] = (out,)
    for number, into, out in ((0, 12_288, 4096), (2, 4096, 4096), (4, 4096, 128)):
        expected[f"embeddings.{number}.weight"] = (out, into)
        expected[f"embeddings.{number}.bias"] = (out,)
    assert shapes == expected
    assert sum(math.prod(shape) for shape in shapes.values()) == 72_141_184  # Hershey: 72 M


def test_published_shapes_of_cnn14() -> None:
    with torch.device("meta"):
        net = Cnn14()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["spectrogram_extractor.stft.conv_real.weight"] == (257, 1, 512)
    assert shapes["spectrogram_extractor.stft.conv_imag.weight"] == (257, 1, 512)
    assert shapes["logmel_extractor.melW"] == (257, 64)
    assert shapes["bn0.running_var"] == (64,)
    assert shapes["conv_block6.conv1.weight"] == (2048, 1024, 3, 3)
    assert shapes["conv_block1.conv1.weight"] == (64, 1, 3, 3)
    assert shapes["fc1.weight"] == (2048, 2048)
    assert shapes["fc_audioset.weight"] == (527, 2048)
    kernels = 2 * 257 * 512 + 257 * 64
    trained = sum(p.numel() for p in net.parameters()) - kernels
    assert trained == 80_753_615  # as Kong et al. give them
    np.testing.assert_allclose(LogMel().melW.detach(), slaney_triangles(), atol=1e-6)


@pytest.mark.parametrize("kind", ["vggish", "cnn14"])
def test_other_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = {"vggish": write_vggish, "cnn14": write_cnn14}[kind](tmp_path)
    net = {"vggish": Vggish, "cnn14": Cnn14}[kind]
    stored = torch.load(path, weights_only=False)
    weights = stored.get("model", stored)
    lost = next(name for name in weights if name.endswith("weight") and "bn" not in name)
    torch.save({name: value for name, value in weights.items() if name != lost}, path)
    with pytest.raises(InputError, match="cannot be read as the weights of"):
        read_weights(path, net.fitting, kind)
    torch.save({**weights, "more": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="more"):
        read_weights(path, net.fitting, kind)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="download it again"):
        read_weights(path, net.fitting, kind)


class Trap:
    def __reduce__(self) -> tuple:
        return (print, ("a pickle was run",))


def test_no_code_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_cnn14(tmp_path)
    torch.save({"model": torch.load(path, weights_only=False)["model"], "x": Trap()}, path)
    # Not torch's own message, which advises weights_only=False: that would run the file.
    with pytest.raises(InputError, match=r"or holds more than tensors(?!.*weights_only)"):
        read_weights(path, Cnn14.fitting, "Cnn14")
    assert "run" not in capsys.readouterr().out


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no vggish-10086976\.pth"):
        VggishEmbedder(MetricContext(paths={"vggish": tmp_path}))


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clap(tmp_path_factory.mktemp("judges") / "tiny-clap")


def test_clap_is_the_librarys_similarity(clap_folder: Path) -> None:
    from transformers import ClapModel, ClapProcessor

    texts = ["a dog barks", "rain"]
    waves = [sound(10.0, 48_000), sound(10.0, 48_000, seed=3) * 0.2]
    net, processor = (
        ClapModel.from_pretrained(clap_folder),
        ClapProcessor.from_pretrained(clap_folder),
    )
    inputs = processor(
        text=texts, audio=waves, sampling_rate=48_000, padding=True, return_tensors="pt"
    )
    inputs["input_features"] = inputs["input_features"].float()
    with torch.no_grad():
        said = net.eval()(**inputs)
    cosines = said.logits_per_audio / net.logit_scale_a.exp()
    ear = Clap(MetricContext(paths={"clap": clap_folder}))
    found = ear.embed_audio(waves) @ ear.embed_text(texts).T
    np.testing.assert_allclose(found, cosines.detach(), atol=1e-5)
    assert ear.model == "LAION-CLAP tiny-clap"
    assert "model.safetensors" in ear.identity
    assert "630k-audioset" in clap.CHECKPOINT


def test_clap_hears_all_of_a_long_sound(clap_folder: Path) -> None:
    ear = Clap(MetricContext(paths={"clap": clap_folder}))
    first, second = sound(10.0, 48_000), sound(10.0, 48_000, seed=5) * 0.1
    [whole] = ear.embed_audio([np.concatenate([first, second])])
    parts = ear.embed_audio([first, second])
    mean = torch.nn.functional.normalize(parts.mean(dim=0), dim=0)
    np.testing.assert_allclose(whole, mean, atol=1e-5)
    # A few samples too many, as resampling leaves them, are no second window.
    longer = np.concatenate([first, second[:500]])
    np.testing.assert_allclose(ear.embed_audio([longer])[0], parts[0], atol=1e-5)


def test_clap_must_have_all_weights(clap_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        Clap(MetricContext(paths={"clap": tmp_path}))


def test_against_torchvggish() -> None:
    """Equal patches, where the package is installed (``pip install --no-deps torchvggish``)."""
    features = pytest.importorskip("torchvggish.mel_features")
    wave = sound(2.0)
    expected = features.log_mel_spectrogram(
        wave.astype(np.float64),
        audio_sample_rate=16_000,
        log_offset=0.01,
        window_length_secs=0.025,
        hop_length_secs=0.010,
        num_mel_bins=64,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )
    found = patches(torch.from_numpy(wave), vggish.mel_filters())
    np.testing.assert_allclose(found.reshape(-1, 64), expected[:192], atol=1e-4)


def test_lengths_are_those_of_the_nets(tmp_path: Path) -> None:
    ear = Cnn14Tagger(MetricContext(paths={"cnn14": write_cnn14(tmp_path)}))
    assert np.isfinite(ear.tag([sound(1)[: cnn14.LEAST_SAMPLES]])[0]).all()
    short = VggishEmbedder(MetricContext(paths={"vggish": write_vggish(tmp_path)}))
    assert short.embed(sound(1)[: vggish.LEAST_SAMPLES]).shape == (1, 4)
