"""gigatoken beside Hugging Face: the same ids, or Hugging Face alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from mira_megatron.tokenization.plain_encoders import (
    PROBES,
    GigatokenEncoder,
    HuggingFaceEncoder,
    PlainEncoder,
    choose_encoder,
)
from mira_megatron.tokenization.tokenizer import QWEN_SPLIT

TRAINED_ON = [*PROBES, "def double(number):\n    return 2 * number\n" * 4, "日本語 日本 ÄÖ"]
# What `auto` does where the extra is not there: an empty entry makes the import fail.
WITHOUT_GIGATOKEN = """
import sys
sys.modules["gigatoken"] = None
from tokenizers import Tokenizer
from mira_megatron.tokenization.plain_encoders import choose_encoder
plain = Tokenizer.from_str(sys.argv[1])
print(choose_encoder(plain, sys.argv[1].encode(), "auto", where="here").name)
choose_encoder(plain, sys.argv[1].encode(), "gigatoken", where="here")
"""


def byte_level(*, use_regex: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return _trained(tokenizer)


def qwen_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _trained(tokenizer)


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return tokenizer


def _trained(tokenizer: Tokenizer) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return tokenizer


def chosen(tokenizer: Tokenizer, backend: str) -> PlainEncoder:
    return choose_encoder(tokenizer, tokenizer.to_str().encode(), backend, where="tokenizer.json")


@pytest.fixture(scope="module", params=[byte_level, qwen_like])
def both(request: pytest.FixtureRequest) -> tuple[GigatokenEncoder, HuggingFaceEncoder]:
    make: Callable[[], Tokenizer] = request.param
    tokenizer = make()
    return GigatokenEncoder(tokenizer.to_str().encode()), HuggingFaceEncoder(tokenizer)


@settings(deadline=None)  # gigatoken is slow on its first text
@given(texts=st.lists(st.text(), max_size=6))
def test_gigatoken_gives_the_ids_that_hugging_face_gives(
    both: tuple[GigatokenEncoder, HuggingFaceEncoder], texts: list[str]
) -> None:
    column = pa.array(texts, pa.large_string())
    fast, reference = (encoder.encode(column) for encoder in both)
    assert fast.ids_T.tolist() == reference.ids_T.tolist()
    assert fast.ends_D.tolist() == reference.ends_D.tolist()


def test_gigatoken_gives_the_same_ids_for_a_document_far_larger_than_a_chunk(
    both: tuple[GigatokenEncoder, HuggingFaceEncoder],
) -> None:
    text = "".join(TRAINED_ON) * 400  # half a million characters
    fast, reference = (encoder.encode(pa.array([text], pa.large_string())) for encoder in both)
    assert np.array_equal(fast.ids_T, reference.ids_T)


@pytest.mark.parametrize("make", [byte_level, qwen_like])
def test_auto_is_gigatoken_where_it_agrees(make: Callable[[], Tokenizer]) -> None:
    assert chosen(make(), "auto").name == "gigatoken"
    assert chosen(make(), "huggingface").name == "huggingface"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        # gigatoken 0.10.0 loads it, and splits words all the same.
        (lambda: byte_level(use_regex=False), "it encodes .* unlike Hugging Face"),
        (word_pieces, 'it cannot load this tokenizer: Unsupported model type "WordPiece"'),
    ],
)
def test_gigatoken_that_does_not_reproduce_a_tokenizer_is_not_used(
    make: Callable[[], Tokenizer], reason: str
) -> None:
    tokenizer = make()
    assert chosen(tokenizer, "auto").name == "huggingface"
    with pytest.raises(ValueError, match=rf"tokenizer\.json: .*backend=gigatoken.*{reason}"):
        chosen(tokenizer, "gigatoken")


def test_gigatoken_that_is_not_installed_is_only_missed_when_asked_for() -> None:
    command = [sys.executable, "-c", WITHOUT_GIGATOKEN, byte_level().to_str()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "huggingface\n"
    assert "not installed (pip install 'mira-megatron[gigatoken]')" in done.stderr
