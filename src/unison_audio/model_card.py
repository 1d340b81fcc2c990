"""The model card of a checkpoint: README.md with the metadata that the hub reads."""

import csv
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from unison_audio.errors import InputError
from unison_audio.model.config import count_parameters
from unison_audio.variants import Variant

CARD_FILE = "README.md"

LIBRARY = "unison-audio"

_BASE_MODELS = {
    "qwen2.5-omni-7b": "Qwen/Qwen2.5-Omni-7B",
    "qwen2.5-omni-3b": "Qwen/Qwen2.5-Omni-3B",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
}
"""Text encoder -> its repository on the hub."""

_RELEASE = "jac22/UNISON"

_RELEASE_DATA = ("WavCaps", "AudioSet", "VGGSound", "LibriTTS", "WenetSpeech", "Emilia")
"""Data of the released weights, as the paper names them (Table 13)."""

PACKAGED = "nano"
"""Variant whose weights are in the package, and the figures that were measured with them."""

MEASURED_FILE = "nano_measured.tsv"
"""Task, measure, and figures of the model, of recordings, and the target."""

_WRITTEN = "<!-- This card was written by unison-audio. -->"
"""Marks cards that a later save may replace; a card by hand stays."""


@dataclass(frozen=True, kw_only=True)
class CardInfo:
    """What a model card says besides the facts of the config."""

    license: str = ""
    """Identifier of the license on the hub, such as apache-2.0. By default that of known weights;
    for others there is none."""
    datasets: tuple[str, ...] = ()
    """Names of the training data; by default those of known weights."""
    results: Path | None = None
    """A results.json that `unison-audio evaluate` wrote: its figures become a table. By default
    those of known weights; for others there are none."""


def write_card(
    folder: Path, variant: Variant, info: CardInfo | None = None, weights: Path | None = None
) -> None:
    """Write a checkpoint's model card, unless the folder has a hand-written one.

    Args:
        folder: The checkpoint's folder.
        variant: The contents of its config.json.
        info: What else the card says.
        weights: File of the weights; figures of known weights are those of no others.

    Raises:
        InputError: The results cannot be read.
    """
    path = folder / CARD_FILE
    if path.is_file() and _WRITTEN not in path.read_text("utf-8", errors="replace"):
        return
    path.write_text(card_text(variant, info, weights), "utf-8")


def card_text(variant: Variant, info: CardInfo | None = None, weights: Path | None = None) -> str:
    """Make the model card of a checkpoint. What is not known is left out.

    Args:
        variant: The contents of the checkpoint's config.json.
        info: What else the card says.
        weights: File of the weights.

    Raises:
        InputError: The results cannot be read.
    """
    info = info or CardInfo()
    meta: dict[str, str | list[str]] = {
        "library_name": LIBRARY,
        "pipeline_tag": "text-to-audio",
        **_licence(variant, info),
        "base_model": _base_models(variant),
        "datasets": list(info.datasets or (_RELEASE_DATA if variant.wording == "release" else ())),
        "tags": ["text-to-audio", "text-to-speech", "audio-editing", "flow-matching", variant.name],
    }
    rate = f"{variant.sample_rate:,} Hz mono, up to {variant.max_seconds:g} s"
    facts = {
        "variant": variant.name,
        "backbone": f"{count_parameters(variant.backbone):,} parameters",
        "codec": variant.codec,
        "text encoder": variant.text_encoder,
        "input and output": rate,
    }
    lines = [
        _front_matter(meta),
        _WRITTEN,
        "",
        f"# {variant.name}",
        "",
        "A checkpoint of UNISON, which generates and edits speech and sound from instructions. "
        f"It loads with [{LIBRARY}](https://pypi.org/project/{LIBRARY}/):",
        "",
        "```python",
        "from unison_audio import Unison",
        "",
        'unison = Unison.from_pretrained("PATH OR OWNER/NAME")',
        'unison.generate("[Audio] rain").save("rain.wav")',
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        *(_known_figures(variant, weights) if info.results is None else _measured(info.results)),
        *_terms(variant),
    ]
    return "\n".join(lines).rstrip() + "\n"


def file_metadata(variant: Variant) -> dict[str, str]:
    """Metadata of the safetensors file."""
    return {
        "format": "pt",
        "library_name": LIBRARY,
        "variant": variant.name,
        "codec": variant.codec,
        "text_encoder": variant.text_encoder,
        "sample_rate": str(variant.sample_rate),
        "wording": variant.wording,
    }


def _licence(variant: Variant, info: CardInfo) -> dict[str, str | list[str]]:
    if info.license:
        return {"license": info.license}
    if variant.wording == "release":
        return {"license": "other", "license_name": "unison-release-research-only"}
    return {"license": "apache-2.0"} if variant.name == "nano" else {}


def _base_models(variant: Variant) -> list[str]:
    known = [_RELEASE] if variant.wording == "release" else []
    return [*known, *filter(None, [_BASE_MODELS.get(variant.text_encoder)])]


def _known_figures(variant: Variant, weights: Path | None) -> list[str]:
    """A table of the packaged weights' figures; nothing for other weights."""
    if variant.name != PACKAGED or weights is None:
        return []
    folder = Path(str(resources.files("unison_audio"))) / "weights" / PACKAGED
    table = folder.parent / MEASURED_FILE
    if not table.is_file() or not _same_weights(weights, folder / weights.name):
        return []
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t"))
    return [
        "## Measured",
        "",
        "With texts, recordings and voices that training did not see:",
        "",
        f"| {' | '.join(rows[0])} |",
        "|---" * len(rows[0]) + "|",
        *(f"| {' | '.join(row)} |" for row in rows[1:]),
        "",
    ]


def _same_weights(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, to the precision of the packaged ones, float16."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(one, "pt") as a, safe_open(other, "pt") as b:
            names = set(a.keys())
            return names == set(b.keys()) and all(
                bool((a.get_tensor(name).half() == b.get_tensor(name).half()).all())
                for name in names
            )
    except (OSError, SafetensorError, RuntimeError):  # missing, damaged, or of other shapes
        return False


def _measured(path: Path) -> list[str]:
    """A table of the figures of the model itself in a results.json."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
        figures = [
            f"| {row['set']} | {row['task']} | {name} | {score['value']:.4g} |"
            for row in rows
            if row["system"] == "unison"
            for name, score in row["scores"].items()
            if score["value"] is not None
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as results ({error}); give a results.json that "
            "'unison-audio evaluate' wrote."
        ) from error
    head = ["## Measured", "", "| set | task | metric | value |", "|---|---|---|---|"]
    return [*head, *figures, ""]


def _terms(variant: Variant) -> list[str]:
    if variant.wording != "release":
        return []
    return [
        "## Terms",
        "",
        "The weights are those of the UNISON release: research only. They inherit the terms of "
        "HunyuanVideo, which exclude the European Union, the United Kingdom and South Korea.",
    ]


def _front_matter(meta: dict[str, str | list[str]]) -> str:
    """YAML between dashes. JSON strings are valid YAML strings, whatever they contain."""
    lines = ["---"]
    for key, value in meta.items():
        if isinstance(value, str):
            lines.append(f"{key}: {value}")
        elif value:
            lines += [f"{key}:", *(f"- {json.dumps(item)}" for item in value)]
    return "\n".join([*lines, "---", ""])
