"""BigVGAN's forward pass on a processor, with its activations fused and channels last.

The weights stay in diffusers' `MMAudioVocoder`, which computes the same on other devices and is
the reference of the tests. Two thirds of an anti-aliased snake activation there are its two
filters, as depthwise convolutions of (B, C, L). oneDNN computes them ten times as fast on
(B, L, C), and the wide convolutions gain as well. The doubled rate exists for one chunk at a time.
`benchmarks/vocoder.py` measures both.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioActivation1d, MMAudioVocoder
from torch import Tensor, nn

FILTER_TAPS, UP_CONTEXT, HALO = 12, 3, 6
"""Taps of a filter, and the samples to each side that the first one and both together see."""

CHUNK = 1 << 17
"""Numbers of a chunk: a call of oneDNN costs 25 us, and doubled it still fits the last cache."""

TILE = 1 << 15
"""Numbers that the cosine runs over at a time, in the second cache with two more such tiles."""

NUMPY_THREADS = 3
"""Threads up to which numpy's cosine is the faster. torch's takes three to four times as long on an
AMD processor, where MKL leaves AVX-512 out, but it uses all threads."""


def is_fast(vocoder: MMAudioVocoder) -> bool:
    """Whether this file computes a vocoder: float32 on a processor."""
    weight = vocoder.conv_pre.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


@torch.no_grad()
def vocode(vocoder: MMAudioVocoder, mel: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Compute a waveform.

    Args:
        vocoder: Weights on the CPU, in float32 or float64.
        mel: Log-mel spectrogram in their type, (B, mels, frames).
        dtype: Type of the convolutions; activations and sums stay in that of the weights.

    Returns:
        Waveform in [-1, 1], (B, samples).
    """
    exact = vocoder.conv_pre.weight.dtype
    stages: Any = vocoder.ups  # diffusers' modules state no types of their parts
    blocks: Any = vocoder.resblocks
    x = mel[:, :, None].contiguous(memory_format=torch.channels_last)  # (B, mels, 1, frames)
    x = _convolve(x.to(dtype), vocoder.conv_pre)
    for stage, (up,) in enumerate(stages):
        x = _upsample(x.to(dtype), up).to(exact)
        first, total = stage * vocoder.num_kernels, torch.zeros_like(x)
        for block in blocks[first : first + vocoder.num_kernels]:
            y = x
            layers = zip(block.convs1, block.convs2, strict=True)
            for k, (wide, narrow) in enumerate(layers):
                z = _convolve(activate(y, block.activations[2 * k], dtype), wide)
                z = _convolve(activate(z, block.activations[2 * k + 1], dtype), narrow)
                y = z.add_(y) if z.dtype == y.dtype else y + z
            total += y
        x = total.div_(vocoder.num_kernels)
    # The last layer has one output channel and, in one codec, a tanh of its own.
    last = activate(x, vocoder.activation_post, exact)[:, :, 0]  # (B, C, samples)
    return vocoder.conv_post(last)[:, 0].clamp_(-1.0, 1.0)


def activate(x: Tensor, layer: MMAudioActivation1d, dtype: torch.dtype) -> Tensor:
    """Upsample by 2, apply the snake, and downsample, one chunk at a time.

    Args:
        x: (B, C, 1, L), channels last.
        layer: The activation's weights.
        dtype: Type of the result; the computation has that of the layer's weights.

    Returns:
        (B, C, 1, L), channels last.
    """
    channels, length = x.shape[1], x.shape[3]
    snake = _Snake(layer, channels)
    out = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    step = max(1, CHUNK // channels)
    for rows, target in zip(_as_rows(x), _as_rows(out), strict=True):
        for start in range(0, length, step):
            end = min(length, start + step)
            chunk = _with_halo(rows, start, end).to(snake.up.dtype)
            # Samples 2 (start - 3) to 2 (end + 3) of the doubled rate.
            wide = F.conv_transpose2d(
                _as_image(chunk),
                snake.up,
                stride=(1, 2),
                padding=(0, FILTER_TAPS - 1),
                groups=channels,
            )
            doubled = _as_rows(wide)[0]
            snake(doubled)
            # The downsampling pads with the first and the last sample of the doubled rate.
            before, after = 2 * (UP_CONTEXT - start), 2 * (length - start + UP_CONTEXT)
            if before > 0:
                doubled[:before] = doubled[before]
            if after < len(doubled):
                doubled[after:] = doubled[after - 1]
            narrow = F.conv2d(
                _as_image(doubled[1:-1]), snake.down, snake.bias, stride=(1, 2), groups=channels
            )
            target[start:end] = _as_rows(narrow)[0]
    return out


class _Snake:
    """The snake `x + sin(a x)^2 / b` of each channel, part of which the filters around it compute.

    sin^2 = (1 - cos(2 a x)) / 2. With w = 2 a x it is `(w - (a / b) cos(w)) / 2a + 1 / 2b`.
    The upsampling filter gives w, and the downsampling divides by 2a and adds the constant, which
    passes a filter of unit gain unchanged. Two passes at the doubled rate are left of five.
    """

    def __init__(self, layer: MMAudioActivation1d, channels: int) -> None:
        filters: Any = layer.upsample.filter, layer.downsample.lowpass.filter
        up, down = (each[:, :, None].expand(channels, -1, -1, -1) for each in filters)
        twice = 2 * layer.act.alpha.exp()[:, None, None, None]  # (C, 1, 1, 1)
        inverse = 1.0 / (layer.act.beta.exp() + 1e-9)
        self.up = 2 * twice * up
        self.down = down / twice
        self.bias = inverse / 2 * down[0].sum()
        # Expanded, since a product with one number per channel runs along C numbers at a time.
        rows = max(1, TILE // channels)
        self.factor = (-twice.flatten() / 2 * inverse).expand(rows, -1).contiguous()
        self.cosine = torch.empty_like(self.factor)

    def __call__(self, w: Tensor) -> None:
        """Change w to `w - (a / b) cos(w)`, (length, C)."""
        for tile in w.split(len(self.cosine)):
            cosine = self.cosine[: len(tile)]
            if torch.get_num_threads() <= NUMPY_THREADS:
                np.cos(tile.numpy(), out=cosine.numpy())
            else:
                torch.cos(tile, out=cosine)
            tile.addcmul_(cosine, self.factor[: len(tile)])


def _convolve(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """Apply a convolution over time to (B, C, 1, L), in the type of x."""
    return F.conv2d(
        x,
        layer.weight.to(x.dtype)[:, :, None],
        None if layer.bias is None else layer.bias.to(x.dtype),
        padding=(0, *layer.padding),
        dilation=(1, *layer.dilation),
    )


def _upsample(x: Tensor, layer: nn.ConvTranspose1d) -> Tensor:
    """Apply a transposed convolution over time to (B, C, 1, L), in the type of x."""
    y = F.conv_transpose2d(
        x,
        layer.weight.to(x.dtype)[:, :, None],
        None if layer.bias is None else layer.bias.to(x.dtype),
        stride=(1, *layer.stride),
        padding=(0, *layer.padding),
    )
    return y.contiguous(memory_format=torch.channels_last)


def _with_halo(rows: Tensor, start: int, end: int) -> Tensor:
    """Rows start - HALO to end + HALO, with the first and the last row repeated beyond the ends."""
    first, last = start - HALO, end + HALO
    inner = rows[max(0, first) : last]
    if first >= 0 and last <= len(rows):
        return inner
    before = rows[:1].expand(max(0, -first), -1)
    after = rows[-1:].expand(max(0, last - len(rows)), -1)
    return torch.cat((before, inner, after))


def _as_rows(image: Tensor) -> Tensor:
    """View (B, C, 1, L) as (B, L, C)."""
    return image[:, :, 0].transpose(1, 2)


def _as_image(rows: Tensor) -> Tensor:
    """View (L, C) as (1, C, 1, L), with strides by which torch knows that channels come last."""
    length, channels = rows.shape
    shape, strides = (1, channels, 1, length), (length * channels, 1, length * channels, channels)
    return rows.as_strided(shape, strides)
