"""Systems by name and settings, so that any process can open them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unison_audio.checkpoint_files import CONFIG_FILE, find_checkpoint, read_config
from unison_audio.errors import InputError
from unison_audio.evaluation.baselines import SDEdit, Zeta
from unison_audio.evaluation.running import System
from unison_audio.evaluation.systems import (
    CopySource,
    GroundTruth,
    Outputs,
    ThroughCodec,
    UnisonSystem,
)
from unison_audio.pipeline import Unison
from unison_audio.variants import VARIANTS, Variant


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and how it runs."""

    model: str = "nano"
    """A variant's name, a checkpoint's folder, or a repository on the Hugging Face hub."""
    device: str = "cpu"
    """Where."""
    dtype: torch.dtype | None = None
    """Type of the backbone's arithmetic; None for the device's own."""
    low_memory: bool | None = None
    """As `Unison.from_pretrained` takes it."""
    codec_files: str | None = None
    """Likewise."""
    text_files: str | None = None
    """Likewise."""
    seed: int = 0
    """Of the noise."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Of sampling, where they are not to be the variant's."""

    @property
    def variant(self) -> Variant:
        """What it is, without its weights."""
        if self.model in VARIANTS:
            return VARIANTS[self.model]
        return read_config(find_checkpoint(self.model) / CONFIG_FILE)

    def open(self) -> Unison:
        """The model; loaded once a process."""
        return _opened(self)


@lru_cache(maxsize=1)
def _opened(choice: ModelChoice) -> Unison:
    return Unison.from_pretrained(
        choice.model,
        choice.device,
        dtype=choice.dtype,
        low_memory=choice.low_memory,
        codec_files=choice.codec_files,
        text_files=choice.text_files,
    )


def _unison(choice: ModelChoice) -> System:
    return UnisonSystem(choice.open(), seed=choice.seed, **choice.options)


def _through_codec(choice: ModelChoice) -> System:
    return ThroughCodec(choice.open().codec, choice.device)


def _sdedit(choice: ModelChoice) -> System:
    return SDEdit(choice.open(), seed=choice.seed, **_of_baselines(choice))


def _zeta(choice: ModelChoice) -> System:
    return Zeta(choice.open(), seed=choice.seed, **_of_baselines(choice))


def _of_baselines(choice: ModelChoice) -> dict[str, Any]:
    """The options of sampling that baselines have as well."""
    return {k: choice.options[k] for k in ("steps", "guidance_scale") if k in choice.options}


SYSTEMS: dict[str, Callable[[ModelChoice], System]] = {
    "ground-truth": lambda choice: GroundTruth(),
    "through-codec": _through_codec,
    "copy-source": lambda choice: CopySource(),
    "sdedit": _sdedit,
    "zeta": _zeta,
    "unison": _unison,
}
"""Name -> what opens the system, given the model."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A system to be evaluated."""

    name: str
    """A key of `SYSTEMS`, or any name for a folder of outputs."""
    choice: ModelChoice
    """The model, for those that need one."""
    outputs: Path | None = None
    """The folder, for a system that has left its outputs."""

    def open(self) -> System:
        """The system itself.

        Raises:
            InputError: Its model or its folder is not there.
        """
        if self.outputs is not None:
            return Outputs(self.outputs, self.name)
        return SYSTEMS[self.name](self.choice)


def choose_entrants(
    names: tuple[str, ...], outputs: Mapping[str, Path], choice: ModelChoice
) -> list[Entrant]:
    """The systems to be evaluated.

    Args:
        names: Keys of `SYSTEMS`.
        outputs: Name -> folder of systems that have left their outputs.
        choice: The model.

    Raises:
        InputError: A name is not known, or taken twice.
    """
    for name in names:
        if name not in SYSTEMS:
            raise InputError(f"There is no system {name!r}; use {', '.join(SYSTEMS)}.")
    for name in outputs:
        if name in SYSTEMS or Path(name).name != name:
            raise InputError(
                f"Outputs cannot be called {name!r}; give them a name that no other system has and "
                "that a folder can have."
            )
    return [
        *(Entrant(name=name, choice=choice) for name in dict.fromkeys(names)),
        *(Entrant(name=k, choice=choice, outputs=path.resolve()) for k, path in outputs.items()),
    ]
