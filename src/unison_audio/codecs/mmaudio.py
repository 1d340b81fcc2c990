"""MMAudio's codec: a VAE over log-mel spectrograms and a BigVGAN vocoder, both from diffusers.

Every layer sees only so far, but the one attention in the middle of the encoder and of the
decoder. So long sound goes through in pieces that overlap by what their layers see, and the
attention alone runs over all frames: the result is that of one piece.

| codec | VAE, of these the encoder | vocoder | fp32 |
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

from unison_audio.spectrogram import framed_magnitude

LATENT_SCALE = 0.5
"""What UNISON multiplies the posterior mean with."""

# How far, in latent frames to each side, the parts around the attentions see. A residual block
# sees 2 of its frames, any other convolution 1; level 0 works on mel frames, two a latent frame.
ENCODER_HEAD_REACH = 14  # 1.5 of the STFT, 1 + 2 * 2 mel frames; then 5 blocks

ENCODER_TAIL_REACH = 3  # a block and the last convolution

DECODER_HEAD_REACH = 3  # the first convolution and a block

DECODER_TAIL_REACH = 18  # 7 blocks; then 1 + 3 * 2 + 1 mel frames


@dataclass(frozen=True, kw_only=True)
class MMAudioConfig:
    """Shape of an MMAudio codec."""

    sample_rate: int
    """Of the waveforms, in Hz."""
    n_fft: int
    """STFT size of the mel front end, and its window's."""
    mel_hop: int
    """Samples in a mel frame; the product of the vocoder's rates."""
    mels: int
    """Mel bands, Slaney's, from 0 Hz to half the sample rate."""
    log_base: float
    """Base of the mel's logarithm."""
    latent_channels: int
    """Channels C of a latent frame."""
    width: int
    """Of the VAE's first level; the others have 2 and 4 times as much."""
    vocoder_width: int = 1536
    """Of the vocoder's first layer; every stage halves it."""
    vocoder_rates: tuple[int, ...]
    """Upsampling of each stage of the vocoder."""
    vocoder_kernels: tuple[int, ...]
    """Kernel of each of these upsamplings."""
    vocoder_tanh: bool
    """True: the vocoder ends in a biased convolution and tanh; else in an unbiased one, clamped."""
    chunk_frames: int = 512
    """Latent frames that go through at once; more goes in pieces."""

    @property
    def frame_hop(self) -> int:
        """Samples in a latent frame: the VAE halves the frame rate once."""
        return 2 * self.mel_hop

    @property
    def vocoder_reach(self) -> int:
        """Mel frames, to each side, that a sample of the vocoder's output depends on.

        An upsampling of rate r, kernel k and padding p sees k - 1 - p samples of its output. Of the
        residual blocks after it the widest has kernels of 11 samples, dilated by 1, 3 and 5 and
        each followed by one that is not, and before every convolution an anti-aliased activation,
        which sees 5 samples.
        """
        block = sum(5 * dilation + 5 + 2 * 5 for dilation in (1, 3, 5))
        reach, rate = 3.0, 1  # the first convolution
        for up, kernel in zip(self.vocoder_rates, self.vocoder_kernels, strict=True):
            rate *= up
            reach += (kernel - 1 - (kernel - up) // 2 + block) / rate
        return math.ceil(reach + (5 + 3) / rate)  # the last activation and convolution


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
"""MMAudio's two codecs by name."""


class MelSpectrogram:
    """Waveform to log-mel spectrogram, always in fp32.

    Not a module: its tables must not turn into half precision with the weights.
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
        """Maps (B, samples) to (B, mels, samples // mel_hop); samples beyond +-1 are clamped."""
        self.filters, self.window = (x.to(waveform.device) for x in (self.filters, self.window))
        clamped = waveform.float().clamp(-1.0, 1.0)
        magnitude = framed_magnitude(clamped, self.window, self.config.mel_hop)
        mel = torch.matmul(self.filters, magnitude).clamp(min=1e-5).log()
        return mel / math.log(self.config.log_base)


class TanhConv1d(nn.Conv1d):
    """The last layer of a vocoder that ends in tanh; the clamp after it then does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, samples) to (B, 1, samples)."""
        return torch.tanh(super().forward(x))


class QueryChunks:
    """Attention processor that takes some queries at a time, so that no T' x T' table arises."""

    def __init__(self, chunk: int) -> None:
        self.chunk = chunk

    def __call__(self, attention: MMAudioAttnBlock1D, x: Tensor) -> Tensor:
        """Maps (B, width, T') to (B, width, T')."""
        q, k, v = normalize(attention.qkv(x).unflatten(1, (-1, 3)), dim=[1]).unbind(2)
        q, k, v = (part.transpose(1, 2)[:, None].contiguous() for part in (q, k, v))
        parts = [F.scaled_dot_product_attention(some, k, v) for some in q.split(self.chunk, dim=2)]
        return attention.proj_out(torch.cat(parts, dim=2)[:, 0].transpose(1, 2))


class MMAudioCodec(nn.Module):
    """Waveform to half the posterior mean of MMAudio's VAE, and back through its vocoder.

    Args:
        config: Its shape.
    """

    def __init__(self, config: MMAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(config)
        # Without the VAE's own front end, which knows no log10.
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
        """Of the waveforms, in Hz."""
        return self.config.sample_rate

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.config.latent_channels

    @property
    def hop(self) -> int:
        """Samples in a latent frame."""
        return self.config.frame_hop

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.vae.data_mean.dtype

    def frames(self, seconds: float) -> int:
        """Latent frames T' of a duration: the whole ones it holds, and at least 1.

        A remainder below a frame, at most 32 ms at 16 kHz and 23 ms at 44.1 kHz, has none: 10 s
        are 312 frames at 16 kHz and 430 at 44.1 kHz, 22 s are 687 and 947.
        """
        return max(1, round(seconds * self.sample_rate) // self.hop)

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes to half the posterior mean.

        Args:
            waveform: (B, samples), on the codec's device; beyond +-1 it is clamped. As `frames`
                says, a remainder below a frame gets no frame of its own; what is to be kept must be
                padded to whole frames. Less than one frame is padded to it with silence.

        Returns:
            (B, C, T') in fp32.
        """
        waveform = F.pad(waveform, (0, max(0, self.hop - waveform.shape[-1])))
        frames = waveform.shape[-1] // self.hop
        return torch.cat([self._encode(some, frames) for some in self._split(waveform, frames)])

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Decodes latents (B, C, T'), on the codec's device, to fp32 waveforms (B, T' * hop)."""
        return torch.cat([self._decode(some) for some in self._split(latent, latent.shape[-1])])

    def _split(self, x: Tensor, frames: int) -> tuple[Tensor, ...]:
        """As many items of a batch at once as stay below the frames of a piece."""
        return x.split(max(1, self.config.chunk_frames // frames))

    def _encode(self, waveform: Tensor, frames: int) -> Tensor:
        x = self._in_pieces(
            self._encoder_head, waveform, frames, step=self.hop, reach=ENCODER_HEAD_REACH
        )
        x = self.vae.encoder.mid.attn_1(x)
        moments = self._in_pieces(self._encoder_tail, x, frames, reach=ENCODER_TAIL_REACH)
        return moments[:, : self.channels].float() * LATENT_SCALE  # the rest are log-variances

    def _decode(self, latent: Tensor) -> Tensor:
        frames = latent.shape[-1]
        z = (latent / LATENT_SCALE).to(self.dtype)
        x = self._in_pieces(self._decoder_head, z, frames, reach=DECODER_HEAD_REACH)
        x = self.vae.decoder.mid.attn_1(x)
        mel = self._in_pieces(self._decoder_tail, x, frames, reach=DECODER_TAIL_REACH)
        reach = math.ceil(self.config.vocoder_reach / 2)
        return self._in_pieces(self._vocode, mel, frames, step=2, reach=reach).float()

    def _encoder_head(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> (B, 4 * width, T'), up to the attention."""
        encoder = self.vae.encoder
        mel = self.mel(waveform).to(self.dtype)  # (B, mels, 2T')
        x = encoder.conv_in((mel - self.vae.data_mean) / self.vae.data_std)
        for level in encoder.down:
            for block in level.block:
                x = _clipped(block(x))
            if hasattr(level, "downsample"):
                x = level.downsample(x)  # (B, width, T')
        return encoder.mid.block_1(x)

    def _encoder_tail(self, x: Tensor) -> Tensor:
        """(B, 4 * width, T') -> (B, 2C, T'), from the attention on."""
        encoder = self.vae.encoder
        x = _clipped(encoder.mid.block_2(x))
        return encoder.conv_out(mp_silu(x), gain=encoder.learnable_gain + 1)

    def _decoder_head(self, z: Tensor) -> Tensor:
        """(B, C, T') -> (B, 4 * width, T'), up to the attention."""
        return self.vae.decoder.mid.block_1(self.vae.decoder.conv_in(z))

    def _decoder_tail(self, x: Tensor) -> Tensor:
        """(B, 4 * width, T') -> (B, mels, 2T'), from the attention on."""
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
        """(B, mels, 2T') -> (B, samples)."""
        return self.vocoder(mel, return_dict=False)[0][:, 0]

    def _in_pieces(
        self,
        part: Callable[[Tensor], Tensor],
        x: Tensor,
        frames: int,
        *,
        step: int = 1,
        reach: int,
    ) -> Tensor:
        """Runs a part piece by piece, each with the frames around it that the part sees.

        Args:
            part: What to run.
            x: (B, ..., columns); columns after the last frame go with the last piece.
            frames: Latent frames T' of `x`.
            step: Columns of `x` in a frame.
            reach: Frames that the part sees to each side.

        Returns:
            What the part gives for all of `x`.
        """
        count = math.ceil(frames / self.config.chunk_frames)
        edges = [frames * piece // count for piece in range(count + 1)]
        pieces = []
        for start, end in itertools.pairwise(edges):
            left, right = max(0, start - reach), min(frames, end + reach)
            y = part(x[..., left * step : right * step if right < frames else None])
            scale = y.shape[-1] // (right - left)
            pieces.append(y[..., (start - left) * scale : (end - left) * scale])
        return torch.cat(pieces, dim=-1)


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(-ACTIVATION_CLIP, ACTIVATION_CLIP)
