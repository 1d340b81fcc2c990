"""Online synthesis of the editing tasks: a scene before and after the edit (paper Table 10).

Mirrored tasks, such as adding and removing, share one draw and swap source and target. In audio
edits the base has the configured RMS and the event lies over it by the SNR. In scenes with speech
the speech has the configured RMS and the background lies below it. So speech has one level in all
tasks, zero-shot references included.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unison_audio.data.records import Clip
from unison_audio.tasks import scene
from unison_audio.tasks.draw import Built, Draw, events, fill, finish, place_randomly
from unison_audio.tasks.scene import Layer

Details = list[dict[str, Any]]

SPEECH_ALONE = 0.5
"""Share of the bases with speech that hold nothing but the speech: a voice that is recorded well,
into which one sound falls."""


def edit_add(draw: Draw) -> Built:
    """Source: the base. Target: the base with an event."""
    base, (event,), details = _event_scene(draw, 1)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base, target=base + event)


def edit_remove(draw: Draw) -> Built:
    """Source: the base with an event. Target: the base."""
    base, (event,), details = _event_scene(draw, 1)
    (event,) = _without_absent(draw, [event], details)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base + event, target=base)


def edit_replace(draw: Draw) -> Built:
    """Source: the base with one event. Target: the base with another."""
    base, events_drawn, details = _event_scene(draw, 2)
    # Where the old sound is absent the new one stays out too: there is nothing to replace.
    old, new = _without_absent(draw, events_drawn, details)
    fields = [{"old": detail["labels"][0], "new": detail["labels"][1]} for detail in details]
    return finish(draw, fields, details, source=base + old, target=base + new)


def speech_insert(draw: Draw) -> Built:
    """Source: the background. Target: the background with speech."""
    clips = draw.clips("speech")
    base, speech, details = _speech_scene(draw, clips)
    fields = [{"text": clip.record.text} for clip in clips]
    return finish(draw, fields, details, source=base, target=base + speech)


def speech_delete(draw: Draw) -> Built:
    """Source: the background with any speech. Target: the background."""
    clips = draw.clips("speech_any")
    base, speech, details = _speech_scene(draw, clips)
    fields: Details = [{} for _ in clips]
    return finish(draw, fields, details, source=base + speech, target=base)


def speech_rewrite(draw: Draw) -> Built:
    """Source and target: one voice in one background with different words, from the same onset."""
    pairs = draw.clips("speaker_pair")
    old_clips, new_clips = pairs[::2], pairs[1::2]
    base, old, details = _speech_scene(draw, old_clips)
    # The new words begin where the old ones did, or earlier if they would not fit. The instruction
    # says nothing about time, so another onset could not be learned.
    starts = [
        min(round(detail["speech_window"][0] * draw.sample_rate), draw.samples - len(clip.waveform))
        for detail, clip in zip(details, new_clips, strict=True)
    ]
    placed = scene.layer([clip.waveform for clip in new_clips], starts, draw.samples, draw.fade)
    new = scene.to_device(placed, draw.device).at(draw.config.rms)
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
    """Source: speech with noise throughout. Target: the speech."""
    config = draw.config
    # The instruction does not contain the words, so speech without a text serves too.
    clips = draw.clips("speech_any")
    speech = place_randomly(draw, [clip.waveform for clip in clips]).at(config.rms)
    snr = scene.uniform(config.noise_snr_db, draw.batch, draw.generator)
    noises = draw.clips("noise")
    noise = fill(draw, [clip.waveform for clip in noises]).above(speech, -snr.to(draw.device))
    details = _speech_details(clips, speech, draw.sample_rate)
    for detail, level in zip(details, snr, strict=True):
        detail["snr_db"] = float(level)
    fields: Details = [{} for _ in clips]
    return finish(draw, fields, details, source=speech.wave + noise.wave, target=speech.wave)


def audio_to_speech(draw: Draw) -> Built:
    """Source: the base with an event. Target: the base with speech."""
    base, event, speech, details = _exchange_scene(draw)
    fields = [{"event": detail["labels"][0], "text": detail["text"]} for detail in details]
    return finish(draw, fields, details, source=base + event, target=base + speech)


def speech_to_audio(draw: Draw) -> Built:
    """Source: the base with speech. Target: the base with an event."""
    base, event, speech, details = _exchange_scene(draw)
    fields = [{"event": detail["labels"][0]} for detail in details]
    return finish(draw, fields, details, source=base + speech, target=base + event)


def _event_scene(draw: Draw, count: int) -> tuple[Tensor, list[Tensor], Details]:
    """Draw a base and `count` events with other labels than the base and each other."""
    sounds = draw.clips("sound")
    base = fill(draw, [clip.waveform for clip in sounds]).at(draw.config.rms)
    details = _base_details(sounds)
    kept = base.wave
    if draw.config.edit_speech_probability > 0:
        base, kept = _with_speech(draw, base, details)
    # Each event has its level over the base alone, so that a replaced one does not shift the new.
    added = [_event(draw, base, details).wave for _ in range(count)]  # count x (B, samples)
    return kept, added, details


def _with_speech(draw: Draw, base: Layer, details: Details) -> tuple[Layer, Tensor]:
    """Put speech into some bases, and record it in the details.

    Returns:
        The base that events have their level over, below the speech where there is speech, and the
        whole base, (B, samples), which the edit keeps.
    """
    config, generator = draw.config, draw.generator
    spoken = torch.rand(draw.batch, generator=generator) < config.edit_speech_probability
    alone = torch.rand(draw.batch, generator=generator) < SPEECH_ALONE
    snr = scene.uniform(config.speech_snr_db, draw.batch, generator)
    items = torch.nonzero(spoken).flatten().tolist()
    if not items:
        return base, base.wave
    # The words are in no instruction, so speech without a text serves too.
    clips = draw.clips("speech_any", count=len(items))
    voices = [base.wave.new_zeros(draw.samples)] * draw.batch
    for item, clip in zip(items, clips, strict=True):
        voices[item] = clip.waveform
    speech = place_randomly(draw, voices).at(config.rms)
    for item, window in enumerate(speech.seconds(draw.sample_rate)):
        if spoken[item]:
            details[item].update(
                speech_window=window,
                speech_snr_db=float(snr[item]),
                speech_alone=bool(alone[item]),
            )
    drop = torch.where(spoken, -snr, torch.zeros_like(snr))
    base = base.at(config.rms * 10 ** (drop / 20).to(draw.device))
    heard = ~(spoken & alone).to(draw.device)
    return base, base.wave * heard[:, None] + speech.wave


def _without_absent(draw: Draw, added: Sequence[Tensor], details: Details) -> list[Tensor]:
    """Silence the events of the items whose named sound is absent, and record which those are."""
    chance = draw.config.absent_target_probability
    if chance <= 0:
        return list(added)
    absent = torch.rand(draw.batch, generator=draw.generator) < chance
    for detail, missing in zip(details, absent.tolist(), strict=True):
        detail["absent"] = missing
    present = (~absent).to(draw.device)[:, None]
    return [event * present for event in added]


def _speech_scene(draw: Draw, voices: Sequence[Clip]) -> tuple[Tensor, Tensor, Details]:
    """Draw a background throughout, and place speech at any time."""
    speech, base, details = _speech_over_base(draw, voices)
    return base.wave, speech.wave, details


def _exchange_scene(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Details]:
    """Draw a background, an event and speech."""
    voices = draw.clips("speech")
    speech, base, details = _speech_over_base(draw, voices)
    event = _event(draw, base, details)
    return base.wave, event.wave, speech.wave, details


def _speech_over_base(draw: Draw, voices: Sequence[Clip]) -> tuple[Layer, Layer, Details]:
    """Scale the background below the speech, not the speech over the background."""
    config = draw.config
    sounds = draw.clips("sound")
    speech = place_randomly(draw, [clip.waveform for clip in voices]).at(config.rms)
    snr = scene.uniform(config.speech_snr_db, draw.batch, draw.generator)
    base = fill(draw, [clip.waveform for clip in sounds]).above(speech, -snr.to(draw.device))
    spoken = _speech_details(voices, speech, draw.sample_rate)
    details = [
        {**base_detail, **detail, "speech_snr_db": float(level)}
        for base_detail, detail, level in zip(_base_details(sounds), spoken, snr, strict=True)
    ]
    return speech, base, details


def _event(draw: Draw, base: Layer, details: Details) -> Layer:
    """Draw an event with a label that the scene lacks, and record it in the details.

    With equal labels in base and event, "remove the rain" would be ambiguous.
    """
    present = [{detail["base_label"], *detail["labels"]} for detail in details]
    clips = draw.clips("sound", exclude_labels=present)
    snr = scene.uniform(draw.config.event_snr_db, draw.batch, draw.generator)
    placed = place_randomly(draw, events(draw, [clip.waveform for clip in clips]))
    event = placed.above(base, snr.to(draw.device))
    windows = event.seconds(draw.sample_rate)
    for detail, clip, level, window in zip(details, clips, snr, windows, strict=True):
        detail["labels"].append(clip.record.label)
        detail["snr_db"].append(float(level))
        detail["windows"].append(window)
    return event


def _base_details(sounds: Sequence[Clip]) -> Details:
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


def _speech_details(clips: Sequence[Clip], speech: Layer, sample_rate: int) -> Details:
    return [
        {
            "text": clip.record.text,
            "gender": clip.record.gender,
            "speaker": clip.record.speaker,
            "speech_window": window,
        }
        for clip, window in zip(clips, speech.seconds(sample_rate), strict=True)
    ]
