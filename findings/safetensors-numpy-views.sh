#!/usr/bin/env bash
# safetensors stores other values of a numpy view than it shows
#
# Guess: A view that is not contiguous is copied, or refused as torch's tensors are.
# Found: safetensors.numpy writes the memory under the view in its own order. A transposed array
# of (channels, samples) comes back with samples of both channels mixed, and every second sample
# comes back as the first half. Shape and type are right, and no error is raised. The same views
# of torch are refused.
# Why it matters here: Sound is read as (samples, channels) and stored as (channels, samples), and
# a channel of it is a strided view. Voices and clips have to pass numpy.ascontiguousarray before
# they are stored.
# Versions: safetensors==0.8.0, numpy==2.4.6, torch==2.13.0; Python 3.11, Linux.
# Output seen:
#   stereo [[0, 2, 4], [1, 3, 5]] comes back as [[0, 1, 2], [3, 4, 5]]
#   channel [0, 2, 4] comes back as [0, 1, 2]
#   torch: ValueError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 torch==2.13.0
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import torch
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch

sound = np.array([[0, 1], [2, 3], [4, 5]], np.int16)  # (samples, channels), as soundfile reads it
views = {"stereo": sound.T, "channel": sound[:, 0]}
for name, view in views.items():
    back = load(save({"x": view}))["x"]
    print(name, view.tolist(), "comes back as", back.tolist())
    assert back.shape == view.shape and back.dtype == view.dtype
    assert not np.array_equal(back, view)
    assert np.array_equal(load(save({"x": np.ascontiguousarray(view)}))["x"], view)
try:
    save_torch({"x": torch.from_numpy(sound).T})
    refused = ""
except ValueError as error:
    refused = type(error).__name__
print("torch:", refused or "stored")
assert refused
PYTHON
