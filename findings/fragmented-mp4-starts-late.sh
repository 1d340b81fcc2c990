#!/usr/bin/env bash
# AAC in the fragmented MP4 that is used for streaming starts 1,024 samples late
#
# Guess: The encoder's delay is marked in every MP4, so a decoder drops it; fragments only change
# where the index stands.
# Found: With empty_moov, which goes before the first sample, the edit list cannot be written, and
# the sound starts 1,024 samples later than in an ordinary MP4. With delay_moov the header waits
# for the first fragment, and the place is right. Both are flags for the same kind of stream.
# Why it matters here: A generated sound that replaces a stretch of another lies 21 ms late, and
# joined chunks have gaps. Our m4a files are written whole.
# Versions: av==18.1.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   ordinary: click at 24000, edit list True
#   empty_moov: click at 25024, edit list False
#   delay_moov: click at 24000, edit list True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import io

import av
import numpy as np

RATE = 48_000
sound = np.zeros((1, RATE), np.float32)
sound[0, RATE // 2] = 0.9
FLAGS = {
    "ordinary": "",
    "empty_moov": "frag_keyframe+empty_moov+default_base_moof",
    "delay_moov": "frag_keyframe+delay_moov",
}
found = {}
for name, flags in FLAGS.items():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": flags} if flags else {}) as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, RATE, 1024):
            frame = av.AudioFrame.from_ndarray(sound[:, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = file.getvalue()
    with av.open(io.BytesIO(data)) as container:
        blocks = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    place = int(np.abs(np.concatenate(blocks)).argmax())
    found[name] = place
    print(f"{name}: click at {place}, edit list {b'elst' in data}")
assert abs(found["ordinary"] - RATE // 2) <= 2 and found["delay_moov"] == found["ordinary"]
assert found["empty_moov"] - found["ordinary"] == 1024
PYTHON
