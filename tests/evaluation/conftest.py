from pathlib import Path

import pytest

from unison_audio.audio import load

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="session")
def recordings():
    """Utterances of the corpus: name -> (waveform at 16 kHz, text)."""
    return {
        path.stem: (load(path, sample_rate=16_000), path.stem.split("-", 1)[1].replace("-", " "))
        for path in sorted(FIXTURES.glob("*.flac"))
        if path.stem.split("-")[0] in ("rms", "slt")
    }
