#!/usr/bin/env bash
# LongCat-AudioDiT's VAE states a ratio of 2048 samples a frame and has one of 32
#
# Guess: The class's defaults are those of the published model, and `downsampling_ratio` in its
# config is what encoder and decoder do.
# Found: The field is not computed from `strides`, whose default gives 32 samples a frame. Encoding
# gives 64 times the stated frames, and decoding the frames that the pipeline asks for, which trusts
# the field, gives a 64th of the sound. Nothing is said.
# Why it matters here: a model of true size for benchmarks, built from the defaults, decodes a 64th
# of what it should, and seems that much faster. The strides 2, 4, 4, 8, 8 give 2048.
# Versions: diffusers==0.42.1, torch==2.13.0, transformers==5.24.0; Python 3.11, Linux.
# Output seen:
#   defaults: stated 2048, encoded 32, ten stated frames decode to 320 samples
#   strides 2 4 4 8 8: stated 2048, encoded 2048, ten stated frames decode to 20480 samples
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.24.0
cd "$work"
OMP_NUM_THREADS=1 "$work/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from diffusers import LongCatAudioDiTVae


def ratios(**options):
    torch.manual_seed(0)
    small = {"channels": 8, "encoder_latent_dim": 8, "latent_dim": 4}
    vae = LongCatAudioDiTVae(**small, **options).eval()
    stated = vae.config.downsampling_ratio
    with torch.no_grad():
        frames = vae.encode(torch.zeros(1, 1, 10 * stated))
        frames = getattr(frames, "latents", frames)
        sound = vae.decode(torch.zeros(1, 4, 10))
        sound = getattr(sound, "sample", sound)
    return stated, 10 * stated // frames.shape[-1], sound.shape[-1]


def say(name, found):
    print(
        f"{name}: stated {found[0]}, encoded {found[1]}, ten stated frames decode to "
        f"{found[2]} samples"
    )


plain = ratios()
right = ratios(c_mults=[1, 1, 1, 1, 1], strides=[2, 4, 4, 8, 8])
say("defaults", plain)
say("strides 2 4 4 8 8", right)
assert plain == (2048, 32, 320)
assert right == (2048, 2048, 20480)
PYTHON
