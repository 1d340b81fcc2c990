#!/usr/bin/env bash
# What a wav2vec 2.0 classifier hears depends on what else is in the batch
#
# Guess: The feature extractor normalizes each recording to unit variance, whatever it is batched
# with.
# Found: Without an attention mask, which is the default, the extractor pads first and normalizes
# the padded row. One second beside a two-second recording gets a standard deviation of 1.41
# instead of 1.
# Why it matters here: Gender, emotion and speaker metrics on wav2vec 2.0 change with the order of
# the test set and the batch size. Batches must hold equal lengths, or single items.
# Versions: transformers==5.24.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   attention mask by default: False
#   standard deviation alone 1.000, beside a longer recording 1.414
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from transformers import Wav2Vec2FeatureExtractor

extractor = Wav2Vec2FeatureExtractor()
rng = np.random.default_rng(0)
short, long = (rng.normal(size=n).astype(np.float32) for n in (16_000, 32_000))


def heard(*waves):
    batch = extractor([*waves], sampling_rate=16_000, padding=True, return_tensors="np")
    return batch["input_values"][0][:16_000].std()


print("attention mask by default:", extractor.return_attention_mask)
print(f"standard deviation alone {heard(short):.3f}, beside a longer recording {heard(short, long):.3f}")
assert not extractor.return_attention_mask
assert abs(heard(short) - 1) < 1e-3 and abs(heard(short, long) - 2**0.5) < 1e-3
PYTHON
