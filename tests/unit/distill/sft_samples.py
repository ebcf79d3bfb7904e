"""A tokenizer and a base model for the tests of distillation, as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_base import write_base

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
    """A Qwen3-MoE of random weights as transformers saves it, with more rows than tokens."""
    return write_base(tmp_path_factory.mktemp("base"), chat_tokenizer_path)
