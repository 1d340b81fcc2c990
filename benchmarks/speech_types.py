"""Words heard of nano in float32, bfloat16 and int8, on held-out sentences.

python benchmarks/speech_types.py --corpus CORPUS [--texts 60]

Natural held-out sentences are spoken with the default preset in each type, from the same noise, and
read by Whisper tiny.en. The last column is the mean difference to float32, sentence by sentence,
with the half width of its 95 % interval. A Markdown table, printed again after every chunk.
"""

import copy
import statistics
from pathlib import Path

import cyclopts
import torch
from machine import describe
from number_types import in_int8
from speech_presets import SETTINGS, word_errors

from unison_audio.data.shards import read_corpus
from unison_audio.model.int8 import int8_layers, pack_int8
from unison_audio.nano.items import build_items
from unison_audio.nano.vocabulary_asr import SentenceAsr
from unison_audio.pipeline import Unison


def main(corpus: Path, texts: int = 60, seed: int = 0) -> None:
    """Print the table.

    Args:
        corpus: Nano's corpus.
        texts: Number of sentences.
        seed: Seed of the items and of the noise.
    """
    unison = Unison.from_pretrained("nano")
    exact = unison.backbone.requires_grad_(False)
    names = int8_layers(exact)
    backbones = {
        "float32": exact,
        "bfloat16": copy.deepcopy(exact).to(torch.bfloat16),
        "int8, rest bfloat16": in_int8(exact, names, torch.bfloat16),
        "int8, rest float32": in_int8(exact, names, torch.float32),
    }
    for backbone in backbones.values():
        pack_int8(backbone)
    asr = SentenceAsr()
    clips = read_corpus(corpus, unison.codec.sample_rate, split="heldout")
    # The first half of the items of tts are natural sentences, which Whisper reads well.
    chunks = build_items("tts", clips, unison.variant, 2 * texts, seed)
    rates: dict[str, list[float]] = {name: [] for name in backbones}
    print(describe(), flush=True)
    for number, chunk in enumerate(chunks[: (len(chunks) + 1) // 2]):
        for name, backbone in backbones.items():
            rates[name] += word_errors(unison, asr, chunk, SETTINGS[1], number, backbone)
        print(f"\n{len(rates['float32'])} sentences\n")
        print("| type | WER | above float32 |\n|---|---|---|")
        for name, own in rates.items():
            away = [a - b for a, b in zip(own, rates["float32"], strict=True)]
            half = 1.96 * statistics.stdev(away) / len(away) ** 0.5
            print(
                f"| {name} | {statistics.fmean(own):.1%} "
                f"| {100 * statistics.fmean(away):+.1f} ± {100 * half:.1f} points |",
                flush=True,
            )


if __name__ == "__main__":
    cyclopts.run(main)
