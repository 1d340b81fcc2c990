import io
import json
import random
import shutil
import zipfile

import numpy as np
import published
import pytest
import soundfile
from published import (
    emilia_pair,
    emilia_tar,
    encoded,
    put,
    put_tar,
    read_index,
    read_shards,
    recording,
)

from unison_audio.data.prepare import worker
from unison_audio.data.prepare.prepare import ingest
from unison_audio.errors import InputError


def one_row(root, caption=b"A dog barks.", audio=None):
    put(root / "a.wav", audio or encoded(1, 16_000))
    put(root / "good.wav", encoded(1, 16_000, take=1))
    row = b'{"audio": "a.wav", "key": "bad", "caption": "' + caption + b'"}\n'
    put(root / "metadata.jsonl", row + b'{"audio": "good.wav", "caption": "Rain.", "key": "g"}\n')


NOT_UTF8 = "caption holds a NUL character or bytes that are not UTF-8"


def result(name, root, out, good=("g",)):
    ingest(name, root, out, workers=1)
    index = read_index(out)
    assert [record["key"] for record, _, _ in read_shards(out)] == list(good)
    assert index["clips"] == len(good)
    listed = [json.loads(line) for line in (out / "broken.jsonl").read_text().splitlines()]
    assert listed == index["broken"]
    assert index["broken_files"] == len(listed)
    return index["removed"], {entry["file"]: entry["reason"] for entry in listed}


@pytest.mark.parametrize(
    ("caption", "removed", "broken"),
    [
        (b"  ", {"no text or caption": 1}, {}),
        (b"x" * 10_000_000, {"text longer than 2000 characters": 1}, {}),
        (b"caf\xe9", {}, {"metadata.jsonl:row 1": NOT_UTF8}),
        (b"A man speaks", {"caption speaks of speech": 1}, {}),
    ],
)
def test_bad_captions_are_counted(tmp_path, caption, removed, broken):
    one_row(tmp_path / "in", caption)
    assert result("folder", tmp_path / "in", tmp_path / "out") == (removed, broken)


def test_bad_captions_in_a_csv_are_counted_too(tmp_path):
    one_row(tmp_path / "in")
    (tmp_path / "in/metadata.jsonl").unlink()
    rows = b"audio,caption,key\na.wav,caf\xe9,1\na.wav," + b"y" * 10_000_000 + b",2\n"
    put(tmp_path / "in/metadata.csv", rows + b"a.wav,nul \0 byte,3\ngood.wav,Rain.,g\n")
    removed, broken = result("folder", tmp_path / "in", tmp_path / "out", good=("3", "g"))
    assert removed == {"text longer than 2000 characters": 1}
    assert broken == {"metadata.csv:row 1": NOT_UTF8}


def test_a_row_that_is_not_json_is_listed(tmp_path):
    one_row(tmp_path / "in", b'broken " row')
    removed, broken = result("folder", tmp_path / "in", tmp_path / "out")
    assert removed == {}
    assert broken["metadata.jsonl:row 1"].startswith("not JSON (")


def test_a_row_with_a_key_twice_is_listed(tmp_path):
    row = b'{"audio": "a.wav", "caption": "Rain.", "caption": "Wind.", "key": "1"}'
    one_row(tmp_path / "in")
    table = tmp_path / "in/metadata.jsonl"
    table.write_bytes(table.read_bytes() + row + b"\n")
    _, broken = result("folder", tmp_path / "in", tmp_path / "out", good=("bad", "g"))
    assert list(broken.values()) == ["not JSON (the key 'caption' is there twice)"]


def spoilt_wav(change):
    samples = recording(1, 16_000)
    change(samples)
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, "FLOAT", format="WAV")
    return stream.getvalue()


def set_nan(samples):
    samples[700] = np.nan


def set_infinite(samples):
    samples[-1] = np.inf


def set_zero(samples):
    samples[:] = 0.0


WAV, FLAC = encoded(1, 16_000), encoded(1, 16_000, "FLAC")
MP3 = encoded(2, 24_000, "MP3")
NOISE = random.Random(0).randbytes(20_000)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (spoilt_wav(set_nan), "samples that are not finite"),
        (spoilt_wav(set_infinite), "samples that are not finite"),
        (WAV[: len(WAV) // 2], "ends before the length its header states"),
        (FLAC[: len(FLAC) // 2], "cannot be decoded"),
        (MP3[: len(MP3) // 2], "ends after"),
        (MP3[:4000] + NOISE + MP3[5000:], "cannot be decoded"),
        (NOISE, "cannot be decoded"),
        (b"\0", "cannot be decoded"),
        (encoded(0, 16_000), "no samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_audio_is_set_aside(tmp_path, audio, reason):
    one_row(tmp_path / "in", audio=audio)
    removed, broken = result("folder", tmp_path / "in", tmp_path / "out")
    assert removed == {}
    assert reason in broken["a.wav"]


@pytest.mark.parametrize(
    ("source", "key"), [("FreeSound", "180913"), ("BBC_Sound_Effects", "07006103")]
)
def test_a_damaged_member_of_an_archive_is_set_aside(tmp_path, source, key):
    """Stored in the one archive, deflated in the other."""
    published.wavcaps(tmp_path / "in", zipped=True)
    path = tmp_path / "in" / "Zip_files" / source / f"{source}.zip"
    with zipfile.ZipFile(path) as archive:
        (member,) = [info for info in archive.infolist() if f"/{key}." in info.filename]
    content = bytearray(path.read_bytes())
    middle = member.header_offset + member.compress_size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(content)
    index = ingest("wavcaps", tmp_path / "in", tmp_path / "out", workers=1)
    kept = {record["key"] for record, _, _ in read_shards(tmp_path / "out")}
    assert kept
    assert not any(key in name for name in kept)
    (broken,) = json.loads(index.read_text())["broken"]
    assert key in broken["file"]
    assert broken["reason"].startswith("cannot be read (")


@pytest.mark.parametrize(
    ("audio", "reason"),
    [(spoilt_wav(set_zero), "silent"), (encoded(0.4, 16_000), "shorter than 0.5 s")],
)
def test_silent_and_short_clips_are_counted(tmp_path, audio, reason):
    one_row(tmp_path / "in", audio=audio)
    assert result("folder", tmp_path / "in", tmp_path / "out") == ({reason: 1}, {})


def test_long_speech_is_counted(tmp_path):
    put(tmp_path / "in/a.wav", encoded(30.5, 8000))
    put(tmp_path / "in/good.wav", encoded(30, 8000))
    rows = [{"audio": "a.wav", "text": "on"}, {"audio": "good.wav", "text": "on", "key": "g"}]
    put(tmp_path / "in/metadata.jsonl", "\n".join(map(json.dumps, rows)))
    removed, _ = result("folder", tmp_path / "in", tmp_path / "out")
    assert removed == {"speech longer than 30 s": 1}


@pytest.mark.parametrize("where", ["in a member", "in a header", "between members"])
def test_a_truncated_tar_gives_what_it_has_and_is_listed(tmp_path, where):
    tar = tmp_path / "in/EN-B000000.tar"
    names, _ = emilia_tar(tar)
    content = tar.read_bytes()
    third = content.index(names[3].encode())  # the fourth pair's first header
    cut = {"in a member": 512 + 20, "in a header": 100, "between members": 0}[where]
    tar.write_bytes(content[: third + cut])
    put_tar(tmp_path / "in/EN-B000001.tar", emilia_pair("EN_B00001_S00000_W000000", "On.", 1.0))
    good = [name.removesuffix(".json") for name in names[:3]] + ["EN_B00001_S00000_W000000"]
    _, broken = result("emilia-en", tmp_path / "in", tmp_path / "out", good=good)
    assert "the archive ends early" in broken["EN-B000000.tar"]


def test_a_corrupt_mp3_in_a_tar_is_set_aside(tmp_path):
    tar = tmp_path / "in/EN-B000000.tar"
    names, audio = emilia_tar(tar)
    content = bytearray(tar.read_bytes())
    begin = content.index(names[2].encode())  # the JSON before the third recording
    sound = content.index(audio[2][:64], begin)
    content[sound : sound + 3000] = NOISE[:3000]
    tar.write_bytes(content)
    good = [name.removesuffix(".json") for name in names if name != names[2]]
    _, broken = result("emilia-en", tmp_path / "in", tmp_path / "out", good=good)
    (file,) = broken
    assert file == f"EN-B000000.tar!{names[2].removesuffix('.json')}.mp3"


@pytest.mark.parametrize(
    ("name", "gone", "good"),
    [
        (
            "libritts",
            "LibriTTS/train-clean-100/19/198/19_198_000000_000000.wav",
            ("19_198_000002_000001", "84_121123_000007_000001"),
        ),
        ("emilia-en", "EN-B000000.tar", ("EN_B00001_S00000_W000000",)),
    ],
)
def test_what_vanishes_while_the_corpus_is_read_is_listed(tmp_path, monkeypatch, name, gone, good):
    root, run = tmp_path / "in", worker.run_chunk
    published.libritts(root)
    put_tar(root / "EN-B000000.tar", emilia_pair("EN_B00000_S00000_W000000", "On.", 1.0))
    put_tar(root / "EN-B000001.tar", emilia_pair("EN_B00001_S00000_W000000", "On.", 1.0))

    def run_without(*args):
        (root / gone).unlink(missing_ok=True)
        run(*args)

    monkeypatch.setattr("unison_audio.data.prepare.prepare.run_chunk", run_without)
    removed, broken = result(name, root, tmp_path / "out", good=good)
    assert (removed, list(broken)) == ({}, [gone])


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    one_row(tmp_path / "in", b"A man speaks")
    shutil.copy(tmp_path / "in/a.wav", tmp_path / "in/b.wav")
    (tmp_path / "in/good.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"removed \{'caption speaks of speech': 1\}, broken 1"):
        ingest("folder", tmp_path / "in", tmp_path / "out", workers=1)
