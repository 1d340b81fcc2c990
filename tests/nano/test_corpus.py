import collections
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.shards import read_corpus
from unison_audio.errors import InputError
from unison_audio.nano import corpus as nano_corpus
from unison_audio.nano import corpus_speech, debian
from unison_audio.nano import voices as nano_voices
from unison_audio.nano.open_texts import Texts
from unison_audio.nano.vocabulary import held_out_texts
from unison_audio.nano.voices import ENGINES, VOICES, SyntheticVoice, speak

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no Debian tools")


def test_the_catalog_covers_about_sixty_labels_with_licences():
    rows = nano_corpus.catalog("sounds")
    counts = collections.Counter(row["label"] for row in rows)
    assert 55 <= len(counts) <= 80
    assert min(counts.values()) >= 6
    assert all(row["licence"] for row in rows + nano_corpus.catalog("speech"))


def test_each_label_is_in_both_splits_and_takes_of_a_recording_stay_together():
    rows = nano_corpus.catalog("sounds")
    splits = nano_corpus.sound_splits(rows)
    by_label = collections.defaultdict(collections.Counter)
    for row in rows:
        by_label[row["label"]][splits[row["package"], row["path"]]] += 1
    for label, counts in by_label.items():
        assert counts["heldout"] >= 1, label
        assert counts["train"] >= 3, label
    assert nano_corpus.sound_splits(rows) == splits
    takes = [
        {"label": "x", "package": "p", "path": f"{name}{i}.wav"} for name in "abc" for i in "12"
    ]
    families = collections.defaultdict(set)
    for (_, path), split in nano_corpus.sound_splits(takes).items():
        families[path[0]].add(split)
    assert all(len(found) == 1 for found in families.values())


def test_training_never_says_a_held_out_text(monkeypatch):
    spoken = []

    def note(text, voice, rate):
        spoken.append(text)
        return torch.sin(torch.arange(8000) / 20.0)

    monkeypatch.setattr(corpus_speech, "speak", note)
    list(corpus_speech.make_speech(VOICES[0], "train", 0, 300))
    assert len(spoken) == 300
    assert not set(spoken) & set(held_out_texts())
    spoken.clear()
    clips = list(corpus_speech.make_speech(VOICES[0], "heldout", 0, 20))
    assert set(spoken) <= set(held_out_texts())
    assert {clip.record.split for clip in clips} == {"heldout"}


def test_open_speech_says_other_words_and_nothing_that_is_held_out(monkeypatch, tmp_path):
    texts = Texts(
        trained=["apple", "boat", "cellar", "door", "ember", "fox", "grass", "hill"],
        held_out=["zebra"],
        sentences=["the boat is here", "a fox on a hill"],
        unseen_words=["a zebra here"],
        unseen_sentences=["grass is here"],
    )
    seconds = {"a fox on a hill": 5.5}

    def say(text, voice, rate):
        return torch.sin(torch.arange(round(seconds.get(text, 1.0) * rate)) / 20.0)

    monkeypatch.setattr(corpus_speech, "open_texts", lambda packages: texts)
    monkeypatch.setattr(corpus_speech, "speak", say)
    clips = list(corpus_speech.make_open_speech(VOICES[0], tmp_path, 0, 60))
    said = [clip.record.text for clip in clips]
    assert 20 < len(said) < 60
    assert "the boat is here" in said
    assert not set(said) & {"a fox on a hill", *texts.unseen_words, *texts.unseen_sentences}
    assert {word for text in said for word in text.split()} > set(texts.trained[:4])
    again = corpus_speech.make_open_speech(VOICES[0], tmp_path, 0, 60)
    assert said == [clip.record.text for clip in again]
    assert len({clip.record.key for clip in clips}) == len(clips)


def test_no_held_out_speaker_has_the_voice_of_a_training_speaker():
    training = {(voice.engine, voice.voice) for voice in VOICES if voice.utterances}
    held_out = [(voice.engine, voice.voice) for voice in VOICES if not voice.utterances]
    assert len(held_out) >= 4
    assert not training & set(held_out)
    # Nor is one a copy of another, which a speaker encoder could not tell apart.
    assert len(held_out) == len(set(held_out))


def test_every_engine_has_a_license():
    assert corpus_speech.LICENSES.keys() == ENGINES.keys()


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="apt-get install flite"):
        speak("red", VOICES[0], 16_000)
    with pytest.raises(InputError, match=r"apt-get is missing.*put minetest-data_\*\.deb"):
        debian.fetch("minetest-data", tmp_path)
    monkeypatch.setitem(sys.modules, "piper", None)
    nano_voices._piper_model.cache_clear()
    voice = next(voice for voice in VOICES if voice.engine == "piper")
    with pytest.raises(
        InputError, match=r"piper is missing; .* pip install 'unison-audio\[corpus\]"
    ):
        speak("red", voice, 16_000)


def test_what_is_missing_is_said_before_the_first_shard(monkeypatch, tmp_path):
    there = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "flite" else there(name))
    with pytest.raises(InputError, match="apt-get install flite"):
        nano_corpus.build(tmp_path, workers=1, scale=0.002)
    # Flite speaks first in the plan, the recordings come last.
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "apt-get" else there(name))
    with pytest.raises(InputError, match=r"apt-get is missing.*put .*_\*\.deb"):
        nano_corpus.build(tmp_path, workers=1, scale=0.01)
    voices = [voice for voice in VOICES if voice.name == "rms"]
    last = replace(voices[0], name="last", engine="none")
    monkeypatch.setattr(nano_corpus, "VOICES", (*voices, last))
    monkeypatch.setitem(ENGINES, "none", missing)
    with pytest.raises(InputError, match="nothing speaks"):
        nano_corpus.build(tmp_path, workers=1, scale=0.002)
    assert not list(tmp_path.glob("*.tar"))


def missing(text, voice, stretch):
    raise InputError("nothing speaks")


@needs_flite
def test_a_shifted_voice_is_higher_at_the_same_tempo():
    low = SyntheticVoice(name="a", engine="flite", voice="rms", gender="male")
    high = SyntheticVoice(name="b", engine="flite", voice="rms", gender="male", shift=1.2)
    ours, theirs = (speak("monday march seven", voice, 16_000) for voice in (low, high))
    assert abs(len(ours) / len(theirs) - 1) < 0.1

    def pitch(waveform):
        frames = waveform.unfold(0, 1024, 256)
        frames = frames[frames.square().mean(1) > 0.3 * frames.square().mean(1).max()]
        spectrum = torch.fft.rfft(frames * torch.hann_window(1024), 4096).abs().square()
        correlation = torch.fft.irfft(spectrum)[:, 60:230]
        return float((16_000 / (60 + correlation.argmax(1))).median())

    assert 1.1 < pitch(theirs) / pitch(ours) < 1.3


def fake_deb(folder, name, files):
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    subprocess.run(
        ["dpkg-deb", "--build", str(root), str(folder / f"{name}_1_all.deb")],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(root)


def wav(seconds=0.5, rate=22_050):
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(int(seconds * rate)) / 9), rate, format="WAV")
    return file.getvalue()


@needs_dpkg
def test_recordings_come_out_of_a_package_levelled_and_broken_ones_are_set_aside(
    tmp_path, monkeypatch
):
    rows = [
        {
            "package": "p",
            "path": path,
            "label": "a beep",
            "caption": "A beep.",
            "licence": "CC0-1.0",
        }
        for path in ("usr/a.wav", "usr/b.wav", "usr/c.wav", "usr/broken.wav")
    ]
    monkeypatch.setattr(nano_corpus, "catalog", lambda name: rows if name == "sounds" else [])
    files = {"usr/a.wav": wav(), "usr/b.wav": wav(12.0), "usr/c.wav": wav(0.2)}
    fake_deb(tmp_path, "p", {**files, "usr/broken.wav": b"RIFF no", "usr/else.txt": b"x"})
    clips = list(nano_corpus.make_recordings("p", tmp_path))
    assert len(clips) == 1 + 3 + 1  # the long one in three pieces
    for clip in clips:
        assert clip.waveform.shape[0] <= 5.12 * 16_000 + 1
        assert abs(float(clip.waveform.square().mean().sqrt()) - 0.1) < 0.002
    name = "recordings-p.tar"
    path = nano_corpus.write_index(tmp_path, {name: write_shard(tmp_path / name, clips, 16_000)})
    index = json.loads(path.read_text())
    assert index["set_aside"] == ["p:usr/broken.wav"]
    assert index["licences"] == ["CC0-1.0"]


@needs_flite
def test_an_interrupted_build_resumes_and_gives_the_same_bytes(tmp_path, monkeypatch):
    voices = [voice for voice in VOICES if voice.name in ("rms", "slt")]
    held_out = replace(voices[0], name="held-out", utterances=0)
    monkeypatch.setattr(nano_corpus, "VOICES", (*voices, held_out))
    nano_corpus.build(tmp_path / "whole", workers=1, scale=0.002)
    shards = sorted(path.name for path in (tmp_path / "whole").glob("*.tar"))
    assert len(shards) == 5
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(tmp_path / "whole" / shards[0], part / shards[0])
    (part / "speech-train-slt-00.partial").write_bytes(b"what a kill left")
    stamp = (part / shards[0]).stat().st_mtime_ns
    nano_corpus.build(part, workers=1, scale=0.002)
    assert not list(part.glob("*.partial"))
    assert (part / shards[0]).stat().st_mtime_ns == stamp  # kept, not made again
    for name in shards:
        with tarfile.open(part / name) as ours, tarfile.open(tmp_path / "whole" / name) as theirs:
            assert ours.getnames() == theirs.getnames()
        assert (part / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    index = json.loads((part / "index.json").read_text())
    assert index == json.loads((tmp_path / "whole" / "index.json").read_text())
    assert index["by_kind"]["speech"]["clips"] == sum(shard["clips"] for shard in index["shards"])
    assert len(read_corpus(part, 16_000, split="train")) == 11
    assert {clip.record.speaker for clip in read_corpus(part, 16_000, split="speakers")} == {
        "held-out"
    }
