"""What a frozen language model keeps of a spelled transcript, layer by layer.

python benchmarks/spelled_probe.py --root gate

Linear maps are fitted on the states of some sentences' letters and read those of others. Prints a
Markdown table: how often the letter itself and its two neighbours are read, and how far off its
place in the transcript is.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from spelled_data import LAYERS, SpeechParts
from torch import Tensor

from unison_audio.text.spelling import letters as spell

SYMBOLS = "|'abcdefghijklmnopqrstuvwxyz"
BEHIND = 2
"""Tokens behind the transcript: the closing quote and the end."""
RIDGE = 1.0


def letters(parts: SpeechParts, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """States of letters with what they are and where.

    Args:
        parts: Utterances whose transcripts were spelled.
        count: How many of them, at most.

    Returns:
        States (N, K, text_dim); symbols (N, 3), of the letter before, the letter, the one behind,
        -1 where there is none; places (N,) in the transcript.
    """
    states, symbols, places = [], [], []
    for number, row in enumerate(parts.rows[:count]):
        said = torch.tensor([SYMBOLS.index(symbol) for symbol in spell(row.text).split()])
        hidden = parts.text([number]).hidden_states[0]  # (K, tokens, text_dim)
        first = hidden.shape[1] - BEHIND - len(said)
        states.append(hidden[:, first : first + len(said)].transpose(0, 1))
        symbols.append(F.pad(said, (1, 1), value=-1).unfold(0, 3, 1))
        places.append(torch.arange(len(said)).float())
    return torch.cat(states), torch.cat(symbols), torch.cat(places)


def probe(train: SpeechParts, test: SpeechParts, count: int) -> list[tuple[float, ...]]:
    """Fits on some utterances and reads others.

    Returns:
        For each layer the shares of letters, letters before and letters behind that are read, and
        the root of the mean squared error of the place, in letters.
    """
    (x, symbols, places), (y, asked, where) = letters(train, count), letters(test, count)
    found = []
    for layer in range(x.shape[1]):
        inputs, given = (F.pad(states[:, layer], (0, 1), value=1.0) for states in (x, y))
        gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
        # A symbol that is not there (-1) becomes a row of zeros, and is not asked for.
        wanted = F.one_hot(symbols + 1, len(SYMBOLS) + 1)[..., 1:].float().flatten(1)
        target = torch.cat((wanted, places[:, None]), dim=1)
        read = given @ torch.linalg.solve(gram, inputs.T @ target)
        guessed = read[:, :-1].unflatten(1, (3, -1)).argmax(dim=2)
        there = asked >= 0
        shares = ((guessed == asked) & there).sum(dim=0) / there.sum(dim=0)
        before, own, behind = shares.tolist()
        found.append((own, before, behind, float((read[:, -1] - where).square().mean().sqrt())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the data")
    parser.add_argument("--count", type=int, default=200, help="sentences to fit on, and to read")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (
        SpeechParts(arguments.root / "data", "spelled", {kind: 1}, LAYERS)
        for kind in ("sentences", "unseen_words")
    )
    print("| layer | letter | letter before | letter behind | error of its place, letters |")
    print("|---|---|---|---|---|")
    for layer, row in zip(LAYERS, probe(train, test, arguments.count), strict=True):
        *shares, away = row
        print(f"| {layer} | {' | '.join(f'{share:.1%}' for share in shares)} | {away:.2f} |")


if __name__ == "__main__":
    main()
