"""Nano's own recordings for test sets: the corpus's held-out sounds and voices."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from unison_audio.data.captions import plain_caption
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus, read_index
from unison_audio.evaluation.test_sets.recordings import Recordings, Sound, Utterance
from unison_audio.nano.vocabulary import IsSentence

PROMPT_SECONDS = 1.0
"""Least length of a prompt among nano's clips, many of which say a single word."""

NANO_COUNTS: dict[str, int] = {
    "audiocaps": 100,
    "seed-tts-en": 60,
    "seed-tts-zh": 0,
    "gender-tts-en": 60,
    "gender-tts-zh": 0,
    "t2as": 60,
    "audio-editing": 40,
    "speech-editing": 40,
    "timed": 40,
}
"""Items of nano's sets, which come from a small English corpus."""


def held_out(corpus: Path, sample_rate: int) -> Recordings:
    """Reads the held-out clips of the nano corpus.

    The speech is that of natural sentences, since a general speech recognition model fails on
    random sequences of words. Held-out texts of training voices serve for speech with a named
    gender, held-out voices for zero-shot speech.

    Args:
        corpus: Folder that `unison-audio data nano` wrote.
        sample_rate: Sample rate of the corpus in Hz.

    Raises:
        InputError: If there is no such corpus.
    """
    names = [name.decode() for name in read_index(corpus).names.tolist()]
    known = read_corpus(corpus, sample_rate, split="heldout")
    unknown = read_corpus(corpus, sample_rate, split="speakers")
    sounds = [clip for clip in known if clip.record.kind == "sound"]
    files: dict[str, Path | bytes] = {name: corpus / name for name in names}
    return Recordings(
        name="nano's held-out clips",
        sample_rate=sample_rate,
        sounds=tuple(_corpus_sound(clip) for clip in sounds),
        voices=_prompted(known),
        zero_shot=_prompted(unknown),
        published=False,
        sound_files=files,
        voice_files=files,
    )


def _corpus_sound(clip: Clip) -> Sound:
    record = clip.record
    label = record.label or plain_caption(record.caption)
    caption = plain_caption(record.caption) or label
    return Sound(id=record.key, label=label, captions=(caption,), read=lambda: clip.waveform)


def _corpus_voice(clip: Clip, prompt: Utterance | None = None) -> Utterance:
    record = clip.record
    return Utterance(
        id=record.key,
        text=record.text,
        language=record.language or "en",
        speaker=record.speaker,
        seconds=record.seconds,
        read=lambda: clip.waveform,
        gender=lambda: record.gender,
        prompt=prompt,
    )


def _prompted(clips: Sequence[Clip]) -> tuple[Utterance, ...]:
    """Sentences, each with the nearest utterance before it of its speaker that is long enough."""
    by_speaker: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.record.kind == "speech" and clip.record.text:
            by_speaker[clip.record.speaker].append(clip)
    voices = []
    is_sentence = IsSentence()
    for own in by_speaker.values():
        for number, clip in enumerate(own):
            if not is_sentence(clip.record.text):
                continue
            # Negative indices go round to the end, so the first utterances have prompts too.
            before = [own[number - step] for step in range(1, len(own))]
            prompt = next((one for one in before if one.record.seconds >= PROMPT_SECONDS), None)
            if prompt is not None:
                voices.append(_corpus_voice(clip, _corpus_voice(prompt)))
    return tuple(voices)
