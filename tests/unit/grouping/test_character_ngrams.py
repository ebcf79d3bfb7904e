from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.grouping.character_ngrams import NUM_BUCKETS, batches, ngram_counts


def counted(text: str, *, fold_numbers: bool = False) -> dict[int, float]:
    counts = ngram_counts([text], fold_numbers=fold_numbers)
    assert counts.shape == (1, NUM_BUCKETS)
    assert counts.dtype == np.float32
    return dict(zip(counts.indices.tolist(), counts.data.tolist(), strict=True))


def expected_total(text: str) -> int:
    """How many groups of 2-4 characters there are in the words, each between two blanks."""
    return sum(
        max(0, len(word) + 2 - size + 1) for word in text.lower().split() for size in (2, 3, 4)
    )


def test_groups_of_a_word_are_counted_with_its_blanks() -> None:
    # " ab ": 3 pairs, 2 triples, 1 of four.
    assert sorted(counted("ab").values()) == [1.0] * 6
    # " aa ": the same, all different: _a, aa, a_, _aa, aa_, _aa_.
    assert sorted(counted("aa").values()) == [1.0] * 6
    # " aaa ": aa twice.
    assert sorted(counted("aaa").values()) == [*[1.0] * 7, 2.0]


def test_groups_do_not_span_words_or_texts() -> None:
    apart = ngram_counts(["ab", "cd"], fold_numbers=False)
    assert apart.sum(axis=1).tolist() == [6.0, 6.0]
    together = counted("ab cd")
    first, second = counted("ab"), counted("cd")
    assert together == {**first, **second}


def test_chinese_is_seen_by_pairs_of_characters() -> None:
    shared = counted("数据选择").keys() & counted("大数据").keys()
    assert len(shared) >= 1  # 数据
    assert not counted("数据").keys() & counted("模型").keys()


def test_case_and_kind_of_white_space_do_not_matter() -> None:
    assert counted("Return  Self\n") == counted("return\tself")


def test_numbers_are_one_when_folded() -> None:
    assert counted("7 of 12", fold_numbers=True) == counted("381 of 4", fold_numbers=True)
    assert counted("7 of 12") != counted("381 of 4")


def test_text_without_words_has_no_groups() -> None:
    assert ngram_counts(["", " \n", "a"], fold_numbers=False).sum(axis=1).tolist() == [0, 0, 3]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=4))
def test_every_text_is_counted_alone_and_whole(texts: list[str]) -> None:
    counts = ngram_counts(texts, fold_numbers=False)
    assert counts.sum(axis=1).tolist() == [expected_total(text) for text in texts]
    for text, row in zip(texts, range(len(texts)), strict=True):
        alone = ngram_counts([text], fold_numbers=False)
        assert (counts[[row]] != alone).nnz == 0


@given(st.lists(st.integers(0, 1_500_000), max_size=5))
def test_batches_hold_every_text_once_in_order(lengths: list[int]) -> None:
    texts = ["x" * length for length in lengths]
    found = list(batches(texts))
    assert list(itertools.chain.from_iterable(found)) == texts
    assert all(found)
