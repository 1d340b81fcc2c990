import math
import sys

import pytest
import torch

from unison_audio.errors import InputError
from unison_audio.evaluation.models import speech_quality as listeners
from unison_audio.evaluation.models.speech_quality import (
    PresenceListener,
    QualityListener,
    VoiceListener,
    nearest_is_own,
    package_folder,
    require_packages,
)

RATE = 16_000


def test_quality_falls_with_noise(recordings):
    pytest.importorskip("onnxruntime")
    _need("speechmos")
    listener = QualityListener()
    clean = recordings["slt-july-wait-thursday"][0]
    noise = torch.randn(len(clean), generator=torch.Generator().manual_seed(0))
    scores = [listener.overall(clean + level * noise, RATE) for level in (0.0, 0.01, 0.1)]
    assert scores == sorted(scores, reverse=True)
    assert all(1.0 <= score <= 5.0 for score in scores)
    assert scores[0] > scores[2] + 0.7


def test_presence_is_where_somebody_speaks(recordings):
    pytest.importorskip("silero_vad")
    threads = torch.get_num_threads()
    listener = PresenceListener()
    wave = recordings["rms-please-open-the-black-door"][0]
    pause = torch.zeros(RATE)
    once = listener.seconds(torch.cat([pause, wave, pause]), RATE)
    assert once == pytest.approx(len(wave) / RATE, abs=0.4)
    assert listener.seconds(torch.cat([pause, wave, pause, wave, pause]), RATE) > 1.7 * once
    hum = 0.1 * torch.sin(2 * math.pi * 100 * torch.arange(2 * RATE) / RATE)
    assert listener.seconds(hum, RATE) == 0.0
    assert torch.get_num_threads() == threads


def test_voices_are_told_apart(recordings):
    _need("resemblyzer")
    listener = VoiceListener()
    heard = {}
    for name in ("rms-please-open-the-black-door", "slt-july-wait-thursday"):
        wave = recordings[name][0]
        half = len(wave) // 2
        heard[name[:3]] = [listener.embed(part, RATE) for part in (wave[:half], wave[half:])]
    assert float(heard["rms"][0].norm()) == pytest.approx(1.0, abs=1e-5)
    same = [float(first @ second) for first, second in heard.values()]
    other = [float(a @ b) for a in heard["rms"] for b in heard["slt"]]
    assert min(same) > max(other) + 0.1


def test_silence_has_no_voice():
    _need("resemblyzer")
    assert float(VoiceListener().embed(torch.zeros(RATE), RATE).norm()) == 0.0


@pytest.mark.parametrize(("band", "hertz"), [(5, 441.4), (20, 1753.9), (37, 6371.5)])
def test_mel_bands_lie_on_the_slaney_scale(band, hertz):
    # 200/3 Hz a mel up to 1 kHz, then a factor of 6.4 in 27 mels; 40 bands up to 8 kHz.
    mel = 15 + math.log(hertz / 1000) * 27 / math.log(6.4) if hertz > 1000 else 3 * hertz / 200
    top = 15 + math.log(8) * 27 / math.log(6.4)
    assert mel == pytest.approx((band + 1) * top / 41, abs=0.01)
    time = torch.arange(RATE) / RATE
    heard = listeners._voice_mel(torch.sin(2 * math.pi * hertz * time))
    assert int(heard[50].argmax()) == band


def test_own_voice_must_be_nearest():
    own, other = torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    assert nearest_is_own(own, [other], torch.tensor([0.9, 0.44]))
    assert not nearest_is_own(own, [other], torch.tensor([0.2, 0.98]))


def test_missing_packages_are_named(monkeypatch):
    with pytest.raises(InputError, match=r"no_such_package.*unison-audio\[evaluation\]"):
        package_folder("no_such_package")
    for name in ("aisfx", "resemblyzer"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"{name}.*pip install --no-deps aisfx resemblyzer"):
            package_folder(name)
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(InputError, match="silero"):
        PresenceListener().seconds(torch.zeros(RATE), RATE)


def test_all_missing_packages_are_named_at_once(monkeypatch):
    for name in listeners.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as raised:
        require_packages()
    message = str(raised.value)
    assert all(name in message for name in listeners.PACKAGES)
    assert message.endswith(
        "pip install 'unison-audio[evaluation]' && pip install --no-deps aisfx resemblyzer"
    )


def _need(package):
    try:
        package_folder(package)
    except InputError:
        pytest.skip(f"needs {package}")
