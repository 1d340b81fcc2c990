"""Views of numpy arrays: safetensors writes the memory under them, not their values."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from unison_audio.server.recording_store import RecordingStore, StoredVoice

STEREO = np.random.default_rng(0).standard_normal((16_000, 2)).astype(np.float32)


def test_a_view_would_be_stored_as_something_else() -> None:
    back = load(save({"x": STEREO[:, 0]}))["x"]
    assert back.shape == (16_000,)
    assert not np.array_equal(back, STEREO[:, 0])


def test_a_voice_out_of_a_stereo_recording_keeps_its_samples(tmp_path: Path) -> None:
    store = RecordingStore(tmp_path, StoredVoice, "voice", 3)
    facts = {"name": "a", "ref_text": "yes", "consent": "yes", "speaker_description": ""}
    voice = store.add(STEREO[:, 0], 16_000, **facts)
    assert np.array_equal(store.waveform(voice), STEREO[:, 0])
