"""Finds the weights of PerTh's networks in the installed `resemble-perth` wheel."""

from importlib.util import find_spec
from pathlib import Path

from unison_audio.errors import InputError

_FILE = Path("perth_net", "pretrained", "implicit", "perth_net_250000.pth.tar")


def perth_file() -> Path:
    """The file of the weights.

    Raises:
        InputError: If the wheel is not installed.
    """
    # find_spec and not import: the wheel's own modules pull in librosa and torchaudio.
    spec = find_spec("perth")
    path = Path(spec.origin).parent / _FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise InputError(
            "The watermark's weights are not installed; get them with: "
            "pip install --no-deps resemble-perth==1.0.1"
        )
    return path
