"""Columns of texts, whole and in part."""

from __future__ import annotations

import re
from itertools import pairwise

import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.tokenization.text_columns import (
    count_matches,
    starts_of,
    text_hashes,
    utf8_of,
)

TEXTS = st.lists(st.text(max_size=5) | st.sampled_from(["<a>", "<a", ">", "b<ab>"]), max_size=8)
PATTERN = re.compile(rb"<a>|<ab>|a><")


@given(texts=TEXTS, start=st.integers(0, 4))
def test_text_columns_give_the_texts_of_a_part_of_a_column(texts: list[str], start: int) -> None:
    part = pa.array(texts, pa.large_string()).slice(start)
    starts = starts_of(part).tolist()
    utf8 = utf8_of(part).tobytes()
    cut = [utf8[a:b].decode() for a, b in pairwise(starts)]
    assert cut == texts[start:]


@given(texts=TEXTS, start=st.integers(0, 4))
def test_text_hashes_are_those_of_each_text(texts: list[str], start: int) -> None:
    hashes = text_hashes(pa.array(texts, pa.large_string()).slice(start))
    expected = [xxhash.xxh3_128_digest(text.encode()) for text in texts[start:]]
    assert hashes.to_pylist() == expected


@given(texts=TEXTS, start=st.integers(0, 4))
def test_matches_are_counted_in_each_text_by_itself(texts: list[str], start: int) -> None:
    found = count_matches(PATTERN, pa.array(texts, pa.large_string()).slice(start))
    assert found == sum(len(PATTERN.findall(text.encode())) for text in texts[start:])


def test_a_match_over_a_seam_hides_none_that_begins_inside_it() -> None:
    # Together they read `a><ab>`: found first, `a><` is none, and would hide `<ab>`.
    assert count_matches(PATTERN, pa.array(["a>", "<ab>"], pa.large_string())) == 1
