#!/usr/bin/env bash
# A full disk under safetensors is no OSError
#
# Guess: Writing to a full disk raises OSError with errno ENOSPC, as open() and write() do, so that
# one except clause serves all writers of a program.
# Found: save_file raises SafetensorError, which is no OSError and has no errno; the number stands
# in its text alone.
# Why it matters here: Checkpoints are written beside figures and sounds. A command that tells its
# user in one sentence that the disk is full has to read the text of this error.
# Versions: safetensors==0.8.0, numpy==2.4.6; Python 3.11, Linux. A limit on the size of files
# stands for the full disk, so the number is EFBIG (27) in place of ENOSPC (28).
# Output seen:
#   open().write(): OSError True, errno 27
#   save_file(): SafetensorError, OSError False, errno None, in its text: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import resource
import signal

import numpy as np
from safetensors.numpy import save_file

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with open("plain", "wb", buffering=0) as file:
        for _ in range(2):
            file.write(bytes(100_000))
except Exception as error:
    plain = error
print(f"open().write(): OSError {isinstance(plain, OSError)}, errno {plain.errno}")
try:
    save_file({"a": np.zeros(1_000_000, np.float32)}, "weights.safetensors")
except Exception as error:
    stored = error
is_os = isinstance(stored, OSError)
number = getattr(stored, "errno", None)
told = "os error 27" in str(stored)
print(f"save_file(): {type(stored).__name__}, OSError {is_os}, errno {number}, in its text: {told}")
assert isinstance(plain, OSError) and plain.errno == 27
assert not is_os and number is None and told
PYTHON
