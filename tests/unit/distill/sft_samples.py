"""A tokenizer and a base model for the tests of distillation, as fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM

from mira_megatron.distill.scorer_tokenizer import train_tokenizer

_WORDS = "the note says that every word of it counts 0/10 7/10 n/a [A1] Clarity: café 注 \n"


@pytest.fixture(scope="session")
def chat_tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE with ChatML's tokens."""
    path = tmp_path_factory.mktemp("chat_tokenizer") / "tokenizer.json"
    train_tokenizer([_WORDS * 20], 600, path)
    return path


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer_path: Path) -> Path:
    """A Qwen3-MoE of random weights as transformers saves it, 8 rows wider than its tokenizer."""
    return write_base(tmp_path_factory.mktemp("base"), chat_tokenizer_path)


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
