"""What the watermark does on nano's outputs and on real recordings.

    python benchmarks/marking.py tasks
    python benchmarks/marking.py false-alarms FOLDER [FOLDER ...]

`tasks` makes the demo's 15 examples, marks each, and looks for the mark in it as it is, after Opus
at 24 kbit/s and MP3 at 64 kbit/s (resampled and encoded by PyAV), in its middle half, and after an
edit, for which nano's codec stands: every edit decodes from it. Beside that stand the price (SNR,
peak, DNSMOS, words by Whisper tiny.en where the task speaks) and the time beside the generation's.

`false-alarms` looks for the mark in recordings that have none, a folder for each class.
"""

import io
import re
import statistics
import time
from pathlib import Path

import av
import cyclopts
import numpy as np
import torch
from torch import Tensor

from unison_audio import Unison
from unison_audio.audio import load, resample
from unison_audio.demo.examples import packaged_inputs, read_examples
from unison_audio.errors import InputError
from unison_audio.evaluation.metrics.signal import word_error_rate
from unison_audio.evaluation.models.speech_quality import Dnsmos
from unison_audio.nano.packaged_whisper import PackagedWhisper
from unison_audio.provenance.watermark import WatermarkStream, find_watermark, mark_blocks

app = cyclopts.App(help=__doc__, help_format="plaintext")
CODECS = {"opus 24k": ("ogg", "libopus", 48_000, 24_000), "mp3 64k": ("mp3", "mp3", 16_000, 64_000)}
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus", ".oga"}


def transcoded(waveform: Tensor, rate: int, codec: str) -> Tensor:
    """A sound after a lossy codec: (samples,) at `rate`."""
    container, name, inner, bits = CODECS[codec]
    held = io.BytesIO()
    with av.open(held, "w", format=container) as out:
        stream = out.add_stream(name, rate=inner, layout="mono")
        stream.bit_rate = bits
        data = resample(waveform, rate, inner).clamp(-1, 1)
        pcm = (data * 32767).round().to(torch.int16).numpy()[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = inner
        fitting = av.AudioResampler(stream.format, "mono", inner, stream.codec_context.frame_size)
        for piece in [*fitting.resample(frame), *fitting.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    held.seek(0)
    with av.open(held) as back:
        blocks = [
            piece.to_ndarray()
            for frame in back.decode(audio=0)
            for piece in av.AudioResampler("fltp", "mono", inner).resample(frame)
        ]
    return resample(torch.from_numpy(np.concatenate(blocks, axis=1)[0]), inner, rate)


def set_watermark(waveform: Tensor, sample_rate: int) -> tuple[Tensor, str]:
    """Mark a whole sound, (samples,) or (channels, samples); with the stream's note."""
    rows = waveform.reshape(-1, waveform.shape[-1])
    stream = WatermarkStream(sample_rate, len(rows))
    marked = np.concatenate(list(mark_blocks([rows.numpy().T], stream)))
    return torch.from_numpy(marked.T).reshape(waveform.shape), stream.note


@app.command
def tasks() -> None:
    """Mark the demo's 15 examples."""
    torch.set_num_threads(1)
    unison = Unison.from_pretrained("nano")
    rate = unison.variant.sample_rate
    inputs = packaged_inputs()
    quality, whisper = Dnsmos(), PackagedWhisper()
    set_watermark(torch.randn(rate), rate)  # loads the networks
    print(
        "task | plain | opus 24k | mp3 64k | middle half | own edit | unmarked | SNR dB | peak % |"
        " DNSMOS | WER | time %"
    )
    rows = []
    for example in read_examples(inputs):
        files = {
            name: None if file is None else inputs / file
            for name, file in (("source", example.source), ("reference", example.reference))
        }
        begun = time.process_time()
        made = unison.generate(
            example.instruction,
            **files,
            reference_text=example.reference_text,
            duration=example.duration,
            seed=example.seed,
        ).waveform
        generated = time.process_time() - begun
        begun = time.process_time()
        marked, _ = set_watermark(made, rate)
        took = (time.process_time() - begun) / generated
        with torch.inference_mode():
            codec = unison.codec
            edited = codec.decode(codec.encode(marked[None]))[0, : len(marked)]
        quarter = len(marked) // 4
        versions = [
            marked,
            transcoded(marked, rate, "opus 24k"),
            transcoded(marked, rate, "mp3 64k"),
            marked[quarter : 3 * quarter],
            edited,
            made,
        ]
        found = [find_watermark(one, rate) for one in versions]
        gain = (marked * made).sum() / made.square().sum()  # turned down as a whole, perhaps
        snr = 10 * torch.log10(
            made.square().sum() * gain**2 / (marked - gain * made).square().sum()
        )
        peak = 100 * float(marked.abs().max() / (gain * made).abs().max() - 1)
        quote = re.search('"([^"]+)"', example.instruction)
        wer = " "
        if quote:
            spoken = quote[1]
            texts = whisper.transcribe([resample(w, rate, 16_000).numpy() for w in (made, marked)])
            before, after = (word_error_rate(spoken, text) for text in texts)
            wer = f"{100 * (after - before):+.0f}"
        mos = quality.overall(marked, rate) - quality.overall(made, rate)
        rows.append((found, float(snr), peak, mos, took))
        assert len(marked) == len(made)
        scores = " | ".join(f"{one.verdict} {one.score}" for one in found)
        print(
            f"{example.task} | {scores} | {float(snr):.1f} | {peak:.0f} | {mos:+.2f} | {wer} | "
            f"{100 * took:.1f}",
            flush=True,
        )
    counts = " | ".join(
        f"{sum((row[0][i].score or 0) >= 0.95 for row in rows)} of {len(rows)}" for i in range(6)
    )
    means = [statistics.mean(row[i] for row in rows) for i in range(1, 5)]
    print(
        f"score at least 0.95, means | {counts} | {means[0]:.1f} | {means[1]:.0f} | "
        f"{means[2]:+.2f} | | {100 * means[3]:.1f}"
    )


@app.command
def false_alarms(*folders: Path) -> None:
    """Look for the mark in recordings without one.

    Args:
        folders: A folder for each class.
    """
    print("class | recordings | found | unknown | score at least 0.95")
    for folder in folders:
        results = []
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in SUFFIXES:
                try:
                    results.append(find_watermark(load(file, sample_rate=32_000), 32_000))
                except InputError:
                    continue
        verdicts = [one.verdict for one in results]
        high = sum((one.score or 0) >= 0.95 for one in results)
        print(
            f"{folder.name} | {len(results)} | {verdicts.count('found')} | "
            f"{verdicts.count('unknown')} | {high}",
            flush=True,
        )


if __name__ == "__main__":
    app()
