"""Two flow-matching peers of true size with random weights, each part timed by itself.

Stable Audio 3 Small: `StableAudio3DiTModel` with the sizes of the vendor's own code for the small
models (width 1024, 20 blocks, 16 heads, plain attention; diffusers' defaults are those of Medium),
diffusers' default `AutoencoderSAME`, which is SAME-S, and the encoder of t5gemma-b-b.
LongCat-AudioDiT 1B: diffusers' default transformer, its VAE with the strides whose product is the
stated 2048 (the class's own default gives 32), and the encoder of umt5-base. Calls are those of
diffusers' pipelines, which load weights in float32 where no type is asked for.
"""

import torch
from torch import Tensor
from true_size import INSTRUCTION_TOKENS, parameters, random_model, timed

SA3_FRAMES = 108
"""Latent frames of Stable Audio 3's default 10 s: 441,000 samples in hops of 4096, rounded up."""
SA3_TOKENS = 256
"""Stable Audio 3 pads every prompt to so many tokens and attends to all."""
LONGCAT_FRAMES = 117
"""Latent frames of 10 s of LongCat-AudioDiT: 240,000 samples in hops of 2048, rounded down."""


def stable_audio_3_text(dtype: torch.dtype, repetitions: int) -> float:
    """T5Gemma's encoder over a padded prompt."""
    from transformers import T5GemmaConfig, T5GemmaEncoderModel
    from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig

    size = {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "head_dim": 64,
        "query_pre_attn_scalar": 64,
        "vocab_size": 8,
    }
    config = T5GemmaConfig(
        encoder=T5GemmaModuleConfig(**size),
        decoder=T5GemmaModuleConfig(**size),
        is_encoder_decoder=False,
        vocab_size=8,
    )
    model = random_model(lambda: T5GemmaEncoderModel(config)).to(dtype)
    ids = torch.ones(1, SA3_TOKENS, dtype=torch.long)
    mask = (torch.arange(SA3_TOKENS) < INSTRUCTION_TOKENS).long()[None]
    return timed(lambda: model(ids, attention_mask=mask)[0], repetitions)


def stable_audio_3_step(dtype: torch.dtype, repetitions: int) -> tuple[float, int]:
    """One call of StableAudio3DiTModel, which needs no guidance, and its parameters."""
    from diffusers import StableAudio3DiTModel

    dit = random_model(
        lambda: StableAudio3DiTModel(
            embed_dim=1024, depth=20, num_heads=16, use_differential_attention=False
        )
    ).to(dtype)
    latent = torch.randn(1, 256, SA3_FRAMES, dtype=dtype)
    prompt_and_duration = torch.randn(1, SA3_TOKENS + 1, 768, dtype=dtype)
    mask = (torch.arange(SA3_TOKENS + 1) % SA3_TOKENS < INSTRUCTION_TOKENS)[None]
    duration = torch.randn(1, 768, dtype=dtype)

    def step() -> Tensor:
        return dit(
            latent,
            torch.tensor([0.5], dtype=dtype),
            encoder_hidden_states=prompt_and_duration,
            global_hidden_states=duration,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]

    step()
    return timed(step, repetitions), parameters(dit)


def stable_audio_3_decoder(dtype: torch.dtype, repetitions: int) -> float:
    """AutoencoderSAME."""
    from diffusers import AutoencoderSAME

    vae = random_model(AutoencoderSAME).to(dtype)
    latent = torch.randn(1, 256, SA3_FRAMES, dtype=dtype)
    vae.decode(latent[..., :4])
    return timed(lambda: vae.decode(latent).sample, repetitions)


def longcat_text(dtype: torch.dtype, repetitions: int) -> float:
    """UMT5's encoder over a prompt; guidance takes zeros."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, vocab_size=8)
    model = random_model(lambda: UMT5EncoderModel(config)).to(dtype)
    ids = torch.ones(1, INSTRUCTION_TOKENS, dtype=torch.long)
    mask = torch.ones_like(ids)
    return timed(lambda: model(ids, attention_mask=mask).last_hidden_state, repetitions)


def longcat_step(dtype: torch.dtype, repetitions: int) -> tuple[float, int]:
    """Both calls of a guided step of LongCatAudioDiTTransformer, and its parameters."""
    from diffusers import LongCatAudioDiTTransformer

    dit = random_model(LongCatAudioDiTTransformer).to(dtype)
    latent = torch.randn(1, LONGCAT_FRAMES, 64, dtype=dtype)
    nothing = torch.zeros_like(latent)
    prompt = torch.randn(1, INSTRUCTION_TOKENS, 768, dtype=dtype)
    all_tokens = torch.ones(1, INSTRUCTION_TOKENS, dtype=torch.bool)
    all_frames = torch.ones(1, LONGCAT_FRAMES, dtype=torch.bool)

    def call(states: Tensor) -> Tensor:
        return dit(
            hidden_states=latent,
            encoder_hidden_states=states,
            encoder_attention_mask=all_tokens,
            timestep=torch.tensor([0.5], dtype=dtype),
            attention_mask=all_frames,
            latent_cond=nothing,
        ).sample

    def step() -> Tensor:
        return call(prompt) - call(torch.zeros_like(prompt))

    call(prompt)
    return timed(step, repetitions), parameters(dit)


def longcat_decoder(dtype: torch.dtype, repetitions: int, part: int) -> float:
    """LongCatAudioDiTVae over 1/part of the latent, times part."""
    from diffusers import LongCatAudioDiTVae

    vae = random_model(
        lambda: LongCatAudioDiTVae(c_mults=[1, 2, 4, 8, 16], strides=[2, 4, 4, 8, 8])
    ).to(dtype)
    latent = torch.randn(1, 64, LONGCAT_FRAMES // part, dtype=dtype)
    vae.decode(latent[..., :4])
    return part * timed(lambda: vae.decode(latent).sample, repetitions)
