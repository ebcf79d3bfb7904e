"""A causal language model of random weights, written as Hugging Face folders look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

_END = "<|endoftext|>"
# A line end and a blank: one token as the file cuts words, two as Qwen2Tokenizer does.
_INDENT = "ĊĠ"
MAX_TOKENS = 64


def write_reference(folder: Path) -> Path:
    """Writes a Qwen2 of one layer whose tokens are bytes and one pair, and returns its folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, _INDENT, _END])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(_INDENT[0], _INDENT[1])]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    written: Any = PreTrainedTokenizerFast
    written(tokenizer_object=tokenizer, eos_token=_END).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.5,  # far from uniform: another context gives another loss
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder
