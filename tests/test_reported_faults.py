"""Every fault that users' situations and attacks have shown is held by a test of its kind.

`reported_faults.tsv` names them: 1 to 62 are situations out of public reports on programs of this
field (those that were right at once are left out), the words are kinds of attacks. "Held by" names
tests by node id, or instructions that are rows of `tasks/instructions.tsv`.
"""

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unison_audio import audio
from unison_audio.data.prepare.prepare import ingest
from unison_audio.data.records import decode
from unison_audio.data.shards import read_corpus
from unison_audio.longform.native_audio import open_recording

TESTS = Path(__file__).parent
ROWS = [
    line.split("\t") for line in (TESTS / "reported_faults.tsv").read_text("utf-8").splitlines()[1:]
]
TELEPHONES = ("GSM610", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "G721_32")
FAULTS = {1, 2, 3, 5, 6, 7, 8, 10, 12, 13, 14, 16, 17, 18, 20, 22, 23, 24, *range(26, 37)}
WORSE = {11, 19, 25, 37, 38, 39, 40, 41, 42, 44, 45, 53, 54, 62}
ATTACKS = {
    *("whole", "lost", "stale", "door", "endless", "numbers", "refused", "solver", "left"),
    *("weights", "item", "late", "message"),
}
INSTRUCTIONS = {
    line.split("\t")[0]
    for line in (TESTS / "tasks" / "instructions.tsv").read_text("utf-8").splitlines()[1:]
}


@cache
def functions_of(file: Path) -> set[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(file.read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_fault_and_every_kind_has_a_row() -> None:
    numbers = {verdict: set() for verdict in ("fault", "worse")}
    kinds = set()
    for number, verdict, situation, _ in ROWS:
        assert len(situation.split()) >= 3, number
        if verdict == "attack":
            kinds.add(number.split("-")[0])
        else:
            numbers[verdict].add(int(number))
    assert numbers == {"fault": FAULTS, "worse": WORSE}
    assert kinds == ATTACKS
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_holds_it_exists(row: list[str]) -> None:
    held = re.split(r" (?=tests/|instruction:)", row[3])
    assert held
    for place in held:
        if place.startswith("instruction:"):
            assert place.removeprefix("instruction:") in INSTRUCTIONS, place
            continue
        file, _, name = place.partition("::")
        assert name in functions_of(TESTS.parent / file), place


@pytest.mark.parametrize("coding", TELEPHONES)
def test_codings_of_telephones_are_read(coding: str, tmp_path: Path) -> None:
    """Their blocks pad the last samples, so that a header states more than was written."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8123) / 8000)
    soundfile.write(tmp_path / "x.wav", tone, 8000, coding)
    read = audio.load(tmp_path / "x.wav", sample_rate=8000).numpy()
    assert len(tone) <= len(read) < len(tone) + 1200
    error = read[100:8000] - tone[100:8000]
    assert np.sqrt(np.mean(error**2)) < 0.05
    # libsndfile cannot seek in some of them, as edits of regions and corpora do.
    recording = open_recording(tmp_path / "x.wav")
    assert recording.frames == len(read)
    part = recording.read(1000, 5000)[:, 0] / 32768
    assert np.allclose(part, read[1000:5000], atol=1e-4)
    content = (tmp_path / "x.wav").read_bytes()
    whole = decode(content, "wav", 8000).numpy()
    assert np.allclose(whole, read, atol=1e-4)
    crop = decode(content, "wav", 8000, crop_seconds=0.5, draw=lambda: 0.5).numpy()
    start = round(0.5 * (len(whole) - 4000))
    assert np.allclose(crop, whole[start : start + 4000], atol=0.01)


def test_a_corpus_takes_codings_of_telephones(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8123) / 8000)
    (tmp_path / "in").mkdir()
    for coding in TELEPHONES:
        soundfile.write(tmp_path / "in" / f"{coding}.wav", tone, 8000, coding)
    rows = "".join(f"{coding}.wav,a tone\n" for coding in TELEPHONES)
    (tmp_path / "in" / "list.csv").write_text("audio,caption\n" + rows)
    index = ingest("folder", tmp_path / "in", tmp_path / "out", workers=1)
    found = read_corpus(index.parent, 8000, split="train")
    assert len(found) == len(TELEPHONES)
    for clip in found:
        error = clip.waveform.numpy()[100:8000] - tone[100:8000]
        assert np.sqrt(np.mean(error**2)) < 0.05
