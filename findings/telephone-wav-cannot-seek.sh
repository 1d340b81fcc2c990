#!/usr/bin/env bash
# WAV files with a telephone codec can only be read from the start, and one is longer than it says
#
# Guess: A WAV file on a disk can be read from any sample, as its blocks have one size, and what was
# written is what is read: the fact chunk has the number of samples.
# Found: libsndfile cannot seek in GSM 6.10, G.721 and NMS ADPCM, so that soundfile refuses start=,
# while IMA and Microsoft ADPCM and mu-law work. 16,000 samples of G.721 have 16,000 in the fact
# chunk, and 16,080 are read; of IMA ADPCM 16,160 are read, which its fact chunk says too.
# Why it matters here: Telephone recordings come in these codecs. A crop of a long clip has to read
# all before it, and an edit that is as long as the file says ends before the sound does.
# Versions: soundfile==0.14.0 (libsndfile 1.2.2), numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   GSM610: start= refused, fact 16000, read 16000
#   G721_32: start= refused, fact 16000, read 16080
#   NMS_ADPCM_32: start= refused, fact 16000, read 16000
#   IMA_ADPCM: start= works, fact 16160, read 16160
#   MS_ADPCM: start= works, fact 16000, read 16000
#   ULAW: start= works, fact 16000, read 16000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import struct
from pathlib import Path

import numpy as np
import soundfile

tone = 0.3 * np.sin(np.arange(16_000) / 9)


def samples_in_header(path):
    data = Path(path).read_bytes()
    place = data.index(b"fact")
    return struct.unpack("<I", data[place + 8 : place + 12])[0]


def seeks(path):
    whole, _ = soundfile.read(path)
    try:
        rest, _ = soundfile.read(path, start=4000)
    except ValueError as error:
        assert "seekable" in str(error)
        return False
    assert np.array_equal(rest, whole[4000:])
    return True


found = {}
for codec in ("GSM610", "G721_32", "NMS_ADPCM_32", "IMA_ADPCM", "MS_ADPCM", "ULAW"):
    path = f"{codec}.wav"
    soundfile.write(path, tone, 8000, subtype=codec)
    found[codec] = (seeks(path), samples_in_header(path), len(soundfile.read(path)[0]))
    able = "works" if found[codec][0] else "refused"
    print(f"{codec}: start= {able}, fact {found[codec][1]}, read {found[codec][2]}")
assert found == {
    "GSM610": (False, 16_000, 16_000),
    "G721_32": (False, 16_000, 16_080),
    "NMS_ADPCM_32": (False, 16_000, 16_000),
    "IMA_ADPCM": (True, 16_160, 16_160),
    "MS_ADPCM": (True, 16_000, 16_000),
    "ULAW": (True, 16_000, 16_000),
}
PYTHON
