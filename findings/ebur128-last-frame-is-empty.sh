#!/usr/bin/env bash
# FFmpeg's loudness meter leaves the last frame without figures
#
# Guess: The last frame that comes out of the ebur128 filter carries the loudness of the whole.
# Found: Figures come with every full 100 ms. The last, shorter frame has none, so that reading the
# last frame fails for most lengths, and works for those that are whole tenths of a second.
# Why it matters here: A sound is measured before its gain is set. The figures of the last frame
# that has them are those to take.
# Versions: av==18.1.0 (FFmpeg inside), numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   1.00 s: 10 frames, figures in 10, in the last one: True
#   1.03 s: 11 frames, figures in 10, in the last one: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import av
import numpy as np

KEY = "lavfi.r128.I"
found = []
for seconds in (1.0, 1.03):
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(round(48_000 * seconds)) / 48_000)
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=48_000, format="flt", layout="mono")
    meter = graph.add("ebur128", "metadata=1")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate = 48_000
    graph.push(frame)
    graph.push(None)
    has = []
    while True:
        try:
            has.append(KEY in graph.pull().metadata)
        except av.EOFError:
            break
    found.append(has)
    print(f"{seconds:.2f} s: {len(has)} frames, figures in {sum(has)}, in the last one: {has[-1]}")
assert found[0][-1] and not found[1][-1] and sum(found[1]) == 10
PYTHON
