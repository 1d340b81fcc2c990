"""Time and error of the vocoder: diffusers' forward pass, the fused one, and bfloat16.

python benchmarks/vocoder.py [--codec mmaudio-16k] [--seconds 10] [--repetitions 3]

The weights are random, of true size, and the mels are those of the packaged recordings, repeated to
length. Alternating in one process on one thread, the processor's time. Errors are those against
diffusers' forward pass in float64: the largest relative to the largest, the signal-to-noise ratio,
and the log spectral distance. A Markdown table.
"""

import copy
import time
from collections.abc import Callable
from statistics import median

import cyclopts
import torch
from machine import describe
from torch import Tensor
from true_size import random_model

from unison_audio import audio
from unison_audio.codecs.bigvgan import vocode
from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.demo.examples import packaged_inputs


def vocoder_of_true_size(name: str) -> MMAudioCodec:
    """Random weights of unit gain, the true filters, and frequencies and magnitudes around 1."""
    from diffusers.models.autoencoders.mmaudio_vocoder import MMAudioActivation1d

    codec = random_model(lambda: MMAudioCodec(CONFIGS[name]))
    filters = MMAudioActivation1d(1).state_dict()
    generator = torch.Generator().manual_seed(1)
    for module in codec.vocoder.modules():
        if isinstance(module, MMAudioActivation1d):
            module.upsample.filter.copy_(filters["upsample.filter"])
            module.downsample.lowpass.filter.copy_(filters["downsample.lowpass.filter"])
            module.act.alpha.normal_(std=0.3, generator=generator)
            module.act.beta.normal_(std=0.3, generator=generator)
    return codec


def real_mel(codec: MMAudioCodec, seconds: float) -> Tensor:
    """Log mels of the packaged recordings, one after the other, normalized as the VAE does."""
    folder = packaged_inputs()
    waves = [
        audio.load(path, sample_rate=codec.sample_rate).flatten()
        for path in sorted(folder.glob("*.flac"))
    ]
    wave = torch.cat(waves)
    wave = wave.repeat(1 + int(seconds * codec.sample_rate) // len(wave))
    return codec.mel(wave[None, : round(seconds * codec.sample_rate)])


def log_spectral_distance(found: Tensor, exact: Tensor) -> float:
    """In dB, over 1024-sample frames; bins 100 dB below the peak count as equal."""
    powers = []
    for wave in (found, exact):
        spectrum = torch.stft(
            wave.float(), 1024, 256, window=torch.hann_window(1024), return_complex=True
        )
        powers.append(spectrum.abs().square())
    floor = powers[1].max() * 1e-10
    first, second = (10 * (power + floor).log10() for power in powers)
    return float((first - second).square().mean(dim=-2).sqrt().mean())


@torch.inference_mode()
def main(codec: str = "mmaudio-16k", seconds: float = 10.0, repetitions: int = 3) -> None:
    """Print the table.

    Args:
        codec: One of MMAudio's.
        seconds: Length of the sound.
        repetitions: How often each is timed.
    """
    torch.set_num_threads(1)
    model = vocoder_of_true_size(codec)
    vocoder, mel = model.vocoder, real_mel(model, seconds)
    ways: dict[str, Callable[[], Tensor]] = {
        "diffusers' forward pass": lambda: vocoder(mel, return_dict=False)[0][:, 0],
        "fused, float32": lambda: vocode(vocoder, mel),
        "fused, convolutions in bfloat16": lambda: vocode(vocoder, mel, torch.bfloat16),
    }
    found = {name: call() for name, call in ways.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, call in ways.items():
            start = time.thread_time()
            call()
            taken[name].append(time.thread_time() - start)
    exact = copy.deepcopy(vocoder).double()(mel.double(), return_dict=False)[0][0, 0]
    print(f"{describe()}\n\n{codec}, {seconds:g} s, medians of {repetitions} by turns\n")
    print("| vocoder | seconds | of diffusers' | largest error | SNR, dB | LSD, dB |")
    print("|---|---|---|---|---|---|")
    base = median(taken["diffusers' forward pass"])
    for name, (wave,) in found.items():
        error = wave.double() - exact
        snr = 10 * (exact.square().sum() / error.square().sum()).log10()
        own = median(taken[name])
        print(
            f"| {name} | {own:.2f} | {own / base:.3f} | {error.abs().max() / exact.abs().max():.1e}"
            f" | {snr:.1f} | {log_spectral_distance(wave, exact):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    cyclopts.run(main)
