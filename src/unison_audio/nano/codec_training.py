"""Training the nano codec: encoder and decoder together, then the decoder alone.

From ``encoder_until`` on the encoder stands still. Latents do not change any more, so a backbone
can be trained on them while the decoder is still being polished; `train_codec` also polishes a
codec that is already in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import save
from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig
from unison_audio.codecs.table import save_nano_codec
from unison_audio.data.records import Clip
from unison_audio.device import preferred_dtype
from unison_audio.errors import InputError
from unison_audio.spectrogram import mel_filters, stft
from unison_audio.training.checkpoints import (
    Ema,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    step_generator,
)
from unison_audio.training.log import LossLog, Pace


@torch.no_grad()
def align_latents(codec: NanoCodec, reference: NanoCodec, waveforms: Tensor) -> None:
    """Changes a codec in place so that its latents are as near to another's as they can be.

    What it makes of a waveform stays as it is, up to rounding and, in a clip's first and last
    frame, to what a convolution sees beyond the edge.

    Args:
        codec: The codec that changes; it takes over the reference's latent statistics.
        reference: A codec with latents of as many channels.
        waveforms: What the map is fitted on, (B, samples), of more latent frames in all than
            there are channels.

    Raises:
        InputError: If the waveforms are too few or too alike to tell the map.
    """
    channels = codec.channels
    ours = _means(codec, reference, waveforms).double().transpose(1, 2).reshape(-1, channels)
    theirs = reference.encode(waveforms).double().transpose(1, 2).reshape(-1, channels)
    inputs = torch.cat((ours, torch.ones_like(ours[:, :1])), dim=1)
    solved = torch.linalg.lstsq(inputs, theirs, driver="gelsd")
    if int(solved.rank) <= channels or torch.linalg.cond(solved.solution[:channels]) > 1e6:
        raise InputError(
            f"Latents of {len(ours)} frames do not tell how the two codecs' {channels} channels "
            "belong together; give more waveforms, and of more kinds."
        )
    scale, centre = reference.latent_scale.double(), reference.latent_mean.double()
    # In the codec's own units: mean' = matrix mean + offset.
    matrix = scale * solved.solution[:channels].T / scale.T
    offset = scale * solved.solution[channels:].T + centre - matrix @ centre  # (C, 1)
    inverse = torch.linalg.inv(matrix)

    out_weight, out_bias = _parameters(codec.encoder.net[-1])
    weight, bias = out_weight.double(), out_bias.double()
    variance = torch.cat([codec.encoder(part)[1] for part in waveforms.split(32)]).double()
    variance = variance.exp().mean(dim=(0, 2))  # (C,)
    mixed = torch.einsum("ij,jck->ick", matrix, weight[:channels])
    out_weight.copy_(torch.cat((mixed, weight[channels:])))
    # The mixed noise of several channels is taken for noise of each by itself.
    spread = ((matrix.square() @ variance) / variance).log()
    out_bias.copy_(torch.cat((matrix @ bias[:channels] + offset[:, 0], bias[channels:] + spread)))

    in_weight, in_bias = _parameters(codec.decoder.net[0])
    weight = torch.einsum("ojk,jc->ock", in_weight.double(), inverse)
    in_bias.copy_(in_bias.double() - weight.sum(dim=2) @ offset[:, 0])
    in_weight.copy_(weight)
    codec.latent_mean.copy_(reference.latent_mean)
    codec.latent_scale.copy_(reference.latent_scale)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution."""
    return layer.get_parameter("weight"), layer.get_parameter("bias")


def _means(codec: NanoCodec, reference: NanoCodec, waveforms: Tensor) -> Tensor:
    """Latents of a codec in the scale of another, (B, C, T')."""
    means = torch.cat([codec.encoder(part)[0] for part in waveforms.split(32)])
    return (means - reference.latent_mean) / reference.latent_scale


RESOLUTIONS = ((2048, 96), (1024, 80), (512, 64), (256, 32))
"""STFT sizes and mel bands of the reconstruction loss."""

LEAST_SCALE = 0.6
"""Smallest latent scale, as a share of the largest channel's deviation."""


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How the nano codec is trained."""

    model: NanoCodecConfig = field(default_factory=NanoCodecConfig)
    """Shape of the codec."""
    steps: int = 16_000
    """Steps in all."""
    encoder_until: int = 12_500
    """Step from which the encoder stands still and the decoder alone is trained."""
    batch: int = 16
    """Segments in a batch."""
    segment_frames: int = 16
    """Latent frames in a segment."""
    peak_lr: float = 1.5e-3
    """Highest learning rate while both are trained."""
    decoder_lr: float = 6e-4
    """Highest learning rate while the decoder alone is."""
    warmup: int = 100
    """Warm-up steps of either stage."""
    kl_weight: float = 3e-4
    """Weight of the KL divergence per latent value. More makes latents smoother but words worse:
    0.03 and 0.002 left 0.9 and 2.4 nats a value, this one 5."""
    anchor_weight: float = 0.5
    """Weight of the latents' squared distance from those of the codec that a run begins with, if
    it begins with one."""
    ema: float = 0.995
    """Decay of the moving average of the decoder while it alone is trained."""
    seed: int = 0
    """Seed of everything that is drawn."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""


def draw_segments(
    speech: Sequence[Tensor],
    sounds: Sequence[Tensor],
    batch: int,
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Draws training segments: speech, sounds and mixtures at random levels and offsets.

    Args:
        speech: Waveforms (samples,).
        sounds: Waveforms (samples,).
        batch: Segments to draw.
        samples: Their length.
        generator: Source of randomness.

    Returns:
        (batch, samples), within +-1.
    """
    kinds = torch.rand(batch, generator=generator)
    levels = 10 ** ((torch.rand(batch, generator=generator) * 16 - 12) / 20)
    segments = torch.zeros(batch, samples)
    for i in range(batch):
        pools = [speech] if kinds[i] < 0.5 else [sounds] if kinds[i] < 0.8 else [speech, sounds]
        for pool in pools:
            clip = pool[int(torch.randint(len(pool), (1,), generator=generator))]
            _place(segments[i], clip, generator)
        segments[i] *= levels[i]
    return segments * (0.99 / segments.abs().amax(dim=1, keepdim=True).clamp(min=0.99))


def _place(segment: Tensor, clip: Tensor, generator: torch.Generator) -> None:
    """Adds a clip, or a part of it, to a segment in place, partly before or after its edges."""
    overlap = min(len(segment), len(clip)) // 2
    lowest, highest = overlap - len(clip), len(segment) - overlap
    start = int(torch.randint(lowest, highest + 1, (1,), generator=generator))
    begin, end = max(0, start), min(len(segment), start + len(clip))
    segment[begin:end] += clip[begin - start : end - start]


class ReconstructionLoss(nn.Module):
    """Multi-resolution loss: log-mel L1, log-magnitude L1 and spectral convergence."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.resolutions = RESOLUTIONS
        for n_fft, mels in RESOLUTIONS:
            self.register_buffer(f"mel{n_fft}", mel_filters(sample_rate, n_fft, mels))
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft))

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compares (B, samples) waveforms; gives the mel loss and the STFT loss."""
        mel_loss, stft_loss = output.new_zeros(()), output.new_zeros(())
        for n_fft, _ in self.resolutions:
            ours, theirs = self._magnitude(output, n_fft), self._magnitude(target, n_fft)
            basis = self.get_buffer(f"mel{n_fft}")
            mel_loss = mel_loss + F.l1_loss(_log(basis @ ours), _log(basis @ theirs))
            distance = torch.linalg.vector_norm(ours - theirs, dim=(1, 2))
            norm = torch.linalg.vector_norm(theirs, dim=(1, 2)).clamp(min=1.0)
            stft_loss = (
                stft_loss + (distance / norm).mean() + 0.5 * F.l1_loss(_log(ours), _log(theirs))
            )
        return mel_loss / len(self.resolutions), stft_loss / len(self.resolutions)

    def _magnitude(self, waveform: Tensor, n_fft: int) -> Tensor:
        window = self.get_buffer(f"window{n_fft}")
        spectrum = stft(waveform, n_fft, n_fft // 4, window=window)
        return (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()


def _log(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=1e-3).log()


class CodecTrainer:
    """The nano codec in training, with all that a checkpoint holds."""

    def __init__(self, recipe: CodecRecipe, *, half: bool | None = None) -> None:
        """Makes a fresh trainer.

        Args:
            recipe: How to train.
            half: Whether products are in bfloat16; None if the processor multiplies it well.
        """
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.half = preferred_dtype("cpu") == torch.bfloat16 if half is None else half
        self.codec = NanoCodec(recipe.model)
        self.loss = ReconstructionLoss(recipe.model.sample_rate)
        self.optimizer = torch.optim.AdamW(
            self.codec.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.ema = Ema(self.codec.decoder, recipe.ema)
        self.reference: NanoCodec | None = None

    def state(self) -> dict[str, object]:
        """Everything that a resumed run needs."""
        return {
            "codec": self.codec.state_dict(),
            "ema": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
            "held": self.reference is not None,
        }

    def load_state(self, state: dict) -> None:
        """Restores a checkpoint; ignores the discriminators that older versions stored."""
        self.codec.load_state_dict(state["codec"])
        self.ema.values = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])

    def adopt(self, codec: NanoCodec) -> None:
        """Begins with the weights and the latent statistics of a codec of the same shape."""
        self.codec.load_state_dict(codec.state_dict())
        self.ema = Ema(self.codec.decoder, self.recipe.ema)

    def hold_to(self, codec: NanoCodec) -> None:
        """Keeps the latents near those of a codec from now on."""
        self.reference = NanoCodec(codec.config)
        self.reference.load_state_dict(codec.state_dict())
        self.reference.eval().requires_grad_(False)

    def averaged(self) -> NanoCodec:
        """Gives a copy of the codec with the averaged decoder."""
        codec = NanoCodec(self.recipe.model)
        codec.load_state_dict(self.codec.state_dict())
        self.ema.copy_to(codec.decoder)
        return codec.eval().requires_grad_(False)

    def joint_step(self, target: Tensor, step: int) -> dict[str, float]:
        """One step of encoder and decoder on (B, samples)."""
        recipe = self.recipe
        self._set_rate(
            learning_rate(
                step,
                peak=recipe.peak_lr,
                warmup=recipe.warmup,
                total=recipe.encoder_until,
                floor=0.05,
            )
        )
        noise_source = step_generator(recipe.seed + 1, step)
        known = None
        with self._precision():
            mean, log_variance = self.codec.encoder(target)
            noise = torch.randn(mean.shape, generator=noise_source)
            output = self.codec.decoder(mean + noise * (0.5 * log_variance).exp())
            if self.reference is not None:
                with torch.no_grad():
                    known, _ = self.reference.encoder(target)
        mel, stft = self.loss(output, target)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = mel + 0.5 * stft + recipe.kl_weight * kl
        figures = {"mel": mel.item(), "stft": stft.item(), "kl": kl.item()}
        if known is not None:
            moved = ((mean - known) / self.codec.latent_scale).square().mean()
            loss = loss + recipe.anchor_weight * moved
            figures["moved"] = moved.item()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.codec.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.codec.decoder, decay=0.98)
        return figures

    def decoder_step(self, target: Tensor, step: int) -> dict[str, float]:
        """One step of the decoder on (B, samples), the encoder standing still.

        Latents carry up to the posterior's noise, more in some items than in others: a backbone's
        latents are not exact either.
        """
        recipe = self.recipe
        self._set_rate(
            learning_rate(
                step - recipe.encoder_until,
                peak=recipe.decoder_lr,
                warmup=recipe.warmup,
                total=recipe.steps - recipe.encoder_until,
                floor=0.05,
            )
        )
        generator = step_generator(recipe.seed + 1, step)
        with self._precision():
            with torch.no_grad():
                mean, log_variance = self.codec.encoder(target)
            strength = torch.rand(len(mean), 1, 1, generator=generator)
            noise = strength * torch.randn(mean.shape, generator=generator)
            output = self.codec.decoder(mean + noise * (0.5 * log_variance).exp())
        mel, stft = self.loss(output, target)
        loss = mel + 0.5 * stft
        figures = {"mel": mel.item(), "stft": stft.item()}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=list(self.codec.decoder.parameters()))
        nn.utils.clip_grad_norm_(self.codec.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.codec.decoder)
        return figures

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def measure_latents(self, speech: Sequence[Tensor], sounds: Sequence[Tensor]) -> None:
        """Sets the codec's per-channel mean and scale from freshly drawn segments."""
        waveforms = self._probe(speech, sounds)
        means = torch.cat([self.codec.encoder(part)[0] for part in waveforms.split(32)])
        deviation = means.std(dim=(0, 2))[:, None]
        # A channel whose mean hardly moves carries no information beside the posterior's noise;
        # at full size the backbone would spend its capacity on it.
        floor = LEAST_SCALE * float(deviation.max())
        self.codec.latent_scale.copy_(deviation.clamp(min=floor))
        self.codec.latent_mean.copy_(means.mean(dim=(0, 2))[:, None])

    def end_joint_training(self, speech: Sequence[Tensor], sounds: Sequence[Tensor]) -> None:
        """Measures the latents, or brings them back to those that they were held to."""
        if self.reference is None:
            self.measure_latents(speech, sounds)
            return
        self.ema.copy_to(self.codec.decoder)
        align_latents(self.codec, self.reference, self._probe(speech, sounds))
        self.ema = Ema(self.codec.decoder, self.recipe.ema)

    def _probe(self, speech: Sequence[Tensor], sounds: Sequence[Tensor]) -> Tensor:
        """Draws the segments on which latents are measured, (256, samples)."""
        generator = step_generator(self.recipe.seed + 2, 0)
        return draw_segments(speech, sounds, 256, 40 * self.codec.hop, generator)


def train_codec(
    clips: Sequence[Clip], folder: Path, recipe: CodecRecipe, start: NanoCodec | None = None
) -> NanoCodec:
    """Trains the nano codec, or goes on with a run that was cut off.

    Args:
        clips: Training clips, speech and sounds.
        folder: The run's folder: checkpoints, ``log.jsonl``, samples and, as soon as the encoder
            stands still, ``weights``.
        recipe: How to train.
        start: A codec to begin with. Latents stay near its own, so that a backbone that knows
            those soon knows them; with ``encoder_until`` 0 they stay what they are, and only the
            decoder is polished.

    Returns:
        The codec, its decoder averaged.

    Raises:
        InputError: If the run began with a codec and goes on without one, or the other way round.
    """
    torch.set_flush_denormal(True)
    speech = [clip.waveform for clip in clips if clip.record.kind == "speech"]
    sounds = [clip.waveform for clip in clips if clip.record.kind == "sound"]
    trainer = CodecTrainer(recipe)
    state = load_checkpoint(folder)
    first = 0
    if state is not None:
        if state.get("held", start is not None) != (start is not None):
            begun = "with a codec" if start is None else "without a codec"
            raise InputError(
                f"The run in {folder} began {begun} to start from; go on with the same --init, or "
                "in a new run folder."
            )
        trainer.load_state(state)
        first = state["step"]
    elif start is not None:
        trainer.adopt(start)
    if start is not None:
        trainer.hold_to(start)
    log, pace = LossLog(folder, first), Pace(first, recipe.steps)
    for step in range(first, recipe.steps):
        generator = step_generator(recipe.seed, step)
        samples = recipe.segment_frames * recipe.model.frame_hop
        target = draw_segments(speech, sounds, recipe.batch, samples, generator)
        if step < recipe.encoder_until:
            figures = trainer.joint_step(target, step)
        else:
            figures = trainer.decoder_step(target, step)
        log.write(step, **figures)
        done = step + 1
        if done == min(recipe.encoder_until, recipe.steps):
            trainer.end_joint_training(speech, sounds)
        if done % 10 == 0:
            print(pace.line(done, recipe.batch, **figures), flush=True)
        if done % recipe.checkpoint_every == 0 or done == recipe.steps:
            save_checkpoint(folder, done, trainer.state())
            write_samples(trainer, target, folder / "samples", done)
            if done > recipe.encoder_until or done == recipe.steps:
                save_nano_codec(folder / "weights", trainer.averaged())
    return trainer.averaged()


@torch.no_grad()
def write_samples(trainer: CodecTrainer, target: Tensor, folder: Path, step: int) -> None:
    """Writes the first segments of a batch and their reconstructions, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    mean, _ = trainer.codec.encoder(target[:4])
    output = trainer.codec.decoder(mean)
    pairs = torch.stack([target[:4], output], dim=1).reshape(-1)
    peak = max(1.0, float(pairs.abs().max()))
    save(folder / f"{step:08d}.wav", pairs / peak, trainer.codec.sample_rate)
