"""The tables that the command line prints: tasks and variants."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unison_audio.checkpoint_files import open_checkpoint
from unison_audio.errors import InputError
from unison_audio.model.config import count_parameters
from unison_audio.tasks.clauses import respell
from unison_audio.tasks.curriculum import default_stages
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import pool_of
from unison_audio.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from unison_audio.provenance.inspection import Inspection
    from unison_audio.training.estimate import Estimate


def tasks_table(name_or_path: str | None = None) -> str:
    """Each task with its share of the batches in both training stages, inputs and instruction.

    Args:
        name_or_path: Variant or checkpoint whose wording and spelling is shown; None for the
            paper's.

    Raises:
        InputError: If there is no such variant or checkpoint.
    """
    variant = None if name_or_path is None else _find(name_or_path)
    stages = [stage.probabilities for stage in default_stages()]
    rows: list[tuple[str, ...]] = [("task", "stage 1", "stage 2", "inputs", "instruction")]
    for name, task in TASKS.items():
        shares = [f"{stage.get(name, 0.0):.1%}" for stage in stages]
        inputs = " + ".join(need.replace("_", " ") for need in task.needs)
        instruction = task.templates[0]
        if variant is not None:
            instruction = respell(pool_of(name, variant.wording)[0], variant.edit_tag_spelling)
        rows.append((name, *shares, inputs or "none", instruction))
    return _aligned(rows, right=(1, 2))


def variants_table() -> str:
    """Each variant with its number of parameters, codec, text encoder and rates."""
    rows = [
        ("variant", "parameters", "codec", "text encoder", "sample rate", "frames/s", "longest")
    ]
    for name, variant in VARIANTS.items():
        parts = (f"{count_parameters(variant.backbone):,}", variant.codec, variant.text_encoder)
        rates = (f"{variant.sample_rate:,} Hz", f"{variant.latent_fps:.3f}")
        rows.append((name, *parts, *rates, f"{variant.max_seconds} s"))
    return _aligned(rows, right=(1, 4, 5, 6))


def domain_listing(name_or_path: str) -> str:
    """The words, sounds and longest text that a variant knows.

    Raises:
        InputError: If there is no such variant or checkpoint.
    """
    variant = _find(name_or_path)
    domain = variant.domain
    if domain is None:
        return f"{variant.name} declares no limits: any words and sounds."
    words = [f"{len(domain.words)} words", "", *textwrap.wrap(" ".join(domain.words), 80)]
    if domain.spells:
        words = ["Any word in the letters a to z"]
    return "\n".join(
        [
            *words,
            "",
            f"{len(domain.sounds)} sounds",
            "",
            *domain.sounds,
            "",
            f"Longest text: {domain.max_words} words, "
            f"at most {domain.max_letters_per_second:g} letters a second.",
            f"Longest sound: {variant.max_seconds} s.",
        ]
    )


def _find(name_or_path: str) -> Variant:
    """The variant of a checkpoint; without weights, what the table of variants knows."""
    try:
        return open_checkpoint(name_or_path).variant
    except InputError:
        # Most weights do not come with the package.
        if name_or_path not in VARIANTS:
            raise
        return VARIANTS[name_or_path]


def estimate_table(estimate: "Estimate", tflops: float, steps: int) -> str:
    """What a training run needs: memory of a device and work of a step by part, and days."""
    memory = [("memory on each device", "GB")]
    memory += [(part, f"{amount / 1e9:.2f}") for part, amount in estimate.memory.items()]
    memory.append(("together", f"{sum(estimate.memory.values()) / 1e9:.2f}"))
    work = [("work of a step", "10^12 operations")]
    work += [(part, f"{amount / 1e12:.2f}") for part, amount in estimate.flop_by_part.items()]
    work.append(("together", f"{estimate.step_flop / 1e12:.2f}"))
    lines = [
        f"{estimate.parameters:,} parameters",
        "",
        _aligned(memory, right=(1,)),
        "",
        _aligned(work, right=(1,)),
        "",
        f"{estimate.clips_per_step:,} clips a step; at {tflops:.3g} x 10^12 operations a second "
        f"and device {estimate.seconds_per_step:.3g} s a step, {estimate.days:.3g} days for "
        f"{steps:,} steps.",
    ]
    return "\n".join(lines)


def inspection_table(found: "Sequence[Inspection]") -> str:
    """What files say of their origin, a line for each, and the notes below."""
    rows: list[tuple[str, ...]] = [("file", "tags", "manifest", "watermark", "payload")]
    for one in found:
        if one.manifest is None:
            manifest = "not checked"
        else:
            stated = ", ".join(one.manifest.source_types)
            manifest = f"{one.manifest.state}: {stated}" if stated else one.manifest.state
            if one.manifest.issuer:
                manifest += f", signed by {one.manifest.issuer}"
        score = "" if one.score is None else f" ({one.score:.2f})"
        payload = one.payload_verdict if one.payload is None else str(one.payload)
        if one.payload_score is not None:
            payload += f" ({one.payload_score:.1f})"
        rows.append(
            (one.file, one.source_type or "none", manifest, f"{one.watermark}{score}", payload)
        )
    notes = [f"{one.file}: {note}" for one in found for note in one.notes]
    return "\n".join([_aligned(rows, right=()), *([""] if notes else []), *notes])


def _aligned(rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    """Plain columns, so that the table can be piped into other programs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
