"""The nano codec: a small VAE between waveforms and 32 channels at 15.625 frames a second.

A ConvNeXt encoder reads a log-mel spectrogram and reduces its frame rate 4-fold. A ConvNeXt decoder
predicts magnitudes and phases, which an inverse STFT turns into the waveform (as in Vocos, Siuzdak
2024).
"""

import math
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.errors import InputError
from unison_audio.spectrogram import framed_magnitude, mel_filters
from unison_audio.values import as_whole, shown

MOST_SIZE = 1 << 20
"""Largest size in a config, far above any codec's."""


@dataclass(frozen=True, kw_only=True)
class NanoCodecConfig:
    """Sizes of the nano codec."""

    sample_rate: int = 16_000
    """Sample rate of the waveforms in Hz."""
    latent_channels: int = 32
    """Channels C of a latent frame."""
    n_fft: int = 1024
    """STFT size of the mel front end and of the inverse-STFT head."""
    hop: int = 256
    """Samples between two STFT frames."""
    mels: int = 80
    """Mel bands that the encoder reads."""
    widths: tuple[int, int, int] = (128, 224, 288)
    """Encoder widths at 62.5, 31.25 and 15.625 frames a second."""
    encoder_blocks: tuple[int, int, int] = (1, 2, 2)
    """ConvNeXt blocks of the encoder at each of these rates."""
    decoder_widths: tuple[int, int, int] = (224, 256, 320)
    """Decoder widths at the same rates."""
    decoder_blocks: tuple[int, int, int] = (4, 2, 2)
    """ConvNeXt blocks of the decoder at each of these rates."""

    def __post_init__(self) -> None:
        """Validate the sizes, which a damaged file may have made endless.

        Raises:
            InputError: If one is no whole number in its range.
        """
        for field in fields(self):
            given = getattr(self, field.name)
            stages = isinstance(getattr(NanoCodecConfig, field.name), tuple)
            values = given if isinstance(given, tuple) else (given,)
            whole = all(as_whole(v) is not None and 1 <= v <= MOST_SIZE for v in values)
            if (
                not whole
                or isinstance(given, tuple) != stages
                or len(values) != (3 if stages else 1)
            ):
                what = "three whole numbers" if stages else "a whole number"
                raise InputError(
                    f"{field.name} is {shown(given)}; it must be {what} from 1 to {MOST_SIZE:,}."
                )

    @property
    def frame_hop(self) -> int:
        """Samples of a latent frame."""
        return 4 * self.hop


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm and a pointwise MLP around a residual path."""

    def __init__(self, width: int, expansion: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, expansion * width)
        self.fc2 = nn.Linear(expansion * width, width)
        # LayerScale: a block begins as a quarter of its branch. ConvNeXt's 1e-6 serves networks of
        # tens of blocks; here at most four stand in a row.
        self.scale = nn.Parameter(torch.full((width,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width, T) to (B, width, T)."""
        y = self.norm(self.depthwise(x).transpose(1, 2))  # (B, T, width)
        y = self.fc2(F.gelu(self.fc1(y))) * self.scale
        return x + y.transpose(1, 2)


def _stage(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNeXtBlock(width) for _ in range(blocks)))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, width, T)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width, T) to (B, width, T)."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Upsample(nn.Module):
    """Doubles the frame rate: a linear layer maps each frame to two.

    No outputs overlap, so no checkerboard pattern arises (Odena et al. 2016). In a waveform such a
    pattern is a constant tone.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(width_in, 2 * width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width_in, T) to (B, width_out, 2T)."""
        batch, _, frames = x.shape
        y = self.proj(x).view(batch, 2, -1, frames)  # (B, 2, width_out, T)
        return y.permute(0, 2, 3, 1).reshape(batch, -1, 2 * frames)  # (B, width_out, 2T)


class MelEncoder(nn.Module):
    """Maps a waveform to the posterior's mean and log-variance."""

    mel_basis: Tensor
    window: Tensor

    def __init__(self, config: NanoCodecConfig) -> None:
        super().__init__()
        self.config = config
        basis = mel_filters(config.sample_rate, config.n_fft, config.mels)
        # Derived from the config, so neither buffer belongs into a checkpoint.
        self.register_buffer("mel_basis", basis, persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        fast, middle, slow = config.widths
        self.net = nn.Sequential(
            nn.Conv1d(config.mels, fast, 5, padding=2),
            ChannelNorm(fast),
            _stage(fast, config.encoder_blocks[0]),
            nn.Conv1d(fast, middle, 2, stride=2),
            _stage(middle, config.encoder_blocks[1]),
            nn.Conv1d(middle, slow, 2, stride=2),
            _stage(slow, config.encoder_blocks[2]),
            ChannelNorm(slow),
            nn.Conv1d(slow, 2 * config.latent_channels, 3, padding=1),
        )

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Maps (B, samples) to (B, mels, samples / hop), scaled to about unit range."""
        magnitude = framed_magnitude(waveform, self.window, self.config.hop)
        # In bfloat16 each band would be rounded by up to 0.4 %, and latents would depend on
        # autocast.
        with torch.autocast(waveform.device.type, enabled=False):
            mel = torch.matmul(self.mel_basis, magnitude)  # (B, mels, samples / hop)
        # Eight clips at RMS 0.1 have logarithms with means of -2.4 to 0.6 and deviations of 1.1 to
        # 2.7; these constants bring them near unit range. Trained weights depend on them.
        return (mel.clamp(min=1e-4).log() + 2.0) / 3.0

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, samples) to mean and log-variance, (B, C, T') each."""
        mean, log_variance = self.net(self.log_mel(waveform)).chunk(2, dim=1)
        dtype = self.mel_basis.dtype  # that of the weights, also inside autocast
        # The KL term takes the exponential of the log-variance; unbounded, one bad batch overflows.
        return mean.to(dtype), log_variance.to(dtype).clamp(-12.0, 4.0)


class WaveformDecoder(nn.Module):
    """Maps a latent to a waveform through an inverse STFT."""

    window: Tensor

    def __init__(self, config: NanoCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        fast, middle, slow = config.decoder_widths
        self.net = nn.Sequential(
            nn.Conv1d(config.latent_channels, slow, 3, padding=1),
            ChannelNorm(slow),
            _stage(slow, config.decoder_blocks[2]),
            Upsample(slow, middle),
            _stage(middle, config.decoder_blocks[1]),
            Upsample(middle, fast),
            _stage(fast, config.decoder_blocks[0]),
            ChannelNorm(fast),
        )
        # n_fft / 2 + 1 log-magnitudes and as many phases: the bins of one real frame.
        self.head = nn.Linear(fast, config.n_fft + 2)

    def forward(self, latent: Tensor) -> Tensor:
        """Maps (B, C, T') to (B, samples)."""
        hidden = self.net(latent).transpose(1, 2)  # (B, frames, fast)
        # A phase is used modulo 2 pi. On a phase of two turns bfloat16 has steps of 3.6 degrees,
        # which would add noise.
        with torch.autocast(latent.device.type, enabled=False):
            hidden = hidden.to(self.head.weight.dtype)
            log_magnitude, phase = self.head(hidden).chunk(2, dim=-1)  # (B, frames, bins) each
        # exp(6) = 403 exceeds the bin of a full-scale sine, n_fft / 4 = 256 under a Hann window.
        # The limit keeps an untrained head from overflowing.
        magnitude = log_magnitude.clamp(max=6.0).exp()
        return self.inverse_stft(torch.polar(magnitude, phase))

    def inverse_stft(self, spectrum: Tensor) -> Tensor:
        """Inverts `framed_magnitude`'s framing: (B, frames, bins) to (B, frames * hop) samples.

        `torch.istft` refuses frames that are not centered, hence the overlap-add by hand.
        """
        n_fft, hop = self.config.n_fft, self.config.hop
        frames = torch.fft.irfft(spectrum, n_fft) * self.window  # (B, frames, n_fft)
        count = frames.shape[1]
        length = (count - 1) * hop + n_fft
        summed = _overlap_add(frames.transpose(1, 2), length, hop)
        # Analysis and synthesis each apply the window, so the sum of its squares is divided out.
        squares = self.window.square()[None, :, None].expand(1, n_fft, count)
        weight = _overlap_add(squares, length, hop)
        trim = (n_fft - hop) // 2  # what the encoder's framing padded
        return (summed / weight.clamp(min=1e-3))[:, trim : length - trim]


def _overlap_add(frames: Tensor, length: int, hop: int) -> Tensor:
    """Adds overlapping frames: (B, n_fft, frames) to (B, length)."""
    return F.fold(frames, (1, length), (1, frames.shape[1]), stride=(1, hop))[:, 0, 0]


class NanoCodec(nn.Module):
    """Encoder, decoder and the statistics that normalize latents to mean 0 and deviation 1."""

    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(self, config: NanoCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = MelEncoder(config)
        self.decoder = WaveformDecoder(config)
        # Flow matching mixes latents with unit noise, so each channel must have about unit scale.
        # The statistics are measured once after the codec's training and stored with its weights.
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels, 1))
        self.register_buffer("latent_scale", torch.ones(config.latent_channels, 1))

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

    def frames(self, seconds: float) -> int:
        """Return the latent frames T' of a duration in seconds, rounded up."""
        return max(1, math.ceil(round(seconds * self.sample_rate) / self.hop))

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        """Encodes waveforms to the posterior mean, normalized per channel.

        Args:
            waveform: (B, samples). A remainder below one latent frame is padded with silence.

        Returns:
            (B, C, T').
        """
        samples = max(waveform.shape[-1], self.hop)
        samples = math.ceil(samples / self.hop) * self.hop
        padded = F.pad(waveform, (0, samples - waveform.shape[-1]))
        mean, _ = self.encoder(padded)  # (B, C, T'); sampling the posterior would only add noise
        return (mean - self.latent_mean) / self.latent_scale

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Decodes normalized latents (B, C, T') to waveforms (B, T' * hop)."""
        return self.decoder(latent * self.latent_scale + self.latent_mean)
