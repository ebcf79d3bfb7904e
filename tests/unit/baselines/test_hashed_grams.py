from __future__ import annotations

import numpy as np
import pytest
from data_selection.hashed_ngram_dsir import get_ngram_counts
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.baselines import hashed_grams
from mira_megatron.baselines.hashed_grams import HashedGrams, num_words, words_of

NUM_BUCKETS = 97
# Few words, so that pairs come again; signs that WordPunct cuts in its own way; any other text.
WORDS = st.lists(st.sampled_from(["def", "f", "x", "(x):", "İ", "ß", "\n", "n°1", "...", "_a"]))
TEXTS = st.lists(st.one_of(WORDS.map(" ".join), st.text()), max_size=8)


@settings(deadline=None)
@given(TEXTS)
def test_counts_equal_those_of_the_package(texts: list[str]) -> None:
    ours = list(HashedGrams(NUM_BUCKETS).counts(texts))
    theirs = [get_ngram_counts(text, num_buckets=NUM_BUCKETS) for text in texts]
    assert len(ours) == len(theirs)
    for own, their in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(own, their)


@settings(deadline=None)
@given(TEXTS.map("ΑΣ ".join), st.integers(1, 9))
def test_text_in_pieces_counts_as_whole(text: str, piece_chars: int) -> None:
    grams = HashedGrams(NUM_BUCKETS)
    (whole,) = grams.counts_of_words([words_of(text)])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hashed_grams, "_PIECE_CHARS", piece_chars)
        (in_pieces,) = grams.counts([text])
    np.testing.assert_array_equal(in_pieces, whole)


def test_counts_across_batches_and_forgetting_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [f"a b c {number} a b" for number in range(50)]
    at_once = list(HashedGrams(NUM_BUCKETS).counts(texts))
    monkeypatch.setattr(hashed_grams, "_BATCH_CHARS", 40)
    monkeypatch.setattr(hashed_grams, "_MOST_REMEMBERED", 20)
    np.testing.assert_array_equal(list(HashedGrams(NUM_BUCKETS).counts(texts)), at_once)


@settings(deadline=None)
@given(st.text(min_size=1))
def test_num_words_is_what_was_counted(text: str) -> None:
    (counts,) = HashedGrams(NUM_BUCKETS).counts([text])
    assert num_words(counts) == len(words_of(text))


def test_pairs_do_not_reach_into_the_next_text() -> None:
    apart = sum(HashedGrams(10_000).counts(["left", "right"]))
    (together,) = HashedGrams(10_000).counts(["left right"])
    assert (together - apart).sum() == 1
