"""The compared systems: the model, references, and folders with outputs of other systems."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.checkpoint_files import CONFIG_FILE, find_checkpoint, read_config
from unison_audio.codecs.table import AudioCodec
from unison_audio.data.corpora.source_files import AUDIO_SUFFIXES, walk
from unison_audio.errors import InputError
from unison_audio.evaluation.baselines import SDEdit, Zeta
from unison_audio.evaluation.engine import System, fingerprint
from unison_audio.evaluation.test_sets.manifest import Role, TestItem, TestSet, derived_seed
from unison_audio.output_audio import decode
from unison_audio.pipeline import Unison
from unison_audio.provenance.origin import Origin
from unison_audio.variants import VARIANTS, Variant


class UnisonSystem(System):
    """The model, run as a user runs it.

    The noise of an item depends on `seed` and the item's id alone.

    Args:
        unison: The model.
        name: System name in tables.
        seed: Seed of the noise.
        **options: Fields of `SamplingParams`.
    """

    def __init__(
        self,
        unison: Unison,
        *,
        name: str = "unison",
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.name, self._unison, self._seed, self._options = name, unison, seed, options
        self.sample_rate = unison.variant.sample_rate

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Weights and settings."""
        return {
            "weights": fingerprint(self._unison),
            "seed": self._seed,
            "options": dict(self._options),
        }

    def origin(self, item: TestItem) -> Origin:
        """Generated, or an edit of the item's source."""
        return Origin.of_edit(item.task, self._unison.variant.name, item.source or None)

    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """Outputs: edits have the source's length, all others the item's length."""
        paths = {role: [test_set.path(item, role) for item in items] for role in _GIVEN}
        sounds = self._unison.generate(
            [item.instruction for item in items],
            source=list(paths["source"]),
            reference=list(paths["reference"]),
            reference_text=[item.reference_text or None for item in items],
            # An edit takes its length from its source: one sample less would be refused.
            duration=[None if item.source else item.seconds for item in items],
            seed=[derived_seed(self._seed, item.id) for item in items],
            task=[item.task for item in items],
            **self._options,
        )
        return [sound.waveform for sound in sounds]


_GIVEN: tuple[Role, ...] = ("source", "reference")


class GroundTruth(System):
    """The ground truth: the targets themselves."""

    name = "ground-truth"
    role: Role = "target"
    """The recording of an item that it answers with."""

    def takes(self, item: TestItem) -> bool:
        """Whether there is such a recording."""
        return bool(item.target if self.role == "target" else item.source)

    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """The recordings, each through `changed`."""
        rate = self.sample_rate or test_set.sample_rate
        paths = [test_set.path(item, self.role) for item in items]
        return [self.changed(audio.load(path, sample_rate=rate)) for path in paths if path]

    def changed(self, waveform: Tensor) -> Tensor:
        """A recording, (samples,), as the system answers with it."""
        return waveform


class CopySource(GroundTruth):
    """The unedited source of each edit."""

    name, role = "copy-source", "source"


class ThroughCodec(GroundTruth):
    """The targets, encoded and decoded: the loss of the codec alone.

    Args:
        codec: The model's codec.
        device: Device of the codec.
    """

    name = "through-codec"

    def __init__(self, codec: AudioCodec, device: torch.device | str = "cpu") -> None:
        self._codec, self._device = codec, device
        self.sample_rate = codec.sample_rate

    @torch.no_grad()
    def changed(self, waveform: Tensor) -> Tensor:
        """The recording through the codec, in whole frames, cut to its length."""
        # Whole frames: some codecs drop an incomplete one at the end.
        whole = -(-len(waveform) // self._codec.hop) * self._codec.hop
        padded = torch.nn.functional.pad(waveform, (0, whole - len(waveform)))[None]
        z = self._codec.encode(padded.to(self._device))
        return decode(self._codec, z)[0, : len(waveform)]


class SourceThroughCodec(ThroughCodec):
    """The source of an edit, encoded and decoded: a copy with the codec's loss."""

    name, role = "source-through-codec", "source"


class Outputs(System):
    """Another system, as a folder of its outputs: one file per item id, of any format.

    Args:
        folder: Folder with the files, or with one folder for each test set; at any depth.
        name: System name in tables; the folder's name by default.

    Raises:
        InputError: There is no such folder, or no sound in it.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give one with a system's outputs.")
        self.name, self._folder = name or folder.resolve().name, folder
        self._files: defaultdict[str, list[Path]] = defaultdict(list)
        for path in walk(folder, lambda file: Path(file).suffix.lower() in AUDIO_SUFFIXES):
            self._files[path.stem].append(path)
        if not self._files:
            raise InputError(
                f"{folder} holds no sound; put files there that are named by the items' ids."
            )
        self.sample_rate = self._highest_rate()

    @property
    def identity(self) -> dict[str, Any]:
        """The folder."""
        return {"folder": str(self._folder.resolve())}

    def generate(self, test_set: TestSet, items: Sequence[TestItem]) -> list[Tensor]:
        """The files of the items."""
        rate = self.sample_rate or test_set.sample_rate
        return [audio.load(self._find(test_set, item), sample_rate=rate) for item in items]

    def _highest_rate(self) -> int | None:
        """The highest rate of the files; the others are resampled to it, so nothing is lost."""
        import soundfile

        rates = []
        for path in (path for named in self._files.values() for path in named):
            # A damaged file is reported when its item is asked for.
            with contextlib.suppress(soundfile.SoundFileError, OSError):
                rates.append(int(soundfile.info(path).samplerate))
        return max(rates, default=0) or None

    def _find(self, test_set: TestSet, item: TestItem) -> Path:
        named = self._files.get(item.id, [])
        own = [path for path in named if test_set.name in path.relative_to(self._folder).parts]
        found = own or named
        if len(found) != 1:
            what = f"{len(found)} files" if found else "no file"
            raise InputError(
                f"{self._folder} has {what} named {item.id} with the suffix of a sound; one was "
                "expected."
            )
        return found[0]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and how it runs."""

    model: str = "nano"
    """A variant's name, a checkpoint's folder, or a repository on the Hugging Face hub."""
    device: str = "cpu"
    """Device of the model."""
    dtype: torch.dtype | None = None
    """Type of the backbone's arithmetic; None for the device's own."""
    quantize: str | None = None
    """int8, as in `Unison.from_pretrained`."""
    low_memory: bool | None = None
    """Low memory, as in `Unison.from_pretrained`."""
    codec_files: str | None = None
    """Folder of the codec's own files."""
    text_files: str | None = None
    """Folder of the language model."""
    seed: int = 0
    """Of the noise."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Sampling options that differ from the variant's."""

    @property
    def variant(self) -> Variant:
        """The choice as plain values, without weights."""
        if self.model in VARIANTS:
            return VARIANTS[self.model]
        return read_config(find_checkpoint(self.model) / CONFIG_FILE)

    def open(self) -> Unison:
        """The model; loaded once a process."""
        return _opened(self)


# One: beside a full-size model a second one would not fit into most devices.
@lru_cache(maxsize=1)
def _opened(choice: ModelChoice) -> Unison:
    return Unison.from_pretrained(
        choice.model,
        choice.device,
        dtype=choice.dtype,
        quantize=choice.quantize,
        low_memory=choice.low_memory,
        codec_files=choice.codec_files,
        text_files=choice.text_files,
    )


def _of_baselines(choice: ModelChoice) -> dict[str, Any]:
    """The sampling options that baselines share, and the seed."""
    shared = {k: choice.options[k] for k in ("steps", "guidance_scale") if k in choice.options}
    return {"seed": choice.seed, **shared}


SYSTEMS: dict[str, Callable[[ModelChoice], System]] = {
    "ground-truth": lambda choice: GroundTruth(),
    "through-codec": lambda choice: ThroughCodec(choice.open().codec, choice.device),
    "copy-source": lambda choice: CopySource(),
    "sdedit": lambda choice: SDEdit(choice.open(), **_of_baselines(choice)),
    "zeta": lambda choice: Zeta(choice.open(), **_of_baselines(choice)),
    "unison": lambda choice: UnisonSystem(choice.open(), seed=choice.seed, **choice.options),
    "source-through-codec": lambda choice: SourceThroughCodec(choice.open().codec, choice.device),
}
"""System name -> function that opens the system, given the model."""


DEFAULT_SYSTEMS = tuple(name for name in SYSTEMS if name != "source-through-codec")
"""The systems of the paper's tables."""


@dataclass(frozen=True, kw_only=True)
class SystemChoice:
    """A system to be evaluated."""

    name: str
    """A key of `SYSTEMS`, or any name for a folder of outputs."""
    choice: ModelChoice
    """The model, for systems that need one."""
    outputs: Path | None = None
    """The folder, for a system given by its outputs."""

    def open(self) -> System:
        """The system itself.

        Raises:
            InputError: The model or the folder is missing.
        """
        if self.outputs is not None:
            return Outputs(self.outputs, self.name)
        return SYSTEMS[self.name](self.choice)


def choose_systems(
    names: tuple[str, ...], outputs: Mapping[str, Path], choice: ModelChoice
) -> list[SystemChoice]:
    """The systems to be evaluated.

    Args:
        names: Keys of `SYSTEMS`.
        outputs: System name -> folder of its outputs.
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
        *(SystemChoice(name=name, choice=choice) for name in dict.fromkeys(names)),
        *(
            SystemChoice(name=k, choice=choice, outputs=path.resolve())
            for k, path in outputs.items()
        ),
    ]
