#!/usr/bin/env bash
# torch exports an inverse STFT to a model that ONNX Runtime refuses
#
# Guess: torch.istft exports, since the STFT does; if it did not, the exporter would say so.
# Found: torch.onnx.export writes the model without an error. ONNX Runtime then refuses it: the
# overlap-add becomes a ScatterND whose indices are 32-bit, and that operator takes 64-bit ones
# alone. The forward STFT of the same module exports and agrees to 1e-4. torch.fft.irfft exports
# as well, so an overlap-add of one's own works.
# Why it matters here: A vocoder with an inverse STFT as its head looks exported and cannot be
# loaded on the device. Our codec adds its frames with fold and exports with an error of 1e-8.
# Versions: torch==2.13.0, onnx==1.23.2, onnxscript==0.7.2, onnxruntime==1.32.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   stft: loaded, error below 1e-4: True
#   istft: exported, ONNX Runtime says InvalidGraph
#   operator named: ScatterND
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnxruntime
import torch
from torch import nn

WINDOW = torch.hann_window(256)


class Forward(nn.Module):
    def forward(self, x):
        return torch.view_as_real(torch.stft(x, 256, 64, window=WINDOW, return_complex=True))


class Inverse(nn.Module):
    def forward(self, real, imaginary):
        return torch.istft(torch.complex(real, imaginary), 256, 64, window=WINDOW)


def exported(module, *given):
    path = f"{type(module).__name__}.onnx"
    torch.onnx.export(module.eval(), given, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in given))))[0]


torch.manual_seed(0)
wave = torch.randn(1, 4000)
spectrum = Forward()(wave)
close = np.abs(exported(Forward(), wave) - spectrum.numpy()).max() < 1e-4
print("stft: loaded, error below 1e-4:", bool(close))
try:
    exported(Inverse(), spectrum[..., 0], spectrum[..., 1])
    refused, reason = "nothing", ""
except Exception as error:
    refused, reason = type(error).__name__, str(error)
print("istft: exported, ONNX Runtime says", refused)
print("operator named:", "ScatterND" if "ScatterND" in reason else reason)
assert close and refused == "InvalidGraph" and "ScatterND" in reason
PYTHON
