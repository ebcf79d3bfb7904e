from __future__ import annotations

import json

import numpy as np
from contamination_scans import SOLUTION, buffer_of
from hypothesis import given
from hypothesis import strategies as st
from plain_contamination import plain_tokens

from mira_megatron.eval.contamination.code_tokens import (
    ngrams,
    ngrams_at,
    running_sums,
    text_tokens,
    tokens_of,
)

SPACES = "\xa0\u2019\u206f\u2070\u3000\ufeff"
TEXTS = st.text(st.sampled_from("aAbnrt_09 \n\t\\'\"`(.é文" + SPACES), max_size=60)


@given(TEXTS)
def test_tokens_are_those_of_a_regular_expression(text: str) -> None:
    tokens = text_tokens(text)
    expected = plain_tokens(text)
    assert list(zip(tokens.start_T, tokens.end_T, strict=True)) == [
        (start, end) for _, start, end in expected
    ]
    by_hash = dict(zip(tokens.hash_T.tolist(), (token for token, _, _ in expected), strict=True))
    assert len(by_hash) == len({token for token, _, _ in expected})
    assert [by_hash[each] for each in tokens.hash_T.tolist()] == [each[0] for each in expected]


@given(st.lists(TEXTS, max_size=6))
def test_documents_of_one_buffer_have_the_tokens_of_each_alone(texts: list[str]) -> None:
    content, offsets = buffer_of(texts)
    together = tokens_of(content, offsets[:-1])
    alone = [each for text in texts for each in text_tokens(text).hash_T.tolist()]
    assert together.hash_T.tolist() == alone


@given(TEXTS, st.integers(1, 5))
def test_equal_ngrams_have_equal_hashes_wherever_they_stand(text: str, length: int) -> None:
    tokens = text_tokens(text)
    sums = running_sums(tokens.hash_T)
    found = ngrams(sums, length)
    words = [token for token, _, _ in plain_tokens(text)]
    grams = [tuple(words[at : at + length]) for at in range(len(words) - length + 1)]
    assert len(found) == len(grams)
    assert len(set(zip(grams, found.tolist(), strict=True))) == len(set(grams))
    assert len(set(found.tolist())) == len(set(grams))
    rows = np.arange(len(found))[::-1]
    assert ngrams_at(sums, length, rows).tolist() == found[::-1].tolist()


def test_code_inside_of_json_has_the_tokens_of_the_code() -> None:
    inside = json.dumps(SOLUTION)[1:-1]
    twice = json.dumps(inside)[1:-1]
    expected = text_tokens(SOLUTION).hash_T.tolist()
    assert text_tokens(inside).hash_T.tolist() == expected
    assert text_tokens(twice).hash_T.tolist() == expected


def test_an_escape_does_not_reach_into_the_next_document() -> None:
    content, offsets = buffer_of(["a\\", "next"])
    assert tokens_of(content, offsets[:-1]).start_T.tolist() == [0, 2]


def test_upper_case_and_quotes_make_no_difference_and_underscores_do() -> None:
    left, right = text_tokens("Select 'x'"), text_tokens('SELECT "X"')
    assert left.hash_T.tolist() == right.hash_T.tolist()
    assert text_tokens("max_len").hash_T.tolist() != text_tokens("maxlen").hash_T.tolist()


def test_a_web_pages_spaces_and_quotes_hide_no_copy() -> None:
    text = "He doesn't return x - 1, and that is why the rest of it fails"
    page = text.replace("'", "\u2019").replace(" ", "\xa0").replace("return", "\u200breturn")
    assert text_tokens(page).words().hash_T.tolist() == text_tokens(text).words().hash_T.tolist()
    indented = SOLUTION.replace("    ", "\xa0 \xa0 ")
    assert text_tokens(indented).hash_T.tolist() == text_tokens(SOLUTION).hash_T.tolist()
