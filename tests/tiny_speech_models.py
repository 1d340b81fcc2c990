"""Tiny metric models of speech in the published layouts, with answers known beforehand.

Their weights are random but for what decides the answer, so that the whole of the library's code
runs and a test still knows what must come out.
"""

import json
from pathlib import Path

import torch

BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
"""Bytes that a byte-level vocabulary writes as themselves; the others follow from 256 on."""
FRONT = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>"]
BACK = ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]


def write_whisper(folder: Path, says: str, *, multilingual: bool = True) -> Path:
    """A Whisper that says the same of everything; its tokens are bytes.

    The decoder's positions outweigh all else, and each points at the token that is to come next.
    """
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    letters = _letters()
    special = [*FRONT, *BACK]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)

    torch.manual_seed(0)
    size = len(vocabulary) + len(special)
    config = WhisperConfig(
        vocab_size=size,
        num_mel_bins=8,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        d_model=64,
        max_target_positions=48,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    net = WhisperForConditionalGeneration(config)
    prompt = 4 if multilingual else 2  # start, language, task, no timestamps
    tokens = [*tokenizer(says, add_special_tokens=False).input_ids, ids["<|endoftext|>"]]
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(torch.randn(size, 64), dim=1)
        net.model.decoder.embed_tokens.weight.copy_(embedded)
        for k, token in enumerate(tokens):
            net.model.decoder.embed_positions.weight[prompt - 1 + k] = 100 * embedded[token]
    settings = {
        "is_multilingual": multilingual,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_length": 48,
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
    }
    if multilingual:
        settings["lang_to_id"] = {"<|en|>": ids["<|en|>"], "<|zh|>": ids["<|zh|>"]}
        settings["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}
    else:
        settings["forced_decoder_ids"] = [[1, ids["<|notimestamps|>"]]]
    net.generation_config = GenerationConfig(**settings)
    net.save_pretrained(folder)
    return folder


def write_gender(folder: Path, hears: str, labels: tuple[str, ...] = ("female", "male")) -> Path:
    """A wav2vec 2.0 classifier of the published kind that always hears one of its labels."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **_encoder(),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        classifier_proj_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    net = Wav2Vec2ForSequenceClassification(config)
    with torch.no_grad():
        net.classifier.bias.zero_()
        net.classifier.bias[labels.index(hears)] = 100.0
    net.save_pretrained(folder)
    _extractor(folder, return_attention_mask=True)
    return folder


def write_voices(folder: Path) -> Path:
    """A WavLM with x-vectors, all of it random."""
    from transformers import WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    config = WavLMConfig(
        **_encoder(),
        tdnn_dim=(16, 16, 24),
        tdnn_kernel=(5, 3, 1),
        tdnn_dilation=(1, 2, 1),
        xvector_output_dim=12,
        num_buckets=32,
        max_bucket_distance=80,
    )
    WavLMForXVector(config).save_pretrained(folder)
    _extractor(folder, return_attention_mask=False)
    return folder


def write_paraformer(folder: Path, tokens: list[str], says: str) -> Path:
    """A Paraformer in funasr's layout that hears one token throughout, as often as it pleases."""
    folder.mkdir(parents=True, exist_ok=True)
    known = ["<blank>", "<s>", "</s>", *tokens, "<unk>"]
    (folder / "tokens.json").write_text(json.dumps(known, ensure_ascii=False), "utf-8")
    shape = {"attention_heads": 2, "linear_units": 16, "kernel_size": 11, "sanm_shfit": 0}
    config = {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "predictor_weight": 1.0, "predictor_bias": 1},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            **shape,
            "output_size": 16,
            "num_blocks": 2,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {**shape, "num_blocks": 1, "att_layer_num": 1},
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": 16, "threshold": 1.0, "l_order": 1, "r_order": 1},
        "frontend": "WavFrontend",
        "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "lfr_m": 7, "lfr_n": 6},
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    bias = torch.zeros(len(known))
    bias[known.index(says)] = 100.0
    weights = {
        "decoder.output_layer.weight": torch.zeros(len(known), 16),
        "decoder.output_layer.bias": bias,
    }
    torch.save(weights, folder / "model.pt")  # funasr draws the others
    return folder


def _encoder() -> dict[str, object]:
    return {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": (8, 8),
        "conv_kernel": (10, 8),
        "conv_stride": (20, 16),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "num_feat_extract_layers": 2,
    }


def _extractor(folder: Path, *, return_attention_mask: bool) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=return_attention_mask
    ).save_pretrained(folder)


def _letters() -> list[str]:
    """The 256 characters by which byte-level vocabularies write bytes."""
    others = [b for b in range(256) if b not in BYTES]
    known = {b: chr(b) for b in BYTES} | {b: chr(256 + k) for k, b in enumerate(others)}
    return [known[b] for b in range(256)]
