"""The ComfyUI nodes, loaded and run as ComfyUI does it, by a stub of its interface."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unison_audio.errors import InputError

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
WIDGETS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class CanceledError(Exception):
    pass


class Comfy:
    """What of ComfyUI the nodes meet: loading, inputs with their types, progress, interruption."""

    def __init__(self) -> None:
        self.progress: list[tuple[int, int]] = []
        self.interrupted = False
        self.nodes: dict[str, Any] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        comfy = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, value: int, total: int | None = None) -> None:
                comfy.progress.append((value, total or self.total))

        def throw_exception_if_processing_interrupted() -> None:
            if comfy.interrupted:
                raise CanceledError

        modules = {name: types.ModuleType(name) for name in ("comfy", "comfy.utils")}
        management = types.ModuleType("comfy.model_management")
        modules["comfy.utils"].ProgressBar = ProgressBar
        management.throw_exception_if_processing_interrupted = (
            throw_exception_if_processing_interrupted
        )
        management.get_torch_device = lambda: torch.device("cpu")
        modules["comfy.model_management"] = management
        modules["comfy"].utils = modules["comfy.utils"]
        modules["comfy"].model_management = management
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def load(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As `nodes.load_custom_node`: a package under the name of its path."""
        name = str(FOLDER).replace(".", "_x_")
        spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
        self.nodes = module.NODE_CLASS_MAPPINGS

    def run(self, name: str, **given: Any) -> Any:
        """As `execution`: defaults of widgets, types of values, one call in inference mode."""
        node = self.nodes[name]
        inputs = node.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional", "hidden"}
        values = {}
        for group, entries in inputs.items():
            for key, (kind, *options) in entries.items():
                settings = options[0] if options else {}
                if key in given:
                    values[key] = given.pop(key)
                elif isinstance(kind, list):
                    values[key] = settings.get("default", kind[0])
                elif kind in WIDGETS:
                    values[key] = settings["default"]
                else:
                    assert group == "optional", f"{name} needs {key}"
                    continue
                self.check(values[key], kind, settings)
        assert not given, f"{name} has no inputs {set(given)}"
        with torch.inference_mode():
            results = getattr(node(), node.FUNCTION)(**values)
        assert isinstance(results, tuple)
        assert len(results) == len(node.RETURN_TYPES)
        for result, kind in zip(results, node.RETURN_TYPES, strict=True):
            if kind == "AUDIO":
                assert set(result) == {"waveform", "sample_rate"}
                assert result["waveform"].ndim == 3
                assert result["waveform"].dtype == torch.float32
                assert isinstance(result["sample_rate"], int)
        return results[0]

    def check(self, value: Any, kind: Any, settings: dict[str, Any]) -> None:
        if isinstance(kind, list):
            assert value in kind
        elif kind in WIDGETS:
            assert isinstance(value, WIDGETS[kind])
            if kind in ("INT", "FLOAT"):
                assert settings["min"] <= value <= settings["max"]


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    with pytest.MonkeyPatch.context() as patch:
        found = Comfy()
        found.install(patch)
        found.load(patch)
        yield found


@pytest.fixture(scope="module")
def model(comfy: Comfy) -> Any:
    return comfy.run("UnisonLoad")


QUICK = {"preset": "fast", "steps": 4}


def recording(batch: int, channels: int, seconds: float, rate: int) -> dict[str, Any]:
    noise = np.random.default_rng(1).standard_normal((batch, channels, round(seconds * rate)))
    return {"waveform": torch.from_numpy(0.05 * noise).float(), "sample_rate": rate}


def test_every_node_can_be_drawn(comfy: Comfy) -> None:
    for name, node in comfy.nodes.items():
        assert callable(getattr(node, node.FUNCTION)), name
        assert node.CATEGORY == "audio/UNISON"
        for entries in node.INPUT_TYPES().values():
            for kind, *options in entries.values():
                assert isinstance(kind, list) or kind in (*WIDGETS, "AUDIO", "UNISON_MODEL")
                if not isinstance(kind, list) and kind in WIDGETS:
                    assert "default" in options[0]


def test_generates_what_python_generates(comfy: Comfy, model: Any) -> None:
    comfy.progress.clear()
    words = {"instruction": "[Audio] rain", "seed": 3}
    made = comfy.run("UnisonGenerate", model=model, seconds=1.5, **words, **QUICK)
    assert made["waveform"].shape == (1, 1, 24_000)
    assert made["sample_rate"] == 16_000
    own = model.generate("[Audio] rain", duration=1.5, seed=3, **QUICK)
    assert torch.equal(made["waveform"][0, 0], own.waveform)
    assert comfy.progress[-1][0] == comfy.progress[-1][1]
    usual = comfy.run("UnisonGenerate", model=model, **words, **QUICK)
    assert usual["waveform"].shape[-1] == round(model.variant.default_seconds * 16_000)


def test_speaks_texts_of_any_length(comfy: Comfy, model: Any) -> None:
    short = comfy.run("UnisonSpeech", model=model, text="Good morning.", **QUICK)
    text = "Good morning. We see the sun. The red dog is in the house. " * 3
    long = comfy.run("UnisonSpeech", model=model, text=text, voice="male", **QUICK)
    assert long["waveform"].shape[-1] > 4 * short["waveform"].shape[-1]
    assert long["waveform"].shape[-1] > model.variant.max_seconds * 16_000


def test_speaks_in_a_recorded_voice(comfy: Comfy, model: Any) -> None:
    voice = comfy.run("UnisonSpeech", model=model, text="good morning", **QUICK)
    cloned = comfy.run(
        "UnisonSpeech",
        model=model,
        text="we see the sun",
        reference=voice,
        reference_text="good morning",
        **QUICK,
    )
    assert cloned["waveform"].abs().max() > 0.01
    two = {**voice, "waveform": voice["waveform"].repeat(2, 1, 1)}
    with pytest.raises(InputError, match="reference holds 2 recordings"):
        comfy.run("UnisonSpeech", model=model, text="we", reference=two, reference_text="good")


def test_edits_keep_what_is_outside_the_regions(comfy: Comfy, model: Any) -> None:
    source = recording(2, 2, 3.0, 44_100)
    edited = comfy.run("UnisonEdit", model=model, audio=source, regions="1-2", seed=1, **QUICK)
    before, after = source["waveform"], edited["waveform"]
    assert edited["sample_rate"] == 44_100
    assert after.shape == before.shape
    for row in range(2):
        assert torch.equal(before[row, :, : 44_100 // 2], after[row, :, : 44_100 // 2])
        assert torch.equal(before[row, :, -44_100 // 2 :], after[row, :, -44_100 // 2 :])
        assert not torch.equal(before[row, :, 44_100:88_200], after[row, :, 44_100:88_200])


def test_stops_when_the_user_cancels(comfy: Comfy, model: Any) -> None:
    comfy.interrupted = True
    try:
        with pytest.raises(CanceledError):
            comfy.run("UnisonGenerate", model=model, seconds=1.0, **QUICK)
    finally:
        comfy.interrupted = False


def test_says_what_is_wrong(comfy: Comfy, model: Any) -> None:
    with pytest.raises(InputError, match="audio is"):
        comfy.run("UnisonEdit", model=model, audio={"waveform": torch.zeros(5), "sample_rate": 1})
    with pytest.raises(InputError, match="Nonsense"):
        comfy.run("UnisonGenerate", model=model, instruction="[Nonsense] rain")
    with pytest.raises(InputError):
        comfy.run("UnisonEdit", model=model, audio=recording(1, 1, 1.0, 16_000), regions="x")
    with pytest.raises(InputError, match="nowhere"):
        comfy.run("UnisonLoad", checkpoint="nowhere")
