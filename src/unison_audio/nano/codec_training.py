"""Training the nano codec: encoder and decoder together, then the decoder alone.

The encoder is frozen from step `encoder_until` on. The latents are then final, so a backbone can
be trained on them while the decoder still improves. `train_codec` can also improve the decoder of
a codec that is already in use.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import save
from unison_audio.codecs.nano import NanoCodec, NanoCodecConfig
from unison_audio.codecs.table import save_nano_codec
from unison_audio.data.records import Clip
from unison_audio.device import preferred_dtype
from unison_audio.errors import InputError
from unison_audio.nano.codec_segments import SegmentBatch, SegmentStream
from unison_audio.nano.latent_alignment import align_latents
from unison_audio.spectrogram import mel_filters, stft
from unison_audio.training.checkpoints import Ema, learning_rate, step_generator
from unison_audio.training.loop import Row, train
from unison_audio.training.parallel import Parallel
from unison_audio.training.recipes import Schedule

RESOLUTIONS = ((2048, 96), (1024, 80), (512, 64), (256, 32))
"""STFT sizes and mel bands of the reconstruction loss."""

LEAST_SCALE = 0.6
"""Smallest latent scale, relative to the largest channel's deviation."""


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(Schedule):
    """How the nano codec is trained."""

    model: NanoCodecConfig = field(default_factory=NanoCodecConfig)
    """Shape of the codec."""
    steps: int = 16_000
    """Training steps."""
    encoder_until: int = 12_500
    """Step from which the encoder is frozen and the decoder alone is trained."""
    batch: int = 16
    """Segments in a batch."""
    segment_frames: int = 16
    """Latent frames in a segment."""
    peak_lr: float = 1.5e-3
    """Peak learning rate while both are trained."""
    decoder_lr: float = 6e-4
    """Peak learning rate while the decoder alone is trained."""
    warmup: int = 100
    """Warm-up steps of each stage."""
    kl_weight: float = 3e-4
    """Weight of the KL divergence per latent value. A larger weight makes latents smoother and
    words less clear: 0.03 and 0.002 left 0.9 and 2.4 nats a value, this one 5."""
    anchor_weight: float = 0.5
    """Weight of the latents' squared distance from those of the codec that the run starts from."""
    ema: float = 0.995
    """Decay of the decoder's moving average while it alone is trained."""
    checkpoint_every: int = 100
    """Steps between two checkpoints."""
    sample_every: int = 100
    """Steps between two sets of samples and, with a frozen encoder, of weights on disk."""

    def lr(self, step: int) -> float:
        """Learning rate of a step: a warm-up and a cosine in each stage."""
        peak, first, end = self.peak_lr, 0, self.encoder_until
        if step >= self.encoder_until:
            peak, first, end = self.decoder_lr, self.encoder_until, self.steps
        return learning_rate(
            step - first, peak=peak, warmup=self.warmup, total=end - first, lowest=0.05
        )


class ReconstructionLoss(nn.Module):
    """Multi-resolution loss: log-mel L1, log-magnitude L1 and spectral convergence."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.resolutions = RESOLUTIONS
        for n_fft, mels in RESOLUTIONS:
            self.register_buffer(f"mel{n_fft}", mel_filters(sample_rate, n_fft, mels))
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft))

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compares waveforms (B, samples).

        Returns:
            The mel loss and the STFT loss.
        """
        mel_loss, stft_loss = output.new_zeros(()), output.new_zeros(())
        for n_fft, _ in self.resolutions:
            found, wanted = self._magnitude(output, n_fft), self._magnitude(target, n_fft)
            basis = self.get_buffer(f"mel{n_fft}")
            mel_loss = mel_loss + F.l1_loss(_log(basis @ found), _log(basis @ wanted))
            distance = torch.linalg.vector_norm(found - wanted, dim=(1, 2))
            norm = torch.linalg.vector_norm(wanted, dim=(1, 2)).clamp(min=1.0)
            stft_loss = (
                stft_loss + (distance / norm).mean() + 0.5 * F.l1_loss(_log(found), _log(wanted))
            )
        return mel_loss / len(self.resolutions), stft_loss / len(self.resolutions)

    def _magnitude(self, waveform: Tensor, n_fft: int) -> Tensor:
        window = self.get_buffer(f"window{n_fft}")
        spectrum = stft(waveform, n_fft, n_fft // 4, window=window)
        return (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()


def _log(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=1e-3).log()


class CodecTrainer:
    """The nano codec in training, with everything that a checkpoint holds.

    Args:
        recipe: How to train.
        clips: Training clips, speech and sounds.
        start: A codec to start from, near whose latents the codec's stay.
        weights: Folder of the averaged codec as soon as its encoder is frozen; None writes none.
        half: Whether matrix products are in bfloat16; None chooses it if the processor has
            instructions for it.
    """

    def __init__(
        self,
        recipe: CodecRecipe,
        clips: Sequence[Clip] = (),
        *,
        start: NanoCodec | None = None,
        weights: Path | None = None,
        half: bool | None = None,
    ) -> None:
        self.parallel, self.skipped = Parallel(cpu=True), Counter[str]()
        torch.manual_seed(recipe.seed)
        self.recipe, self.weights = recipe, weights
        samples = recipe.segment_frames * recipe.model.frame_hop
        self.stream = SegmentStream(clips, recipe.batch, samples, recipe.seed)
        self.half = preferred_dtype("cpu") == torch.bfloat16 if half is None else half
        self.codec = NanoCodec(recipe.model)
        self.loss = ReconstructionLoss(recipe.model.sample_rate)
        self.optimizer = torch.optim.AdamW(
            self.codec.parameters(), lr=recipe.peak_lr, betas=(0.9, 0.95), weight_decay=0.01
        )
        self.reference: NanoCodec | None = None
        if start is not None:
            self.codec.load_state_dict(start.state_dict())
            self.reference = NanoCodec(start.config)
            self.reference.load_state_dict(start.state_dict())
            self.reference.eval().requires_grad_(False)
        self.ema = Ema(self.codec.decoder, recipe.ema)
        self.shown = torch.zeros(0)
        """Segments of the last step, of which samples are written."""

    def state(self) -> dict[str, object]:
        """The state that a resumed run needs."""
        return {
            "codec": self.codec.state_dict(),
            "ema": self.ema.values,
            "optimizer": self.optimizer.state_dict(),
            "held": self.reference is not None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint; ignores the discriminators of older versions.

        Raises:
            InputError: If the run started from a codec and this one does not, or the reverse.
        """
        held = self.reference is not None
        if state.get("held", held) != held:
            raise InputError(
                f"The run began {'without' if held else 'with'} a codec to start from; resume it "
                "with the same --init, or choose a new run folder."
            )
        self.stream.first = state["step"]
        self.codec.load_state_dict(state["codec"])
        self.ema.values = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])

    def averaged(self) -> NanoCodec:
        """A copy of the codec with the averaged decoder."""
        codec = NanoCodec(self.recipe.model)
        codec.load_state_dict(self.codec.state_dict())
        self.ema.copy_to(codec.decoder)
        return codec.eval().requires_grad_(False)

    def step(self, step: int, batches: Sequence[SegmentBatch]) -> list[Row]:
        """Does one step, of both halves or of the decoder alone; returns its log row."""
        recipe = self.recipe
        (batch,) = batches
        self.shown = batch.waveforms
        joint = step < recipe.encoder_until
        figures = (self.joint_step if joint else self.decoder_step)(batch.waveforms, step)
        if step + 1 == min(recipe.encoder_until, recipe.steps):
            self.end_joint_training()
        task = "codec" if joint else "decoder"
        return [{**figures, "task": task, "items": len(batch.waveforms)}]

    def joint_step(self, target: Tensor, step: int) -> dict[str, float]:
        """Does one step of encoder and decoder.

        Args:
            target: Waveforms (B, samples).
            step: The training step.

        Returns:
            The losses for the log.
        """
        recipe, generator = self.recipe, step_generator(self.recipe.seed + 1, step)

        # 1. Encode, sample the posterior, decode.
        anchor = None
        with self._precision():
            mean, log_variance = self.codec.encoder(target)
            noise = torch.randn(mean.shape, generator=generator)
            output = self.codec.decoder(mean + noise * (0.5 * log_variance).exp())
            if self.reference is not None:
                with torch.no_grad():
                    anchor, _ = self.reference.encoder(target)

        # 2. Compare, outside autocast: spectra and logarithms need float32.
        mel, stft = self.loss(output, target)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = mel + 0.5 * stft + recipe.kl_weight * kl
        losses = {"mel": mel.item(), "stft": stft.item(), "kl": kl.item()}
        if anchor is not None:
            moved = ((mean - anchor) / self.codec.latent_scale).square().mean()
            loss = loss + recipe.anchor_weight * moved
            losses["moved"] = moved.item()

        # 3. Move the weights and their average. That has a short memory: the latents still move,
        #    and older decoders fit them worse.
        norm = self._update(loss, list(self.codec.parameters()), step)
        self.ema.update(self.codec.decoder, decay=0.98)
        return {"loss": loss.item(), "norm": norm, **losses}

    def decoder_step(self, target: Tensor, step: int) -> dict[str, float]:
        """Does one step of the decoder; the encoder is frozen.

        The latents carry noise of a random strength, up to the posterior's. A backbone's latents
        are not exact either, so the decoder must cope with both.

        Args:
            target: Waveforms (B, samples).
            step: The training step.

        Returns:
            The losses for the log.
        """
        generator = step_generator(self.recipe.seed + 1, step)

        # 1. Encode, add noise, decode.
        with self._precision():
            with torch.no_grad():
                mean, log_variance = self.codec.encoder(target)
            strength = torch.rand(len(mean), 1, 1, generator=generator)
            noise = strength * torch.randn(mean.shape, generator=generator)
            output = self.codec.decoder(mean + noise * (0.5 * log_variance).exp())

        # 2. Compare.
        mel, stft = self.loss(output, target)
        loss = mel + 0.5 * stft

        # 3. Move the decoder and its average.
        norm = self._update(loss, list(self.codec.decoder.parameters()), step)
        self.ema.update(self.codec.decoder)
        return {"loss": loss.item(), "norm": norm, "mel": mel.item(), "stft": stft.item()}

    def _update(self, loss: Tensor, trained: Sequence[nn.Parameter], step: int) -> float:
        """Moves the trained weights; returns the norm of their gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr(step)
        self.optimizer.zero_grad(set_to_none=True)
        # All other weights get no gradients at all, so AdamW leaves them alone: zeros would still
        # decay them.
        loss.backward(inputs=list(trained))
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        return float(norm)

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)

    @torch.no_grad()
    def measure_latents(self) -> None:
        """Sets the codec's mean and scale of each channel from fixed segments."""
        waveforms = self._probe()
        means = torch.cat([self.codec.encoder(part)[0] for part in waveforms.split(32)])
        deviation = means.std(dim=(0, 2))[:, None]
        # A channel whose mean hardly varies carries little but the posterior's noise. Scaled to
        # unit variance, it would take as much of the backbone's capacity as any other.
        least = LEAST_SCALE * float(deviation.max())
        self.codec.latent_scale.copy_(deviation.clamp(min=least))
        self.codec.latent_mean.copy_(means.mean(dim=(0, 2))[:, None])

    def end_joint_training(self) -> None:
        """Measures the latents, or aligns them with those of the anchor."""
        if self.reference is None:
            self.measure_latents()
            return
        # Alignment alters the decoder's first layer, so the average is put into the codec first and
        # begins anew from the aligned weights.
        self.ema.copy_to(self.codec.decoder)
        align_latents(self.codec, self.reference, self._probe())
        self.ema = Ema(self.codec.decoder, self.recipe.ema)

    def _probe(self) -> Tensor:
        """The segments on which latents are measured, (256, samples)."""
        return self.stream.draw(256, 40 * self.codec.hop, step_generator(self.recipe.seed + 2, 0))

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int) -> None:
        """Writes the first segments of a batch, each followed by its reconstruction.

        With a frozen encoder the weights are written too: a backbone can be trained on them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = self.shown[:4]
        mean, _ = self.codec.encoder(target)
        pairs = torch.stack([target, self.codec.decoder(mean)], dim=1).reshape(-1)
        peak = max(1.0, float(pairs.abs().max()))
        save(folder / f"{step:08d}.wav", pairs / peak, self.codec.sample_rate)
        if self.weights is not None and (
            step > self.recipe.encoder_until or step == self.recipe.steps
        ):
            save_nano_codec(self.weights, self.averaged())


def train_codec(
    clips: Sequence[Clip], folder: Path, recipe: CodecRecipe, start: NanoCodec | None = None
) -> NanoCodec:
    """Trains the nano codec, or resumes the run.

    Args:
        clips: Training clips, speech and sounds.
        folder: The run's folder: checkpoints, `log.jsonl`, samples and, as soon as the encoder is
            frozen, `weights`.
        recipe: How to train.
        start: A codec to start from. The latents stay near its own, so that a backbone needs
            little training for them. With `encoder_until` 0 they do not change at all, and only
            the decoder is trained.

    Returns:
        The codec with the averaged decoder.

    Raises:
        InputError: If the run started from a codec and is resumed without one, or the reverse.
        StoppedError: If it received SIGINT or SIGTERM, after it saved.
    """
    trainer = CodecTrainer(recipe, clips, start=start, weights=folder / "weights")
    train(trainer, folder)
    return trainer.averaged()
