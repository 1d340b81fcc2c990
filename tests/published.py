"""Small corpora in the layouts in which the large ones are published, from real recordings."""

import io
import json
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

FIXTURES = Path(__file__).parent / "fixtures"


@lru_cache
def _spoken():
    parts = [soundfile.read(path, dtype="float32")[0] for path in sorted(FIXTURES.glob("*.flac"))]
    return np.concatenate(parts)


def recording(seconds, rate, take=0):
    """Real speech, over and over; each take begins elsewhere."""
    return np.roll(np.resize(_spoken(), round(seconds * rate)), -1000 * take)


@lru_cache(maxsize=64)
def encoded(seconds, rate, container="WAV", subtype=None, take=0, channels=1):
    samples = np.stack([recording(seconds, rate, take)] * channels, axis=1)
    stream = io.BytesIO()
    with soundfile.SoundFile(
        stream, "w", rate, channels=channels, format=container, subtype=subtype
    ) as file:
        for start in range(0, len(samples), 16_384):  # libsndfile's encoders dislike long writes
            file.write(samples[start : start + 16_384])
    return stream.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def put_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def read_shards(out):
    """(record, suffix, content) of each clip in the shards of a folder, in their order."""
    found = []
    for name in [entry["name"] for entry in read_index(out)["shards"]]:
        with tarfile.open(out / name) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        for name, content in members.items():
            key, suffix = name.split(".")
            if suffix != "json":
                found.append((json.loads(members[f"{key}.json"]), suffix, content))
    return found


def read_index(out):
    return json.loads((out / "index.json").read_text())


def libritts(root):
    speakers = "; comment\n;ID  |SEX| SUBSET           |MINUTES| NAME\n"
    speakers += "19   | F | train-clean-100  | 25.19 | Kara Shallenberg\n"
    speakers += "84   | M | dev-clean        | 8.05  | Christie Nowak\n"
    put(root / "LibriTTS/SPEAKERS.txt", speakers)
    table = "READER\tGENDER\tSUBSET\tNAME\n19\tF\ttrain-clean-100\tKara Shallenberg\n"
    put(root / "LibriTTS/speakers.tsv", table)
    for take, (subset, speaker, chapter, number, text) in enumerate(
        (
            ("train-clean-100", 19, 198, "000000_000000", "NORTHANGER ABBEY"),
            ("train-clean-100", 19, 198, "000002_000001", "In no one part was she exact."),
            ("dev-clean", 84, 121123, "000007_000001", "Maximilian."),
        )
    ):
        folder = root / f"LibriTTS/{subset}/{speaker}/{chapter}"
        stem = f"{speaker}_{chapter}_{number}"
        put(folder / f"{stem}.wav", encoded(1.5 + 2 * take, 24_000, take=take))
        put(folder / f"{stem}.normalized.txt", text)
        put(folder / f"{stem}.original.txt", text.upper())
        put(folder / f"{speaker}_{chapter}.trans.tsv", f"{stem}\t{text}\t{text}\n")
        put(folder / f"{speaker}_{chapter}.book.tsv", f"{stem}\t{text}\t0.0\t20.5\n")


def emilia_pair(key, text, seconds, take=0, **fields):
    language = key[:2].lower()
    about = {
        "id": key,
        "wav": f"{key[:9]}/{key[:16]}/mp3/{key}.mp3",
        "text": text,
        "duration": seconds,
        "speaker": key[:16],
        "language": language,
        "dnsmos": 3.2927,
        **fields,
    }
    audio = encoded(seconds, 24_000, "MP3", take=take)
    return [(f"{key}.json", json.dumps(about).encode()), (f"{key}.mp3", audio)]


def emilia_tar(path, pairs=5):
    """An archive of pairs; gives their JSONs' names and their audio."""
    members = []
    for number in range(pairs):
        members += emilia_pair(f"EN_B00000_S00000_W{number:06d}", "Words.", 1.0)
    put_tar(path, members)
    return [name for name, _ in members[::2]], [content for _, content in members[1::2]]


def emilia(root):
    english = emilia_pair("EN_B00000_S00000_W000000", " You can help my mother.", 3.264)
    english += emilia_pair("EN_B00000_S00000_W000001", " What happened to you?", 2.1, take=1)
    put_tar(root / "Emilia/EN/EN-B000000.tar", english)
    later = emilia_pair("EN_B00001_S00004_W000000", " Los Angeles.", 1.2, take=2)
    put_tar(root / "Emilia/EN/EN-B000001.tar", later)
    chinese = emilia_pair("ZH_B00000_S00001_W000000", "你好,世界。", 4.0, take=3)
    put_tar(root / "Emilia/ZH/ZH-B000000.tar", chinese)


def wenetspeech(root):
    def segment(aid, number, start, end, text, subsets, confidence=1.0):
        return {
            "sid": f"{aid}_S{number:05d}",
            "confidence": confidence,
            "begin_time": start,
            "end_time": end,
            "subsets": subsets,
            "text": text,
        }

    def audio(aid, path, source, segments):
        return {
            "aid": aid,
            "duration": 6.0,
            "md5": "48af998ec7dab6964386c3522386fa4b",
            "path": path,
            "source": source,
            "tags": ["drama"],
            "url": f"https://www.youtube.com/watch?v={aid[12:]}",
            "segments": segments,
        }

    one, two, three = "Y0000000000_--5llN02F84", "X0000000001_147854231", "Y0000000002_gone"
    listing = [
        audio(
            one,
            f"audio/train/youtube/B00000/{one}.opus",
            "youtube",
            [
                segment(one, 0, 0.4, 3.6, "怎么样这些日子住得还习惯吧", ["L"]),
                segment(one, 2, 3.8, 5.1, "挺好的", ["L", "M", "S"]),
                segment(one, 3, 5.2, 5.8, "有什么想法啊", ["W"], 0.71),
                segment(one, 4, 5.5, 9.0, "没有了", ["L"]),
            ],
        ),
        audio(
            two,
            f"audio/test_net/youtube/B00000/{two}.opus",
            "youtube",
            [segment(two, 0, 1.0, 3.5, "我就搬出去住", ["TEST_NET"])],
        ),
        audio(
            three,
            f"audio/train/podcast/B00000/{three}.opus",
            "podcast",
            [segment(three, 0, 1.0, 3.5, "那就好", ["L"])],
        ),
    ]
    for entry in listing[:2]:
        put(root / entry["path"], encoded(6, 16_000, "OGG", "OPUS"))
    text = json.dumps({"dataset": "WenetSpeech", "audios": listing}, indent=4, ensure_ascii=False)
    put(root / "WenetSpeech.json", text)


WAVCAPS = {
    "AudioSet_SL": [("Yb0RFKhbpFJA.wav", "Wind and a man speaking are heard.", 10.0)],
    "BBC_Sound_Effects": [("07006103", "Heavy machinery is humming.", 65.0)],
    "FreeSound": [("180913", "A dog is barking.", 2.0), ("999", "Rain is falling.", 3.0)],
    "SoundBible": [("2219", "An airplane is landing.", 4.0), ("7", "Nobody fetched it.", 1.0)],
}
WAVCAPS_LISTS = {
    "AudioSet_SL": "as_final.json",
    "BBC_Sound_Effects": "bbc_final.json",
    "FreeSound": "fsd_final.json",
    "SoundBible": "sb_final.json",
}


def wavcaps(root, *, zipped):
    deep = "mnt/fast/nobackup/scratch4weeks/xm00178/WavCaps/data/waveforms"
    for take, (source, entries) in enumerate(WAVCAPS.items()):
        data = [{"id": name, "caption": said, "duration": s} for name, said, s in entries]
        listing = data if source == "SoundBible" else {"num_captions_per_audio": 1, "data": data}
        put(root / "json_files" / source / WAVCAPS_LISTS[source], json.dumps(listing))
        files = {
            f"{deep}/{source}_flac/{name.removesuffix('.wav')}.flac": encoded(
                seconds, 32_000, "FLAC", take=take
            )
            for name, _, seconds in entries
            if name != "7"
        }
        if not zipped:
            for name, content in files.items():
                put(root / name, content)
            continue
        path = root / "Zip_files" / source / f"{source}.zip"
        path.parent.mkdir(parents=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if take % 2 else 0) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    blacklist = {"AudioSet": ["YvfY_TJq7n_U.wav"], "FreeSound": ["999"]}
    put(root / "json_files/blacklist/blacklist_exclude_test_ac.json", json.dumps(blacklist))


def audioset(root):
    head = "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    head += "# num_ytids=3, num_segs=3, num_unique_labels=527, num_positive_labels=52882\n"
    head += "# YTID, start_seconds, end_seconds, positive_labels\n"
    put(
        root / "balanced_train_segments.csv",
        head
        + '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
        + '--aE2O5G5WE, 0.000, 10.000, "/m/0bt9lr,/m/05tny_"\n'
        + '_0abcdefghi, 2.000, 5.000, "/m/0bt9lr"\n',
    )
    put(
        root / "unbalanced_train_segments.csv",
        head + '---1_cCGK4M, 0.000, 10.000, "/m/01g50p"\n-never-seen-, 0.000, 9.000, "/m/01g50p"\n',
    )
    put(root / "eval_segments.csv", head + 'YIDofEleven, 5.000, 15.000, "/m/06mb1"\n')
    put(
        root / "class_labels_indices.csv",
        "index,mid,display_name\n0,/m/09x0r,Speech\n74,/m/0bt9lr,Dog\n75,/m/05tny_,Bark\n"
        '300,/m/01g50p,"Railroad car, train wagon"\n288,/m/06mb1,Rain\n500,/t/dd00088,Gush\n',
    )
    put_tar(
        root / "data/bal_train00.tar",
        [
            ("audio/bal_train/--PJHxphWEs.flac", encoded(2, 48_000, "FLAC")),
            ("audio/bal_train/--aE2O5G5WE.flac", encoded(2, 48_000, "FLAC", take=1)),
        ],
    )
    put(root / "unbal/---1_cCGK4M_0.000.wav", encoded(2, 44_100, take=2, channels=2))
    put(root / "unbal/_0abcdefghi.wav", encoded(9, 16_000, take=3))  # the whole video
    put(root / "eval/YYIDofEleven.wav", encoded(2, 32_000, take=4))  # with PANNs' Y before it
    put(root / "eval/unknown.wav", encoded(1, 32_000))


def vggsound(root, clip):
    rows = "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
    rows += '--56QUhyDQM,185,"engine accelerating, revving, vroom",train\n'
    rows += "--56QUhyDQM,30,male speech,train\n"
    put(root / "vggsound.csv", rows)
    folder = "scratch/shared/beegfs/hchen/train_data/VGGSound_final/video"
    put_tar(
        root / "vggsound_00.tar.gz",
        [(f"{folder}/---g-f_I2yQ_000001{clip[0]}", clip[1])],
        "w:gz",
    )
    put(root / f"video/--0PQM4-hqg_000030{clip[0]}", clip[1])
    put(root / f"video/--56QUhyDQM_000185{clip[0]}", clip[1])


def audiocaps(root):
    head = "audiocap_id,youtube_id,start_time,caption\n"
    rows = "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"
    rows += '58146,vfY_TJq7n_U,2,"Rustling occurs, ducks quack and water splashes"\n'
    put(root / "dataset/train.csv", head + rows)
    put(root / "dataset/val.csv", head + "97151,y682ml90jGw,11,A machine beeps continuously\n")
    rows = "103549,7fmOlUlwoNg,0,Constant rattling noise\n103548,7fmOlUlwoNg,0,A rattle\n"
    put(root / "dataset/test.csv", head + rows)
    put(root / "audio/train/91139.wav", encoded(2, 32_000))
    put(root / "long/vfY_TJq7n_U.ogg", encoded(14, 16_000, "OGG", "VORBIS", take=1))
    put(root / "audio/val/y682ml90jGw_11.flac", encoded(2, 32_000, "FLAC", take=2))
    put(root / "audio/test/Y7fmOlUlwoNg.wav", encoded(2, 32_000, take=3))


def folder_of(root, clips, seconds=1.0, rate=8000):
    """A folder of short speech with a table, for the tests of the ingest itself."""
    rows = []
    for number in range(clips):
        name = f"{number % 7}/clip{number:04d}.wav"
        put(root / name, encoded(seconds, rate, take=number))
        row = {"audio": name, "text": f"word {number}", "speaker": f"s{number % 5}", "key": number}
        rows.append(json.dumps(row))
    put(root / "metadata.jsonl", "\n".join(rows) + "\n")
