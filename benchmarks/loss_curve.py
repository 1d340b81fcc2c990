"""Plot the loss of a training run by task.

python benchmarks/loss_curve.py RUN -o curve.png
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves in a run's log: task, or loss of the codec -> steps and values."""
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in (run / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "loss" in entry:
            curves[entry["task"]].append((entry["step"], entry["loss"]))
        else:
            for name in ("mel", "stft", "kl"):
                if name in entry:
                    curves[name].append((entry["step"], entry[name]))
    return curves


def main() -> None:
    """Plots the curves, averaged over windows: the loss of single batches is too noisy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run, with log.jsonl")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--window", type=int, default=25, help="values averaged")
    arguments = parser.parse_args()
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=plt.get_cmap("tab20").colors)
    figure, axes = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    for name, points in sorted(read(arguments.run).items()):
        if len(points) < arguments.window:
            continue
        chunks = [points[i : i + arguments.window] for i in range(0, len(points), arguments.window)]
        steps = [sum(step for step, _ in chunk) / len(chunk) for chunk in chunks]
        losses = [sum(loss for _, loss in chunk) / len(chunk) for chunk in chunks]
        axes.plot(steps, losses, label=name, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, ncols=3)
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
