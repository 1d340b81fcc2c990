import io
import json
import sys

import numpy as np
import published
import pytest
import soundfile
from published import encoded, put, put_tar, read_index, read_shards, recording

from unison_audio.cli import main as cli
from unison_audio.data.corpora import CORPORA
from unison_audio.data.corpora.emilia import is_held_out
from unison_audio.data.prepare.prepare import ingest
from unison_audio.data.records import ClipRecord
from unison_audio.errors import InputError


def shards_of(name, root, out, **options):
    ingest(name, root, out, workers=1, **options)
    clips = {record["key"]: (record, suffix, data) for record, suffix, data in read_shards(out)}
    return clips, read_index(out)


def decoded(content):
    return soundfile.read(io.BytesIO(content), dtype="float32")


def test_the_corpora_of_the_paper_can_be_named():
    assert set(CORPORA) == {
        *("wavcaps", "audioset", "vggsound", "audiocaps", "libritts", "wenetspeech"),
        *("emilia-en", "emilia-zh", "folder"),
    }


def test_libritts_gives_texts_speakers_and_genders(tmp_path):
    published.libritts(tmp_path / "in")
    clips, index = shards_of("libritts", tmp_path / "in", tmp_path / "out")
    record, suffix, content = clips["19_198_000002_000001"]
    assert ClipRecord(**record) == ClipRecord(
        key="19_198_000002_000001",
        kind="speech",
        split="train",
        seconds=3.5,
        licence="CC-BY-4.0",
        source="libritts:LibriTTS/train-clean-100/19/198/19_198_000002_000001.wav",
        text="In no one part was she exact.",
        speaker="libritts-19",
        gender="female",
        language="en",
        sample_rate=24_000,
        channels=1,
    )
    published_file = tmp_path / "in" / record["source"].removeprefix("libritts:")
    assert (suffix, content) == ("wav", published_file.read_bytes())
    assert clips["84_121123_000007_000001"][0]["split"] == "speakers"
    assert clips["84_121123_000007_000001"][0]["gender"] == "male"
    assert index["by_split"] == {
        "speakers": {"clips": 1, "hours": round(5.5 / 3600, 4)},
        "train": {"clips": 2, "hours": round(5 / 3600, 4)},
    }
    assert index["zero_shot"]["clips"] == 2  # of 1.5, 3.5 and 5.5 s
    assert [entry["splits"] for entry in index["shards"]] == [["train"], ["speakers"]]


def test_libritts_without_genders_and_with_a_text_missing(tmp_path):
    published.libritts(tmp_path / "in")
    for name in ("SPEAKERS.txt", "speakers.tsv"):
        (tmp_path / "in/LibriTTS" / name).unlink()
    folder = tmp_path / "in/LibriTTS/train-clean-100/19/198"
    (folder / "19_198_000000_000000.normalized.txt").unlink()
    clips, index = shards_of("libritts", tmp_path / "in", tmp_path / "out")
    assert {record["gender"] for record, _, _ in clips.values()} == {""}
    assert index["clips"] == 2
    assert index["removed"] == {"no .normalized.txt beside it": 1}


@pytest.mark.parametrize(("language", "count"), [("en", 3), ("zh", 1)])
def test_emilia_keeps_the_published_mp3(tmp_path, language, count):
    published.emilia(tmp_path / "in")
    clips, index = shards_of(f"emilia-{language}", tmp_path / "in", tmp_path / "out")
    assert len(clips) == count
    assert index["by_language"] == {language: {"clips": count, "hours": index["hours"]}}
    assert index["sample_rates"] == {"24000": count}
    for record, suffix, content in clips.values():
        assert suffix == "mp3"
        samples, rate = decoded(content)
        assert record["seconds"] == pytest.approx(len(samples) / rate, abs=1e-6)
    if language == "en":
        record, _, content = clips["EN_B00000_S00000_W000000"]
        assert record["text"] == "You can help my mother."
        assert record["speaker"] == "EN_B00000_S00000"
        assert content == encoded(3.264, 24_000, "MP3")


def test_emilia_reads_either_order_and_names_halves_and_bad_json(tmp_path):
    (about, audio) = published.emilia_pair("EN_B00000_S00000_W000000", "One.", 1.0)
    yodas = [("EN_1.mp3", audio[1]), ("EN_1.json", about[1].replace(b'"id"', b'"_id"'))]
    bad = [("EN_2.json", b'{"text": 5}'), ("EN_2.mp3", audio[1])]
    alone = [("EN_3.json", about[1]), ("EN_4.mp3", audio[1])]
    shorter = [("EN_5.json", about[1].replace(b": 1.0", b": 7.5")), ("EN_5.mp3", audio[1])]
    members = [audio, about, *yodas, *bad, *alone, *shorter]
    put_tar(tmp_path / "in/EN-B000000.tar", members)
    clips, index = shards_of("emilia-en", tmp_path / "in", tmp_path / "out")
    assert sorted(clips) == ["EN_1", "EN_B00000_S00000_W000000"]
    reasons = {entry["file"]: entry["reason"] for entry in index["broken"]}
    assert "text and speaker must be strings" in reasons["EN-B000000.tar!EN_2.mp3"]
    assert reasons["EN-B000000.tar!EN_3"] == "no audio beside it"
    assert reasons["EN-B000000.tar!EN_4"] == "no json beside it"
    assert reasons["EN-B000000.tar!EN_5.mp3"] == "1.00 s long where 7.50 are stated"


def test_emilia_holds_some_speakers_out_in_shards_of_their_own(tmp_path):
    heard, unheard = "EN_B00000_S00000", "EN_B00000_S00037"  # settled once and for all
    assert [is_held_out(speaker) for speaker in (heard, unheard)] == [False, True]
    share = sum(is_held_out(f"ZH_B00001_S{number:05d}") for number in range(20_000)) / 20_000
    assert abs(share - 1 / 200) < 3 * (1 / 200 / 20_000) ** 0.5
    pairs = []
    for number, speaker in enumerate((heard, unheard, heard, unheard)):
        pairs += published.emilia_pair(f"{speaker}_W{number:06d}", "Words.", 1.0, take=number)
    path = put_tar(tmp_path / "in/EN/EN-B000000.tar", pairs)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(f"{unheard}_W000003.mp3".encode()) + 2000])
    clips, index = shards_of("emilia-en", tmp_path / "in", tmp_path / "out")
    assert {key: record["split"] for key, (record, _, _) in clips.items()} == {
        f"{heard}_W000000": "train",
        f"{heard}_W000002": "train",
        f"{unheard}_W000001": "speakers",
    }
    assert [entry["splits"] for entry in index["shards"]] == [["train"], ["speakers"]]
    tar = "EN/EN-B000000.tar"  # both passes find it damaged, one says so
    assert [entry["file"] for entry in index["broken"]] == [tar, f"{tar}!{unheard}_W000003.mp3"]


def test_a_limit_is_spent_on_training_clips_first(tmp_path):
    published.libritts(tmp_path / "in")
    clips, _ = shards_of("libritts", tmp_path / "in", tmp_path / "out", limit=1)
    assert [record["split"] for record, _, _ in clips.values()] == ["train"]


def test_wenetspeech_segments_are_cut_to_the_sample(tmp_path):
    published.wenetspeech(tmp_path / "in")
    clips, index = shards_of("wenetspeech", tmp_path / "in", tmp_path / "out")
    one = "Y0000000000_--5llN02F84"
    assert sorted(clips) == ["X0000000001_147854231_S00000", f"{one}_S00000", f"{one}_S00002"]
    record, suffix, content = clips[f"{one}_S00002"]
    whole, rate = soundfile.read(
        tmp_path / f"in/audio/train/youtube/B00000/{one}.opus", dtype="float32"
    )
    samples, _ = decoded(content)
    assert suffix == "flac"
    assert record["seconds"] == pytest.approx(1.3)
    assert np.allclose(samples, whole[round(3.8 * rate) : round(5.1 * rate)], atol=1 / 32768)
    assert (record["text"], record["language"], record["gender"]) == ("挺好的", "zh", "")
    assert clips["X0000000001_147854231_S00000"][0]["split"] == "heldout"
    assert index["removed"] == {"no audio file": 1, "weak label (confidence under 0.95)": 1}
    (broken,) = index["broken"]
    assert broken["file"].endswith(f"{one}.opus#{one}_S00004")
    assert "from 5.50 to 9.00 s is not inside" in broken["reason"]


@pytest.mark.parametrize("zipped", [False, True])
def test_wavcaps_filters_cuts_and_holds_out(tmp_path, zipped):
    published.wavcaps(tmp_path / "in", zipped=zipped)
    clips, index = shards_of("wavcaps", tmp_path / "in", tmp_path / "out")
    pieces = [f"BBC_Sound_Effects-07006103_piece{i}" for i in range(3)]
    assert sorted(clips) == [*pieces, "FreeSound-180913", "FreeSound-999", "SoundBible-2219"]
    record, suffix, content = clips["FreeSound-180913"]
    assert (record["caption"], record["label"]) == ("A dog is barking.", "a dog is barking")
    assert (suffix, content) == ("flac", encoded(2.0, 32_000, "FLAC", take=2))
    assert clips["FreeSound-999"][0]["split"] == "heldout"
    long = recording(65, 32_000, 1)
    for key, start in zip(pieces, (0, 27.5, 55), strict=True):
        samples, rate = decoded(clips[key][2])
        first = round(start * rate)
        assert np.allclose(samples, long[first : first + 10 * rate], atol=1 / 32768)
    assert index["cut"] == {"recordings": 1, "pieces": 3}
    assert index["removed"] == {"caption speaks of speech": 1, "no audio file": 1}


def test_wavcaps_in_volumes_says_how_to_join_them(tmp_path):
    published.wavcaps(tmp_path / "in", zipped=True)
    put(tmp_path / "in/Zip_files/FreeSound/FreeSound.z01", b"PK")
    with pytest.raises(InputError, match=r"join them first with: zip -s- FreeSound\.zip"):
        ingest("wavcaps", tmp_path / "in", tmp_path / "out", workers=1)


def test_audioset_is_found_in_tars_and_folders_under_its_many_names(tmp_path):
    published.audioset(tmp_path / "in")
    clips, index = shards_of("audioset", tmp_path / "in", tmp_path / "out")
    assert sorted(clips) == ["---1_cCGK4M", "--aE2O5G5WE", "YIDofEleven", "_0abcdefghi"]
    assert clips["--aE2O5G5WE"][0]["caption"] == "dog, bark"
    assert clips["--aE2O5G5WE"][2] == encoded(2, 48_000, "FLAC", take=1)
    assert clips["---1_cCGK4M"][0]["caption"] == "railroad car, train wagon"
    assert clips["---1_cCGK4M"][0]["channels"] == 2
    assert clips["YIDofEleven"][0]["split"] == "heldout"
    cut, rate = decoded(clips["_0abcdefghi"][2])  # 2 to 5 s of a whole video
    assert np.allclose(cut, recording(9, 16_000, 3)[2 * rate : 5 * rate], atol=1 / 32768)
    assert index["removed"] == {
        "audio without a row in the tables": 1,
        "caption speaks of speech": 1,
        "no audio file": 1,
    }


def test_a_clip_that_is_in_a_tar_and_unpacked_comes_once(tmp_path):
    published.audioset(tmp_path / "in")
    put(tmp_path / "in/unpacked/--aE2O5G5WE.flac", encoded(2, 48_000, "FLAC", take=1))
    put(tmp_path / "in/unpacked/again/--aE2O5G5WE_0.000.wav", encoded(2, 48_000, take=1))
    clips, index = shards_of("audioset", tmp_path / "in", tmp_path / "out")
    assert index["clips"] == len(clips) == 4
    assert index["removed"]["listed twice"] == 2


def test_vggsound_takes_wav_as_published_and_the_clip_with_the_right_start(tmp_path):
    published.vggsound(tmp_path / "in", (".wav", encoded(2, 16_000)))
    clips, index = shards_of("vggsound", tmp_path / "in", tmp_path / "out")
    assert {key: record["label"] for key, (record, _, _) in clips.items()} == {
        "---g-f_I2yQ_000001": "people marching",
        "--0PQM4-hqg_000030": "waterfall burbling",
        "--56QUhyDQM_000185": "engine accelerating, revving, vroom",
    }
    assert clips["---g-f_I2yQ_000001"][0]["split"] == "heldout"
    assert index["removed"] == {"no audio file": 1}


def test_video_is_decoded_and_becomes_flac(tmp_path):
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=16_000, layout="mono")
        samples = recording(2, 16_000)
        for start in range(0, len(samples) - 1024, 1024):
            block = samples[None, start : start + 1024]
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    published.vggsound(tmp_path / "in", (".mp4", stream.getvalue()))
    clips, _ = shards_of("vggsound", tmp_path / "in", tmp_path / "out")
    record, suffix, content = clips["---g-f_I2yQ_000001"]
    heard, rate = decoded(content)
    assert (suffix, rate, record["sample_rate"]) == ("flac", 16_000, 16_000)
    assert abs(len(heard) - len(samples)) <= 3 * 1024  # AAC's padding
    spectra = [np.abs(np.fft.rfft(x[: 30 * 1024], 1 << 15)) for x in (heard, samples)]
    assert np.corrcoef(*spectra)[0, 1] > 0.9


def test_video_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    published.vggsound(tmp_path / "in", (".mp4", b"a video"))
    with pytest.raises(
        InputError, match=r"mp4 needs .* av.* pip install 'unison-audio\[formats\]'"
    ):
        ingest("vggsound", tmp_path / "in", tmp_path / "out", workers=1)


def test_audiocaps_takes_its_names_and_cuts_whole_videos(tmp_path):
    published.audiocaps(tmp_path / "in")
    clips, index = shards_of("audiocaps", tmp_path / "in", tmp_path / "out")
    assert sorted(clips) == ["103548", "103549", "58146", "97151"]
    assert clips["58146"][0]["seconds"] == pytest.approx(10.0)
    assert clips["58146"][1] == "flac"
    assert clips["97151"][0]["split"] == "heldout"
    assert clips["103549"][0]["caption"] == "Constant rattling noise"
    assert clips["103549"][2] == clips["103548"][2]
    assert index["removed"] == {"caption speaks of speech": 1}


def test_a_folder_with_a_csv_of_any_columns(tmp_path):
    put(tmp_path / "in/a/b/häh?.wav", encoded(1, 16_000))
    put(tmp_path / "in/x.flac", encoded(4, 22_050, "FLAC"))
    put(tmp_path / "in/au.aif", encoded(2, 16_000, "AIFF"))
    put(
        tmp_path / "in/list.csv",
        "\ufefffile_name,text,caption,speaker,gender,language,extra,start,end\n"
        'a/b/häh?.wav,"Two\nlines, and a comma",,ann,female,de,1,,\n'
        "x.flac,,Rain falls on a roof,,,en,2,1.0,3.5\n"
        "x.flac,,,,,,3,,\n"
        "none.wav,,A door closes,,,en,4,,\n"
        "au.aif,,A gate creaks.,,,en,5,,\n"
        "au.aif,,A gate opens.,,neuter,en,6,,\n",
    )
    clips, index = shards_of("folder", tmp_path / "in", tmp_path / "out")
    records = {record["source"]: (record, suffix) for record, suffix, _ in clips.values()}
    record, suffix = records["folder:a/b/häh?.wav"]
    assert (record["kind"], record["text"], suffix) == ("speech", "Two lines, and a comma", "wav")
    assert (record["speaker"], record["gender"], record["language"]) == ("ann", "female", "de")
    record, suffix = records["folder:x.flac"]
    assert (record["kind"], record["seconds"], suffix) == ("sound", 2.5, "flac")
    assert records["folder:au.aif"][1] == "flac"
    assert index["removed"] == {"no text or caption": 1}
    assert index["broken"] == [{"file": "list.csv:row 4", "reason": "no audio file none.wav"}]
    assert any(record["gender"] == "" for record, _, _ in clips.values())
    assert all(set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for key in clips)


def test_a_table_as_people_have_it(tmp_path):
    """Common Voice's columns and genders, a byte order mark, an unquoted comma, other splits."""
    for name in ("a", "b", "c", "d", "e", "f"):
        put(tmp_path / f"in/{name}.wav", encoded(1, 16_000))
    put(
        tmp_path / "in/list.tsv",
        "\ufeffclient_id\tpath\tsentence\tgender\tlocale\tsplit\n"
        "1\ta.wav\tOne\tmale_masculine\ten\ttest\n"
        "2\t b.wav \tTwo\tF\ten\ttrain\n"
        "3\tc.wav\tThree\tother\ten\t\n"
        "4\td.wav\tFour\tFemale\ten\ttrain\textra\n"
        "5\tgone.wav\tFive\t\ten\t\n",
    )
    clips, index = shards_of("folder", tmp_path / "in", tmp_path / "out")
    found = {r["text"]: (r["speaker"], r["gender"], r["split"]) for r, _, _ in clips.values()}
    assert found == {
        "One": ("1", "male", "heldout"),
        "Two": ("2", "female", "train"),
        "Three": ("3", "", "train"),
    }
    reasons = {entry["file"]: entry["reason"] for entry in index["broken"]}
    assert reasons["list.tsv:row 5"] == "no audio file gone.wav"
    assert reasons["list.tsv:row 4"].startswith("7 fields where the table has 6 columns")


def test_what_is_left_out_is_counted_and_listed(tmp_path, capsys):
    for name in ("a", "b", "c"):
        put(tmp_path / f"in/{name}.wav", encoded(1, 16_000))
    put(
        tmp_path / "in/list.csv",
        "audio,caption,split\na.wav,rain,\ngone.wav,rain,\nb.wav,caf\xe9,\n"
        "b.wav,rain,robot\nc.wav,rain, wind,\nc.wav,rain,valid\n".encode("latin-1"),
    )
    words = ["data", "folder", "--root", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert (
        "Left out: 4 that cannot be used, such as list.csv:row 2 (no audio file gone.wav)" in said
    )
    assert f"{tmp_path / 'out' / 'broken.jsonl'} lists all" in said
    rows = (tmp_path / "out" / "broken.jsonl").read_text("utf-8").splitlines()
    found = {row["file"]: row["reason"] for row in map(json.loads, rows)}
    assert found == {
        "list.csv:row 2": "no audio file gone.wav",
        "list.csv:row 3": "caption holds a NUL character or bytes that are not UTF-8",
        "list.csv:row 4": found["list.csv:row 4"],
        "list.csv:row 5": found["list.csv:row 5"],
    }
    assert found["list.csv:row 4"].startswith("split is 'robot'; it must be train or")
    assert found["list.csv:row 5"].startswith("4 fields where the table has 3 columns")
    assert [r["split"] for r, _, _ in read_shards(tmp_path / "out")] == ["train", "heldout"]


def test_a_jsonl_table_as_people_have_it(tmp_path):
    for name in ("a", "b", "c", "d"):
        put(tmp_path / f"in/{name}.wav", encoded(1, 16_000))
    rows = [
        {"audio": "a.wav", "transcription": "One\u2028and\u0085two", "gender": "m"},
        {"audio": "b.wav", "text": "\ud800"},
        {"audio": "c.wav", "text": "Three", "sentence": "not this"},
        {"audio": "d.wav", "text": "Four", "start": 10**400},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    content = "\ufeff" + "\n".join([*lines, "[" * 100_000, ""])
    (tmp_path / "in/own.jsonl").write_bytes(content.encode("utf-8", "surrogatepass"))
    clips, index = shards_of("folder", tmp_path / "in", tmp_path / "out")
    texts = {record["text"]: record["gender"] for record, _, _ in clips.values()}
    assert len(texts) == 2
    assert texts["Three"] == ""
    assert [entry["file"] for entry in index["broken"]] == [
        "own.jsonl:row 2",
        "own.jsonl:row 4",
        "own.jsonl:row 5",
    ]


def test_shards_do_not_answer_for_another_table(tmp_path):
    for name in ("one", "two"):
        put(tmp_path / f"{name}/a.wav", encoded(1, 16_000))
        put(tmp_path / f"{name}/list.csv", f"audio,caption\na.wav,{name} dogs bark\n")
    ingest("folder", tmp_path / "one", tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="from another table"):
        ingest("folder", tmp_path / "two", tmp_path / "out", workers=1)


def test_a_folder_names_what_its_table_lacks(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="one table with a column audio; it has none"):
        ingest("folder", tmp_path / "in", tmp_path / "out", workers=1)
    put(tmp_path / "in/a.csv", "sound,caption\nx.wav,A dog barks\n")
    with pytest.raises(InputError, match="it needs a first line with the names"):
        ingest("folder", tmp_path / "in", tmp_path / "out", workers=1)
    put(tmp_path / "in/b.csv", "audio\n")
    with pytest.raises(InputError, match=r"a\.csv, b\.csv; call the one"):
        ingest("folder", tmp_path / "in", tmp_path / "out", workers=1)


@pytest.mark.parametrize("name", sorted(set(CORPORA) - {"folder"}))
def test_a_folder_without_the_corpus_is_named(tmp_path, name):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=r"There is no .* under .*/in; (fetch|unpack)"):
        ingest(name, tmp_path / "in", tmp_path / "out", workers=1)


def test_a_large_listing_is_read_entry_by_entry(tmp_path, monkeypatch):
    from unison_audio.data.corpora import source_files as files

    monkeypatch.setattr(files, "_CHUNK", 7)  # cuts through names, numbers and characters
    entries = [{"aid": f"名字{i}", "deep": [{"x]": i}, '\\"}']} for i in range(20)]
    text = json.dumps({"before": "[", "audios": entries, "after": 1}, ensure_ascii=False, indent=1)
    path = put(tmp_path / "big.json", text)
    found = list(files.json_objects(path, "audios"))
    assert [value for _, _, value in found] == entries
    content = path.read_bytes()
    assert [json.loads(content[at : at + size]) for at, size, _ in found] == entries
    put(path, content[: len(content) // 2])
    with pytest.raises(InputError, match=r"damaged or ends early: after byte \d+ comes no whole"):
        list(files.json_objects(path, "audios"))
    with pytest.raises(InputError, match="no whole array 'other'"):
        list(files.json_objects(path, "other"))
