"""Small models of both shapes, and a tokenizer for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.utils import logging

from mira_megatron.tokenization.tokenizer import train_byte_level_bpe
from mira_megatron.training.model_shape import ModelShape

VOCAB_SIZE = 300
DENSE = ModelShape(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=8,
    num_query_groups=2,
    max_sequence_length=512,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
MOE = ModelShape(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=6,
    num_query_groups=3,
    max_sequence_length=512,
    rotary_base=1_000_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=False,
    kv_channels=16,  # 6 heads of 16 channels: not the 32 of hidden_size
    num_moe_experts=4,
    moe_router_topk=2,
    moe_ffn_hidden_size=24,
    moe_aux_loss_coeff=0.001,
)

logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def python_source() -> str:
    """Returns the text of a real Python file, the same in every run of one interpreter."""
    return Path(random.__file__).read_text()


def small_tokenizer(shape: ModelShape) -> Tokenizer:
    """Returns a byte-level BPE of `VOCAB_SIZE` tokens; a dense model's cuts text as Qwen does."""
    tokenizer: Tokenizer = train_byte_level_bpe(
        [python_source()], VOCAB_SIZE, cuts_like_qwen=not shape.is_moe
    )
    return tokenizer


def encoded_source(num_tokens: int) -> torch.Tensor:
    """Returns ids of real text, [1, num_tokens]."""
    return torch.tensor([small_tokenizer(MOE).encode(python_source()).ids[:num_tokens]])


def hf_model(shape: ModelShape, vocab_size: int = VOCAB_SIZE) -> Any:
    """Returns Hugging Face's model of a shape, its random weights large enough to tell apart."""
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_query_groups,
        "max_position_embeddings": shape.max_sequence_length,
        "rms_norm_eps": shape.layernorm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(shape.rotary_base)},
        "tie_word_embeddings": shape.tie_embeddings,
    }
    model: Any
    if shape.is_moe:
        experts: dict[str, Any] = {
            "head_dim": shape.channels_per_head,
            "num_experts": shape.num_moe_experts,
            "num_experts_per_tok": shape.moe_router_topk,
            "moe_intermediate_size": shape.moe_ffn_hidden_size,
            "router_aux_loss_coef": shape.moe_aux_loss_coeff,
            "norm_topk_prob": True,
        }
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**common, **experts))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**common))
    for parameter in model.parameters():  # norms start at 1 and biases at 0: not told apart
        torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    return model.eval()
