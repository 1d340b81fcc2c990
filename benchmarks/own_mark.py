"""An experiment: a watermark of our own, 16 bits in nano's output, beside PerTh's.

    python benchmarks/own_mark.py clips --corpus CORPUS --out CLIPS
    python benchmarks/own_mark.py train --clips CLIPS --out MARK.pt
    python benchmarks/own_mark.py export MARK.pt MARK.safetensors
    python benchmarks/own_mark.py outputs --folder NANO_OUTPUTS
    python benchmarks/own_mark.py evaluate MARK.safetensors --folder NANO_OUTPUTS
    python benchmarks/own_mark.py false-alarms MARK.safetensors FOLDER [FOLDER ...]

The pattern is `provenance/payload_pattern.py`'s, the networks are `payload_networks.py`'s. `train`
trains both together: one sets the level of each cell, the other reads the likely sign of each cell
out of an attacked recording. Gradients pass through an attack by the levels of the clean sound.
"""

import io
import math
import random
import tarfile
import time
from functools import cache
from pathlib import Path

import cyclopts
import numpy as np
import soundfile
import soxr
import torch
from marking import CODECS, SUFFIXES, set_watermark, transcoded
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from unison_audio import Unison
from unison_audio.audio import load
from unison_audio.codecs.table import AudioCodec
from unison_audio.demo.examples import packaged_inputs, read_examples
from unison_audio.errors import InputError
from unison_audio.evaluation.models.speech_quality import Dnsmos
from unison_audio.provenance.payload import FOUND_Z, STRENGTH, find_payload, hidden
from unison_audio.provenance.payload_networks import (
    FRAME_HOP,
    PAYLOAD_RATE,
    PayloadNet,
    at_normal_speed,
    band_levels,
    frame_spectrum,
    load_payload_net,
)
from unison_audio.provenance.payload_pattern import FRAMES, LINES, ROWS, tile
from unison_audio.provenance.watermark import find_watermark

app = cyclopts.App(help=__doc__, help_format="plaintext")

RATE = PAYLOAD_RATE
ALONE = 200
"""Steps at first that train the detector alone."""
HELD_OUT = ("asterisk", "minetest", "openttd", "sonic-pi", "tuxpaint", "ufoai", "heldout")
"""Parts of the corpus that are not trained on: packages of the false-alarm recordings."""


# --- attacks -------------------------------------------------------------------------------------


def through_codec(wave: Tensor, name: str, kilobits: int) -> Tensor:
    """A sound after opus or mp3, of the same length."""
    label = f"{name} {kilobits}k"
    container, coder, inner, _ = CODECS["opus 24k" if name == "opus" else "mp3 64k"]
    CODECS[label] = (container, coder, inner, 1000 * kilobits)
    made = transcoded(wave, RATE, label)[: len(wave)]
    return F.pad(made, (0, len(wave) - len(made)))


def at_speed(wave: Tensor, speed: float) -> Tensor:
    """A sound played faster, as a tape is."""
    return torch.from_numpy(soxr.resample(wave.numpy(), RATE * speed, RATE))


def attacked(wave: Tensor, draw: random.Random) -> tuple[Tensor, float]:
    """A drawn chain of attacks, and the speed."""
    speed = draw.uniform(0.9, 1.1) if draw.random() < 0.4 else 1.0
    if speed != 1.0:
        wave = at_speed(wave, speed)
    if draw.random() < 0.25:
        noise = torch.from_numpy(
            np.random.default_rng(draw.randrange(1 << 30)).normal(size=len(wave))
        )
        level = wave.square().mean().sqrt() * 10 ** (-draw.uniform(12, 40) / 20)
        wave = wave + level * noise.float()
    if draw.random() < 0.1:
        half = soxr.resample(wave.numpy(), RATE, 8_000)
        wave = torch.from_numpy(soxr.resample(half, 8_000, RATE))
    choice = draw.random()
    if choice < 0.45:
        wave = through_codec(wave, "opus", draw.choice((16, 24, 24, 24, 32)))
    elif choice < 0.6:
        wave = through_codec(wave, "mp3", draw.choice((32, 48, 64)))
    return wave, speed


# --- training ------------------------------------------------------------------------------------


@app.command
def clips(corpus: Path, out: Path, *, seconds: float = 3.0, count: int = 2600) -> None:
    """Make training clips: recordings, mixes, and both after nano's codec, whose sound they mark.

    Args:
        corpus: A corpus of `unison-audio data nano`.
        out: File to write.
        seconds: Length of a clip.
        count: Number of clips.
    """
    torch.set_num_threads(1)
    draw = random.Random(1)
    kinds: dict[str, list[np.ndarray]] = {"speech": [], "recordings": []}
    for shard in sorted(corpus.glob("*.tar")):
        if any(name in shard.name for name in HELD_OUT):
            continue
        with tarfile.open(shard) as held:
            names = [name for name in held.getnames() if name.endswith(".flac")]
            for name in draw.sample(names, min(len(names), 60 if "speech" in shard.name else 999)):
                data = held.extractfile(name)
                if data is not None:
                    kind = shard.name.split("-")[0]
                    kinds[kind].append(soundfile.read(io.BytesIO(data.read()), dtype="float32")[0])
    print({kind: len(found) for kind, found in kinds.items()}, flush=True)
    codec = own_codec()
    samples = round(seconds * RATE)

    def line(kind: str) -> Tensor:
        made = np.zeros(0, np.float32)
        while len(made) < samples:
            gap = np.zeros(draw.randrange(RATE // 2) * (draw.random() < 0.3), np.float32)
            made = np.concatenate([made, draw.choice(kinds[kind]), gap])
        first = draw.randrange(len(made) - samples + 1)
        return torch.from_numpy(made[first : first + samples])

    held_clips = []
    for index in range(count):
        kind = draw.choice(("speech", "recordings", "both"))
        wave = line("speech") + 0.5 * line("recordings") if kind == "both" else line(kind)
        if index % 4:
            with torch.inference_mode():
                wave = codec.decode(codec.encode(wave[None]))[0, :samples]
        held_clips.append((0.7 * wave / wave.abs().max().clamp_min(0.01)).half())
    torch.save(torch.stack(held_clips), out)


@app.command
def train(
    *, clips: Path, out: Path, minutes: float = 60.0, batch: int = 8, cost_db: float = 0.7
) -> None:
    """Train both networks together; resumes from `out` where it exists.

    Args:
        clips: Training clips.
        out: File of the networks.
        minutes: Time to train.
        batch: Clips of a step.
        cost_db: Mean size of the gains to hold, as the root of the mean square over audible cells.
    """
    torch.set_num_threads(1)
    data = torch.load(clips)
    net = PayloadNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    step, price, spent = 0, 0.01, 0.0
    if out.exists():
        kept = torch.load(out)
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        step, price, spent = kept["step"], kept["price"], kept["spent"]
    draw = random.Random(step + 1)
    began, told, shown = time.monotonic() - spent, 0.0, list[list[float]]()
    samples = 10 * FRAMES * FRAME_HOP * 3  # 30 slots
    slots = samples // (FRAME_HOP * FRAMES) + 1
    longest = math.ceil(samples / 0.9)
    while (spent := time.monotonic() - began) < 60 * minutes:
        for group in optimizer.param_groups:
            left = 1 - spent / (60 * minutes)
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * min(1.0, left / 0.4)
        # 1. Mark.
        rows = []
        for _ in range(batch):
            start = draw.randrange(data.shape[1] - samples + 1)
            rows.append(data[draw.randrange(len(data)), start : start + samples].float())
        waves = torch.stack(rows)
        cells = 1.0 - 2.0 * torch.randint(0, 2, (batch, slots, LINES))
        with torch.set_grad_enabled(step >= ALONE):
            marked, gains = net.hide(waves, cells)
        # 2. Attack, with gradients through the levels: an attack changes what it gets little.
        speeds, results = [], []
        for row in marked.detach():
            result, speed = attacked(row, draw)
            speeds.append(speed)
            results.append(F.pad(result, (0, max(0, longest - len(result))))[:longest])
        factors = torch.tensor(speeds)
        level = band_levels(frame_spectrum(torch.stack(results)).abs().square())
        if step >= ALONE:
            clean = at_normal_speed(
                band_levels(frame_spectrum(marked).abs().square()), 1 / factors, level.shape[1]
            )
            level = level + clean - clean.detach()
        # 3. Read the signs.
        seen = at_normal_speed(net.evidence(level), factors, (slots - 1) * FRAMES)
        odds = seen.reshape(batch, slots - 1, FRAMES, LINES, ROWS).sum(dim=(2, 4))
        signs = cells[:, :-1]
        loss = F.softplus(-odds * signs).mean()
        z = ((odds * signs).sum(dim=(1, 2)) / odds.square().sum(dim=(1, 2)).sqrt()).detach()
        # 4. The price: gains where something is heard, and the change's power.
        power = frame_spectrum(waves).abs().square()
        heard = (band_levels(power) > math.log(1e-4)).float()
        size = (gains.square() * heard).sum() / heard.sum().clamp_min(1.0)
        ratio = (marked - waves).square().sum(dim=1) / waves.square().sum(dim=1).clamp_min(1e-6)
        cost = 0.5 * size / cost_db**2 + 0.5 * ratio.mean() / (0.09 * cost_db) ** 2
        (loss + price * cost).backward()
        if step >= ALONE:  # the encoder would sink before the detector sees anything
            price *= math.exp(0.02 * max(-1.0, min(1.0, float(cost.detach()) - 1)))
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        if norm.isfinite():
            optimizer.step()
        else:
            print(f"step {step}: gradient {float(norm)}, loss {float(loss.detach())}", flush=True)
        optimizer.zero_grad()
        step += 1
        shown.append(
            [
                *map(
                    float,
                    (loss.detach(), z.mean(), z.min(), size.detach().sqrt(), ratio.detach().mean()),
                )
            ]
        )
        if step % 25 == 0:
            mean = np.mean(shown, axis=0)
            shown.clear()
            print(
                f"{step} {spent:.0f} s loss {mean[0]:.4f} z {mean[1]:.2f} least {mean[2]:.2f} "
                f"gain {mean[3]:.2f} dB SNR {-10 * math.log10(mean[4]):.1f} price {price:.4f}",
                flush=True,
            )
        if time.monotonic() - told > 120:
            told = time.monotonic()
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step, "price": price, "spent": spent}, out)
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "step": step, "price": price, "spent": spent}, out)


# --- figures -------------------------------------------------------------------------------------


def with_noise(wave: Tensor, snr: float) -> Tensor:
    """A sound in white noise."""
    noise = torch.randn(len(wave), generator=torch.Generator().manual_seed(0))
    return wave + noise * wave.square().mean().sqrt() * 10 ** (-snr / 20)


def at_8_khz(wave: Tensor) -> Tensor:
    """A sound resampled to 8 kHz and back."""
    return torch.from_numpy(soxr.resample(soxr.resample(wave.numpy(), RATE, 8_000), 8_000, RATE))


def through_own_codec(wave: Tensor) -> Tensor:
    """A sound after nano's codec, which every edit decodes from."""
    with torch.inference_mode():
        return own_codec().decode(own_codec().encode(wave[None]))[0]


@cache
def own_codec() -> AudioCodec:
    """Nano's codec."""
    return Unison.from_pretrained("nano").codec


ATTACKS = {
    "plain": lambda wave: wave,
    "opus 24k": lambda wave: through_codec(wave, "opus", 24),
    "opus 16k": lambda wave: through_codec(wave, "opus", 16),
    "mp3 64k": lambda wave: through_codec(wave, "mp3", 64),
    "mp3 32k": lambda wave: through_codec(wave, "mp3", 32),
    "speed 1.05": lambda wave: at_speed(wave, 1.05),
    "opus 24k, then speed 1.05": lambda wave: at_speed(through_codec(wave, "opus", 24), 1.05),
    "speed 0.9": lambda wave: at_speed(wave, 0.9),
    "speed 1.1": lambda wave: at_speed(wave, 1.1),
    "noise, 20 dB": lambda wave: with_noise(wave, 20),
    "8 kHz and back": at_8_khz,
    "middle half": lambda wave: wave[len(wave) // 4 : 3 * len(wave) // 4],
    "an edit": through_own_codec,
    "1 s from 0.7 s": lambda wave: wave[11_200:27_200],
    "unmarked": None,
}


def read_mark(file: Path) -> PayloadNet:
    """The networks of `train` or of `export`."""
    if file.suffix == ".safetensors":
        return load_payload_net(file)
    net = PayloadNet()
    net.load_state_dict(torch.load(file)["net"])
    return net.eval()


@app.command
def export(mark: Path, out: Path) -> None:
    """Store the networks of `train` in fp16, as the package holds them.

    Args:
        mark: File of `train`.
        out: File to write, .safetensors.
    """
    stored = read_mark(mark).state_dict()
    save_file({name: value.half().contiguous() for name, value in stored.items()}, out)


@app.command
def outputs(folder: Path, *, seeds: int = 4) -> None:
    """Make nano's outputs: the demo's 15 examples under several seeds.

    Args:
        folder: Folder to write to.
        seeds: Outputs of an example.
    """
    torch.set_num_threads(1)
    unison, inputs = Unison.from_pretrained("nano"), packaged_inputs()
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(seeds):
        for example in read_examples(inputs):
            sound = unison.generate(
                example.instruction,
                source=example.source and inputs / example.source,
                reference=example.reference and inputs / example.reference,
                reference_text=example.reference_text,
                duration=example.duration,
                seed=example.seed + 100 * index,
            )
            sound.save(folder / f"{example.task}-{index}.wav", bit_depth=32, metadata=False)


@app.command
def evaluate(
    mark: Path,
    *,
    folder: Path,
    pattern: str = "*.wav",
    strength: float = STRENGTH,
    perth: bool = True,
) -> None:
    """Mark nano's outputs, attack them, look for the mark; PerTh on the same sounds.

    Args:
        mark: File of the networks.
        folder: Outputs of nano, WAV.
        pattern: Names of the files.
        strength: Factor on all gains in dB.
        perth: Whether PerTh is measured too.
    """
    torch.set_num_threads(1)
    net, quality = read_mark(mark), Dnsmos()
    draw = random.Random(7)
    rows: dict[str, list[tuple[float, bool, float]]] = {name: [] for name in ATTACKS}
    prices: list[list[float]] = []
    for file in sorted(folder.glob(pattern)):
        wave = load(file, sample_rate=RATE)
        payload = draw.randrange(1 << 16)
        before = quality.overall(wave, RATE)
        marked = hidden(net, wave, tile(payload), strength)
        peak = float(marked.abs().max())
        marked = marked / max(1.0, peak)
        held = [(marked, peak)]
        if perth:
            other, _ = set_watermark(wave, RATE)
            held.append((other, float(other.abs().max())))
        for made, _ in held:
            gain = (made * wave).sum() / wave.square().sum()
            noise = (made - gain * wave).square().sum()
            snr = float(10 * torch.log10(wave.square().sum() * gain**2 / noise))
            prices.append([quality.overall(made, RATE) - before, snr])
        for name, attack in ATTACKS.items():
            found = find_payload(attack(marked) if attack else wave, RATE, net)
            score = 0.0
            if perth:
                score = find_watermark(attack(held[1][0]) if attack else wave, RATE).score or 0.0
            rows[name].append((found.score or 0.0, found.payload == payload, score))
        zs = " ".join(f"{rows[name][-1][0]:.1f}" for name in ATTACKS)
        print(f"{file.stem} | {zs} | {prices[-1 - perth]}", flush=True)
    print(
        "attack | found, z at least 6.9 | found, 16 bits right | least z | median z | PerTh found"
    )
    for name, row in rows.items():
        zs, right, scores = zip(*row, strict=True)
        print(
            f"{name} | {sum(z >= FOUND_Z for z in zs)} of {len(zs)} | {sum(right)} | "
            f"{min(zs):.1f} | {np.median(zs):.1f} | {sum(score >= 0.95 for score in scores)}"
        )
    for index, name in enumerate(("own", "PerTh")[: 1 + perth]):
        mine = np.array(prices[index :: 1 + perth])
        print(
            f"{name}: DNSMOS {mine[:, 0].mean():+.3f}, worst {mine[:, 0].min():+.2f}; SNR "
            f"{mine[:, 1].mean():.1f} dB, least {mine[:, 1].min():.1f} dB"
        )


@app.command
def false_alarms(mark: Path, *folders: Path, most: int = 400) -> None:
    """Look for the mark in recordings without one.

    Args:
        mark: File of the networks.
        folders: A folder for each class; in a corpus, the parts that were not trained on.
        most: Recordings of a folder.
    """
    torch.set_num_threads(1)
    net = read_mark(mark)
    print("class | recordings | found | highest z | 99th percentile")
    for folder in folders:
        found = [find_payload(wave, RATE, net) for wave in recordings(folder, most)]
        zs = [one.score for one in found if one.score is not None]
        print(
            f"{folder.name} | {len(zs)} | {sum(one.verdict == 'found' for one in found)} | "
            f"{max(zs):.2f} | {np.quantile(zs, 0.99):.2f}",
            flush=True,
        )


def recordings(folder: Path, most: int) -> list[Tensor]:
    """The recordings of a folder, or of a corpus's parts that were not trained on."""
    found = []
    shards = [
        shard
        for shard in sorted(folder.glob("*.tar"))
        if any(one in shard.name for one in HELD_OUT)
    ]
    for shard in shards:
        with tarfile.open(shard) as held:
            names = [name for name in held.getnames() if name.endswith(".flac")]
            for name in names[:: 1 + len(names) * len(shards) // most]:
                data = held.extractfile(name)
                if data is not None:
                    wave, _ = soundfile.read(io.BytesIO(data.read()), dtype="float32")
                    found.append(torch.from_numpy(wave))
    for file in [] if shards else sorted(folder.rglob("*"))[:most]:
        if file.suffix.lower() in SUFFIXES:
            try:
                found.append(load(file, sample_rate=RATE))
            except InputError:
                continue
    return found


if __name__ == "__main__":
    app()
