"""Which parts of other libraries are used, and that the versions asked for have them."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5OmniThinkerTextModel
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig

import unison_audio

LIBRARIES = ("diffusers", "transformers", "huggingface_hub")
INTERNALS = {
    "diffusers.models.autoencoders.autoencoder_mmaudio": {
        *("ACTIVATION_CLIP", "MMAudioAttnBlock1D", "MMAudioVAE", "mp_silu", "normalize"),
    },
    "diffusers.models.autoencoders.mmaudio_vocoder": {"MMAudioActivation1d", "MMAudioVocoder"},
    "diffusers.pipelines.pipeline_utils": {"AudioPipelineOutput", "DiffusionPipeline"},
    "diffusers.schedulers.scheduling_dpmsolver_multistep": {"DPMSolverMultistepScheduler"},
    "diffusers.schedulers.scheduling_flow_match_euler_discrete": {
        "FlowMatchEulerDiscreteScheduler"
    },
    "diffusers.schedulers.scheduling_flow_match_heun_discrete": {"FlowMatchHeunDiscreteScheduler"},
    "huggingface_hub.errors": {
        *("EntryNotFoundError", "GatedRepoError", "HfHubHTTPError", "LocalEntryNotFoundError"),
        "RepositoryNotFoundError",
    },
    "transformers.audio_utils": {"mel_filter_bank"},
    "transformers.models.qwen2_5_omni.configuration_qwen2_5_omni": {"Qwen2_5OmniTextConfig"},
    "transformers.utils": {"logging"},
}
"""All that is imported from below the libraries' top level: what a new version may move."""


def imported() -> dict[str, set[str]]:
    """Names by module, as the source imports them from below a library's top level."""
    found: dict[str, set[str]] = {}
    for file in Path(unison_audio.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and "." in module and module.partition(".")[0] in LIBRARIES:
                found.setdefault(module, set()).update(alias.name for alias in node.names)
    return found


def test_every_internal_is_named_here() -> None:
    assert imported() == INTERNALS


@pytest.mark.parametrize("module", INTERNALS)
def test_the_installed_versions_have_it(module: str) -> None:
    there = dir(importlib.import_module(module))
    assert set(there) >= INTERNALS[module]


def test_the_text_model_has_the_parts_that_are_called_one_by_one() -> None:
    config = Qwen2_5OmniTextConfig(
        vocab_size=8,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [2, 3, 3],
        },
    )
    config._attn_implementation = "sdpa"
    model = Qwen2_5OmniThinkerTextModel(config).eval()
    x = torch.randn(1, 3, 32)
    positions = torch.arange(3).expand(3, 1, -1)
    embeddings = model.rotary_emb(x, positions)
    out = model.layers[0](x, attention_mask=None, position_embeddings=embeddings)
    assert isinstance(out, torch.Tensor)  # 4.57 returned a tuple
    assert model.norm(out).shape == x.shape


def test_the_versions_asked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    listed = [one for one in project["project"]["dependencies"] if re.search("[<>=]", one)]
    asked = dict(re.split(r"(?=[<>=])", one, maxsplit=1) for one in listed)
    assert asked["transformers"] == ">=5.0"
    assert asked["huggingface_hub"] == ">=1.32"
    minor = int(importlib.import_module("diffusers").__version__.split(".")[1])
    assert asked["diffusers"] == f">=0.{minor},<0.{minor + 1}"
