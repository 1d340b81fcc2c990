"""Online synthesis of the generation tasks: raw clips to waveforms and template fields.

A builder maps a `Draw` (pools, batch size, generator) to a `Built`. Random numbers are drawn on the
CPU, item by item, so that equal generator states give equal batches on every device. Levels, mixing
and headroom are batch tensors on the training device (paper section 3.6, Table 10).
"""

import math
from typing import Any

import torch

from unison_audio.tasks import scene
from unison_audio.tasks.draw import Built, Draw, events, fill, finish, mix, pause, place_randomly
from unison_audio.tasks.reference import frame_edge
from unison_audio.tasks.reference_text import join_reference_text
from unison_audio.tasks.scene import Layer


def tts(draw: Draw) -> Built:
    """Target: speech after a short random onset."""
    config = draw.config
    room = draw.seconds - config.onset_seconds[1]
    clips = draw.clips("speech", max_seconds=room)
    speech = place_randomly(draw, [clip.waveform for clip in clips], config.onset_seconds).at(
        config.rms
    )
    # An empty gender, where the corpus names none, selects a template without one.
    fields = [{"gender": clip.record.gender, "text": clip.record.text} for clip in clips]
    details = [
        {**field, "speaker": clip.record.speaker, "speech_window": window}
        for field, clip, window in zip(fields, clips, speech.seconds(draw.sample_rate), strict=True)
    ]
    return finish(draw, fields, details, target=speech.wave)


def zero_shot_tts(draw: Draw) -> Built:
    """Target: a reference utterance, silence, and another text in the same voice.

    The source contains the reference and zeros.
    """
    config = draw.config
    # The silence is extended to a frame boundary, since a latent frame is either given or generated
    # (`conditioning`). Hence the frame of slack in the room for the two utterances.
    gap = round(config.reference_silence_seconds * draw.sample_rate)
    room = (draw.samples - gap - config.hop) / 2 / draw.sample_rate
    clips = draw.clips("speaker_pair", max_seconds=room)
    pairs = list(zip(clips[::2], clips[1::2], strict=True))
    heads = scene.layer([a.waveform for a, _ in pairs], [0] * len(pairs), draw.samples, draw.fade)
    edges = [frame_edge(int(end) + gap, config.hop) for _, end in heads.spans]
    tails = scene.layer([b.waveform for _, b in pairs], edges, draw.samples, draw.fade)
    source = scene.to_device(heads, draw.device).at(config.rms)
    speech = scene.to_device(tails, draw.device).at(config.rms)
    details = [
        {
            "text": b.record.text,
            "reference_text": a.record.text,
            "gender": a.record.gender,
            "speaker": a.record.speaker,
            "reference_window": head,
            "speech_window": tail,
        }
        for (a, b), head, tail in zip(
            pairs,
            source.seconds(draw.sample_rate),
            speech.seconds(draw.sample_rate),
            strict=True,
        )
    ]
    return finish(
        draw,
        [{"text": join_reference_text(a.record.text, b.record.text)} for a, b in pairs],
        details,
        target=source.wave + speech.wave,  # (B, samples)
        source=source.wave,
        reference_samples=torch.tensor(edges),
    )


def t2a(draw: Draw) -> Built:
    """Target: one sound after a short random onset."""
    config = draw.config
    clips = draw.clips("sound")
    cut = [scene.crop(clip.waveform, draw.samples, draw.generator) for clip in clips]
    sound = place_randomly(draw, cut, config.onset_seconds).at(config.rms)
    fields = [{"caption": clip.record.caption} for clip in clips]
    details = [
        {**field, "labels": [clip.record.label], "windows": [window]}
        for field, clip, window in zip(fields, clips, sound.seconds(draw.sample_rate), strict=True)
    ]
    return finish(draw, fields, details, target=sound.wave)


def t2a_mix(draw: Draw) -> Built:
    """Target: two or three different sounds mixed, each at any time; one count per batch."""
    config = draw.config
    # One count per batch, so that each event is one batch tensor.
    count = scene.integer(*config.mix_events, draw.generator)
    used: list[set[str]] = [set() for _ in range(draw.batch)]
    captions: list[list[str]] = [[] for _ in range(draw.batch)]
    details: list[dict[str, Any]] = [
        {"captions": listed, "labels": [], "windows": [], "snr_db": []} for listed in captions
    ]
    layers: list[Layer] = []
    for k in range(count):
        clips = draw.clips("sound", exclude_labels=used)
        sound = place_randomly(draw, events(draw, [clip.waveform for clip in clips]))
        # The first event has no SNR; its draw keeps the count of numbers per event constant.
        snr = scene.uniform(config.mix_snr_db if k else (0.0, 0.0), draw.batch, draw.generator)
        sound = sound.at(config.rms) if k == 0 else sound.above(layers[0], snr.to(draw.device))
        layers.append(sound)
        for i, (clip, window) in enumerate(
            zip(clips, sound.seconds(draw.sample_rate), strict=True)
        ):
            used[i].add(clip.record.label)
            captions[i].append(clip.record.caption)
            details[i]["labels"].append(clip.record.label)
            details[i]["windows"].append(window)
            if k:
                details[i]["snr_db"].append(float(snr[i]))
    # "a, b and c": the paper's "{caption} and {caption}" for any number.
    fields = [{"first": ", ".join(listed[:-1]), "last": listed[-1]} for listed in captions]
    return finish(draw, fields, details, target=mix(layers))


def t2as(draw: Draw) -> Built:
    """Target: speech mixed with a sound throughout."""
    config = draw.config
    room = draw.seconds - config.onset_seconds[1]
    voices = draw.clips("speech", max_seconds=room)
    sounds = draw.clips("sound")
    speech = place_randomly(draw, [clip.waveform for clip in voices], config.onset_seconds).at(
        config.rms
    )
    # The speech keeps its level and the sound is scaled, hence the negative SNR below.
    snr = scene.uniform(config.t2as_snr_db, draw.batch, draw.generator)
    sound = fill(draw, [clip.waveform for clip in sounds]).above(speech, -snr.to(draw.device))
    fields, details = [], []
    windows = speech.seconds(draw.sample_rate)
    for i, (voice, clip) in enumerate(zip(voices, sounds, strict=True)):
        field = {
            "gender": voice.record.gender,
            "text": voice.record.text,
            "caption": clip.record.caption,
        }
        fields.append(field)
        details.append(
            {
                **field,
                "speaker": voice.record.speaker,
                "labels": [clip.record.label],
                "snr_db": float(snr[i]),
                "speech_window": windows[i],
            }
        )
    return finish(draw, fields, details, target=speech.wave + sound.wave)


def timed(draw: Draw) -> Built:
    """Target: two or three events, each in exactly the window that the text states."""
    config = draw.config
    plans = [windows(draw) for _ in range(draw.batch)]
    used: list[set[str]] = [set() for _ in range(draw.batch)]
    target = torch.zeros(draw.batch, draw.samples, device=draw.device)  # (B, samples)
    fields: list[dict[str, Any]] = [{"events": []} for _ in range(draw.batch)]
    for k in range(max(len(plan) for plan in plans)):
        rows = [i for i, plan in enumerate(plans) if k < len(plan)]
        clips = draw.clips("sound", count=len(rows), exclude_labels=[used[i] for i in rows])
        parts, starts = [], []
        for i, clip in zip(rows, clips, strict=True):
            # Tenths of a second, the precision of the text, then samples.
            start, end = (round(t * draw.sample_rate / 10) for t in plans[i][k])
            cut = scene.crop(clip.waveform, end - start, draw.generator)
            parts.append(scene.repeat(cut, end - start, gap=pause(draw, cut), fade=draw.fade))
            starts.append(start)
            used[i].add(clip.record.label)
            begins, ends = (f"{t / 10:.1f}" for t in plans[i][k])
            fields[i]["events"].append({"start": begins, "end": ends, "event": clip.record.label})
        sound = scene.layer(parts, starts, draw.samples, draw.fade)
        # Items have different numbers of events, so an event is added to its rows only.
        target[rows] += scene.to_device(sound, draw.device).at(config.rms).wave
    details = [
        {
            "labels": [event["event"] for event in field["events"]],
            "windows": [(float(e["start"]), float(e["end"])) for e in field["events"]],
        }
        for field in fields
    ]
    return finish(draw, fields, details, target=target)


def windows(draw: Draw) -> list[tuple[int, int]]:
    """Draw a timeline: windows in tenths of a second, ordered by their start."""
    config, generator = draw.config, draw.generator
    # Whole tenths, so that the text states exactly what is built; 1e-6 absorbs rounding errors.
    tenths = math.floor(draw.seconds * 10 + 1e-6)
    count = scene.integer(*config.timed_events, generator)
    least = max(1, min(round(10 * config.min_window_seconds), tenths // count))
    slack = max(0, tenths - count * least)
    # Exponential variates, normalized, split the spare time uniformly among windows and pauses.
    # Halved weights keep the pauses half as long in the mean.
    shares = -torch.log1p(-torch.rand(2 * count + 1, generator=generator))
    shares[0::2] *= 0.5
    spare = (slack * shares / shares.sum()).floor().int().tolist()
    plan: list[tuple[int, int]] = []
    now = 0
    for k in range(count):
        start = now + spare[2 * k]
        end = now = start + least + spare[2 * k + 1]
        overlap = bool(torch.rand((), generator=generator) < config.timed_overlap)
        # Drawn for the first event as well, for a constant count of numbers. An overlap moves the
        # start back into at most half of the event before; the end stays.
        if plan and overlap:
            before = plan[-1]
            start = before[1] - scene.integer(1, (before[1] - before[0]) // 2, generator)
        plan.append((start, end))
    return plan
