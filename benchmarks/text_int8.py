"""What int8 and int4 linear layers do to the states of real language models, layer kind by kind.

python benchmarks/text_int8.py [--language-model FOLDER]
python benchmarks/text_int8.py --products

The trained all-MiniLM-L6-v2 always, and a causal language model if the folder of one is given, as
transformers saves it. With --products only the time of torch's kernels for one product is printed.
All states are compared with those of float32: the relative error of each
layer's states, averaged over tokens, its mean over the layers, and that of the worst layer. The
first token is left out of these and listed by itself, since it carries the outliers of causal
models. Integers are computed exactly as `unison_audio.text.int8_linear` does. Markdown tables.
"""

import time
from collections.abc import Callable
from pathlib import Path

import cyclopts
import torch
import torch.nn.functional as F
from machine import describe
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unison_audio.model.int8 import row_scales
from unison_audio.text import minilm
from unison_audio.text.int8_linear import MappedInt8Linear

PROMPT = (
    "You are given the description of a sound. Say what is to be heard in it: the speech and who "
    "speaks it, the events and their order, and the place where it all happens. "
)
TEXTS = (
    '[Speech] A female voice saying "the train to the city leaves in ten minutes"',
    "[Audio] a dog barks twice and a door closes while the rain falls on a tin roof",
    '[Speech] A male voice saying "we did not expect that many people" [Audio] a crowd applauds',
    "[Edit] [Audio] Eliminate the sound of Burst, pop. [Edit] [Audio] Add Birds singing",
)
GROUP = 64
"""Columns that share a scale in the finer int4 scheme."""


def int8(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Weights by row, activations by token: what the package computes."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer = MappedInt8Linear(linear)
    scale = row_scales(weight)
    layer.scale = nn.Parameter(scale[:, 0], requires_grad=False)
    layer.weight = nn.Parameter(torch.round(weight / scale).to(torch.int8), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer(x)


def int8_weights(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Only the weights, by row."""
    return F.linear(x, _rounded(weight, 127, None), bias)


def int4_weights(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Only the weights, by row, from -7 to 7."""
    return F.linear(x, _rounded(weight, 7, None), bias)


def int4_groups(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Only the weights, by row and group of columns, from -7 to 7."""
    return F.linear(x, _rounded(weight, 7, GROUP), bias)


def bfloat16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Operands rounded to bfloat16."""
    whole = F.linear(x.bfloat16().float(), weight.bfloat16().float())
    return whole if bias is None else whole + bias


def _rounded(weight: Tensor, largest: int, group: int | None) -> Tensor:
    parts = weight.unflatten(1, (-1, group)) if group else weight[:, None]
    step = parts.abs().amax(dim=-1, keepdim=True).clamp(min=1e-20) / largest
    return (torch.round(parts / step) * step).flatten(1)


Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]

SCHEMES: dict[str, Product] = {
    "bfloat16 products": bfloat16,
    "int8 weights, float32 activations": int8_weights,
    "int8": int8,
    f"int4 weights, groups of {GROUP}": int4_groups,
    "int4 weights, by row": int4_weights,
}


class Replaced(TorchFunctionMode):
    """Computes the linear layers of some weights another way.

    Args:
        weights: Addresses of the weights.
        product: The other way.
    """

    def __init__(self, weights: set[int], product: Product) -> None:
        super().__init__()
        self.weights, self.product = weights, product

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and args[1].data_ptr() in self.weights:
            bias = args[2] if len(args) > 2 else (kwargs or {}).get("bias")
            return self.product(args[0], args[1], bias)  # the mode is off inside
        return func(*args, **(kwargs or {}))


class Subject:
    """A model: its linear weights by name, and its states for the texts.

    Args:
        name: Name in the tables.
        weights: Linear weights by name.
        run: Gives the states of each text, a list of layers of (N, width).
    """

    def __init__(
        self, name: str, weights: dict[str, Tensor], run: Callable[[], list[list[Tensor]]]
    ) -> None:
        self.name, self.weights, self.run = name, weights, run
        self.exact = run()

    def errors(self, names: list[str], product: Product) -> str:
        """Three cells: mean, worst layer, first token."""
        with Replaced({self.weights[name].data_ptr() for name in names}, product):
            found = self.run()
        rest, first = [], []
        for ours, theirs in zip(found, self.exact, strict=True):
            pairs = zip(ours, theirs, strict=True)
            relative = torch.stack([(a - b).norm(dim=-1) / b.norm(dim=-1) for a, b in pairs])
            rest.append(relative[:, 1:].mean(dim=1))
            first.append(relative[:, 0])
        layers, token = torch.stack(rest).mean(dim=0), torch.stack(first).mean(dim=0)
        return f"{layers.mean():.2%} | {layers.max():.2%} | {token.mean():.2%}"

    def print_tables(self) -> None:
        """All layers by scheme, then one kind at a time in int8, then one layer at a time."""
        names = list(self.weights)
        print(f"\n| {self.name}, all linear layers | mean | worst layer | first token |")
        print("|---|---|---|---|")
        for scheme, product in SCHEMES.items():
            print(f"| {scheme} | {self.errors(names, product)} |", flush=True)
        print(f"\n| {self.name}, int8 in one kind | mean | worst layer | first token |")
        print("|---|---|---|---|")
        for kind in sorted({_kind(name) for name in names}):
            own = [name for name in names if _kind(name) == kind]
            print(f"| {kind} | {self.errors(own, int8)} |", flush=True)
        print(f"\n| {self.name}, int8 in all but one kind | mean | worst layer | first token |")
        print("|---|---|---|---|")
        for kind in sorted({_kind(name) for name in names}):
            others = [name for name in names if _kind(name) != kind]
            print(f"| all but {kind} | {self.errors(others, int8)} |", flush=True)


def _kind(name: str) -> str:
    """Name without the number of the layer."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def mini_lm() -> Subject:
    """The packaged text encoder of nano."""
    tokenizer, weights = minilm._load(minilm._packaged())
    ids = [torch.tensor([tokenizer.encode(text).ids]) for text in TEXTS]
    linear = {
        name.removesuffix(".weight").removeprefix("encoder."): weight
        for name, weight in weights.items()
        if name.startswith("encoder.layer.") and weight.ndim == 2
    }

    def run() -> list[list[Tensor]]:
        return [[x[0] for x in minilm.hidden_states(weights, tokens)[1:]] for tokens in ids]

    return Subject("all-MiniLM-L6-v2", linear, run)


def causal(folder: Path) -> Subject:
    """A causal language model, with a prompt in front of every text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(PROMPT + text, return_tensors="pt")["input_ids"] for text in TEXTS]
    linear = {
        name.removeprefix("layers."): module.weight
        for name, module in model.named_modules()
        if type(module) is nn.Linear
    }

    def run() -> list[list[Tensor]]:
        outputs = [model(tokens, output_hidden_states=True, use_cache=False) for tokens in ids]
        return [[x[0] for x in each.hidden_states[1:]] for each in outputs]

    subject = Subject(folder.name, linear, run)
    largest = [float(x[0].abs().max() / x[1:].abs().median()) for x in subject.exact[0]]
    print(f"{folder.name}: the first token's largest state is {max(largest):.0f} medians")
    return subject


def print_products() -> None:
    """Processor time of a product of 23 tokens with the 7B's widest weights, shortest of 5."""
    rows, width = 18944, 3584
    weight = torch.randint(-127, 128, (rows, width), dtype=torch.int8)
    scale, half = torch.rand(rows).bfloat16(), torch.randn(rows, width).bfloat16()
    x = torch.randn(23, width).bfloat16()
    integers = torch.randint(-127, 128, (23, width), dtype=torch.int8)
    for name, product in {
        "bfloat16": lambda: F.linear(x, half),
        "int8 weights and activations": lambda: torch._int_mm(integers, weight.t()),
        "int8 weights alone": lambda: torch._weight_int8pack_mm(x, weight, scale),
    }.items():
        taken = []
        for _ in range(5):
            start = time.process_time()
            product()
            taken.append(time.process_time() - start)
        print(f"{name}: {1e3 * min(taken):.1f} ms")


@torch.inference_mode()
def main(language_model: Path | None = None, products: bool = False) -> None:
    """Print the tables.

    Args:
        language_model: Folder of a causal language model.
        products: The time of products instead.
    """
    torch.set_num_threads(1)
    print(describe())
    if products:
        print_products()
        return
    mini_lm().print_tables()
    if language_model:
        causal(language_model).print_tables()


if __name__ == "__main__":
    cyclopts.run(main)
