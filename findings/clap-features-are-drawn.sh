#!/usr/bin/env bash
# CLAP's features of one clip differ from call to call, and a short clip counts as long
#
# Guess: A feature extractor is a function of its input, and is_longer says whether a clip is over
# ten seconds.
# Found: With the default settings a clip of twelve seconds gives other features at each call. A
# single clip of three seconds is flagged is_longer; of two such clips, one drawn at random is.
# Why it matters here: CLAP scores do not repeat, and a short clip goes through the fusion path
# that is meant for long ones. Scores need a seeded draw, or truncation='rand_trunc' and clips of
# at most ten seconds.
# Versions: torch==2.13.0, transformers==5.24.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   twelve seconds twice: equal features False
#   three seconds alone: is_longer [[True]]
#   three seconds twice: 1 of 2 flagged
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from transformers import ClapFeatureExtractor

extractor = ClapFeatureExtractor()
rng = np.random.default_rng(0)
clip = {seconds: rng.normal(size=48_000 * seconds).astype(np.float32) for seconds in (3, 12)}


def features(*waves):
    return extractor([*waves], sampling_rate=48_000, return_tensors="np")


first, second = (features(clip[12])["input_features"] for _ in range(2))
alone = features(clip[3])["is_longer"]
both = [int(np.sum(features(clip[3], clip[3])["is_longer"])) for _ in range(8)]
print("twelve seconds twice: equal features", np.array_equal(first, second))
print("three seconds alone: is_longer", np.asarray(alone).tolist())
print(f"three seconds twice: {both[0]} of 2 flagged")
assert not np.array_equal(first, second)
assert np.all(alone) and set(both) == {1}
PYTHON
