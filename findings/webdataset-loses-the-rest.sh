#!/usr/bin/env bash
# A tar that is cut inside a header ends like a whole one in webdataset
#
# Guess: A cut archive raises an error wherever it is cut, so that a broken download is noticed.
# Found: A cut inside a clip's bytes raises ReadError. A cut inside a header, or between two
# members, ends the shard without an error or a warning: the tar's end mark is not asked for. Half
# of the clips are gone.
# Why it matters here: A shard whose download broke off trains on a part of its clips in every
# epoch, and no count is checked. Headers are a third of a shard of short records, so this is no
# rare place. The number of clips must be known beforehand, from an index.
# Versions: webdataset==1.0.2, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   whole: 10 clips
#   cut inside a header: 5 clips
#   cut between two members: 5 clips
#   cut inside a clip: ReadError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import io
import tarfile

import webdataset

MEMBER = 1536  # a header of 512 bytes, and 700 bytes padded to 1024
data = io.BytesIO()
with tarfile.open(fileobj=data, mode="w") as tar:
    for number in range(10):
        for kind in ("txt", "bin"):
            info = tarfile.TarInfo(f"clip{number}.{kind}")
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes([number]) * 700))
whole = data.getvalue()


def clips(size):
    with open("shard.tar", "wb") as file:
        file.write(whole[:size])
    try:
        return f"{sum(1 for _ in webdataset.WebDataset('shard.tar', shardshuffle=False))} clips"
    except tarfile.ReadError as error:
        return type(error).__name__


places = {
    "whole": len(whole),
    "cut inside a header": 9 * MEMBER + 100,
    "cut between two members": 9 * MEMBER,
    "cut inside a clip": 9 * MEMBER + 612,
}
found = {place: clips(size) for place, size in places.items()}
for place, result in found.items():
    print(f"{place}: {result}")
assert [*found.values()] == ["10 clips", "5 clips", "5 clips", "ReadError"]
PYTHON
