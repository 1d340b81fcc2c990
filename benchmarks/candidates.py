"""Words against temperature and number of candidates, on a trained model.

python benchmarks/candidates.py [--variant nano] [--texts 60] [--most 6] [--temperatures 1 0.8 0.65]

Texts that are drawn anew, half natural sentences (judged by Whisper tiny.en) and half random
sequences of two to five words (by pocketsphinx held to the vocabulary), are spoken several times
each from noise of several temperatures, with the variant's default solver and guidance. Of so many
candidates the model's own error (`unison_audio.model.rerank`) keeps one. Prints the word error
rate of what it keeps, averaged over all runs of neighbours among the candidates, with the standard
error over texts, and the rate if somebody knew the best. A Markdown table.
"""

import argparse
import random
import statistics

import torch
from machine import describe
from torch import Tensor

from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.model.rerank import denoising_error
from unison_audio.model.sampling import ModelInputs, sample
from unison_audio.nano.vocabulary import random_sentence, random_sequence
from unison_audio.nano.vocabulary_asr import SentenceAsr, VocabularyAsr, fold
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import resolve_sampling
from unison_audio.tasks.conditioning import condition
from unison_audio.tasks.table import TASKS

TEMPERATURES = (1.0, 0.8, 0.65)
SECONDS = 2.56


def draw_texts(count: int) -> list[tuple[str, str]]:
    """(instruction, text): a sentence and a sequence by turns."""
    rng, texts = random.Random(1), []
    for number in range(count):
        sequence = number % 2 == 1
        text = random_sequence(rng, rng.randint(2, 5)) if sequence else random_sentence(rng)
        gender = rng.choice(("male", "female"))
        texts.append((f'[Speech] A {gender} voice saying "{text}"', text))
    return texts


@torch.no_grad()
def speak(
    unison: Unison, instruction: str, temperature: float, most: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Candidates of one text: waveforms (most, samples) and denoising errors (most,)."""
    frames = unison.codec.frames(SECONDS)
    given = condition(unison.codec, TASKS["tts"], frames, most)
    text = unison.text_encoder.encode([instruction] * most)
    settings = resolve_sampling(unison.variant).for_task(TASKS["tts"])
    inputs = ModelInputs(
        z_s=given.z_s, m=given.m, hidden_states=text.hidden_states, text_mask=text.mask
    )
    noise = torch.randn(given.z_s.shape, generator=torch.Generator().manual_seed(seed))
    z = sample(
        unison.backbone,
        inputs,
        noise=temperature * noise,
        steps=settings.steps,
        solver=settings.solver,
        guidance=settings.guidance,
    )
    errors = denoising_error(unison.backbone, inputs, z, loss_mask=given.loss_mask)
    return unison.codec.decode(z), errors


def kept(rates: Tensor, errors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean rate by text (N,) of what is kept of `count` neighbours, and of the best of them."""
    most, chosen, best = rates.shape[1], [], []
    for first in range(most):
        rows = [(first + k) % most for k in range(count)]
        least = errors[:, rows].argmin(dim=1, keepdim=True)
        chosen.append(rates[:, rows].gather(1, least)[:, 0])
        best.append(rates[:, rows].amin(dim=1))
    return torch.stack(chosen).mean(dim=0), torch.stack(best).mean(dim=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="nano")
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--most", type=int, default=6, help="candidates drawn of each text")
    parser.add_argument("--temperatures", type=float, nargs="+", default=TEMPERATURES)
    arguments = parser.parse_args()
    unison = Unison.from_pretrained(arguments.variant)
    asr_models = (SentenceAsr(), VocabularyAsr())
    most = arguments.most
    settings = resolve_sampling(unison.variant).for_task(TASKS["tts"])
    texts = draw_texts(arguments.texts)
    counts = [count for count in (1, 2, 3, 4, 6, 8) if count <= most]
    print(
        f"{len(texts)} texts, {most} candidates of each, "
        f"{settings.steps} steps of {settings.solver}; {describe()}\n"
    )
    print("| temperature | candidates | WER | sentences | sequences | if the best were known |")
    print("|---|---|---|---|---|---|")
    for temperature in arguments.temperatures:
        rates, errors = [], []
        for number, (instruction, text) in enumerate(texts):
            waves, found = speak(unison, instruction, temperature, most, number)
            transcripts = [asr_models[number % 2].transcribe([wave.numpy()])[0] for wave in waves]
            rates.append([word_error_rate(fold(text), fold(said)) for said in transcripts])
            errors.append(found)
        for count in counts:
            own, best = kept(torch.tensor(rates), torch.stack(errors), count)
            spread = statistics.stdev(own.tolist()) / len(texts) ** 0.5
            print(
                f"| {temperature:g} | {count} | {100 * own.mean():.1f} ± {100 * spread:.1f} % | "
                f"{100 * own[::2].mean():.1f} % | {100 * own[1::2].mean():.1f} % | "
                f"{100 * best.mean():.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
