"""A small random Qwen2.5-Omni in the files' true layout, and what transformers makes of it."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerTextModel
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniTextConfig

LAYERS, WIDTH = 28, 64
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>")
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{{ content['text'] }}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of the kind that the model's own is: with a system prompt of its own where none is given."""
SENTENCES = (
    "You listen to what is asked and describe the sound that is to be heard.",
    '[Speech] A female voice saying "the red dog runs home before the rain"',
    "[Audio] a dog barking and a door closing while the rain falls on a roof",
    "system user assistant instruction sound voice",
)


def write_qwen(folder: Path, *, template: bool = True) -> Qwen2_5OmniThinkerTextModel:
    """Writes config, tokenizer, index and shards; returns the text model that they hold.

    One shard has nothing of the text model in it, and is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, template)
    text = {
        "model_type": "qwen2_5_omni_text",
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "max_window_layers": LAYERS,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "rope_theta": 1000000.0,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
    }
    config = {
        "architectures": ["Qwen2_5OmniModel"],
        "model_type": "qwen2_5_omni",
        "enable_audio_output": True,
        "thinker_config": {"model_type": "qwen2_5_omni_thinker", "text_config": text},
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = Qwen2_5OmniThinkerTextModel(Qwen2_5OmniTextConfig(**text)).eval()
    _randomize(model)
    _write_shards(folder, {f"thinker.model.{k}": v for k, v in model.state_dict().items()})
    return model


@torch.no_grad()
def reference_states(model: Qwen2_5OmniThinkerTextModel, tokens: list[int]) -> tuple[Tensor, ...]:
    """transformers' ``hidden_states`` of one text, each (N, text_dim)."""
    output = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    return tuple(states[0] for states in output.hidden_states)


def _randomize(model: nn.Module) -> None:
    """Weights that matter, and that bfloat16 has exactly."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            value = torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                value = 1 + 0.3 * value
            elif weight.ndim == 2 and "embed" not in name:
                value = value / weight.shape[1] ** 0.5
            weight.copy_(value.bfloat16())


def _write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}
    names = list(tensors)
    half = len(names) // 2
    shards = [
        {"thinker.lm_head.weight": torch.zeros(8, WIDTH).bfloat16()}
        | {name: tensors[name] for name in names[:half]},
        {name: tensors[name] for name in names[half:]}
        | {"thinker.visual.merger.mlp.0.weight": torch.zeros(4, 4).bfloat16()},
    ]
    weight_map = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    for name in ("thinker.audio_tower.conv1.weight", "talker.model.norm.weight"):
        weight_map[name] = "model-00003-of-00003.safetensors"
    index = {"metadata": {"total_size": 0}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_tokenizer(folder: Path, template: bool) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "model_max_length": 32768,
    }
    if template:
        settings["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()
