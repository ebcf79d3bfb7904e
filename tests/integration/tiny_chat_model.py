"""Writes a chat model small enough to serve on two CPU cores: real files, random weights.

    python tiny_chat_model.py FOLDER

A Qwen2ForCausalLM as hub folders look: config.json, model.safetensors, and a byte-level BPE with
Qwen's control tokens and chat template. What it answers is noise; how it is asked is not.
"""

from __future__ import annotations

import json
import struct
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

IM_START, IM_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CONTROL_TOKENS = (END_OF_TEXT, IM_START, IM_END)  # the trainer numbers them from 0
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_VOCAB_SIZE = 4096
_NUM_LAYERS = 2
_HIDDEN = 64
_FFN = 128
_HEADS, _KEY_VALUE_HEADS = 2, 1  # of 32 channels each: the fewest that vLLM's CPU attention takes
_MAX_TOKENS = 16_384


def write_tiny_chat_model(folder: Path, *, seed: int = 0) -> Path:
    """Writes the model's files into `folder` and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _trained_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    end_ids = [CONTROL_TOKENS.index(token) for token in (IM_END, END_OF_TEXT)]
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    _write_json(folder / "config.json", _config(end_ids))
    _write_json(folder / "generation_config.json", {"eos_token_id": end_ids})
    write_safetensors(folder / "model.safetensors", _weights(seed))
    return folder


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes tensors as safetensors does: header length, JSON header, their bytes in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": (start, end)}
        start = end
    written = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(written)) + written)
        for tensor in tensors.values():
            file.write(tensor.astype("<f4").tobytes())


def _trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in CONTROL_TOKENS],
        show_progress=False,
    )
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-j]*.py"))
    texts = (path.read_text(encoding="utf-8") for path in modules)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": _CHAT_TEMPLATE,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": _MAX_TOKENS,
        "clean_up_tokenization_spaces": False,
    }


def _config(end_ids: list[int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "dtype": "float32",
        "vocab_size": _VOCAB_SIZE,
        "hidden_size": _HIDDEN,
        "intermediate_size": _FFN,
        "num_hidden_layers": _NUM_LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KEY_VALUE_HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": _MAX_TOKENS,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "eos_token_id": end_ids,
    }


def _weights(seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    key_value = _HIDDEN * _KEY_VALUE_HEADS // _HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCAB_SIZE, _HIDDEN)}
    for number in range(_NUM_LAYERS):
        layer = f"model.layers.{number}"
        for name, width in (("q", _HIDDEN), ("k", key_value), ("v", key_value)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (width, _HIDDEN)
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{layer}.self_attn.o_proj.weight"] = (_HIDDEN, _HIDDEN)
        shapes[f"{layer}.mlp.gate_proj.weight"] = (_FFN, _HIDDEN)
        shapes[f"{layer}.mlp.up_proj.weight"] = (_FFN, _HIDDEN)
        shapes[f"{layer}.mlp.down_proj.weight"] = (_HIDDEN, _FFN)
        shapes[f"{layer}.input_layernorm.weight"] = (_HIDDEN,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (_HIDDEN,)
    shapes["model.norm.weight"] = (_HIDDEN,)
    shapes["lm_head.weight"] = (_VOCAB_SIZE, _HIDDEN)
    return {
        name: np.ones(shape, np.float32)
        if name.endswith("norm.weight")
        else random.normal(0, 0.05, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    write_tiny_chat_model(Path(sys.argv[1]))
