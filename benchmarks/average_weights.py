"""The mean of the weights of several checkpoints of one variant, in float16.

python benchmarks/average_weights.py FOLDER FOLDER [...] -o FOLDER

Weights that were trained on from each other lie in one basin, where their mean is often better than
each of them (Wortsman et al. 2022, "Model soups", arXiv 2203.05482).
"""

import argparse
from pathlib import Path

import torch

from unison_audio import checkpoint
from unison_audio.errors import InputError
from unison_audio.model.backbone import UnisonBackbone


@torch.no_grad()
def average(backbones: list[UnisonBackbone]) -> UnisonBackbone:
    """Give the first the mean of all weights, and return it."""
    states = [backbone.state_dict() for backbone in backbones]
    mean = {name: torch.stack([one[name].float() for one in states]).mean(0) for name in states[0]}
    backbones[0].load_state_dict(mean)
    return backbones[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    loaded = [checkpoint.load(folder) for folder in arguments.folders]
    for folder, (variant, _) in zip(arguments.folders, loaded, strict=True):
        if variant != loaded[0][0]:
            raise InputError(f"{folder} is of another variant than {arguments.folders[0]}.")
    mean = average([backbone for _, backbone in loaded])
    checkpoint.save(arguments.output, loaded[0][0], mean, dtype=torch.float16)


if __name__ == "__main__":
    main()
