import math
import sys

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.models.speech_quality import Dnsmos, SileroVad
from unison_audio.evaluation.models.weights import PACKAGES, package_folder, require_packages

RATE = 16_000


def test_quality_falls_with_noise(recordings):
    pytest.importorskip("onnxruntime")
    _need("speechmos")
    quality = Dnsmos()
    clean = recordings["slt-july-wait-thursday"][0]
    noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    scores = [quality.overall(clean + level * noise, RATE) for level in (0.0, 0.01, 0.1)]
    assert scores == sorted(scores, reverse=True)
    assert all(1.0 <= score <= 5.0 for score in scores)
    assert scores[0] > scores[2] + 0.7


def test_presence_is_where_speech_is(recordings):
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    vad = SileroVad()
    wave = recordings["rms-please-open-the-black-door"][0]
    pause = torch.zeros(RATE)
    once = vad.speech_seconds(torch.cat([pause, wave, pause]), RATE)
    assert once == pytest.approx(len(wave) / RATE, abs=0.4)
    assert vad.speech_seconds(torch.cat([pause, wave, pause, wave, pause]), RATE) > 1.7 * once
    hum = 0.1 * torch.sin(2 * math.pi * 100 * torch.arange(2 * RATE) / RATE)
    assert vad.speech_seconds(hum, RATE) == 0.0
    assert torch.get_num_threads() == threads


def test_missing_packages_are_named(monkeypatch):
    with pytest.raises(InputError, match=r"no_such_package.*unison-audio\[evaluation\]"):
        package_folder("no_such_package")
    for name in ("aisfx", "resemblyzer"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"{name}.*pip install --no-deps aisfx resemblyzer"):
            package_folder(name)
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(InputError, match="silero"):
        SileroVad().speech_seconds(torch.zeros(RATE), RATE)


def test_all_missing_packages_are_named_at_once(monkeypatch):
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as raised:
        require_packages()
    message = str(raised.value)
    assert all(name in message for name in PACKAGES)
    assert message.endswith(
        "pip install 'unison-audio[evaluation]' && pip install --no-deps aisfx resemblyzer"
    )


def _need(package):
    try:
        package_folder(package)
    except InputError:
        pytest.skip(f"needs {package}")
