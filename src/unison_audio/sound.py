"""What the pipeline hands out: a waveform with what is known of it."""

import base64
import html
import io
import os
from dataclasses import dataclass

import soundfile
from torch import Tensor

from unison_audio import audio


@dataclass(frozen=True, eq=False)
class Audio:
    """A sound; in a notebook it shows as a player."""

    waveform: Tensor
    """(samples,) float32 on the CPU, within -1..1."""
    sample_rate: int
    """Samples per second."""
    instruction: str = ""
    """What was asked for."""
    task: str = ""
    """Which task of `TASKS` that was."""
    seed: int | None = None
    """The seed it was made with."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.waveform.shape[-1] / self.sample_rate

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, whole or not at all; the suffix says the format: wav, flac, ogg or mp3.

        Raises:
            InputError: The suffix is another one, or the folder does not exist.
        """
        audio.save(path, self.waveform, self.sample_rate)

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        samples = self.waveform.detach().cpu().numpy()
        soundfile.write(file, samples, self.sample_rate, "PCM_16", format="WAV")
        data = base64.b64encode(file.getvalue()).decode()
        said = f"<div>{html.escape(self.instruction)}</div>" if self.instruction else ""
        return f'{said}<audio controls src="data:audio/wav;base64,{data}"></audio>'
