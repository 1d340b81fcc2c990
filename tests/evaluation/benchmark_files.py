"""AudioCaps test and Seed-TTS in their published layouts, small, from real recordings."""

from pathlib import Path

import numpy as np
import soundfile

from unison_audio.audio import load

FIXTURES = Path(__file__).parent.parent / "fixtures"
CAPTIONS = {
    "7fmOlUlwoNg": ("Constant rattling noise", "A rattle"),
    "6BJ455B1aAs": ("A rocket flies by followed by a loud explosion", "Wind blows"),
    "GOD8Bt5LfDE": ("Rain falls on a roof", "Water drips"),
    "y1saVTXsKwc": ("A dog barks", "A dog growls"),
    "zliInBdC98Y": ("An engine hums", "A man talks while an engine hums"),
}
"""The last clip has speech by one of its captions only."""
LINES = {
    "en": (
        ("common_voice_en_1-common_voice_en_2", "We asked them.", "Get the trust fund early."),
        ("common_voice_en_3-common_voice_en_4", "It was his.", "Red and green, I'm sure."),
        ("common_voice_en_5-common_voice_en_6", "A stone.", "They sat down."),
    ),
    "zh": (
        ("10002287-00000094", "在此奉劝大家", "宋代是古代中国"),
        ("10002287-00000095", "真的很好", "我们去学校"),
    ),
}


def spoken(seconds: float, rate: int, take: int) -> np.ndarray:
    """Real speech, over and over; each take begins elsewhere."""
    parts = [load(path, sample_rate=rate).numpy() for path in sorted(FIXTURES.glob("*.flac"))]
    whole = np.concatenate(parts)
    return np.roll(np.resize(whole, round(seconds * rate)), -1500 * take)


def put_audiocaps(root: Path, seconds: float = 1.5) -> None:
    """test.csv with two rows a clip, train.csv, and the clips of both in different places."""
    (root / "dataset").mkdir(parents=True)
    head = "audiocap_id,youtube_id,start_time,caption\n"
    rows, number = head, 103_540
    for take, (video, captions) in enumerate(CAPTIONS.items()):
        for caption in captions:
            rows += f'{number},{video},{30 * take},"{caption}"\n'
            number += 1
        path = root / ("test" if take % 2 else "audio/test") / f"Y{video}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * 32_000)) / 32_000
        hum = 0.2 * np.sin(2 * np.pi * (200 + 170 * take) * time) * (1.2 + np.sin(9 * time))
        soundfile.write(path, hum, 32_000, "PCM_16")
    (root / "dataset/test.csv").write_text(rows, "utf-8")
    (root / "dataset/train.csv").write_text(head + "91139,r1nicOVtvkQ,130,A horn\n", "utf-8")
    soundfile.write(root / "audio/Yr1nicOVtvkQ.wav", hum, 32_000, "PCM_16")


def put_seed_tts(root: Path, seconds: float = 0.9) -> None:
    """meta.lst, prompt-wavs and wavs of both languages; one Chinese line names its recording."""
    take = 0
    for language, lines in LINES.items():
        folder = root / language
        for name in ("prompt-wavs", "wavs"):
            (folder / name).mkdir(parents=True)
        listing = []
        for number, (name, said, text) in enumerate(lines):
            prompt = f"prompt-wavs/{name.split('-')[0]}-{number}.wav"
            own = f"wavs/{name}.wav"
            fields = [name, said, prompt, text]
            if language == "zh" and number == 0:
                own = "wavs/elsewhere.wav"
                fields.append(own)
            listing.append("|".join(fields))
            for path, length in ((prompt, 0.8 * seconds), (own, seconds)):
                take += 1
                soundfile.write(folder / path, spoken(length, 24_000, take), 24_000, "PCM_16")
        (folder / "meta.lst").write_text("\n".join(listing) + "\n", "utf-8")


def put_data(root: Path) -> Path:
    """Both under one folder."""
    put_audiocaps(root / "audiocaps")
    put_seed_tts(root / "seedtts_testset")
    return root
