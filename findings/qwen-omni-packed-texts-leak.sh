#!/usr/bin/env bash
# Packed texts leak into each other in Qwen2.5-Omni unless positions have four rows and no cache is made
#
# Guess: Position ids that start again at 0 keep packed texts apart, as transformers documents for
# packed sequences.
# Found: With position ids of two dimensions, or of three rows (temporal, height, width), or with
# the cache left on, the second text attends to the first. Only four rows with use_cache=False
# give the states of the text alone. Nothing is raised.
# Why it matters here: Packing is the quick way to encode many instructions at once. Done in the
# obvious way it changes each instruction's states by more than their own size.
# Versions: torch==2.13.0, transformers==5.24.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   1 row, cache on: differs by 4.58
#   1 row, cache off: differs by 4.58
#   3 rows, cache on: differs by 4.58
#   3 rows, cache off: differs by 4.58
#   4 rows, cache on: differs by 4.58
#   4 rows, cache off: differs by 0.00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel

torch.manual_seed(0)
config = Qwen2_5OmniTextConfig(
    hidden_size=256,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    vocab_size=100,
)

model = Qwen2_5OmniThinkerTextModel(config).eval()
first, second = torch.randint(0, 100, (1, 7)), torch.randint(0, 100, (1, 5))
packed = torch.cat([first, second], dim=1)
positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
found = {}
with torch.no_grad():
    alone = model(second).last_hidden_state
    for rows in (1, 3, 4):
        ids = positions if rows == 1 else positions[None].expand(rows, 1, -1)
        for cache in (True, False):
            states = model(packed, position_ids=ids, use_cache=cache).last_hidden_state[:, 7:]
            found[rows, cache] = float((states - alone).abs().max())
            name = f"{rows} row{'s' if rows > 1 else ''}, cache {'on' if cache else 'off'}"
            print(f"{name}: differs by {found[rows, cache]:.2f}")
assert found.pop((4, False)) < 1e-5
assert all(value > 0.1 for value in found.values())
PYTHON
