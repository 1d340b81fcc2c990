"""The release's whole input path, written out independently, against ours down to the velocity.

The other side is made of the real processor of Qwen2.5-Omni with its padding, the whole text model
of transformers over the padded prompt, the cut of its first positions, the level, the padding to
10 s and the dither of the sources, diffusers' VAE, and the literal backbone in float64. Weights are
random and small, the files have the published layout.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Hub
from independent_backbone import Network, Size, draw_state
from qwen_files import LAYERS, WIDTH, write_qwen
from safetensors.torch import save_file
from tiny_mmaudio import TINY, diffusers_modules, random_originals
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5OmniProcessor

from unison_audio import variants
from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.codecs.mmaudio_weights import empty_codec, import_originals
from unison_audio.model.config import BackboneConfig
from unison_audio.model.sampling import ModelInputs
from unison_audio.pipeline import Unison
from unison_audio.release import import_release

LENGTH, CUT = 256, 130
"""Tokens that the release pads a prompt to, and those that it cuts off at the beginning."""

DITHER_SEED = 0x5EED_D17E

GENERATION = [
    '[Speech] A female voice saying "the red dog runs home"',
    "[Audio] Rain",
    "[Audio] Rain and a dog barking",
    '[Speech] A male voice saying "stop" [Audio] a door closing',
    "[Audio] From 0.0s to 2.5s, rain. From 3.0s to 5.0s, a dog. From 6.0s to 9.0s, a door.",
]
EDITS = [
    "[Edit] [Audio] Mix in the sound of Thunder.",
    "[Edit] [Audio] Eliminate the sound of Burst, pop. [Edit] [Audio] Add Ambulance (siren).",
    "[Edit] [Audio] Eliminate the sound of Rain.",
    "[Edit] [Speech] Remove the speech.",
    "[Edit] [Speech] Denoise the record.",
    '[Edit] [Speech] Add a voice saying "the red dog"',
    '[Edit] [Speech] Change speech to "a door"',
    '[Edit] [Audio] Remove rain [Edit] [Speech] add a voice saying "stop"',
    "[Edit] [Speech] Remove the speech [Edit] [Audio] add a dog barking",
]
CLONES = [  # instruction, words of the reference, what the model reads, seconds of the reference
    (
        "[Speech with voice] the door is open",
        "The red dog.",
        "[Speech with voice] The red dog, the door is open",
        2.1,
    ),
    ("[Speech with voice] 去掉狗叫", "你好。", "[Speech with voice] 你好，去掉狗叫", 2.1),
    (
        '[Speech with voice] He said "stop" and ran',
        "The red dog runs home!”)",
        '[Speech with voice] The red dog runs home, He said "stop" and ran',
        3.6,
    ),
]
CODECS = {"d24-16k": "mmaudio-16k", "d20-44k": "mmaudio-44k"}
CASES = [("d24-16k", text) for text in (*GENERATION, *EDITS)]
CASES += [("d20-44k", text) for text in (GENERATION[0], EDITS[0])]


class Release:
    """The other side."""

    def __init__(self, folder: Path, name: str) -> None:
        self.config = TINY[CODECS[name]]
        self.text_model = write_qwen(folder).double()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.padding_side = (
            "right"  # what the release sets; its processor pads on the left all the same
        )
        self.processor = _text_processor(tokenizer)
        self.size = Size(
            channels=self.config.latent_channels,
            blocks=3,
            text_dim=WIDTH,
            width=64,
            heads=2,
            rope_dim=24,
        )
        self.weights = draw_state(self.size)
        self.originals = random_originals(self.config)
        self.vae = diffusers_modules(self.config, *self.originals)[0]
        self.system = _system_prompt(tokenizer)
        self.seconds = 10.0

    def text(self, instruction: str, picks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """States (1, D, 126, text_dim) and mask of a padded prompt without its first positions."""
        prompt = _chat(self.system, instruction)
        padded = self.processor(
            text=[prompt], padding="max_length", max_length=LENGTH, return_tensors="pt"
        )
        mask = padded["attention_mask"]
        assert mask[0, 0] == 0  # the processor's own default won
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            states = self.text_model(
                input_ids=padded["input_ids"],
                attention_mask=mask,
                position_ids=positions[None].expand(3, -1, -1),
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states
        mask = mask.bool()[:, CUT:]
        chosen = torch.stack([states[pick][:, CUT:] for pick in picks], dim=1)
        return torch.where(mask[:, None, :, None], chosen, 0.0), mask

    def latent(self, waveform: Tensor, seed: int, leveled: bool = False) -> Tensor:
        """Half the VAE's mean of a source (samples,), (1, C, T')."""
        samples = round(self.seconds * self.config.sample_rate)
        whole = torch.zeros(samples)
        gain = 1.0 if leveled else 0.1 / waveform.square().mean().sqrt()
        whole[: len(waveform)] = waveform * gain
        if self.config.sample_rate <= 16_000:
            generator = torch.Generator().manual_seed(seed + DITHER_SEED)
            noise = 1e-4 * torch.randn(samples, generator=generator)
            whole = torch.where(whole.abs() < 1e-4, noise, whole)
        with torch.no_grad():
            mel = self.vae.mel_converter(whole[None])
            if self.config.sample_rate <= 16_000:
                mel = mel / math.log(10)
            mean = self.vae.vae.encode(mel)[:, : self.config.latent_channels]
        return 0.5 * mean

    def reference(self, waveform: Tensor) -> Tensor:
        """A reference at RMS 0.1, at most 3 s long, with 0.1 s of silence."""
        rate = self.config.sample_rate
        whole = waveform * (0.1 / waveform.square().mean().sqrt())
        if len(whole) > 3 * rate:
            frames = whole[round(2.5 * rate) : 3 * rate].unflatten(0, (50, -1))  # 10 ms each
            quiet = [i for i, frame in enumerate(frames) if frame.square().mean() < 1e-4]  # -40 dB
            whole = whole[: round(2.5 * rate) + (quiet[-1] + 1) * rate // 100]
            whole = whole * (0.1 / whole.square().mean().sqrt())
        return torch.cat([whole, torch.zeros(rate // 10)])

    def velocity(
        self,
        instruction: str,
        picks: tuple[int, ...],
        source: Tensor | None,
        seed: int,
        reference: Tensor | None = None,
    ) -> Tensor:
        """The velocity (1, C, T') at t = 0.7 from the noise of a seed."""
        frames = round(self.seconds * self.config.sample_rate) // self.config.frame_hop
        generator = torch.Generator().manual_seed(seed)
        z_t = torch.randn(self.config.latent_channels, frames, generator=generator)[None]
        z_s, m = torch.zeros_like(z_t), torch.zeros(1, 1, frames)
        if source is not None:
            z_s, m = self.latent(source, seed), m + 1
        if reference is not None:
            head = self.reference(reference)
            edge = math.ceil(len(head) / self.config.frame_hop)
            z_s[..., :edge] = self.latent(head, seed, leveled=True)[..., :edge]
            m[..., :edge] = 2.0
        states, mask = self.text(instruction, picks)
        network = Network(lambda name: self.weights[name].double(), self.size)
        x = torch.cat([z_t, z_s, m], dim=1).double()
        with torch.no_grad():
            return network.velocity(x, torch.tensor([0.7]).double(), states.double(), mask)


def _text_processor(tokenizer: Any) -> Any:
    """The real processor without its image and video parts, which need torchvision."""
    processor = object.__new__(Qwen2_5OmniProcessor)
    processor.tokenizer = tokenizer
    processor.image_processor = processor.video_processor = processor.feature_extractor = None
    processor.chat_template = None
    for kind in ("image", "audio", "video"):
        setattr(processor, f"{kind}_token", f"<|{kind}|>")
        setattr(processor, f"{kind}_token_id", -1)
    return processor


def _chat(system: str, instruction: str) -> str:
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{instruction}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def _system_prompt(tokenizer: Any) -> str:
    """A system prompt whose turn has as many tokens as the release's."""
    prompt = "You listen"
    while True:
        turn = f"<|im_start|>system\n{prompt}<|im_end|>\n"
        count = len(tokenizer(turn)["input_ids"])
        assert count <= CUT
        if count == CUT:
            return prompt
        prompt += "!"


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both sides of each variant, made when they are first asked for."""
    return {"folder": tmp_path_factory.mktemp("sides")}


def both(
    name: str, sides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[Release, Unison]:
    """The release's side, and ours through the importer."""
    if name in sides:
        return sides[name]
    folder = sides["folder"] / name
    release = Release(folder / "qwen", name)
    config, codec = release.config, CODECS[name]
    monkeypatch.setitem(CONFIGS, codec, config)
    small = dataclasses.replace(
        variants.VARIANTS[name],
        backbone=BackboneConfig(
            latent_channels=config.latent_channels,
            dim=64,
            heads=2,
            rope_dim=24,
            blocks=3,
            text_dim=WIDTH,
        ),
        text_layers=LAYERS,
        sample_rate=config.sample_rate,
        hop=config.frame_hop,
    )
    monkeypatch.setitem(variants.VARIANTS, name, small)
    save_file(release.weights, folder / "model.safetensors")
    (folder / "prompt.txt").write_text(release.system)
    import_release(
        folder,
        name,
        folder / "ours",
        system_prompt_file=folder / "prompt.txt",
        text_files=folder / "qwen",
    )
    (folder / "codec").mkdir()
    save_file(
        import_originals(empty_codec(codec), *release.originals),
        folder / "codec" / f"{codec}.safetensors",
    )
    # Where a processor has bfloat16 the language model runs in it, in the release as here.
    monkeypatch.setattr("unison_audio.text.qwen.preferred_dtype", lambda device: torch.float32)
    ours = Unison.from_pretrained(
        folder / "ours", codec_files=folder / "codec", text_files=folder / "qwen", low_memory=False
    )
    sides[name] = release, ours
    return sides[name]


def velocity_of(unison: Unison, monkeypatch: pytest.MonkeyPatch, *what: str, **more: Any) -> Tensor:
    """What our backbone gives at t = 0.7 for what `generate` hands to the sampler."""
    seen: dict[str, Any] = {}

    def noted(backbone: Any, inputs: ModelInputs, *, noise: Tensor, **_: Any) -> Tensor:
        seen.update(inputs=inputs, noise=noise)
        return noise

    monkeypatch.setattr("unison_audio.best_of_n.sample", noted)
    unison.generate(*what, **more)
    inputs = seen["inputs"]
    x = torch.cat([seen["noise"], inputs.z_s, inputs.m], dim=1)
    with torch.no_grad():
        return unison.backbone(
            x, torch.tensor([0.7]), inputs.hidden_states, inputs.text_mask, inputs.penultimate
        )


def recording(rate: int, seconds: float = 3.1) -> Tensor:
    """Noise with a loud click, then exact silence."""
    wave = 0.02 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(4))
    wave[rate // 2] = 0.9  # after the level is set its peak is above 1: the mel clamps it
    wave[rate : 3 * rate // 2] = 0.0
    return wave


@pytest.mark.parametrize(("name", "instruction"), CASES)
@pytest.mark.filterwarnings("ignore::unison_audio.release.ReleaseNote")
def test_the_velocity_is_the_release_s(
    name: str, instruction: str, sides: dict[str, Any], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, unison = both(name, sides, monkeypatch)
    source, more = None, {}
    if instruction.startswith("[Edit]"):
        source = recording(unison.variant.sample_rate)
        more = {"source": (source, unison.variant.sample_rate)}
    ours = velocity_of(unison, monkeypatch, instruction, seed=6, **more)
    theirs = release.velocity(instruction, unison.variant.layer_picks, source, seed=6)
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.mark.parametrize(("instruction", "words", "read", "seconds"), CLONES)
@pytest.mark.filterwarnings("ignore::unison_audio.release.ReleaseNote")
@pytest.mark.filterwarnings("ignore::unison_audio.inputs.ShortenedWarning")
def test_the_velocity_of_a_clone_is_the_release_s(
    instruction: str,
    words: str,
    read: str,
    seconds: float,
    sides: dict[str, Any],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, unison = both("d24-16k", sides, monkeypatch)
    voice = 0.02 * torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(5))
    voice[round(2.6 * 16_000) : round(2.8 * 16_000)] = 0.0  # where a longer one is cut
    ours = velocity_of(
        unison,
        monkeypatch,
        instruction,
        seed=6,
        reference=(voice, 16_000),
        reference_text=words,
        asr="none",
    )
    picks = unison.variant.layer_picks
    theirs = release.velocity(read, picks, None, seed=6, reference=voice)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
    if instruction == CLONES[0][0]:  # the reference matters
        deaf = release.velocity(read, picks, None, seed=6)
        assert float((deaf - theirs).norm() / theirs.norm()) > 1e-2


@pytest.mark.filterwarnings("ignore::unison_audio.release.ReleaseNote")
def test_each_part_of_the_path_is_needed(
    sides: dict[str, Any], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, unison = both("d24-16k", sides, monkeypatch)
    source = recording(16_000)
    theirs = release.velocity(EDITS[0], unison.variant.layer_picks, source, seed=6)
    changes: dict[str, dict[str, Any]] = {
        "text_window": {"text_window": 0},
        "source_rms": {"source_rms": 0.0},
        "dither": {"dither": 0.0},
        "sample_seconds": {"sample_seconds": 0.0},
    }
    for part, change in changes.items():
        other = Unison(
            dataclasses.replace(unison.variant, **change),
            unison.backbone,
            unison.codec,
            unison.text_encoder,
        )
        if part == "text_window":
            setup = dataclasses.replace(unison.text_encoder.setup, window=0)
            monkeypatch.setattr(unison.text_encoder, "setup", setup)
            monkeypatch.setattr(unison.text_encoder, "cache", None)
        ours = velocity_of(other, monkeypatch, EDITS[0], seed=6, source=(source, 16_000))
        monkeypatch.undo()
        if ours.shape == theirs.shape:
            assert float((ours - theirs).norm() / theirs.norm()) > 1e-3, part
        else:
            assert part == "sample_seconds"
