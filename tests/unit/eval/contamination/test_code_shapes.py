from __future__ import annotations

import json
import re

import numpy as np
import pytest
from contamination_scans import SOLUTION, buffer_of, hits, item
from hypothesis import given
from hypothesis import strategies as st
from plain_contamination import plain_shapes

from mira_megatron.eval.contamination.code_shapes import (
    shape_ngrams,
    shape_of,
    skeletons,
    text_shape,
)
from mira_megatron.eval.contamination.code_tokens import tokens_of
from mira_megatron.eval.contamination.items import Kind, TextForm
from mira_megatron.eval.contamination.ngram_index import NGRAM_TOKENS

NUM_TOKENS = NGRAM_TOKENS[TextForm.SHAPE]
SIGNS = ["for", "in", "row", "sum", "x", ".", "(", ")", "#", "//", "/", "\n", "\\n", "1", "é"]
RENAMED = re.sub(r"\brow\b", "line", re.sub(r"\btable\b", "t", SOLUTION.replace("found", "n")))


@given(st.lists(st.sampled_from(SIGNS), min_size=15, max_size=90))
def test_shapes_are_those_of_a_plain_reader(words: list[str]) -> None:
    text = " ".join(words)
    shape = text_shape(text)
    expected = [each for each, _ in plain_shapes(text)]
    found = shape_ngrams(shape, NUM_TOKENS, np.arange(max(0, len(shape.tokens) - NUM_TOKENS + 1)))
    assert len(found) == len(expected)
    pairs = set(zip(found.tolist(), expected, strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(expected))


@given(st.lists(st.sampled_from(SIGNS), min_size=30, max_size=60))
def test_equal_shapes_have_equal_skeletons(words: list[str]) -> None:
    shape = text_shape(" ".join(words * 2))
    rows = np.arange(max(0, len(shape.tokens) - NUM_TOKENS + 1))
    exact = shape_ngrams(shape, NUM_TOKENS, rows).tolist()
    rough = skeletons(shape, NUM_TOKENS).tolist()
    assert len(exact) == len(rough)
    assert len(set(zip(exact, rough, strict=True))) == len(set(exact))


def test_a_comment_ends_with_its_document() -> None:
    content, offsets = buffer_of(["a = 1 # of all", "b = 2"])
    shape = shape_of(content, tokens_of(content, offsets[:-1]), offsets[:-1])
    assert len(shape.tokens) == 6


@pytest.mark.parametrize(
    "copy",
    [
        RENAMED,
        "".join(f"{line}  # {line}\n" for line in RENAMED.splitlines()),
        "".join(f"{line}  // and so on\n" for line in SOLUTION.splitlines()),
        json.dumps("".join(f"{line}  # and so on\n" for line in RENAMED.splitlines())),
    ],
    ids=["renamed", "renamed and commented", "commented", "commented inside of JSON"],
)
def test_a_copy_with_other_variables_and_comments_has_the_same_shape(copy: str) -> None:
    found = shape_scores(copy)
    assert found["solution_shape"] == 1.0
    assert found.get("solution", 0.0) < 0.4


@pytest.mark.parametrize(
    ("old", "new"), [("sum(line)", "max(line)"), ("len(line)", "len(t)"), ("< limit", "> limit")]
)
def test_another_call_or_variable_is_another_shape(old: str, new: str) -> None:
    other = RENAMED.replace(old, new)
    assert other != RENAMED
    assert shape_scores(other)["solution_shape"] < 1.0


def shape_scores(text: str) -> dict[str, float]:
    found = hits([item("a", SOLUTION, kind=Kind.SOLUTION)], [text])
    return {"solution_shape": 0.0, **{hit["surface"]: hit["score"] for hit in found}}
