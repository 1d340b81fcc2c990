#!/usr/bin/env bash
# diffusers shifts a flow schedule's last sigma twice, and one step to a terminal sigma is NaN
#
# Guess: With shift s the last sigma before zero is s*x / (1 + (s - 1)*x) of the smallest x, here
# 0.002994.
# Found: The scheduler stores the smallest sigma after shifting it, builds the schedule down to
# it, and shifts again: 0.008929. With shift_terminal and one step every sigma is NaN.
# Why it matters here: A model that is sampled with shifted times ends at another noise level than
# in training or in another implementation. Distilled models of one step get NaN. Our times are
# computed and checked against closed forms.
# Versions: torch==2.13.0, diffusers==0.42.1, transformers==5.24.0, numpy==2.4.6; Python 3.11, Linux.
# Output seen:
#   shift 3, 4 steps: last sigma 0.008929, once shifted it would be 0.002994
#   terminal 0.1, 1 step: [nan, 0.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.24.0 numpy==2.4.6
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import math

from diffusers import FlowMatchEulerDiscreteScheduler

scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
scheduler.set_timesteps(4)
last = float(scheduler.sigmas[-2])
once = 3 * 0.001 / (1 + 2 * 0.001)
print(f"shift 3, 4 steps: last sigma {last:.6f}, once shifted it would be {once:.6f}")
terminal = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1)
terminal.set_timesteps(1)
print("terminal 0.1, 1 step:", terminal.sigmas.tolist())
assert abs(last - 3 * once / (1 + 2 * once)) < 1e-6 and last > 2.9 * once
assert math.isnan(terminal.sigmas[0])
PYTHON
