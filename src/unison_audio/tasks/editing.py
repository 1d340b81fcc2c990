"""Online synthesis of the editing tasks: a scene before and after (paper Table 10).

Mirrored tasks share one draw and swap source and target. In audio edits the base has the
configured RMS and the event stands above it by the SNR. In scenes with speech the speech has the
configured RMS and the background stands below it, so that the speech is as loud in every task.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unison_audio.data.records import Clip
from unison_audio.tasks import scene
from unison_audio.tasks.draw import Built, Draw, events, fill, finish, lay
from unison_audio.tasks.scene import Layer

Details = list[dict[str, Any]]


def edit_add(draw: Draw) -> Built:
    """The base before, the base with an event after."""
    base, (event,), details = _event_scene(draw, 1)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base, target=base + event)


def edit_remove(draw: Draw) -> Built:
    """The mirror image of `edit_add`."""
    base, (event,), details = _event_scene(draw, 1)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base + event, target=base)


def edit_replace(draw: Draw) -> Built:
    """The base with one event before, with another after."""
    base, (old, new), details = _event_scene(draw, 2)
    fields = [{"old": detail["labels"][0], "new": detail["labels"][1]} for detail in details]
    return finish(draw, fields, details, source=base + old, target=base + new)


def speech_insert(draw: Draw) -> Built:
    """The background before, somebody speaking in it after."""
    clips = draw.clips("speech")
    base, speech, details = _speech_scene(draw, clips)
    fields = [{"text": clip.record.text} for clip in clips]
    return finish(draw, fields, details, source=base, target=base + speech)


def speech_delete(draw: Draw) -> Built:
    """The mirror image of `speech_insert`, with any speech."""
    clips = draw.clips("speech_any")
    base, speech, details = _speech_scene(draw, clips)
    fields: Details = [{} for _ in clips]
    return finish(draw, fields, details, source=base + speech, target=base)


def speech_rewrite(draw: Draw) -> Built:
    """The same voice in the same background says something else, from the same moment on."""
    pairs = draw.clips("speaker_pair")
    old_clips, new_clips = pairs[::2], pairs[1::2]
    base, old, details = _speech_scene(draw, old_clips)
    starts = [
        min(round(detail["speech_window"][0] * draw.sample_rate), draw.samples - len(clip.waveform))
        for detail, clip in zip(details, new_clips, strict=True)
    ]
    laid = scene.layer([clip.waveform for clip in new_clips], starts, draw.samples, draw.fade)
    new = scene.to_device(laid, draw.device).at(draw.config.rms)
    for detail, clip, window in zip(details, new_clips, new.seconds(draw.sample_rate), strict=True):
        detail.update(
            old_text=detail["text"],
            text=clip.record.text,
            old_window=detail["speech_window"],
            speech_window=window,
        )
    fields = [{"new": clip.record.text} for clip in new_clips]
    return finish(draw, fields, details, source=base + old, target=base + new.wave)


def denoise(draw: Draw) -> Built:
    """Speech with noise throughout before, the speech alone after."""
    config = draw.config
    clips = draw.clips("speech_any")
    speech = lay(draw, [clip.waveform for clip in clips]).at(config.rms)
    snr = scene.uniform(config.noise_snr_db, draw.batch, draw.generator)
    noises = draw.clips("noise")
    noise = fill(draw, [clip.waveform for clip in noises]).above(speech, -snr.to(draw.device))
    details = _of_speech(clips, speech, draw.sample_rate)
    for detail, drawn in zip(details, snr, strict=True):
        detail["snr_db"] = float(drawn)
    fields: Details = [{} for _ in clips]
    return finish(draw, fields, details, source=speech.wave + noise.wave, target=speech.wave)


def audio_to_speech(draw: Draw) -> Built:
    """The base with an event before, with speech in its place after."""
    base, event, speech, details = _exchange_scene(draw)
    fields = [{"event": detail["labels"][0], "text": detail["text"]} for detail in details]
    return finish(draw, fields, details, source=base + event, target=base + speech)


def speech_to_audio(draw: Draw) -> Built:
    """The mirror image of `audio_to_speech`."""
    base, event, speech, details = _exchange_scene(draw)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base + speech, target=base + event)


def _event_scene(draw: Draw, count: int) -> tuple[Tensor, list[Tensor], Details]:
    """A base and `count` events of other kinds, each to be added to it by itself."""
    sounds = draw.clips("sound")
    base = fill(draw, [clip.waveform for clip in sounds]).at(draw.config.rms)
    details = _of_base(sounds)
    added = [_event(draw, base, details).wave for _ in range(count)]
    return base.wave, added, details


def _speech_scene(draw: Draw, voices: Sequence[Clip]) -> tuple[Tensor, Tensor, Details]:
    """Speech that begins anywhere, and a background throughout."""
    speech, base, details = _speech_over_base(draw, voices)
    return base.wave, speech.wave, details


def _exchange_scene(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Details]:
    """A background, an event and speech, to be exchanged for one another."""
    voices = draw.clips("speech")
    speech, base, details = _speech_over_base(draw, voices)
    event = _event(draw, base, details)
    return base.wave, event.wave, speech.wave, details


def _speech_over_base(draw: Draw, voices: Sequence[Clip]) -> tuple[Layer, Layer, Details]:
    config = draw.config
    sounds = draw.clips("sound")
    speech = lay(draw, [clip.waveform for clip in voices]).at(config.rms)
    snr = scene.uniform(config.speech_snr_db, draw.batch, draw.generator)
    base = fill(draw, [clip.waveform for clip in sounds]).above(speech, -snr.to(draw.device))
    spoken = _of_speech(voices, speech, draw.sample_rate)
    details = [
        {**base_detail, **detail, "speech_snr_db": float(drawn)}
        for base_detail, detail, drawn in zip(_of_base(sounds), spoken, snr, strict=True)
    ]
    return speech, base, details


def _event(draw: Draw, base: Layer, details: Details) -> Layer:
    """Draw an event of a kind not yet in the scene; note it in the details."""
    present = [{detail["base_label"], *detail["labels"]} for detail in details]
    clips = draw.clips("sound", exclude_labels=present)
    snr = scene.uniform(draw.config.event_snr_db, draw.batch, draw.generator)
    laid = lay(draw, events(draw, [clip.waveform for clip in clips]))
    event = laid.above(base, snr.to(draw.device))
    windows = event.seconds(draw.sample_rate)
    for detail, clip, drawn, window in zip(details, clips, snr, windows, strict=True):
        detail["labels"].append(clip.record.label)
        detail["snr_db"].append(float(drawn))
        detail["windows"].append(window)
    return event


def _of_base(sounds: Sequence[Clip]) -> Details:
    return [
        {
            "base_label": clip.record.label,
            "base_caption": clip.record.caption,
            "labels": [],
            "snr_db": [],
            "windows": [],
        }
        for clip in sounds
    ]


def _of_speech(clips: Sequence[Clip], speech: Layer, sample_rate: int) -> Details:
    return [
        {
            "text": clip.record.text,
            "gender": clip.record.gender,
            "speaker": clip.record.speaker,
            "speech_window": window,
        }
        for clip, window in zip(clips, speech.seconds(sample_rate), strict=True)
    ]
