"""Test sets from files in the published layouts, and from nano's clips."""

import dataclasses
import hashlib
import math
import shutil
import zlib
from pathlib import Path

import pytest
import soundfile
import torch
from benchmark_files import CAPTIONS, LINES, put_data

from unison_audio.audio import load, rms
from unison_audio.data.prepare.shard_writer import write_shard
from unison_audio.data.records import Clip, ClipRecord
from unison_audio.errors import InputError
from unison_audio.evaluation.test_sets.build import (
    PAPER_COUNTS,
    SETS,
    build_test_set,
    needed_languages,
)
from unison_audio.evaluation.test_sets.manifest import TestSet, derived_seed, read_test_set
from unison_audio.evaluation.test_sets.recordings import published
from unison_audio.evaluation.test_sets.scenes import Shuffler, TestSetSpec
from unison_audio.nano.corpus import write_index
from unison_audio.nano.held_out import held_out
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.variants import VARIANTS

RATE = 16_000
FORM = TestSetSpec(
    sample_rate=RATE, hop=512, seconds=2.0, timed_seconds=4.0, zero_shot_seconds=2.0, longest=8.0
)
COUNTS = {
    "audiocaps": 5,
    "seed-tts-en": 3,
    "seed-tts-zh": 2,
    "gender-tts-en": 2,
    "gender-tts-zh": 2,
    "t2as": 6,
    "audio-editing": 4,
    "speech-editing": 3,
    "timed": 4,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return put_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def sets(data, tmp_path_factory) -> dict[str, TestSet]:
    material = published(data, RATE)
    out = tmp_path_factory.mktemp("sets")
    return {
        name: build_test_set(name, material, out / name, FORM, counts=COUNTS, seed=3)
        for name in SETS
    }


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wave(test_set, item, role):
    return load(test_set.path(item, role), sample_rate=test_set.sample_rate)


def test_counts_of_the_paper() -> None:
    """Section 4.2, and Table 3's caption for the shares of the languages."""
    assert PAPER_COUNTS["seed-tts-en"] + PAPER_COUNTS["seed-tts-zh"] == 1088 + 2020
    assert PAPER_COUNTS["gender-tts-en"] + PAPER_COUNTS["gender-tts-zh"] == 300
    assert 3 * PAPER_COUNTS["audio-editing"] == 1200
    assert 3 * PAPER_COUNTS["speech-editing"] == 600
    assert (PAPER_COUNTS["audiocaps"], PAPER_COUNTS["t2as"], PAPER_COUNTS["timed"]) == (
        881,
        600,
        150,
    )


def test_every_item_is_what_its_instruction_asks_for(sets) -> None:
    for test_set in sets.values():
        for item in test_set.items:
            given = (bool(item.source), bool(item.reference))
            task = parse_instruction(item.instruction, *given)
            assert {task, item.task} in ({item.task}, {"t2a", "t2a_mix"}), item.instruction
            assert wave(test_set, item, "target").shape[0] == round(item.seconds * RATE)
            if item.source:
                assert wave(test_set, item, "source").shape[0] == round(item.seconds * RATE)


def test_audiocaps_is_asked_for_with_the_first_caption(sets) -> None:
    items = sets["audiocaps"].items
    assert [item.id for item in items] == [
        f"{video}_{30 * take}" for take, video in enumerate(CAPTIONS)
    ]
    assert items[0].captions == ("constant rattling noise", "a rattle")
    assert items[0].instruction == "[Audio] constant rattling noise"
    assert items[0].caption == items[0].captions[0]


def test_seed_tts_is_spoken_plainly_and_with_the_prompt(sets) -> None:
    test_set = sets["seed-tts"]
    by_id = {item.id: item for item in test_set.items}
    assert len(by_id) == 2 * (3 + 2)
    for language, lines in LINES.items():
        for name, said, text in lines:
            plain, cloned = by_id[f"tts-{name}"], by_id[f"zero-shot-{name}"]
            assert (plain.text, plain.language, cloned.language) == (text, language, language)
            assert plain.instruction == f'[Speech] A {plain.gender} voice saying "{text}"'
            assert cloned.instruction == f"[Speech with voice] {text}"
            assert (cloned.text, cloned.reference_text, cloned.source) == (text, said, "")
            reference = wave(test_set, cloned, "reference")
            assert len(reference) / RATE == pytest.approx(0.72, abs=0.001)  # the prompt, no more
            assert float(rms(reference)) == pytest.approx(0.1, rel=0.02)
            target = wave(test_set, cloned, "target")
            assert float(rms(target[: round(0.9 * RATE)])) == pytest.approx(0.1, rel=0.02)
            assert not target[round(0.91 * RATE) :].any()
    elsewhere = by_id["tts-10002287-00000094"]  # its line names another file than wavs/{name}.wav
    assert elsewhere.target


def test_genders_are_even(sets) -> None:
    items = sets["gender-tts"].items
    assert sorted(item.gender for item in items) == ["female"] * 2 + ["male"] * 2
    assert sorted(item.language for item in items) == ["en"] * 2 + ["zh"] * 2


def test_no_speech_but_where_it_is_asked_for(sets) -> None:
    """One of the last clip's captions speaks of a man: it is only in AudioCaps itself."""
    assert "zliInBdC98Y_120" in [item.id for item in sets["audiocaps"].items]
    for name in ("t2as", "audio-editing", "speech-editing", "timed"):
        for item in sets[name].items:
            assert "zliInBdC98Y_120" not in item.details["sounds"]


def test_audio_edits(sets) -> None:
    test_set = sets["audio-editing"]
    assert [item.task for item in test_set.items] == [
        task for task in ("edit_add", "edit_remove", "edit_replace") for _ in range(4)
    ]
    for item in test_set.items:
        assert all(-3 <= snr <= 3 for snr in item.details["snr_db"])
        source, target = wave(test_set, item, "source"), wave(test_set, item, "target")
        event = target - source if item.task == "edit_add" else source - target
        label = item.details["labels"][0]
        if item.task == "edit_replace":
            assert label in item.source_caption
            assert item.details["labels"][1] in item.caption
            continue
        base = source if item.task == "edit_add" else target
        start, end = (round(t * RATE) for t in item.details["windows"][0])
        inside = event[start:end]
        assert float(event[:start].abs().sum() + event[end:].abs().sum()) < 1e-2
        snr = 20 * math.log10(float(rms(inside) / rms(base)))
        assert snr == pytest.approx(item.details["snr_db"][0], abs=0.1)
        shorter, longer = sorted((item.caption, item.source_caption), key=len)
        assert longer == f"{shorter} and {label}"
        assert label in item.instruction


def test_speech_edits(sets) -> None:
    test_set = sets["speech-editing"]
    for item in test_set.items:
        source, target = wave(test_set, item, "source"), wave(test_set, item, "target")
        start, end = (round(t * RATE) for t in item.details["speech_window"])
        if item.task == "speech_rewrite":
            old = round(item.details["old_window"][1] * RATE)
            assert (target - source)[start : max(end, old)].abs().max() > 0.05
            assert item.text in item.instruction
            assert item.details["old_text"] not in item.instruction
            continue
        with_speech, base = (target, source) if item.task == "speech_insert" else (source, target)
        speech = (with_speech - base)[start:end]
        assert 20 * math.log10(float(rms(speech) / rms(base))) == pytest.approx(10, abs=0.15)
        assert bool(item.text) == (item.task == "speech_insert")
        spoken = item.caption if item.task == "speech_insert" else item.source_caption
        silent = item.source_caption if item.task == "speech_insert" else item.caption
        assert spoken.split(" speaking and ") in (["a man", silent], ["a woman", silent])


def test_speech_with_sound_is_as_loud_as_the_sound(sets) -> None:
    for item in sets["t2as"].items:
        assert item.details["snr_db"] == 0.0
        assert item.details["caption"] in item.caption
        assert f"A {item.gender} voice" in item.instruction
    languages = {item.language for item in sets["t2as"].items}
    assert languages == {"en", "zh"}


def test_timelines(sets) -> None:
    test_set = sets["timed"]
    for item in test_set.items:
        assert 2 <= len(item.events) <= 3
        assert item.caption == " followed by ".join(event.caption for event in item.events)
        target = wave(test_set, item, "target")
        covered = torch.zeros(len(target), dtype=torch.bool)
        for event in item.events:
            assert f"From {event.start:.1f}s to {event.end:.1f}s, {event.caption}." in (
                item.instruction
            )
            covered[round(event.start * RATE) : round(event.end * RATE)] = True
        assert not target[~covered].any()


def test_every_clip_comes_before_any_comes_again() -> None:
    deck = Shuffler("abcdef", torch.Generator().manual_seed(1))
    first, second = ([deck.next(lambda _: True) for _ in range(6)] for _ in range(2))
    assert sorted(first) == sorted(second) == list("abcdef")
    assert deck.next(lambda letter: letter == "z") is None
    assert sorted(deck.next(lambda _: True) for _ in range(6)) == list("abcdef")


def test_the_same_seed_gives_the_same_bits(data, sets, tmp_path) -> None:
    material = published(data, RATE)
    for name in ("speech-editing", "timed"):
        build_test_set(name, material, tmp_path / name, FORM, counts=COUNTS, seed=3)
        assert content(tmp_path / name) == content(sets[name].folder)
    other = build_test_set("timed", material, tmp_path / "other", FORM, counts=COUNTS, seed=4)
    assert {i.instruction for i in other.items} != {i.instruction for i in sets["timed"].items}


def test_more_items_leave_the_others_as_they_are(data, sets, tmp_path) -> None:
    more = build_test_set(
        "timed", published(data, RATE), tmp_path, FORM, counts={"timed": 6}, seed=3
    )
    assert more.items[:4] == sets["timed"].items


def test_what_is_there_is_taken_if_nothing_has_changed(data, sets, tmp_path) -> None:
    before = sets["t2as"]
    again = build_test_set(
        "t2as", published(data, RATE), before.folder, FORM, counts=COUNTS, seed=3
    )
    assert again == before == read_test_set(before.folder)
    with pytest.raises(InputError, match="built with seed 3, and 4 is asked for"):
        build_test_set("t2as", published(data, RATE), before.folder, FORM, counts=COUNTS, seed=4)
    with pytest.raises(InputError, match="built with settings"):
        build_test_set("t2as", published(data, RATE), before.folder, FORM, seed=3)


def test_a_changed_input_or_file_is_noticed(tmp_path) -> None:
    data = put_data(tmp_path / "data")

    def build():
        material = published(data, RATE)
        return build_test_set("t2as", material, tmp_path / "set", FORM, counts={"t2as": 2})

    test_set = build()
    wav = data / "audiocaps/test/Y6BJ455B1aAs.wav"
    kept = wav.read_bytes()
    wav.write_bytes(kept[:-2] + b"\x01\x02")
    with pytest.raises(InputError, match=r"Y6BJ455B1aAs\.wav has changed since"):
        build()
    wav.unlink()
    with pytest.raises(InputError, match=r"Y6BJ455B1aAs\.wav is missing since"):
        build()
    wav.write_bytes(kept)
    build()
    flac = test_set.path(test_set.items[1], "target")
    flac_bytes = flac.read_bytes()
    samples, rate = soundfile.read(flac, dtype="int16")
    samples[100] += 1
    soundfile.write(flac, samples, rate, "PCM_16")
    with pytest.raises(InputError, match=r"t2as-0001\.flac has changed"):
        build()
    flac.unlink()
    with pytest.raises(InputError, match=r"lacks target/t2as-0001\.flac"):
        read_test_set(test_set.folder, check_files=False)
    flac.write_bytes(flac_bytes)
    manifest = test_set.folder / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace("voice", "noise"), "utf-8")
    with pytest.raises(InputError, match=r"manifest\.json has been edited"):
        read_test_set(test_set.folder)
    manifest.unlink()  # as after a kill: nothing counts as built
    with pytest.raises(InputError, match="no finished test set"):
        read_test_set(test_set.folder)
    assert build() == test_set


def test_too_little_is_refused_with_what_there_is(data, tmp_path) -> None:
    material = published(data, RATE)
    with pytest.raises(
        InputError, match="881 items are asked for audiocaps, and there are 5 clips"
    ):
        build_test_set("audiocaps", material, tmp_path / "a", FORM)
    with pytest.raises(InputError, match="2020 items are asked for seed-tts-zh, and there are 2 "):
        build_test_set("seed-tts", material, tmp_path / "b", FORM, counts={"seed-tts-en": 1})
    few = dataclasses.replace(material, sounds=material.sounds[:2])
    with pytest.raises(InputError, match="at least 3 different captions without speech"):
        build_test_set("timed", few, tmp_path / "c", FORM, counts={"timed": 1})
    short = dataclasses.replace(FORM, seconds=0.5)
    with pytest.raises(InputError, match=r"no utterance of at most 0\.50 s"):
        build_test_set("speech-editing", material, tmp_path / "d", short, counts={"timed": 1})
    with pytest.raises(InputError, match="no test set 'songs'"):
        build_test_set("songs", material, tmp_path / "e", FORM)
    with pytest.raises(InputError, match="songs=3 is no number of items"):
        build_test_set("timed", material, tmp_path / "f", FORM, counts={"songs": 3})


def test_missing_data_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no folder .*audiocaps"):
        published(tmp_path, RATE)
    data = put_data(tmp_path / "data")
    (data / "seedtts_testset/zh/wavs/elsewhere.wav").unlink()
    with pytest.raises(InputError, match=r"elsewhere\.wav"):
        published(data, RATE)
    listing = data / "seedtts_testset/en/meta.lst"
    listing.write_text("a|b|c\n", "utf-8")
    with pytest.raises(InputError, match=r"meta\.lst, line 1, has 3 fields"):
        published(data, RATE, sounds=False)


def test_one_language_may_be_missing_where_no_set_needs_it(tmp_path) -> None:
    data = put_data(tmp_path / "data")
    shutil.rmtree(data / "seedtts_testset/zh")
    with pytest.raises(InputError, match=r"zh.meta\.lst; .*--counts seed-tts-zh=0 gender-tts-zh=0"):
        published(data, RATE)
    counts = {**COUNTS, "seed-tts-zh": 0, "gender-tts-zh": 0}
    assert needed_languages(["seed-tts", "gender-tts", "t2as"], counts) == ["en"]
    assert needed_languages(["seed-tts", "gender-tts"], COUNTS) == ["en", "zh"]
    assert needed_languages(["gender-tts"], {**COUNTS, "gender-tts-en": 0}) == ["zh"]
    with pytest.warns(UserWarning, match="compare with no published figure"):
        material = published(data, RATE, languages=["en"])
    assert material.name == "AudioCaps test and Seed-TTS (en)"
    for name in ("seed-tts", "gender-tts", "t2as", "speech-editing"):
        test_set = build_test_set(name, material, tmp_path / name, FORM, counts=counts, seed=3)
        assert {item.language for item in test_set.items} <= {"en", ""}
    shutil.rmtree(data / "seedtts_testset/en")
    with pytest.raises(InputError, match=r"en.meta\.lst"):
        published(data, RATE, languages=[])


def test_44_khz(data, tmp_path) -> None:
    form = dataclasses.replace(FORM, sample_rate=44_100, hop=1024)
    test_set = build_test_set(
        "audio-editing", published(data, 44_100), tmp_path, form, counts={"audio-editing": 1}
    )
    info = soundfile.info(test_set.path(test_set.items[0], "target"))
    assert (info.samplerate, info.frames) == (44_100, 88_200)


def test_forms_of_variants() -> None:
    full, nano = TestSetSpec.of(VARIANTS["d20-44k"]), TestSetSpec.of(VARIANTS["nano"])
    assert (full.sample_rate, full.seconds, full.timed_seconds, full.longest) == (
        44_100,
        10,
        10,
        22,
    )
    assert (nano.sample_rate, nano.seconds, nano.timed_seconds) == (16_000, 2.56, 5.12)
    assert "wording" not in nano.stored  # older sets stay those of this spec
    released = TestSetSpec.of(dataclasses.replace(VARIANTS["d20-44k"], wording="release"))
    assert released.stored == {**full.stored, "wording": "release"}


def test_seeds_depend_on_every_part() -> None:
    seeds = {
        derived_seed(0, "a"),
        derived_seed(1, "a"),
        derived_seed(0, "b"),
        derived_seed(0, "a", 1),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derived_seed(0, "a") == derived_seed(0, "a")


def nano_clip(split, kind, number, seconds, **about) -> Clip:
    key = f"{split}-{kind}-{number}"
    time = torch.arange(round(seconds * RATE)) / RATE
    sound = 0.1 * torch.sin(2 * math.pi * (150 + zlib.crc32(key.encode()) % 900) * time)
    record = ClipRecord(
        key=key, kind=kind, split=split, seconds=seconds, licence="", source="", **about
    )
    return Clip(record=record, waveform=sound)


def test_nano_corpus(tmp_path) -> None:
    clips = [
        nano_clip("heldout", "sound", k, 0.6, label=f"a bell {k}", caption=f"A bell {k} rings.")
        for k in range(4)
    ]
    for split in ("heldout", "speakers"):
        clips += [
            nano_clip(
                split,
                "speech",
                k,
                0.7 + 0.2 * k,
                text=f"red {k}",
                speaker=f"{split}{k % 2}",
                gender="male",
            )
            for k in range(4)
        ]
    corpus = tmp_path / "corpus"
    write_index(corpus, {"all.tar": write_shard(corpus / "all.tar", clips, RATE)})
    form = TestSetSpec.of(VARIANTS["nano"])
    counts = {"audiocaps": 3, "seed-tts-en": 2, "seed-tts-zh": 0, "timed": 1, "speech-editing": 1}
    built = {
        name: build_test_set(name, held_out(corpus, RATE), tmp_path / name, form, counts=counts)
        for name in ("audiocaps", "seed-tts", "timed", "speech-editing")
    }
    assert built["audiocaps"].items[0].caption == "a bell 0 rings"
    spoken = built["seed-tts"].items
    assert [item.details["speaker"][:-1] for item in spoken] == ["heldout"] * 2 + ["speakers"] * 2
    assert all(item.details["reference_seconds"] >= 1.0 for item in spoken[2:])
    timed = built["timed"].items[0]
    assert timed.seconds == 5.12
    floor = wave(built["timed"], timed, "target")
    assert (floor == 0).float().mean() < 0.5  # noise lies under what would be digital silence
    assert timed.events[0].caption.startswith("a bell")
