"""Speech of all of nano's voices over the words of the experiment with spelled transcripts.

python benchmarks/spelled_voices.py --root gate

It writes an ordinary corpus, `gate/corpus`, of natural sentences and random sequences that no
held-out set has. Rerun the command to resume it: finished shards stay.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from spelled_texts import write_texts

from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_shard
from unison_audio.nano.corpus import write_index
from unison_audio.nano.corpus_speech import SAMPLE_RATE, make_utterance
from unison_audio.nano.open_texts import Texts, draw_texts
from unison_audio.nano.voices import VOICES, SyntheticVoice

SHARES = {"sentences": 2, "sequences": 1}
"""Kinds of texts and their shares."""
LONGEST = 5.0
"""Seconds of the longest utterance that is kept: nano's sounds are 5.12 s at most."""
SHARD = 250
"""Utterances in a shard."""


WIDE = {
    "slt": (0.86, 1.2, 1.3, 1.42),
    "awb": (1.25, 1.45),
    "kal": (1.3, 1.5),
    "rms": (1.2, 1.4),
    "joe": (1.25, 1.45),
}
"""Shifts so wide that no gender is named: clones learn to follow any pitch from them."""


def voices() -> dict[SyntheticVoice, int]:
    """The voices of training, more shifted copies, and shards of each."""
    known = {voice.name: voice for voice in VOICES if voice.utterances}
    found = dict.fromkeys(known.values(), 4)
    for name, shift in (("awb", 0.9), ("awb", 1.1), ("kal", 0.88), ("kal", 1.14)):
        found[_shifted(known[name], shift)] = 2
    for name, shifts in WIDE.items():
        for shift in shifts:
            found[replace(_shifted(known[name], shift), gender="")] = 2
    return found


def _shifted(voice: SyntheticVoice, shift: float) -> SyntheticVoice:
    # A dot in a name would end the key of a clip in its shard.
    return replace(voice, name=f"{voice.name}-{round(100 * shift)}", shift=shift)


def speech(voice: SyntheticVoice, texts: Texts, number: int) -> Iterator[Clip]:
    """The utterances of a shard."""
    # Parts of texts are numbered over all shards, so that the voices say other sentences.
    first = sum(map(ord, voice.name)) * 37 + number
    total = sum(SHARES.values())
    said = []
    for kind, share in SHARES.items():
        said += draw_texts(texts, kind, first, SHARD * share // total)
    for index, text in enumerate(said):
        clip = make_utterance(text, voice, "train", f"open-{voice.name}-{number:02d}-{index:04d}")
        if clip.record.seconds <= LONGEST:
            yield clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of data, runs and scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = write_texts(arguments.root / "data" / "texts.json")
    out = arguments.root / "corpus"
    out.mkdir(parents=True, exist_ok=True)
    records = {}
    for number in range(max(voices().values())):
        for voice, shards in voices().items():
            if number >= shards:
                continue
            path = out / f"speech-open-{voice.name}-{number:02d}.tar"
            records[path.name] = (
                [clip.record for clip in read_shard(path, SAMPLE_RATE)]
                if path.exists()
                else write_shard(path, speech(voice, texts, number), SAMPLE_RATE)
            )
            print(path.name, len(records[path.name]), flush=True)
        write_index(out, records)


if __name__ == "__main__":
    main()
