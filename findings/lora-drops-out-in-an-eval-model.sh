#!/usr/bin/env bash
# A LoRA adapter put into a model in evaluation mode drops out
#
# Guess: Layers added to a model that is in evaluation mode are in evaluation mode.
# Found: peft's new layers start in training mode while the model's own flag stays False. With
# dropout two calls differ, and model.training gives no hint.
# Why it matters here: Sampling from a flow model with an adapter that was injected after .eval()
# is random in a way that no seed of the noise controls. Call .eval() again after the adapter is
# in place.
# Versions: torch==2.13.0, peft==0.21.2, transformers==5.24.0, accelerate==1.15.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   model.training: False, adapter's dropout.training: True
#   two calls are equal: False; after .eval(): True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 peft==0.21.2 transformers==5.24.0 accelerate==1.15.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8)).eval()
lora = LoraConfig(r=4, lora_dropout=0.1, target_modules=["0", "1"], init_lora_weights=False)
model = inject_adapter_in_model(lora, model)
dropout = next(m for name, m in model.named_modules() if name.endswith("lora_dropout.default"))
print(f"model.training: {model.training}, adapter's dropout.training: {dropout.training}")
x = torch.ones(1, 64)
before = torch.equal(model(x), model(x))
model.eval()
after = torch.equal(model(x), model(x))
print(f"two calls are equal: {before}; after .eval(): {after}")
assert not model.training and not before and after
PYTHON
