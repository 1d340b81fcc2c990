#!/usr/bin/env bash
# A FLAC that was streamed cannot be read by soundfile.read
#
# Guess: FLAC allows an unknown length in its header, so a reader decodes until the stream ends.
# Found: PyAV writes a FLAC into a sink that cannot seek and leaves the length unknown. PyAV reads it
# back. soundfile takes the unknown length for 2**63 - 1 frames: soundfile.read raises 'array is too
# big', and reading in blocks raises 'Internal psf_fseek() failed' before the last block is given.
# Why it matters here: A server that streams FLAC gives files that the usual Python reader refuses.
# Such an upload has to be decoded by another library.
# Versions: av==18.1.0, soundfile==0.14.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   frames by soundfile: 9223372036854775807
#   soundfile.read: ValueError
#   samples by PyAV: 24000; soundfile's blocks: LibsndfileError after 23000 samples
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
    """What a socket is to an encoder: written once, never sought."""

    def __init__(self):
        self.bytes = bytearray()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        self.bytes += data
        return len(data)


tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int16)
sink = Sink()
with av.open(sink, "w", format="flac") as container:
    stream = container.add_stream("flac", rate=RATE)
    stream.layout = "mono"
    for start in range(0, RATE, 4000):
        frame = av.AudioFrame.from_ndarray(tone[None, start : start + 4000], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
data = bytes(sink.bytes)

frames = soundfile.info(io.BytesIO(data)).frames
print("frames by soundfile:", frames)
try:
    soundfile.read(io.BytesIO(data))
    refused = ""
except ValueError:
    refused = "ValueError"
print("soundfile.read:", refused or "read")
with av.open(io.BytesIO(data)) as container:
    decoded = sum(frame.samples for frame in container.decode(audio=0))
read, ended = 0, ""
with soundfile.SoundFile(io.BytesIO(data)) as file:
    try:
        while len(block := file.read(1000)):
            read += len(block)
    except soundfile.LibsndfileError:
        ended = "LibsndfileError"
print(f"samples by PyAV: {decoded}; soundfile's blocks: {ended or 'end'} after {read} samples")
assert frames == 2**63 - 1 and refused and ended and decoded == RATE and read < RATE
PYTHON
