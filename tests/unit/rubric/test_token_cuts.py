from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.rubric.token_cuts import (
    TokenCounter,
    fair_shares,
    largest_fitting,
    left_out,
)
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

_NOTE = re.compile(r"\n\[…: [\d,]+ tokens left out\]\n")


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    """Counts one token per byte: the vocabulary is too small for any merge."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_byte_level_bpe(["text"], vocab_size=265).save(str(path))
    return TokenCounter(path)


def test_count_is_of_the_text_as_it_is_sent(counter: TokenCounter) -> None:
    assert counter.count("abc") == 3
    assert counter.count("<|im_end|>") == len("<·|im_end|>".encode()) == 12


def test_count_of_a_long_text_is_the_sum_over_its_pieces(counter: TokenCounter) -> None:
    measured = counter.measure("abc\n" * 270_000)  # a piece is a million characters
    assert measured.num_tokens == 4 * 270_000
    assert measured.starts[-1] == 4 * 270_000 - 1


def test_count_ignores_the_length_a_tokenizer_was_trained_for(tmp_path: Path) -> None:
    tokenizer = train_byte_level_bpe(["text"], vocab_size=265)
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    cut = TokenCounter(tmp_path / "tokenizer.json")
    assert (cut.count("ab"), cut.count("x" * 100)) == (2, 100)


def test_cut_keeps_half_of_the_tokens_at_each_end(counter: TokenCounter) -> None:
    text = "".join(chr(ord("a") + index % 26) for index in range(200))
    note_tokens = counter.count(left_out(10**9 - 1))
    cut = counter.measure(text).cut(note_tokens + 20)
    assert cut == f"{text[:10]}\n[…: 180 tokens left out]\n{text[-10:]}"


def test_cut_of_a_text_that_fits_is_the_text(counter: TokenCounter) -> None:
    assert counter.measure("<s>abc").cut(100) == "<s>abc"


def test_cut_leaves_a_character_out_whole(counter: TokenCounter) -> None:
    # Four tokens a character: of five kept, three are no whole character, and two are none.
    note_tokens = counter.count(left_out(10**9 - 1))
    cut = counter.measure("😀" * 50).cut(note_tokens + 5)
    assert cut == "\n[…: 195 tokens left out]\n"


@given(text=st.text(min_size=100), max_tokens=st.integers(0, 150))
def test_cut_keeps_whole_characters_and_its_limit(
    counter: TokenCounter, text: str, max_tokens: int
) -> None:
    measured = counter.measure(text)
    cut = measured.cut(max_tokens)
    if measured.num_tokens <= max_tokens:
        assert cut == text
    else:
        head, tail = _NOTE.split(cut)
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + len(tail) < len(text)
        note_tokens = counter.count(left_out(10**9 - 1))
        assert counter.count(cut) <= max(max_tokens, note_tokens)


@given(sizes=st.lists(st.integers(0, 100)), budget=st.integers(-5, 500))
def test_fair_shares_cut_only_to_one_common_size(sizes: list[int], budget: int) -> None:
    shares = fair_shares(sizes, budget)
    assert sum(shares) == max(0, min(budget, sum(sizes)))
    cut = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    # Whole tokens do not divide evenly; nobody uncut has more than the cut ones.
    assert not cut or (max(shares) <= min(cut) + 1)


def test_left_out_counts_messages_in_words() -> None:
    assert left_out(1234) == "\n[…: 1,234 tokens left out]\n"
    assert left_out(5, 1) == "\n[…: 1 message, 5 tokens left out]\n"
    assert left_out(5, 2) == "\n[…: 2 messages, 5 tokens left out]\n"


def test_largest_fitting_finds_the_largest_budget_of_a_linear_outcome(
    counter: TokenCounter,
) -> None:
    # Two bytes per unit of budget and ten around them: (100 - 10) / 2 fit into 100.
    assert largest_fitting(lambda budget: "xy" * budget + "z" * 10, 100, counter) == (
        "xy" * 45 + "z" * 10,
        100,
    )


def test_largest_fitting_of_what_never_fits_is_none(counter: TokenCounter) -> None:
    assert largest_fitting(lambda _: "x" * 11, 10, counter) is None


def test_token_counter_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must name the judge's tokenizer"):
        TokenCounter(tmp_path / "tokenizer.json")


def test_token_counter_other_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="not a tokenizer"):
        TokenCounter(tmp_path / "tokenizer.json")
