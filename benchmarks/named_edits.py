"""Whether the removal of a sound acts on the named sound, with and without speech in the recording.

    python benchmarks/named_edits.py CORPUS [--count 60] [--sets absent removed]

Mixes held-out sentences of the nano corpus with held-out sounds, 6 dB below the voice. The sets:

| set | source | instruction |
|---|---|---|
| mix | a sentence and a sound | remove the sound |
| absent | a sentence; one sound; two sounds | remove a sound that is not there |
| removed | two sounds | remove one |
| replaced | two sounds | replace one by a third |
| replaced | a sentence and a sound | replace the sound |

Words are those that Whisper tiny.en hears. They count as lost where the word error rate is above
that of the source by more than 0.2. The fall of a sound is measured in the time-frequency bins that
it dominates by 10 dB. A recording is unchanged where the change lies 25 dB below it. What a
replacement left of a part is measured in the part's own bins, in phase with the source. A sound is
removed well where it falls by 6 dB and what it is mixed with does not.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jiwer
import torch
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.data.records import Clip
from unison_audio.data.shards import read_corpus
from unison_audio.edit_check import UNCHANGED_DB, compare
from unison_audio.evaluation.metrics.text import seed_tts
from unison_audio.nano.packaged_whisper import PackagedWhisper
from unison_audio.nano.vocabulary import IsSentence
from unison_audio.pipeline import Unison
from unison_audio.spectrogram import stft
from unison_audio.tasks import scene

RATE = 16_000
AT_ONCE = 10
SETS = ("mix", "absent", "removed", "replaced")
WARNINGS = (
    "There is speech",
    "The speech was removed",
    "Nothing was found",
    "Nearly all",
    "Little was taken",
)
REMOVED_DB = 6.0
"""Fall from which a sound counts as removed."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A sentence, the sound to remove, and a sound of another kind."""

    text: str
    label: str
    speech: Tensor
    sound: Tensor
    other: Tensor
    new: str


def draw_items(corpus: Path, count: int, seed: int = 7) -> list[Item]:
    """Draw sentences of three words or more, each with two sounds and a third label."""
    clips = read_corpus(corpus, RATE, split="heldout")
    is_sentence = IsSentence()
    spoken = [
        clip
        for clip in clips
        if clip.record.kind == "speech"
        and is_sentence(clip.record.text)
        and clip.record.seconds <= 4.5
        and len(clip.record.text.split()) >= 3
    ]
    by_label: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.record.kind == "sound" and clip.record.label:
            by_label.setdefault(clip.record.label, []).append(clip)
    generator = torch.Generator().manual_seed(seed)
    third = torch.Generator().manual_seed(seed + 1)
    items = []
    for _ in range(count):
        own = spoken[int(torch.randint(len(spoken), (1,), generator=generator))]
        two = torch.randperm(len(by_label), generator=generator)[:2].tolist()
        label, other = (sorted(by_label)[k] for k in two)
        pause = RATE // 10
        voice = torch.nn.functional.pad(audio.normalize_rms(own.waveform), (pause, pause))
        sounds = []
        for name in (label, other):
            found = by_label[name]
            clip = found[int(torch.randint(len(found), (1,), generator=generator))]
            cut = scene.crop(clip.waveform, len(voice), generator)
            whole = scene.repeat(cut, len(voice), gap=0, fade=RATE // 100)
            sounds.append(audio.normalize_rms(whole, 0.05))
        rest = sorted(by_label.keys() - {label, other})
        new = rest[int(torch.randint(len(rest), (1,), generator=third))]
        gain = min(1.0, 0.99 / float((voice + sounds[0]).abs().max()))
        items.append(
            Item(
                text=own.record.text,
                label=label,
                speech=gain * voice,
                sound=gain * sounds[0],
                other=gain * sounds[1],
                new=new,
            )
        )
    return items


def fall_db(part: Tensor, rest: Tensor, result: Tensor) -> float:
    """Fall of a part of a mix in the part's own bins."""
    others, own, before, after = (
        stft(wave, 1024, 256).abs().square() for wave in (rest, part, part + rest, result)
    )
    bins = (own > 10 * others) & (own > 1e-6 * own.max())
    return float(10 * (before[bins].sum() / after[bins].sum().clamp_min(1e-12)).log10())


def left_db(part: Tensor, rest: Tensor, result: Tensor) -> float:
    """Level of what a replacement left of a part of its source, relative to the part."""
    whole, after, own, others = (
        stft(wave, 1024, 256) for wave in (part + rest, result, part, rest)
    )
    bins = own.abs().square() > 10 * others.abs().square()
    power = whole.abs().square()
    share = smooth((whole.conj() * after).real) / smooth(power).clamp_min(1e-12)
    kept = (share.clamp(0, 1).square() * power)[bins].sum() / power[bins].sum().clamp_min(1e-12)
    return float(10 * kept.clamp_min(1e-12).log10())


def smooth(bins: Tensor) -> Tensor:
    """Mean over neighboring bins and frames."""
    return torch.nn.functional.avg_pool2d(bins[None, None], 3, 1, 1)[0, 0]


def print_mixes(
    unison: Unison, items: list[Item], errors: Callable[[list[Tensor]], list[float]]
) -> None:
    """Print what the removal of a sound does to the words beside it."""
    mixes = [item.speech + item.sound for item in items]
    results = edit(unison, items, mixes)
    before, after = errors(mixes), errors([sound.waveform for sound in results])
    lost = [b - a > 0.2 for a, b in zip(before, after, strict=True)]
    gone = [
        fall_db(item.sound, item.speech, sound.waveform) >= REMOVED_DB
        for item, sound in zip(items, results, strict=True)
    ]
    told = [warned(sound) for sound in results]
    silent = [
        not said and (words or not fell) for said, words, fell in zip(told, lost, gone, strict=True)
    ]
    share = 100 / len(items)
    print(f"speech found in {protected(results)} of {len(items)} mixes of speech and a sound")
    print(f"WER {sum(before) / len(items):.2f} before, {sum(after) / len(items):.2f} after")
    print(
        f"mix: words lost {sum(lost) * share:.0f} %, sound 6 dB down {sum(gone) * share:.0f} %, "
        f"warned {sum(told) * share:.0f} %, failed without a warning {sum(silent) * share:.0f} %"
    )


def print_removed(unison: Unison, items: list[Item]) -> None:
    """Print how often one of two sounds is removed, and how often a failure is not warned of."""
    sources = [item.sound + item.other for item in items]
    results = edit(unison, items, sources)
    well = [
        fall_db(item.sound, item.other, sound.waveform) >= REMOVED_DB
        and fall_db(item.other, item.sound, sound.waveform) < REMOVED_DB
        for item, sound in zip(items, results, strict=True)
    ]
    told = [warned(sound) for sound in results]
    silent = sum(not good and not said for good, said in zip(well, told, strict=True))
    false = sum(good and said for good, said in zip(well, told, strict=True))
    print(
        f"two sounds, one removed: well in {sum(well)} of {len(items)}, of which warned of "
        f"{false}; failed without a warning {silent}; speech found in {protected(results)}"
    )


def print_absent(unison: Unison, items: list[Item]) -> list[Audio]:
    """Print how often the removal of an absent sound leaves the recording, or is warned of.

    Returns:
        The results from sentences alone.
    """
    sets = {
        "speech": ([item.speech for item in items], "Remove {label}"),
        "sound": ([item.other for item in items], "Remove {label}"),
        "two sounds": ([item.sound + item.other for item in items], "Remove {new}"),
    }
    made = {name: edit(unison, items, *given) for name, given in sets.items()}
    for name, results in made.items():
        kept = [
            compare(wave, sound.waveform, RATE).change_db < UNCHANGED_DB
            for wave, sound in zip(sets[name][0], results, strict=True)
        ]
        told = [warned(sound) for sound in results]
        either = [a or b for a, b in zip(kept, told, strict=True)]
        share = 100 / len(items)
        print(
            f"absent, {name}: unchanged {sum(kept) * share:.0f} %, warned "
            f"{sum(told) * share:.0f} %, one of both {sum(either) * share:.0f} %"
        )
    return made["speech"]


def print_replaced(unison: Unison, items: list[Item]) -> None:
    """Print how often replacements fail, and how often they are rightly warned of."""
    for name in ("other", "speech"):
        rests = [getattr(item, name) for item in items]
        sources = [item.sound + rest for item, rest in zip(items, rests, strict=True)]
        results = edit(unison, items, sources, "Replace {label} with {new}")
        waves = [sound.waveform for sound in results]
        if name == "other":
            word, limit = "Little was taken", -6.0
            failed = [
                left_db(item.sound, rest, wave) > limit
                for item, rest, wave in zip(items, rests, waves, strict=True)
            ]
        else:
            word, limit = "The speech was removed", -4.0
            failed = [
                left_db(rest, item.sound, wave) <= limit
                for item, rest, wave in zip(items, rests, waves, strict=True)
            ]
        told = [any(word in note for note in sound.warnings) for sound in results]
        right = [a and b for a, b in zip(failed, told, strict=True)]
        spoken = sum(any("speech" in note for note in sound.warnings) for sound in results)
        print(
            f"replaced, {'sound: the old one is left' if name == 'other' else 'speech: it is lost'}"
            f" in {sum(failed)} of {len(items)}, warned of {sum(told)}, rightly {sum(right)}; "
            f"warned about speech in {spoken}"
        )


def edit(
    unison: Unison, items: list[Item], sources: list[Tensor], wish: str = "Remove {label}"
) -> list[Audio]:
    """Remove the sound of each item from a source, or replace it."""
    results: list[Audio] = []
    for first in range(0, len(items), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        results += unison.generate(
            [
                "[Edit][Audio] " + wish.format(label=item.label, new=item.new)
                for item in items[part]
            ],
            source=[(wave, RATE) for wave in sources[part]],
            seed=list(range(first, first + len(items[part]))),
        )
    return results


def warned(sound: Audio) -> bool:
    """Whether a warning says that the edit did something else; others are about levels."""
    return any(said.startswith(WARNINGS) for said in sound.warnings)


def protected(results: list[Audio]) -> int:
    """Number of results whose source was found to hold speech."""
    return sum(
        any(said.startswith("There is speech") for said in sound.warnings) for sound in results
    )


def main() -> None:
    """Print the rows of each set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seed", type=int, default=7, help="of the draw of the mixes")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    unison, whisper = Unison.from_pretrained(given.model), PackagedWhisper()
    items = draw_items(given.corpus, given.count, given.seed)

    def errors(waves: list[Tensor]) -> list[float]:
        heard = whisper.transcribe([wave.numpy() for wave in waves])
        return [
            min(1.0, jiwer.wer(seed_tts(item.text), seed_tts(text)))
            for item, text in zip(items, heard, strict=True)
        ]

    if "mix" in given.sets:
        print_mixes(unison, items, errors)
    if "absent" in given.sets:
        words = errors([sound.waveform for sound in print_absent(unison, items)])
        print(f"  WER {sum(words) / len(items):.2f} after, in speech")
    if "removed" in given.sets:
        print_removed(unison, items)
    if "replaced" in given.sets:
        print_replaced(unison, items)


if __name__ == "__main__":
    main()
