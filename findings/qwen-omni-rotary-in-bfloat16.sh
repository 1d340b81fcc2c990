#!/usr/bin/env bash
# Casting Qwen2.5-Omni's text model with .to() also rounds its rotary frequencies
#
# Guess: model.to(torch.bfloat16) and from_pretrained(dtype=torch.bfloat16) give the same model.
# Found: The rotary table's frequencies are a buffer: .to() rounds them to bfloat16,
# from_pretrained keeps them in float32. Within 2,048 positions cosines differ by up to 1.8.
# Why it matters here: A text encoder that is cast after loading gives other hidden states than
# the one that a backbone was trained on, without an error, and the more so the longer the prompt
# is.
# Versions: torch==2.13.0, transformers==5.24.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   by .to(): torch.bfloat16, by from_pretrained: torch.float32
#   largest difference of a cosine within 2048 positions: 1.84
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

model = Qwen2_5OmniThinkerTextModel(config)
model.save_pretrained("model")
loaded = Qwen2_5OmniThinkerTextModel.from_pretrained("model", dtype=torch.bfloat16)
cast = model.to(torch.bfloat16)
kept, rounded = (m.rotary_emb.inv_freq for m in (loaded, cast))
print(f"by .to(): {rounded.dtype}, by from_pretrained: {kept.dtype}")
position = torch.arange(2048.0)[:, None]
difference = (torch.cos(position * kept) - torch.cos(position * rounded.float())).abs().max()
print(f"largest difference of a cosine within 2048 positions: {difference:.2f}")
assert rounded.dtype == torch.bfloat16 and kept.dtype == torch.float32 and difference > 1
PYTHON
