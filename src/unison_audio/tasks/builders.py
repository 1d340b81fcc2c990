"""Online synthesis of the generation tasks: raw clips -> waveforms and what the text says.

Every builder takes a `Draw` (the pools, the batch, the generator) and returns a `Built`. What is
random is drawn on the CPU, item by item, so that the same generator state gives the same batch;
levels, mixing and headroom are batch tensors on the training device (paper §3.6, Table 10).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unison_audio.tasks import scene
from unison_audio.tasks.pools import Pools
from unison_audio.tasks.pools import SoundClip as SoundClip
from unison_audio.tasks.pools import SpeechClip as SpeechClip
from unison_audio.tasks.reference import frame_edge
from unison_audio.tasks.scene import Layer
from unison_audio.tasks.templates import join_reference_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuilderConfig:
    """What the builders draw from; equal bounds fix a value, as evaluation does."""

    rms: float = 0.1
    """RMS of a sound where it sounds (paper §3.6)."""

    peak: float = 0.99
    """No source or target exceeds this; both are scaled alike where one would."""

    fade_seconds: float = 0.01
    """Fades at every boundary."""

    event_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Edits: the event above the base."""

    speech_snr_db: tuple[float, float] = (5.0, 15.0)
    """Speech in a scene: the speech above the background."""

    t2as_snr_db: tuple[float, float] = (-5.0, 5.0)
    """Speech with sound: the speech above the sound."""

    noise_snr_db: tuple[float, float] = (0.0, 15.0)
    """Denoising: the speech above the noise."""

    mix_snr_db: tuple[float, float] = (-3.0, 3.0)
    """Mixed sounds: each later event above the first."""

    mix_events: tuple[int, int] = (2, 3)
    """Mixed sounds: how many."""

    timed_events: tuple[int, int] = (2, 3)
    """Timelines: how many events."""

    timed_overlap: float = 0.3
    """Timelines: probability that an event begins before the one before it ends."""

    min_window_seconds: float = 0.8
    """Timelines: the shortest window, where the clip is long enough for that."""

    min_event_seconds: float = 1.0
    """Edits and mixed sounds: a shorter event is repeated up to about this length."""

    short_seconds: float = 1.0
    """Clips shorter than this are repeated with pauses of up to half their length; longer ones
    with cross-fades."""

    onset_seconds: tuple[float, float] = (0.0, 0.15)
    """Generation: where speech, or a lone sound, begins."""

    reference_silence_seconds: float = 0.1
    """Zero-shot: least silence between reference and target."""

    floor_dbfs: tuple[float, float] | None = None
    """Edits: RMS of the noise under source and target, as under any recording; None for none."""

    floor_probability: float = 0.6
    """Edits: probability that a batch has such noise."""

    hop: int = 1024
    """Zero-shot: samples of a latent frame; the target begins on a frame's edge."""

    first_template_probability: float = 0.5
    """Probability of the paper's own wording; the others share the rest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """What a builder builds from."""

    pools: Pools
    """The raw clips."""

    batch: int
    """Items."""

    seconds: float
    """Length of every clip."""

    sample_rate: int
    """The pools' and the clips' rate."""

    generator: torch.Generator
    """A CPU generator."""

    device: torch.device | str
    """Where the arithmetic is done."""

    config: BuilderConfig
    """The ranges."""

    @property
    def samples(self) -> int:
        """Samples of every clip."""
        return round(self.seconds * self.sample_rate)

    @property
    def fade(self) -> int:
        """Samples of a boundary's fade."""
        return round(self.config.fade_seconds * self.sample_rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """What a builder built, before its words are put into a template."""

    target: Tensor
    """(B, samples)."""

    source: Tensor | None = None
    """(B, samples) of an edit or of zero-shot; None in plain generation."""

    reference_samples: Tensor | None = None
    """(B,) zero-shot: samples of the reference, its silence included, at the target's head."""

    fields: list[dict[str, Any]]
    """Per item, what the template's placeholders stand for."""

    details: list[dict[str, Any]]
    """Per item, everything drawn."""


def finish(
    draw: Draw,
    fields: list[dict[str, Any]],
    details: list[dict[str, Any]],
    *,
    target: Tensor,
    source: Tensor | None = None,
    reference_samples: Tensor | None = None,
) -> Built:
    """Give source and target headroom and note the factor as "gain"."""
    waves = [target] if source is None else [target, source]
    gains, waves = scene.headroom(draw.config.peak, *waves)
    noted = [{**detail, "gain": float(gain)} for detail, gain in zip(details, gains, strict=True)]
    return Built(
        target=waves[0],
        source=waves[1] if source is not None else None,
        reference_samples=reference_samples,
        fields=fields,
        details=noted,
    )


def lay(draw: Draw, clips: Sequence[Tensor], bounds: tuple[float, float] | None = None) -> Layer:
    """Lay one clip an item, beginning at random.

    Args:
        draw: The draw.
        clips: (samples_i,) each, no longer than the clip to fill.
        bounds: Seconds between which it begins, where room is left; None for anywhere.
    """
    starts = []
    for clip in clips:
        spare = draw.samples - clip.shape[0]
        if spare < 0:
            raise ValueError(
                f"a clip of {clip.shape[0]} samples was drawn for {draw.samples}; "
                "the pool must keep to max_seconds"
            )
        low, high = (0, spare)
        if bounds is not None:
            low, high = (min(spare, round(s * draw.sample_rate)) for s in bounds)
        starts.append(scene.integer(low, high, draw.generator))
    return scene.to_device(scene.layer(clips, starts, draw.samples, draw.fade), draw.device)


def fill(draw: Draw, clips: Sequence[Tensor]) -> Layer:
    """Lay one sound an item over the whole clip: cropped at random, or repeated."""
    filled = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)
        filled.append(scene.repeat(cut, draw.samples, gap=pause(draw, cut), fade=draw.fade))
    zeros = [0] * len(filled)
    return scene.to_device(scene.layer(filled, zeros, draw.samples, draw.fade), draw.device)


def pause(draw: Draw, clip: Tensor) -> int:
    """Draw the pause between repetitions of a short clip; none for a longer one."""
    half = clip.shape[0] // 2
    gap = scene.integer(0, half, draw.generator)
    return gap if clip.shape[0] < draw.config.short_seconds * draw.sample_rate else 0


def events(draw: Draw, clips: Sequence[Tensor]) -> list[Tensor]:
    """Make clips into events: those longer than the clip are cropped, very short ones repeated."""
    least = min(draw.samples, round(draw.config.min_event_seconds * draw.sample_rate))
    made = []
    for clip in clips:
        cut = scene.crop(clip, draw.samples, draw.generator)
        gap = pause(draw, cut)
        made.append(scene.repeat(cut, least, gap=gap, fade=draw.fade, whole=True))
    return made


def with_floor(built: Built, draw: Draw) -> Built:
    """Lays noise under a batch of edits, the same under an item's source and target.

    Args:
        built: What was built.
        draw: Its draws; the configuration has a level.

    Returns:
        The batch with noise of levels of its own, or as it was.
    """
    config, generator = draw.config, draw.generator
    if config.floor_dbfs is None or built.source is None:
        return built
    if float(torch.rand((), generator=generator)) >= config.floor_probability:
        return built
    low, high = config.floor_dbfs
    level = low + (high - low) * torch.rand((len(built.target), 1), generator=generator)
    noise = 10 ** (level / 20) * torch.randn(built.target.shape, generator=generator)
    noise = noise.to(built.target.device)
    return dataclasses.replace(built, target=built.target + noise, source=built.source + noise)


def tts(draw: Draw) -> Built:
    """A voice, of a gender where it is known, says a text, from a small random onset on."""
    config = draw.config
    room = draw.seconds - config.onset_seconds[1]
    clips = draw.pools.speech(draw.batch, draw.generator, max_seconds=room)
    speech = lay(draw, [clip.waveform for clip in clips], config.onset_seconds).at(config.rms)
    fields = [{"gender": clip.gender, "text": clip.text} for clip in clips]
    details = [
        {**field, "speaker": clip.speaker, "speech_window": window}
        for field, clip, window in zip(fields, clips, speech.seconds(draw.sample_rate), strict=True)
    ]
    return finish(draw, fields, details, target=speech.wave)


def zero_shot_tts(draw: Draw) -> Built:
    """A reference utterance, silence, and another text in the same voice.

    The source holds the reference and zeros; the silence is stretched to a frame's edge.
    """
    config = draw.config
    gap = round(config.reference_silence_seconds * draw.sample_rate)
    room = (draw.samples - gap - config.hop) / 2 / draw.sample_rate
    pairs = draw.pools.speaker_pairs(draw.batch, draw.generator, max_seconds_each=room)
    heads = scene.layer([a.waveform for a, _ in pairs], [0] * len(pairs), draw.samples, draw.fade)
    edges = [frame_edge(int(end) + gap, config.hop) for _, end in heads.spans]
    tails = scene.layer([b.waveform for _, b in pairs], edges, draw.samples, draw.fade)
    source = scene.to_device(heads, draw.device).at(config.rms)
    speech = scene.to_device(tails, draw.device).at(config.rms)
    details = [
        {
            "text": b.text,
            "reference_text": a.text,
            "gender": a.gender,
            "speaker": a.speaker,
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
        [{"text": join_reference_text(a.text, b.text)} for a, b in pairs],
        details,
        target=source.wave + speech.wave,
        source=source.wave,
        reference_samples=torch.tensor(edges),
    )


def t2a(draw: Draw) -> Built:
    """One sound, from a small random onset on."""
    config = draw.config
    clips = draw.pools.sounds(draw.batch, draw.generator, max_seconds=draw.seconds)
    cut = [scene.crop(clip.waveform, draw.samples, draw.generator) for clip in clips]
    sound = lay(draw, cut, config.onset_seconds).at(config.rms)
    fields = [{"caption": clip.caption} for clip in clips]
    details = [
        {**field, "labels": [clip.label], "windows": [window]}
        for field, clip, window in zip(fields, clips, sound.seconds(draw.sample_rate), strict=True)
    ]
    return finish(draw, fields, details, target=sound.wave)


def t2a_mix(draw: Draw) -> Built:
    """Two or three different sounds mixed, each beginning anywhere; one number a batch."""
    config = draw.config
    count = scene.integer(*config.mix_events, draw.generator)
    used: list[set[str]] = [set() for _ in range(draw.batch)]
    captions: list[list[str]] = [[] for _ in range(draw.batch)]
    details: list[dict[str, Any]] = [
        {"captions": said, "labels": [], "windows": [], "snr_db": []} for said in captions
    ]
    layers: list[Layer] = []
    for k in range(count):
        clips = draw.pools.sounds(
            draw.batch,
            draw.generator,
            exclude_labels=[set(labels) for labels in used],
            max_seconds=draw.seconds,
        )
        sound = lay(draw, events(draw, [clip.waveform for clip in clips]))
        snr = scene.uniform(config.mix_snr_db if k else (0.0, 0.0), draw.batch, draw.generator)
        sound = sound.at(config.rms) if k == 0 else sound.above(layers[0], snr.to(draw.device))
        layers.append(sound)
        for i, (clip, window) in enumerate(
            zip(clips, sound.seconds(draw.sample_rate), strict=True)
        ):
            used[i].add(clip.label)
            captions[i].append(clip.caption)
            details[i]["labels"].append(clip.label)
            details[i]["windows"].append(window)
            if k:
                details[i]["snr_db"].append(float(snr[i]))
    # "a, b and c": the paper's "{caption} and {caption}" for any number.
    fields = [{"first": ", ".join(said[:-1]), "last": said[-1]} for said in captions]
    return finish(draw, fields, details, target=sum_of(layers))


def t2as(draw: Draw) -> Built:
    """Speech mixed with a sound that lasts throughout."""
    config = draw.config
    room = draw.seconds - config.onset_seconds[1]
    voices = draw.pools.speech(draw.batch, draw.generator, max_seconds=room)
    sounds = draw.pools.sounds(draw.batch, draw.generator, max_seconds=draw.seconds)
    speech = lay(draw, [clip.waveform for clip in voices], config.onset_seconds).at(config.rms)
    snr = scene.uniform(config.t2as_snr_db, draw.batch, draw.generator)
    sound = fill(draw, [clip.waveform for clip in sounds]).above(speech, -snr.to(draw.device))
    fields, details = [], []
    windows = speech.seconds(draw.sample_rate)
    for i, (voice, clip) in enumerate(zip(voices, sounds, strict=True)):
        said = {"gender": voice.gender, "text": voice.text, "caption": clip.caption}
        fields.append(said)
        details.append(
            {
                **said,
                "speaker": voice.speaker,
                "labels": [clip.label],
                "snr_db": float(snr[i]),
                "speech_window": windows[i],
            }
        )
    return finish(draw, fields, details, target=speech.wave + sound.wave)


def timed(draw: Draw) -> Built:
    """Two or three events, each sounding exactly in the window that the text gives."""
    config = draw.config
    plans = [windows(draw) for _ in range(draw.batch)]
    used: list[set[str]] = [set() for _ in range(draw.batch)]
    target = torch.zeros(draw.batch, draw.samples, device=draw.device)
    fields: list[dict[str, Any]] = [{"events": []} for _ in range(draw.batch)]
    for k in range(max(len(plan) for plan in plans)):
        rows = [i for i, plan in enumerate(plans) if k < len(plan)]
        clips = draw.pools.sounds(
            len(rows),
            draw.generator,
            exclude_labels=[set(used[i]) for i in rows],
            max_seconds=draw.seconds,
        )
        parts, starts = [], []
        for i, clip in zip(rows, clips, strict=True):
            start, end = (round(t * draw.sample_rate / 10) for t in plans[i][k])
            cut = scene.crop(clip.waveform, end - start, draw.generator)
            parts.append(scene.repeat(cut, end - start, gap=pause(draw, cut), fade=draw.fade))
            starts.append(start)
            used[i].add(clip.label)
            begins, ends = (f"{t / 10:.1f}" for t in plans[i][k])
            fields[i]["events"].append({"start": begins, "end": ends, "event": clip.label})
        sound = scene.layer(parts, starts, draw.samples, draw.fade)
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
    """Draw one timeline: windows in tenths of a second, in order of their beginning."""
    config, generator = draw.config, draw.generator
    tenths = math.floor(draw.seconds * 10 + 1e-6)
    count = scene.integer(*config.timed_events, generator)
    least = max(1, min(round(10 * config.min_window_seconds), tenths // count))
    slack = max(0, tenths - count * least)
    # A uniform split of the time left over among the windows and the (half as long) pauses.
    shares = -torch.log1p(-torch.rand(2 * count + 1, generator=generator))
    shares[0::2] *= 0.5
    spare = (slack * shares / shares.sum()).floor().int().tolist()
    plan: list[tuple[int, int]] = []
    now = 0
    for k in range(count):
        start = now + spare[2 * k]
        end = now = start + least + spare[2 * k + 1]
        overlap = bool(torch.rand((), generator=generator) < config.timed_overlap)
        if plan and overlap:
            before = plan[-1]
            start = before[1] - scene.integer(1, (before[1] - before[0]) // 2, generator)
        plan.append((start, end))
    return plan


def sum_of(layers: Sequence[Layer]) -> Tensor:
    """Mix layers: (B, samples)."""
    return torch.stack([sound.wave for sound in layers]).sum(dim=0)
