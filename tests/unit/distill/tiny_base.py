"""A base model so small that it is made in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM


def write_base(folder: Path, tokenizer_path: Path, vocab_size: int = 608) -> Path:
    """Writes a base model and its tokenizer, and returns the folder."""
    torch.manual_seed(11)
    config_class: Any = Qwen3MoeConfig  # its dataclass has no typed signature
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=3,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer_class(
        tokenizer_file=str(tokenizer_path),
        eos_token="<|endoftext|>",
        chat_template="{% for m in messages %}<think>{{ m.content }}{% endfor %}",
    ).save_pretrained(folder)
    return folder
