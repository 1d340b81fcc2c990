"""What the adversarial stage of the nano codec costs: process time a step, on one thread.

Run `python benchmarks/discriminators.py`. It prints, in seconds, a step of reconstruction, a step
of the decoder alone, one of decoder and discriminators, and what each discriminator takes for one
pass forward and back.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

from unison_audio.training.codec import CodecRecipe, CodecTrainer
from unison_audio.training.discriminators import BandDiscriminator


def seconds(run: Callable[[], object], repetitions: int = 4) -> float:
    """Mean process time of a call, after one that does not count."""
    run()
    began = time.process_time()
    for _ in range(repetitions):
        run()
    return (time.process_time() - began) / repetitions


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recipe = CodecRecipe()
    trainer = CodecTrainer(recipe)
    samples = recipe.segment_frames * recipe.model.frame_hop
    target = 0.1 * torch.randn(recipe.batch, samples)

    def decoder_alone() -> None:
        with torch.no_grad():
            mean, _ = trainer.codec.encoder(target)
        mel, stft = trainer.loss(trainer.codec.decoder(mean), target)
        (mel + 0.5 * stft).backward(inputs=list(trainer.codec.decoder.parameters()))

    def pass_of(judge: nn.Module) -> Callable[[], None]:
        wave = target.clone().requires_grad_(True)

        def run() -> None:
            scores, features = judge(wave)
            loss = scores.square().mean() + sum(f.abs().mean() for f in features)
            loss.backward()

        return run

    rows = {
        "reconstruction step": seconds(lambda: trainer.reconstruction_step(target, 500)),
        "decoder alone": seconds(decoder_alone),
        "adversarial step": seconds(lambda: trainer.adversarial_step(target, 5000)),
    }
    for judge in trainer.discriminators.judges:
        size = judge.shape.n_fft if isinstance(judge, BandDiscriminator) else judge.period
        rows[f"{type(judge).__name__} {size}"] = seconds(pass_of(judge))
    print("| what | seconds |\n|---|---|")
    for name, spent in rows.items():
        print(f"| {name} | {spent:.3f} |")


if __name__ == "__main__":
    main()
