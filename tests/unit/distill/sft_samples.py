"""A tokenizer for the tests of what a scorer is trained on, as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from mira_megatron.distill.scorer_tokenizer import train_tokenizer

_WORDS = "the note says that every word of it counts 0/10 7/10 n/a [A1] Clarity: café 注 \n"


@pytest.fixture(scope="session")
def chat_tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small byte-level BPE with ChatML's tokens."""
    path = tmp_path_factory.mktemp("chat_tokenizer") / "tokenizer.json"
    train_tokenizer([_WORDS * 20], 600, path)
    return path
