"""Models of speech out of packages: quality (DNSMOS) and voice activity (Silero)."""

from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from unison_audio.audio import normalize_rms, resample
from unison_audio.evaluation.models.weights import missing_package, package_folder

SAMPLE_RATE = 16_000
"""Sample rate of both in Hz."""


class Dnsmos:
    """DNSMOS P.835 (Reddy et al. 2022): the overall quality of speech, from 1 to 5."""

    model = "DNSMOS P.835 overall (sig_bak_ovr.onnx)"
    identity = "dnsmos sig_bak_ovr"
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


class SileroVad:
    """Silero's voice activity detection: the duration of speech."""

    def __init__(self) -> None:
        try:
            self.model = self.identity = f"Silero VAD {version('silero-vad')}"
        except PackageNotFoundError:
            raise missing_package("silero-vad") from None

    @cached_property
    def _net(self) -> Any:
        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ModuleNotFoundError as missing:
            raise missing_package(missing.name or "silero-vad") from None
        finally:
            torch.set_num_threads(threads)  # the package sets it to one when it is imported
        return load_silero_vad(onnx=True)

    def speech_seconds(self, waveform: Tensor, sample_rate: int) -> float:
        """Seconds of speech in a waveform (samples,)."""
        net = self._net
        from silero_vad import get_speech_timestamps

        # At one level: speech that is merely softer must not count as removed.
        wave = normalize_rms(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE))
        spans = get_speech_timestamps(wave, net, sampling_rate=SAMPLE_RATE)
        return sum(span["end"] - span["start"] for span in spans) / SAMPLE_RATE
