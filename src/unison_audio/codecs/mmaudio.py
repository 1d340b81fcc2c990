"""MMAudio's codec: a VAE over log-mel spectrograms and a BigVGAN vocoder, both from diffusers.

Long sound is processed in overlapping chunks, so that memory does not grow with length. Only one
layer has an unlimited receptive field: the attention in the middle of the encoder and of the
decoder. It runs over all frames. The other layers run chunk by chunk, each chunk with as much
context as they see, so the result is the same as without chunks.

| codec | VAE (encoder) | vocoder | fp32 |
|---|---|---|---|
| mmaudio-16k | 171.7 M, 72.5 M | 112.2 M | 1.14 GB |
| mmaudio-44k | 305.5 M, 129.1 M | 122.2 M | 1.71 GB |
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_mmaudio import (
    ACTIVATION_CLIP,
    MMAudioAttnBlock1D,
    MMAudioVAE,
    mp_silu,
    normalize,
)
from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioVocoder
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

from unison_audio.codecs.bigvgan import is_fast, vocode
from unison_audio.spectrogram import framed_magnitude

LATENT_SCALE = 0.5
"""Factor of the posterior mean in UNISON's latents; released weights depend on it. Decoding divides
by it."""

# Context in latent frames, to each side, that the layers around the attentions see. A residual
# block sees 2 of its frames, any other convolution 1. Level 0 has two mel frames per latent frame.
ENCODER_HEAD_CONTEXT = 14  # 1.5 of the STFT, 1 + 2 * 2 mel frames; then 5 blocks

ENCODER_TAIL_CONTEXT = 3  # a block and the last convolution

DECODER_HEAD_CONTEXT = 3  # the first convolution and a block

DECODER_TAIL_CONTEXT = 18  # 7 blocks; then 1 + 3 * 2 + 1 mel frames


@dataclass(frozen=True, kw_only=True)
class MMAudioConfig:
    """Sizes of an MMAudio codec."""

    sample_rate: int
    """Sample rate of the waveforms in Hz."""
    n_fft: int
    """Size of the mel front end's STFT and of its window."""
    mel_hop: int
    """Samples of a mel frame; the product of the vocoder's rates."""
    mels: int
    """Number of Slaney mel bands, from 0 Hz to half the sample rate."""
    log_base: float
    """Base of the mel's logarithm. The two VAEs were trained with different ones, 10 and e."""
    latent_channels: int
    """Channels C of a latent frame."""
    width: int
    """Width of the VAE's first level; the others have 2 and 4 times as much."""
    vocoder_width: int = 1536
    """Width of the vocoder's first layer; each stage halves it."""
    vocoder_rates: tuple[int, ...]
    """Upsampling factor of each stage of the vocoder."""
    vocoder_kernels: tuple[int, ...]
    """Kernel size of each of these upsamplings."""
    vocoder_tanh: bool
    """Whether the vocoder ends in a biased convolution and tanh, or an unbiased one and a clamp."""
    chunk_frames: int = 512
    """Largest number of latent frames in a chunk."""

    @property
    def frame_hop(self) -> int:
        """Samples of a latent frame: the VAE halves the frame rate once."""
        return 2 * self.mel_hop

    @property
    def vocoder_context(self) -> int:
        """Mel frames, to each side, that a sample of the vocoder's output depends on."""
        # An upsampling of rate r, kernel k and padding p sees k - 1 - p samples of its output. Of
        # the residual blocks after it the widest has three pairs of convolutions of 11 samples, the
        # first of each pair dilated. Before every convolution stands a snake activation, whose
        # harmonics would alias at this rate. BigVGAN computes it at twice the rate, between two
        # 12-tap filters (Lee et al. 2023). They see 5 samples more.
        block = sum(5 * dilation + 5 + 2 * 5 for dilation in (1, 3, 5))
        context, rate = 3.0, 1  # the first convolution
        for up, kernel in zip(self.vocoder_rates, self.vocoder_kernels, strict=True):
            rate *= up
            context += (kernel - 1 - (kernel - up) // 2 + block) / rate
        return math.ceil(context + (5 + 3) / rate)  # the last activation and convolution


CONFIGS = {
    "mmaudio-16k": MMAudioConfig(
        sample_rate=16_000,
        n_fft=1024,
        mel_hop=256,
        mels=80,
        log_base=10.0,
        latent_channels=20,
        width=384,
        vocoder_rates=(4, 4, 2, 2, 2, 2),
        vocoder_kernels=(8, 8, 4, 4, 4, 4),
        vocoder_tanh=True,
    ),
    "mmaudio-44k": MMAudioConfig(
        sample_rate=44_100,
        n_fft=2048,
        mel_hop=512,
        mels=128,
        log_base=math.e,
        latent_channels=40,
        width=512,
        vocoder_rates=(8, 4, 2, 2, 2, 2),
        vocoder_kernels=(16, 8, 4, 4, 4, 4),
        vocoder_tanh=False,
    ),
}
"""MMAudio's codecs by name."""


class MelSpectrogram:
    """Computes MMAudio's log-mel spectrogram, always in fp32.

    This is no `nn.Module`, since `codec.half()` must not convert its tables with the weights.
    """

    def __init__(self, config: MMAudioConfig) -> None:
        filters = mel_filter_bank(
            num_frequency_bins=config.n_fft // 2 + 1,
            num_mel_filters=config.mels,
            min_frequency=0.0,
            max_frequency=config.sample_rate / 2,
            sampling_rate=config.sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.config = config
        self.filters = torch.from_numpy(filters.T).float()  # (mels, bins)
        self.window = torch.hann_window(config.n_fft, device="cpu")

    def __call__(self, waveform: Tensor) -> Tensor:
        """Maps (B, samples) to (B, mels, samples // mel_hop); clamps samples beyond +-1."""
        self.filters, self.window = (x.to(waveform.device) for x in (self.filters, self.window))
        clamped = waveform.float().clamp(-1.0, 1.0)
        magnitude = framed_magnitude(clamped, self.window, self.config.mel_hop)
        mel = torch.matmul(self.filters, magnitude).clamp(min=1e-5).log()
        # diffusers' own front end has the natural logarithm only; the 16 kHz VAE expects log10.
        return mel / math.log(self.config.log_base)


class TanhConv1d(nn.Conv1d):
    """Last layer of a vocoder that ends in tanh.

    diffusers' vocoder always ends in a clamp to +-1, which does not alter the output of a tanh.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, samples) to (B, 1, samples)."""
        return torch.tanh(super().forward(x))


class QueryChunks:
    """Attention processor that works on some queries at a time.

    Memory then grows with T', not with its square, on backends without a fused attention too.
    """

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk

    def __call__(self, attention: MMAudioAttnBlock1D, x: Tensor) -> Tensor:
        """Maps (B, width, T') to (B, width, T')."""
        # Magnitude-preserving attention: unit-norm q, k and v, as in EDM2 (Karras et al. 2024).
        q, k, v = normalize(attention.qkv(x).unflatten(1, (-1, 3)), dim=[1]).unbind(2)
        # (B, 1, T', width): one head.
        q, k, v = (part.transpose(1, 2)[:, None].contiguous() for part in (q, k, v))
        rows = [F.scaled_dot_product_attention(some, k, v) for some in q.split(self.chunk, dim=2)]
        return attention.proj_out(torch.cat(rows, dim=2)[:, 0].transpose(1, 2))


class MMAudioCodec(nn.Module):
    """Maps waveforms to half the posterior mean of MMAudio's VAE, and back through its vocoder.

    Args:
        config: Sizes of the codec.
    """

    def __init__(self, config: MMAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config)
        self.vocoder_dtype = torch.float32
        """Type of the vocoder's convolutions on a CPU."""
        # The inner VAE only: its wrapper's front end has no log10.
        self.vae = MMAudioVAE(
            mel_bins=config.mels,
            latent_channels=config.latent_channels,
            hidden_channels=config.width,
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.mel_hop,
        ).vae
        self.vocoder = MMAudioVocoder(
            num_mels=config.mels,
            upsample_initial_channel=config.vocoder_width,
            upsample_rates=config.vocoder_rates,
            upsample_kernel_sizes=config.vocoder_kernels,
        )
        if config.vocoder_tanh:
            last = self.vocoder.conv_post
            self.vocoder.conv_post = TanhConv1d(last.in_channels, 1, 7, padding=3)
        for coder in (self.vae.encoder, self.vae.decoder):
            coder.mid.attn_1.set_processor(QueryChunks(config.chunk_frames))

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.config.latent_channels

    @property
    def hop(self) -> int:
        """Samples of a latent frame."""
        return self.config.frame_hop

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.vae.data_mean.dtype

    def frames(self, seconds: float) -> int:
        """Return the latent frames T' of a duration, rounded down, at least 1.

        10 s are 312 frames at 16 kHz and 430 at 44.1 kHz; 22 s are 687 and 947. The released
        weights were trained on 312 and 430. The remainder is below 32 or 23 ms.
        """
        return max(1, round(seconds * self.sample_rate) // self.hop)

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes waveforms to half the posterior mean.

        Args:
            waveform: (B, samples), on the codec's device, clamped to +-1. A remainder below a
                latent frame is dropped, so pad to whole frames what must be kept. Less than one
                frame is padded with silence.

        Returns:
            (B, C, T') in fp32.
        """
        waveform = F.pad(waveform, (0, max(0, self.hop - waveform.shape[-1])))
        frames = waveform.shape[-1] // self.hop
        # The mean, not a sample: noise of the posterior would only add to what the decoder cannot
        # reproduce.
        return torch.cat([self._encode(some, frames) for some in self._split(waveform, frames)])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, C, T'), on the codec's device, to fp32 waveforms (B, T' * hop)."""
        return torch.cat([self._decode(some) for some in self._split(latent, latent.shape[-1])])

    def _split(self, x: Tensor, frames: int) -> tuple[Tensor, ...]:
        """Split a batch so that each part has at most `chunk_frames` frames, or one item."""
        return x.split(max(1, self.config.chunk_frames // frames))

    def _encode(self, waveform: Tensor, frames: int) -> Tensor:
        x = self._in_chunks(
            self._encoder_head, waveform, frames, step=self.hop, context=ENCODER_HEAD_CONTEXT
        )
        x = self.vae.encoder.mid.attn_1(x)
        moments = self._in_chunks(self._encoder_tail, x, frames, context=ENCODER_TAIL_CONTEXT)
        return moments[:, : self.channels].float() * LATENT_SCALE  # the rest are log-variances

    def _decode(self, latent: Tensor) -> Tensor:
        frames = latent.shape[-1]
        z = (latent / LATENT_SCALE).to(self.dtype)
        x = self._in_chunks(self._decoder_head, z, frames, context=DECODER_HEAD_CONTEXT)
        x = self.vae.decoder.mid.attn_1(x)
        mel = self._in_chunks(self._decoder_tail, x, frames, context=DECODER_TAIL_CONTEXT)
        context = math.ceil(self.config.vocoder_context / 2)  # of latent frames
        return self._in_chunks(self._vocode, mel, frames, step=2, context=context).float()

    def _encoder_head(self, waveform: Tensor) -> Tensor:
        """Map (B, samples) to (B, 4 * width, T'): the layers before the attention."""
        encoder = self.vae.encoder
        mel = self.mel(waveform).to(self.dtype)  # (B, mels, 2T')
        # Mels are normalized per band by statistics that are stored with the weights.
        x = encoder.conv_in((mel - self.vae.data_mean) / self.vae.data_std)
        for level in encoder.down:
            for block in level.block:
                x = _clipped(block(x))
            if hasattr(level, "downsample"):
                x = level.downsample(x)  # (B, width, T')
        return encoder.mid.block_1(x)

    def _encoder_tail(self, x: Tensor) -> Tensor:
        """Map (B, 4 * width, T') to (B, 2C, T'): the layers after the attention."""
        encoder = self.vae.encoder
        x = _clipped(encoder.mid.block_2(x))
        return encoder.conv_out(mp_silu(x), gain=encoder.learnable_gain + 1)

    def _decoder_head(self, z: Tensor) -> Tensor:
        """Map (B, C, T') to (B, 4 * width, T'): the layers before the attention."""
        return self.vae.decoder.mid.block_1(self.vae.decoder.conv_in(z))

    def _decoder_tail(self, x: Tensor) -> Tensor:
        """Map (B, 4 * width, T') to (B, mels, 2T'): the layers after the attention."""
        decoder = self.vae.decoder
        x = _clipped(decoder.mid.block_2(x))
        for level in reversed(decoder.up):
            for block in level.block:
                x = _clipped(block(x))
            if hasattr(level, "upsample"):
                x = level.upsample(x)  # (B, 2 * width, 2T')
        mel = decoder.conv_out(mp_silu(x), gain=decoder.learnable_gain + 1)
        return mel * self.vae.data_std + self.vae.data_mean

    def _vocode(self, mel: Tensor) -> Tensor:
        """Map (B, mels, 2T') to (B, samples)."""
        if is_fast(self.vocoder):
            return vocode(self.vocoder, mel, self.vocoder_dtype)
        return self.vocoder(mel, return_dict=False)[0][:, 0]

    def _in_chunks(
        self,
        layers: Callable[[Tensor], Tensor],
        x: Tensor,
        frames: int,
        *,
        step: int = 1,
        context: int,
    ) -> Tensor:
        """Run layers chunk by chunk, each chunk with the surrounding frames that they see.

        Args:
            layers: The layers to run.
            x: (B, ..., columns); columns after the last frame belong to the last chunk.
            frames: Latent frames T' of `x`.
            step: Columns of `x` per latent frame.
            context: Frames that the layers see to each side.

        Returns:
            The layers' output for all of `x`.
        """
        # Chunks of nearly equal length: a short last one would waste work on its context.
        count = math.ceil(frames / self.config.chunk_frames)
        edges = [frames * chunk // count for chunk in range(count + 1)]
        chunks = []
        for start, end in itertools.pairwise(edges):
            left, right = max(0, start - context), min(frames, end + context)
            y = layers(x[..., left * step : right * step if right < frames else None])
            scale = y.shape[-1] // (right - left)  # output columns per latent frame
            chunks.append(y[..., (start - left) * scale : (end - left) * scale])
        return torch.cat(chunks, dim=-1)


def _clipped(x: Tensor) -> Tensor:
    """Clip activations as diffusers' VAE does around each block."""
    return x.clamp(-ACTIVATION_CLIP, ACTIVATION_CLIP)
