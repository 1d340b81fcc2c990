#!/usr/bin/env bash
# An Ogg Vorbis file has another length in each decoder
#
# Guess: Vorbis states the last sample's position, so each decoder gives the length that was
# written.
# Found: soundfile gives back the exact length. PyAV gives 256 samples less at 16 kHz and 448 more
# at 24 kHz for one second.
# Why it matters here: Results written as .ogg and compared, mixed or trained on through PyAV (or
# what is built on it) are cut or padded at the end. Edits need source and result of equal length.
# Versions: av==18.1.0, soundfile==0.14.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   16000 Hz: written 16000, soundfile 16000, PyAV 15744
#   24000 Hz: written 24000, soundfile 24000, PyAV 24448
#   44100 Hz: written 44100, soundfile 44100, PyAV 43972
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import av
import numpy as np
import soundfile

lengths = {}
for rate in (16_000, 24_000, 44_100):
    time = np.arange(rate) / rate
    sweep = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)
    sweep[: rate // 4] = 0
    soundfile.write("sweep.ogg", sweep.astype(np.float32), rate, format="OGG", subtype="VORBIS")
    read, _ = soundfile.read("sweep.ogg")
    with av.open("sweep.ogg") as container:
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    lengths[rate] = (len(read), decoded)
    print(f"{rate} Hz: written {rate}, soundfile {len(read)}, PyAV {decoded}")
assert lengths == {16_000: (16000, 15744), 24_000: (24000, 24448), 44_100: (44100, 43972)}
PYTHON
