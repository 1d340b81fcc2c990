"""Models of true size with random fp32 weights, each part timed by itself and then let go.

Sizes are those of the configurations published with the weights: `transformer`, `vae` and
`text_encoder` of stabilityai/stable-audio-open-1.0; `unet`, `vae`, `vocoder`, `text_encoder` and
`text_encoder_2` of cvssp/audioldm2; `thinker_config.text_config` of Qwen/Qwen2.5-Omni-7B. Calls are
those of the models' pipelines, one item with both halves of guidance.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch
from parity import draw_inputs
from torch import Tensor, nn

from unison_audio.codecs.mmaudio import CONFIGS, MMAudioCodec
from unison_audio.model.backbone import UnisonBackbone
from unison_audio.model.prepared import PreparedRun
from unison_audio.model.solvers import Solver
from unison_audio.sampling_params import GroupSettings
from unison_audio.variants import Variant

Model = TypeVar("Model", bound=nn.Module)

INSTRUCTION_TOKENS = 30
CHAT_TOKENS = 64
"""An instruction with a short system prompt and the marks of the chat around both."""
STABLE_AUDIO_FRAMES = 1024
"""Latent frames that Stable Audio Open computes, whatever duration is asked for."""
AUDIOLDM2_FRAMES = 256
"""Latent frames of AudioLDM 2's default length."""


def random_model(make: Callable[[], Model]) -> Model:
    """A model made on meta, then filled with weights that keep signals near unit size."""
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    for tensor in (*model.parameters(), *model.buffers()):
        if not tensor.is_floating_point():
            tensor.zero_()
        elif tensor.ndim > 1:
            tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
        else:
            name = names.get(id(tensor), "")
            tensor.fill_(float("norm" in name and name.endswith(("weight", "gamma"))))
    return model


def parameters(model: nn.Module) -> int:
    """How many numbers a model holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def timed(call: Callable[[], Tensor], repetitions: int) -> float:
    """Median processor time of a call that must give finite numbers."""
    return median(spent(lambda: _finite(call())) for _ in range(repetitions))


def spent(call: Callable[[], object]) -> float:
    """Processor time of one call, so that other programs on the core do not count."""
    start = time.process_time()
    call()
    return time.process_time() - start


def _finite(result: Tensor) -> None:
    if not result.isfinite().all():
        raise ArithmeticError("A random model's output overflowed; its timing would mean nothing.")


def stable_audio_text(repetitions: int) -> float:
    """T5-base over a prompt padded to 128 tokens; nothing is encoded for guidance."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12, vocab_size=32128
    )
    model = random_model(lambda: T5EncoderModel(config))
    ids = torch.ones(1, 128, dtype=torch.long)
    mask = torch.ones_like(ids)
    return timed(lambda: model(ids, attention_mask=mask).last_hidden_state, repetitions)


def stable_audio_step(repetitions: int) -> tuple[float, int]:
    """One guided call of StableAudioDiTModel, and its parameters."""
    from diffusers import StableAudioDiTModel
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    head = 64
    dit = random_model(
        lambda: StableAudioDiTModel(
            sample_size=STABLE_AUDIO_FRAMES,
            in_channels=64,
            num_layers=24,
            attention_head_dim=head,
            num_attention_heads=24,
            num_key_value_attention_heads=12,
            out_channels=64,
            cross_attention_dim=768,
            time_proj_dim=256,
            global_states_input_dim=1536,
            cross_attention_input_dim=768,
        )
    )
    prompt_and_duration, duration = torch.randn(2, 128 + 2, 768), torch.randn(2, 1, 1536)

    def step(frames: int) -> Tensor:
        rotation = get_1d_rotary_pos_embed(
            head // 2, frames + 1, use_real=True, repeat_interleave_real=False
        )
        return dit(
            torch.randn(2, 64, frames),
            torch.tensor([0.5]),
            encoder_hidden_states=prompt_and_duration,
            global_hidden_states=duration,
            rotary_embedding=rotation,
            return_dict=False,
        )[0]

    step(32)
    return timed(lambda: step(STABLE_AUDIO_FRAMES), repetitions), parameters(dit)


def stable_audio_decoder(repetitions: int, part: int) -> float:
    """AutoencoderOobleck over 1/part of the latent, times part."""
    from diffusers import AutoencoderOobleck

    vae = random_model(
        lambda: AutoencoderOobleck(
            encoder_hidden_size=128,
            downsampling_ratios=[2, 4, 4, 8, 8],
            channel_multiples=[1, 2, 4, 8, 16],
            decoder_channels=128,
            decoder_input_channels=64,
            audio_channels=2,
            sampling_rate=44100,
        )
    )
    latent = torch.randn(1, 64, STABLE_AUDIO_FRAMES // part)
    vae.decode(latent[..., :8])
    return part * timed(lambda: vae.decode(latent).sample, repetitions)


def audioldm2_text(repetitions: int) -> float:
    """CLAP's text model padded to 512 tokens and Flan-T5-large, for a prompt and an empty one.

    GPT-2 after them, over eight positions, is left out.
    """
    from transformers import ClapTextConfig, ClapTextModel, T5Config, T5EncoderModel

    flan = T5Config(
        d_model=1024,
        d_kv=64,
        d_ff=2816,
        num_layers=24,
        num_heads=16,
        vocab_size=32128,
        feed_forward_proj="gated-gelu",
    )
    clap = random_model(lambda: ClapTextModel(ClapTextConfig()))
    t5 = random_model(lambda: T5EncoderModel(flan))
    padded = torch.full((1, 512), 5)
    some = (torch.arange(512) < INSTRUCTION_TOKENS).long()[None]
    ids = torch.full((1, INSTRUCTION_TOKENS), 5)

    def encode() -> Tensor:
        pooled = clap(padded, attention_mask=some).pooler_output
        states = t5(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return torch.cat((pooled.flatten(), states.flatten()))

    return 2 * timed(encode, repetitions)


def audioldm2_step(repetitions: int) -> tuple[float, int]:
    """One guided call of AudioLDM2UNet2DConditionModel, and its parameters."""
    from diffusers import AudioLDM2UNet2DConditionModel

    unet = random_model(
        lambda: AudioLDM2UNet2DConditionModel(
            sample_size=AUDIOLDM2_FRAMES,
            in_channels=8,
            out_channels=8,
            down_block_types=("DownBlock2D",) + 3 * ("CrossAttnDownBlock2D",),
            up_block_types=3 * ("CrossAttnUpBlock2D",) + ("UpBlock2D",),
            block_out_channels=(128, 256, 384, 640),
            cross_attention_dim=4 * ((None, 768, 1024),),
            attention_head_dim=8,
        )
    )
    latent = torch.randn(2, 8, AUDIOLDM2_FRAMES, 16)
    generated, encoded = torch.randn(2, 8, 768), torch.randn(2, INSTRUCTION_TOKENS, 1024)
    mask = torch.ones(2, INSTRUCTION_TOKENS, dtype=torch.long)

    def step(frames: int) -> Tensor:
        return unet(
            latent[:, :, :frames],
            torch.tensor(500),
            encoder_hidden_states=generated,
            encoder_hidden_states_1=encoded,
            encoder_attention_mask_1=mask,
            return_dict=False,
        )[0]

    step(32)
    return timed(lambda: step(AUDIOLDM2_FRAMES), repetitions), parameters(unet)


def audioldm2_decoder(repetitions: int) -> float:
    """AutoencoderKL to a mel spectrogram, and SpeechT5HifiGan from there."""
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    vae = random_model(
        lambda: AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=3 * ("DownEncoderBlock2D",),
            up_block_types=3 * ("UpDecoderBlock2D",),
            block_out_channels=(128, 256, 512),
            layers_per_block=2,
            latent_channels=8,
            sample_size=1024,
        )
    )
    vocoder = random_model(
        lambda: SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=64,
                sampling_rate=16000,
                upsample_initial_channel=1024,
                upsample_rates=[5, 4, 2, 2, 2],
                upsample_kernel_sizes=[16, 16, 8, 4, 4],
                normalize_before=False,
            )
        )
    )
    latent = torch.randn(1, 8, AUDIOLDM2_FRAMES, 16)
    vae.decode(latent[:, :, :32])
    return timed(lambda: vocoder(vae.decode(latent).sample[:, 0]), repetitions)


def unison_text(layers: int, dtype: torch.dtype, repetitions: int) -> float:
    """Qwen2.5-Omni 7B's text model over one chat, from one of its equal layers."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerTextModel

    config = Qwen2_5OmniTextConfig(
        hidden_size=3584,
        intermediate_size=18944,
        num_attention_heads=28,
        num_key_value_heads=4,
        num_hidden_layers=1,
        vocab_size=8,
    )
    model = random_model(lambda: Qwen2_5OmniThinkerTextModel(config)).to(dtype)
    states = torch.randn(1, CHAT_TOKENS, 3584, dtype=dtype)

    def encode() -> Tensor:
        return model(inputs_embeds=states, use_cache=False).last_hidden_state

    encode()
    return layers * timed(encode, repetitions)


def unison_sampling(
    variant: Variant,
    backbone: UnisonBackbone,
    settings: dict[str, GroupSettings],
    repetitions: int,
) -> dict[str, tuple[float, int, float]]:
    """For each way of sampling one step's time, their number and a whole run's."""
    given = draw_inputs(variant, variant.default_seconds, INSTRUCTION_TOKENS)
    if not variant.reads_penultimate:
        del given["penultimate"]
    z_t = given.pop("z_t")
    PreparedRun(backbone, **given, times=torch.ones(1)).velocities(z_t, 0, guided=True)

    def run(chosen: GroupSettings) -> tuple[float, int, float]:
        times = Solver(chosen.solver, chosen.steps).times
        prepared: list[PreparedRun] = []
        once = spent(lambda: prepared.append(PreparedRun(backbone, **given, times=times)))
        guided = [chosen.guidance.at(t) for t in times.tolist()]
        cost = {
            both: timed(lambda b=both: prepared[0].velocities(z_t, 0, guided=b)[0], repetitions)
            for both in sorted(set(guided))
        }
        return max(cost.values()), len(guided), once + sum(cost[both] for both in guided)

    return {name: run(chosen) for name, chosen in settings.items()}


def unison_decoder(variant: Variant, repetitions: int, part: int) -> float:
    """MMAudio's VAE and BigVGAN over 1/part of the latent, times part."""
    codec = random_model(lambda: MMAudioCodec(CONFIGS[variant.codec]))
    latent = torch.randn(1, codec.channels, codec.frames(variant.default_seconds) // part)
    codec.decode(latent[..., :4])
    return part * timed(lambda: codec.decode(latent), repetitions)
