"""The cut by histogram beside a plain sort of everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.retention.ranking import SORTED_AT_ONCE, Prefix, best_prefix

# Score, tokens, tie value.
Document = tuple[float, int, int]

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TIES = st.integers(0, 2**64 - 1)
# Those that a histogram could tell apart wrongly: signs of zero, neighbours, both ends.
NEAR = [0.0, -0.0, 1e-45, -1e-45, 5.0, float(np.nextafter(np.float32(5), np.float32(6)))]
NEAR += [-5.0, 3.4028234663852886e38, -3.4028234663852886e38]
SCORES = {
    "spread": st.floats(0, 10, width=32),
    "anything": FINITE,
    "five": st.sampled_from([0.0, 2.5, 5.0, 7.5, 10.0]),
    "near": st.sampled_from(NEAR),
    "equal": st.just(5.0),
}


def cut(
    documents: Sequence[Document], budget_tokens: int, *, sorted_at_once: int = 0
) -> tuple[list[int], Prefix]:
    """The positions kept, each digit of the key looked at."""
    scores = np.array([score for score, _, _ in documents], dtype=np.float32)
    tokens = np.array([tokens for _, tokens, _ in documents], dtype=np.int64)
    ties_D = np.array([tie for _, _, tie in documents], dtype=np.uint64)

    def ties(positions: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        assert np.all(np.diff(positions) > 0)
        return ties_D[positions]

    found = best_prefix(scores, tokens, ties, budget_tokens, sorted_at_once=sorted_at_once)
    return np.flatnonzero(found.is_kept_K).tolist(), found


def plain_cut(documents: Sequence[Document], budget_tokens: int) -> tuple[list[int], list[int]]:
    """The positions kept and those left out, best first, by sorting everything."""
    ranking = sorted(
        range(len(documents)), key=lambda at: (-np.float32(documents[at][0]), documents[at][2])
    )
    used = 0
    for length, position in enumerate(ranking):
        used += documents[position][1]
        if used > budget_tokens:
            return ranking[:length], ranking[length:]
    return ranking, []


def check(documents: Sequence[Document], budget_tokens: int) -> None:
    expected, left_out = plain_cut(documents, budget_tokens)
    for sorted_at_once in (0, 3, SORTED_AT_ONCE):
        kept, found = cut(documents, budget_tokens, sorted_at_once=sorted_at_once)
        assert kept == sorted(expected)
        assert found.num_kept == len(expected)
        assert found.tokens_kept == sum(documents[at][1] for at in expected)
        assert found.first_out == (left_out[0] if left_out else None)
        assert found.cutoff == (np.float32(documents[expected[-1]][0]) if expected else None)


@pytest.mark.parametrize("kind", SCORES)
@settings(deadline=None)  # on a busy machine any example may be slow
@given(data=st.data())
def test_cut_is_that_of_a_full_sort(kind: str, data: st.DataObject) -> None:
    document = st.tuples(SCORES[kind], st.integers(0, 9), TIES)
    documents = data.draw(st.lists(document, max_size=40, unique_by=lambda each: each[2]))
    check(documents, data.draw(st.integers(0, 1 + sum(tokens for _, tokens, _ in documents))))


@given(st.lists(st.tuples(SCORES["five"], st.integers(0, 2**60), TIES), max_size=7))
def test_cut_counts_more_tokens_than_float64_can(documents: list[Document]) -> None:
    documents = [*{tie: (score, tokens, tie) for score, tokens, tie in documents}.values()]
    total = sum(tokens for _, tokens, _ in documents)
    for budget_tokens in (total, total - 1, total // 2, total // 2 + 1):
        check(documents, max(budget_tokens, 0))


@pytest.mark.parametrize("budget_tokens", [0, 1, 4, 5, 10**18])
@pytest.mark.parametrize("documents", [[], [(5.0, 5, 1)], [(-1.0, 0, 1)]])
def test_cut_of_at_most_one_document(documents: list[Document], budget_tokens: int) -> None:
    check(documents, budget_tokens)


@pytest.mark.parametrize("values", [[5.0], [1.0, 2.0, 3.0, 4.0, 5.0], None])
def test_cut_of_more_than_is_sorted_at_once(values: list[float] | None) -> None:
    generator = np.random.default_rng(7)
    num = 5 * SORTED_AT_ONCE
    scores = generator.random(num) * 10 if values is None else generator.choice(values, num)
    tokens, ties = generator.integers(0, 50, num), generator.permutation(num) * 2**49
    documents = list(
        zip(scores.astype(np.float32).tolist(), tokens.tolist(), ties.tolist(), strict=True)
    )
    check(documents, int(tokens.sum()) // 3)


def test_cut_asks_for_tie_values_near_the_cut_only() -> None:
    asked: list[int] = []

    def ties(positions: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        asked.extend(positions.tolist())
        return positions.astype(np.uint64)

    scores = np.random.default_rng(0).random(100_000, dtype=np.float32)
    best_prefix(scores, np.ones(100_000, dtype=np.int64), ties, 50_000)
    assert 0 < len(asked) <= SORTED_AT_ONCE


def test_cut_refuses_what_is_no_number() -> None:
    with pytest.raises(AssertionError):
        cut([(float("nan"), 1, 1), (1.0, 1, 2)], 1)
