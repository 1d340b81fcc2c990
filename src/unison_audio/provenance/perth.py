"""PerTh's watermark networks in torch, with the weights of the `resemble-perth` wheel.

The wheel's own classes need librosa and torchaudio, and are silently `None` where one of them is
missing. Both networks work on the log magnitudes of an STFT at 32 kHz, below 2 kHz.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unison_audio.errors import InputError
from unison_audio.provenance.perth_weights import perth_file

PERTH_RATE = 32_000
"""Samples per second inside the networks."""
HOP = 320
"""Samples between two frames."""

_N_FFT = 2048
_BINS = 128  # below 2 kHz: round(1025 * 2000 / 16000)
_HIDDEN = 256
_FLOOR_DB, _RANGE_DB = -180.0, 195.0
_ACTIVE = 0.05
"""Frames whose summed level is under this part of the loudest frame's carry no mark."""


class _Convolution(nn.Module):
    """A convolution in a module of its own, as the weights' names have it."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T) -> (B, outputs, T)."""
        return self.conv(x)


def _stack(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _Convolution(_BINS, _HIDDEN, 1),
        *(_Convolution(_HIDDEN, _HIDDEN, 7) for _ in range(5)),
        _Convolution(_HIDDEN, outputs, 1),
    )


def _run(stack: nn.Sequential, x: Tensor) -> Tensor:
    *hidden, last = stack
    for layer in hidden:
        x = F.leaky_relu(layer(x))
    return last(x)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = _stack(_BINS)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slow_layers = _stack(2)
        self.normal_layers = _stack(2)
        self.fast_layers = _stack(2)

    def by_stretch(self) -> tuple[tuple[nn.Sequential, float], ...]:
        """The branches, each with the other speed of the recording that it is for."""
        return (self.slow_layers, 1.25), (self.normal_layers, 1.0), (self.fast_layers, 0.75)


class PerthNet(nn.Module):
    """Sets and finds PerTh's watermark in spectra."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _Encoder()
        self.decoder = _Decoder()

    def mark(self, waveform: Tensor) -> Tensor:
        """Set the watermark: (B, samples) at `PERTH_RATE` -> the same shape."""
        spectrum = _stft(waveform)  # (B, F, T)
        level = _level(spectrum)
        change = _run(self.encoder.layers, level[:, :_BINS]) * _active(level)[:, None]
        # The phases stay, so that scaling the bins is all that there is to do.
        gain = 10.0 ** (change * _RANGE_DB / 20.0)
        low = spectrum[:, :_BINS] * gain
        return _istft(torch.cat([low, spectrum[:, _BINS:]], dim=1), waveform.shape[-1])

    def score(self, waveform: Tensor) -> Tensor:
        """Look for the watermark: (B, samples) at `PERTH_RATE` -> (B,), 0 to 1; NaN of silence."""
        level = _level(_stft(waveform))
        active = _active(level)[:, None]  # (B, 1, T)
        frames = level.shape[-1]
        marks, weights = [], []
        for layers, stretch in self.decoder.by_stretch():
            size = int(frames * stretch)
            x = level[:, :_BINS]
            if stretch != 1.0:
                x = F.interpolate(x, size=size, mode="linear", align_corners=True)
            mask = F.interpolate(active, size=size, mode="nearest")
            found = _run(layers, x)  # (B, 2, T)
            mean = (found * mask).sum(dim=2) / mask.sum(dim=2)  # (B, 2)
            weights.append(mean[:, 0])
            marks.append(mean[:, 1])
        weight = torch.stack(weights, dim=1).softmax(dim=1)
        return (torch.stack(marks, dim=1) * weight).sum(dim=1).clamp(0.0, 1.0)


def _window(waveform: Tensor) -> Tensor:
    return torch.hann_window(_N_FFT, device=waveform.device)


def _stft(waveform: Tensor) -> Tensor:
    return torch.stft(
        waveform, _N_FFT, HOP, window=_window(waveform), center=True, return_complex=True
    )


def _istft(spectrum: Tensor, samples: int) -> Tensor:
    window = _window(spectrum.real)
    return torch.istft(spectrum, _N_FFT, HOP, window=window, center=True, length=samples)


def _level(spectrum: Tensor) -> Tensor:
    """Log magnitudes, 0 at -180 dB and 1 at 15 dB: (B, F, T)."""
    decibels = 20.0 * spectrum.abs().clamp_min(10.0 ** (_FLOOR_DB / 20.0)).log10()
    return (decibels - _FLOOR_DB) / _RANGE_DB


def _active(level: Tensor) -> Tensor:
    """1 for frames loud enough to carry a mark, else 0: (B, F, T) -> (B, T)."""
    total = level.sum(dim=1)
    return (total > _ACTIVE * total.amax(dim=1, keepdim=True)).to(level.dtype)


@cache
def load_perth() -> PerthNet:
    """Load the networks with the installed wheel's weights; loaded once.

    Raises:
        InputError: If the wheel is not installed, or holds other weights.
    """
    path = perth_file()
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["model"]
        net = PerthNet()
        # The STFT windows of the wheel are stored beside its weights.
        net.load_state_dict({k: v for k, v in stored.items() if not k.startswith("ap.")})
    except Exception as error:  # unpickling fails in many ways
        raise InputError(
            f"The watermark's weights in {path} cannot be read; install them again with: "
            "pip install --no-deps --force-reinstall resemble-perth==1.0.1"
        ) from error
    return net.eval().requires_grad_(False)
