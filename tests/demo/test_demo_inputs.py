"""Drawing the demo's inputs from a small made-up corpus."""

import math
from pathlib import Path

import torch
from demo_inputs import SENTENCES, make_inputs
from tiny_unison import RATE

from unison_audio import audio
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.demo.examples import read_examples
from unison_audio.nano.corpus import write_index
from unison_audio.nano.vocabulary import held_out_texts
from unison_audio.tasks.table import TASKS

LABELS = [f"a {name} sound" for name in "abcdefghijklmnopqrstuvwxyz"]


def tone(hertz: float, seconds: float) -> torch.Tensor:
    return 0.1 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def clip(kind: str, split: str, number: int, licence: str, **more: str) -> Clip:
    wave = tone(200.0 + 10 * number, 1.2)
    record = ClipRecord(
        key=f"{kind}-{split}-{number}-{licence}".replace(".", "-"),
        kind=kind,
        split=split,
        seconds=1.2,
        licence=licence,
        source=f"package:{number}",
        **more,
    )
    return Clip(record=record, waveform=wave)


def small_corpus(folder: Path) -> Path:
    """Held-out sounds, half of them not free to share, and two voices."""
    texts = held_out_texts()
    sentences, words = texts[-SENTENCES:], texts[:20]
    shards = {
        "sounds.tar": [
            clip("sound", "heldout", k, licence, label=label, caption=label)
            for k, label in enumerate(LABELS)
            for licence in ("CC-BY-SA-3.0", "GPL-2")
        ],
        "heldout.tar": [
            clip("speech", "heldout", k, "BSD-like", text=text, speaker="one", gender="male")
            for k, text in enumerate([*sentences[:60], *words])
        ],
        "speakers.tar": [
            clip("speech", "speakers", k, "BSD-like", text=text, speaker="two", gender="female")
            for k, text in enumerate(sentences[60:90])
        ],
    }
    write_index(
        folder, {name: write_shard(folder / name, clips, RATE) for name, clips in shards.items()}
    )
    return folder


def test_inputs_are_drawn_by_seed_from_what_may_be_shared(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    made = make_inputs(corpus, tmp_path / "once")
    assert [example.task for example in made] == list(TASKS)
    assert read_examples(tmp_path / "once") == made
    assert make_inputs(corpus, tmp_path / "again") == made
    files = sorted(file.name for file in (tmp_path / "once").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "again").iterdir())
    for name in files:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert make_inputs(corpus, tmp_path / "other", seed=1) != made

    sentences = held_out_texts()[-SENTENCES:]
    by_task = {example.task: example for example in made}
    said = [text for text in sentences if any(f'"{text}"' in e.instruction for e in made)]
    assert len(said) == 5  # tts, t2as, speech_insert, speech_rewrite, audio_to_speech
    assert not any("GPL" in credit for example in made for credit in example.credits)
    for label in LABELS:  # no event is asked for twice
        assert sum(example.instruction.count(label) for example in made) <= 1
    counts = {name: len(by_task[name].credits) for name in by_task}
    assert counts["edit_add"] == counts["speech_insert"] == counts["zero_shot_tts"] == 1
    assert counts["edit_remove"] == counts["speech_delete"] == 2
    assert "one" in by_task["speech_delete"].credits[0]
    clone = by_task["zero_shot_tts"]
    assert clone.reference_text in sentences
    assert "two" in clone.credits[0]
    reference = audio.load(tmp_path / "once" / "zero_shot_tts.flac", sample_rate=RATE)
    assert len(reference) == round(1.2 * RATE)
