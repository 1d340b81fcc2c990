"""Judges' models in the layouts of others: loaded whole or not at all, named and told apart."""

from pathlib import Path
from typing import Any

from unison_audio.errors import InputError
from unison_audio.evaluation.feature_cache import digest

_UNUSED = "masked_spec_embed"
"""A weight of wav2vec 2.0 and WavLM that only training uses; some checkpoints lack it."""


def load_pretrained(kind: Any, source: Path | str, **settings: Any) -> Any:
    """Loads one of transformers' models with all its weights.

    transformers draws weights at random that a checkpoint lacks, and only warns.

    Args:
        kind: The class.
        source: A folder in the hub's layout, or a name on the hub.
        **settings: Of ``from_pretrained``.

    Returns:
        The model in 32-bit floats, in evaluation mode, without gradients.

    Raises:
        InputError: If it cannot be had, or lacks weights.
    """
    import torch

    net, said = load_part(
        kind,
        source,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        **settings,
    )
    lacking = sorted(name for name in said["missing_keys"] if not name.endswith(_UNUSED))
    lacking += sorted(str(name) for name, *_ in said["mismatched_keys"])
    if lacking:
        raise InputError(
            f"{source} lacks {len(lacking)} weights of a {kind.__name__}, such as {lacking[0]}; "
            "give the folder of a model that was trained for this"
        )
    return net.eval().requires_grad_(False)


def load_part(kind: Any, source: Path | str, **settings: Any) -> Any:
    """Loads what is not a model, such as a feature extractor; as `load_pretrained` otherwise.

    Raises:
        InputError: If it cannot be had.
    """
    from unison_audio.frozen.quiet import quiet_transformers

    try:
        with quiet_transformers():
            return kind.from_pretrained(source, **settings)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"A {kind.__name__} cannot be loaded from {source} ({reason}); connect to the network "
            "to have it from the hub, or give a folder in the hub's layout"
        ) from error


def name_of(source: Path | str) -> str:
    """How results name a model: a folder by its own name, one of the hub by its full name."""
    return source.resolve().name if isinstance(source, Path) else source


def identity_of(source: Path | str, net: Any = None) -> str:
    """What tells a model from others of the same name.

    Args:
        source: Folder, or name on the hub.
        net: What transformers loaded from the hub; knows the revision.

    Returns:
        The sha256 of each file of the folder, or the name and revision on the hub.
    """
    if isinstance(source, str):
        return f"{source} {getattr(getattr(net, 'config', None), '_commit_hash', None) or ''}"
    files = sorted(path for path in source.iterdir() if path.is_file())
    return " ".join(f"{file.name} {digest(file)}" for file in files)


def missing_package(
    name: str, install: str = "pip install 'unison-audio[evaluation]'"
) -> InputError:
    """The error for a judge's package that is not installed."""
    return InputError(f"The package {name} is missing; install the judges with: {install}")
