#!/usr/bin/env bash
# The same MP3 encoder gives a sound that starts 1,105 samples later when it writes to a stream
#
# Guess: An encoder's output does not depend on whether its sink can seek, or a decoder removes
# the known delay.
# Found: The encoder's delay stands in a header that is filled in at the end. Where the sink
# cannot seek, the header is missing, and both PyAV and soundfile give 1,105 samples of silence
# more at the start and 1,344 samples more in all.
# Why it matters here: Speech that is streamed as MP3 is 46 ms late at 24 kHz against the same
# speech in a file. Subtitles, joins and comparisons must know which of the two they have.
# Versions: av==18.1.0, soundfile==0.14.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   file: PyAV 24000 samples, 0 late; soundfile 24000 samples, 0 late
#   stream: PyAV 25344 samples, 1105 late; soundfile 25344 samples, 1105 late
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 soundfile==0.14.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import io

import av
import numpy as np
import soundfile

RATE = 24_000


class Sink(io.RawIOBase):
    def __init__(self):
        self.bytes = bytearray()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        self.bytes += data
        return len(data)


time = np.arange(RATE) / RATE
sweep = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)
sweep[: RATE // 4] = 0


def encode(sink):
    with av.open(sink, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE)
        stream.layout = "mono"
        for start in range(0, RATE, 1152):
            part = (sweep[None, start : start + 1152] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, "s16p", "mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def late(decoded):
    size = 2 * (len(sweep) + len(decoded))
    spectra = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(sweep, size))
    return int(np.argmax(np.fft.irfft(spectra)))


found = {}
for name, sink in (("file", io.BytesIO()), ("stream", Sink())):
    encode(sink)
    data = sink.getvalue() if name == "file" else bytes(sink.bytes)
    with av.open(io.BytesIO(data)) as container:
        by_av = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    by_soundfile, _ = soundfile.read(io.BytesIO(data))
    found[name] = [(len(wave), late(wave)) for wave in (by_av, by_soundfile)]
    (a, b), (c, d) = found[name]
    print(f"{name}: PyAV {a} samples, {b} late; soundfile {c} samples, {d} late")
assert found == {"file": [(24000, 0)] * 2, "stream": [(25344, 1105)] * 2}
PYTHON
