"""The demo: one example of each task, sampled together, with pictures and a page."""

import io
from collections.abc import Callable
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unison_audio import audio
from unison_audio.audio import Audio
from unison_audio.demo.examples import DemoExample, packaged_inputs, read_examples
from unison_audio.demo.page import Entry, Track, render_page
from unison_audio.files import copy_whole, make_folder, remove_unfinished, write_whole
from unison_audio.locks import only_writer
from unison_audio.pipeline import Unison
from unison_audio.sampling_params import SamplingParams, resolve_sampling
from unison_audio.spectrogram import draw_mel
from unison_audio.tasks.table import TASKS

GRAY = "#8a8f98"
"""Color of labels: readable on a white and on a black page, as the pictures are transparent."""


def mel_picture(waveform: Tensor, sample_rate: int) -> bytes:
    """Draw the log-mel spectrogram of a sound.

    Args:
        waveform: (samples,).
        sample_rate: Samples per second.

    Returns:
        A PNG file.
    """
    # Without pyplot, which keeps global state and needs a display on some systems.
    figure = Figure(figsize=(5.6, 2.3), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    draw_mel(figure.add_subplot(), waveform, sample_rate, label_color=GRAY)
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return file.getvalue()


PAGE = "index.html"


def make_demo(
    unison: Unison,
    folder: Path,
    *,
    inputs: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_picture: Callable[[int, int], None] | None = None,
    sampling: SamplingParams | None = None,
) -> Path:
    """Run every example and write sounds, pictures and a page that plays them from the disk.

    Args:
        unison: The model.
        folder: Folder to write to; made if missing.
        inputs: A folder that `benchmarks/demo_inputs.py` wrote; the package's own by default.
        on_step: Called after each step of sampling with the steps done and the steps in all.
        on_picture: Called after each picture with the examples done and the examples in all.
        sampling: Sampling options; None takes the variant's default preset.

    Returns:
        The page.

    Raises:
        InputError: If the folder cannot be written to, or another process writes to it.
    """
    inputs = packaged_inputs() if inputs is None else inputs
    examples = read_examples(inputs)
    make_folder(folder)

    def path(name: str | None) -> Path | None:
        return None if name is None else inputs / name

    sounds = unison.generate(
        [example.instruction for example in examples],
        source=[path(example.source) for example in examples],
        reference=[path(example.reference) for example in examples],
        reference_text=[example.reference_text for example in examples],
        duration=[example.duration for example in examples],
        seed=[example.seed for example in examples],
        sampling=sampling,
        on_step=on_step,
    )
    variant, resolved = unison.variant, resolve_sampling(unison.variant, sampling)
    sound_settings, speech = resolved.for_task(TASKS["t2a"]), resolved.for_task(TASKS["tts"])
    settings = {
        "variant": variant.name,
        "codec": variant.codec,
        "text encoder": variant.text_encoder,
        "steps": f"{sound_settings.steps} ({sound_settings.solver})",
        "guidance": f"{sound_settings.guidance.scale:g}",
        "candidates of speech": f"{speech.num_candidates}",
        "sample rate": f"{variant.sample_rate:,} Hz",
    }
    with only_writer(folder, "demo"):
        written = [PAGE, *(name for example in examples for name in _names(example))]
        remove_unfinished((folder / name for name in written), seconds=0)
        entries = []
        for done, (example, sound) in enumerate(zip(examples, sounds, strict=True), start=1):
            entries.append(_write_entry(example, sound, inputs, folder))
            if on_picture is not None:
                on_picture(done, len(examples))
        write_whole(folder / PAGE, render_page(entries, settings))
    return folder / PAGE


def _given(example: DemoExample) -> list[tuple[str, str, str]]:
    """What each recording of an example is, its name among the inputs, and that in the demo."""
    return [
        (what, name, f"{example.task}-{what.lower()}{Path(name).suffix}")
        for what, name in (("Source", example.source), ("Reference", example.reference))
        if name is not None
    ]


def _output(example: DemoExample) -> str:
    return f"{example.task}-output.wav"


def _names(example: DemoExample) -> list[str]:
    """Names of an example's files."""
    sounds = [*(file for _, _, file in _given(example)), _output(example)]
    return sounds + [_picture(file) for file in sounds]


def _write_entry(example: DemoExample, sound: Audio, inputs: Path, folder: Path) -> Entry:
    """Write one example's files."""
    tracks = []
    for what, name, file in _given(example):
        copy_whole(inputs / name, folder / file)
        # The page plays the recording as given; its picture shows what the model can use of it.
        given = audio.load(inputs / name, sample_rate=sound.sample_rate)
        picture = _draw(Audio(given, sound.sample_rate), folder, file)
        tracks.append(Track(what=what, file=file, picture=picture, note=example.holds))
    file = _output(example)
    sound.save(folder / file)
    tracks.append(Track(what="Output", file=file, picture=_draw(sound, folder, file)))
    settings = {"seed": str(example.seed), "length": f"{sound.seconds:.2f} s"}
    if example.reference_text:
        settings["words of the reference"] = f"“{example.reference_text}”"
    if example.passing:
        settings["draws that meet nano's targets"] = example.passing
    return Entry(
        task=example.task,
        instruction=example.instruction,
        tracks=tuple(tracks),
        settings=settings,
        credits=example.credits,
    )


def _draw(sound: Audio, folder: Path, file: str) -> str:
    """Draw a sound's picture beside its file."""
    name = _picture(file)
    write_whole(folder / name, mel_picture(sound.waveform, sound.sample_rate))
    return name


def _picture(file: str) -> str:
    """Name of a sound's picture."""
    return f"{Path(file).stem}.png"
