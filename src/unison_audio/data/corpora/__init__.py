"""The public corpora that can be read, by name; start with `source`."""

from unison_audio.data.corpora import emilia, folder, libritts, wavcaps, wenetspeech, youtube
from unison_audio.data.corpora.source import Corpus

_VIDEOS = "the audio belongs to the videos' owners"

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="wavcaps",
            licence="academic use only (WavCaps), and the licence of each source",
            units=wavcaps.units,
            clips=wavcaps.clips,
        ),
        Corpus(
            name="audioset",
            licence=f"CC-BY-4.0 (labels); {_VIDEOS}",
            units=youtube.audioset_units,
            clips=youtube.clips,
            rows_are_clips=True,
        ),
        Corpus(
            name="vggsound",
            licence=f"CC-BY-4.0 (labels); {_VIDEOS}",
            units=youtube.vggsound_units,
            clips=youtube.clips,
            rows_are_clips=True,
        ),
        Corpus(
            name="audiocaps",
            licence=f"MIT, for academic purposes (captions); {_VIDEOS}",
            units=youtube.audiocaps_units,
            clips=youtube.clips,
            rows_are_clips=True,
        ),
        Corpus(
            name="libritts",
            licence="CC-BY-4.0",
            units=libritts.units,
            clips=libritts.clips,
        ),
        Corpus(
            name="wenetspeech",
            licence="WenetSpeech terms of access",
            units=wenetspeech.units,
            clips=wenetspeech.clips,
            clips_per_unit=400,
        ),
        *(
            Corpus(
                name=f"emilia-{language}",
                licence="CC-BY-NC-4.0",
                units=emilia.units_of(language),
                clips=emilia.clips,
                clips_per_unit=20_000,
            )
            for language in ("en", "zh")
        ),
        Corpus(
            name="folder",
            licence="",
            units=folder.units,
            clips=folder.clips,
            clips_per_unit=folder.ROWS_PER_UNIT,
        ),
    )
}
"""Readers by the name given to ``unison-audio data``."""
