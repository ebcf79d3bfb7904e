from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.retention.budgets import (
    Ranked,
    Repeats,
    shared_budgets,
    times_within_budget,
)

# Score, tokens, tie value.
Document = tuple[float, int, int]

# Few distinct scores, so that ties are the rule; tie values differ, as hashes of ids do.
DOCUMENTS = st.lists(
    st.tuples(st.sampled_from([0.0, 2.5, 7.0]), st.integers(0, 9), st.integers(0, 99)),
    max_size=12,
    unique_by=lambda document: document[2],
)


def keep(documents: list[Document], budget_tokens: int) -> tuple[list[bool], Ranked]:
    times_D, cut = times(documents, budget_tokens)
    return [seen > 0 for seen in times_D], cut


def times(
    documents: list[Document], budget_tokens: int, repeats: Repeats | None = None
) -> tuple[list[int], Ranked]:
    scores, tokens, ties = zip(*documents, strict=True) if documents else ((), (), ())
    ties_D = np.array(ties, dtype=np.uint64)
    found = times_within_budget(
        np.array(scores, dtype=np.float32),
        np.array(tokens, dtype=np.int64),
        lambda positions: ties_D[positions],
        budget_tokens,
        repeats,
    )
    return found.times_D.tolist(), found


def ranked(documents: list[Document]) -> list[int]:
    """Positions of the documents, best first."""
    ranks = [(-score, tie, position) for position, (score, _, tie) in enumerate(documents)]
    return [position for _, _, position in sorted(ranks)]


def longest_prefix(documents: list[Document], budget_tokens: int) -> list[int]:
    """The positions to be kept, found by trying every prefix of the ranking."""
    ranking = ranked(documents)
    fitting = [
        ranking[:length]
        for length in range(len(ranking) + 1)
        if sum(documents[position][1] for position in ranking[:length]) <= budget_tokens
    ]
    return max(fitting, key=len)


def test_keep_takes_the_best_scores_that_fit_the_budget() -> None:
    is_kept, cut = keep([(1.0, 10, 0), (9.0, 10, 1), (5.0, 10, 2)], 20)
    assert is_kept == [False, True, True]
    assert (cut.num_kept, cut.tokens_kept, cut.cutoff, cut.first_out) == (2, 20, 5.0, 0)


def test_keep_lets_no_lower_document_fill_the_gap() -> None:
    is_kept, cut = keep([(9.0, 10, 0), (8.0, 15, 1), (7.0, 1, 2)], 20)
    assert is_kept == [True, False, False]
    assert (cut.tokens_kept, cut.first_out) == (10, 1)


def test_keep_breaks_equal_scores_by_the_lowest_tie_value() -> None:
    is_kept, cut = keep([(5.0, 10, 30), (5.0, 10, 10), (5.0, 10, 20)], 20)
    assert is_kept == [False, True, True]
    assert (cut.cutoff, cut.first_out) == (5.0, 0)


def test_keep_orders_tie_values_above_two_to_the_63() -> None:
    is_kept, _ = keep([(5.0, 10, 2**64 - 1), (5.0, 10, 2**63), (5.0, 10, 1)], 20)
    assert is_kept == [False, True, True]


def test_keep_under_a_budget_of_zero_takes_nothing() -> None:
    is_kept, cut = keep([(9.0, 10, 0)], 0)
    assert is_kept == [False]
    assert (cut.tokens_kept, cut.cutoff, cut.first_out) == (0, None, 0)


def test_keep_under_a_budget_above_everything_takes_every_scored_document() -> None:
    is_kept, cut = keep([(9.0, 10, 0), (1.0, 10, 1)], 10**15)
    assert is_kept == [True, True]
    assert (cut.tokens_kept, cut.cutoff, cut.first_out) == (20, 1.0, None)


def test_keep_of_one_document_larger_than_the_budget_takes_nothing() -> None:
    is_kept, cut = keep([(9.0, 21, 0), (1.0, 5, 1)], 20)
    assert is_kept == [False, False]
    assert (cut.num_kept, cut.first_out) == (0, 0)


def test_keep_counts_tokens_beyond_32_bits() -> None:
    is_kept, cut = keep([(3.0, 2**40, 0), (2.0, 2**40, 1), (1.0, 2**40, 2)], 2**41)
    assert is_kept == [True, True, False]
    assert cut.tokens_kept == 2**41


def test_keep_of_no_documents_is_empty() -> None:
    is_kept, cut = keep([], 100)
    assert is_kept == []
    assert (cut.num_kept, cut.tokens_kept, cut.cutoff, cut.first_out) == (0, 0, None, None)


@settings(deadline=None)
@given(documents=DOCUMENTS, budget_tokens=st.integers(0, 60))
def test_keep_is_the_longest_prefix_of_the_full_sort_that_fits(
    documents: list[Document], budget_tokens: int
) -> None:
    expected = longest_prefix(documents, budget_tokens)
    is_kept, cut = keep(documents, budget_tokens)
    assert [position for position, kept in enumerate(is_kept) if kept] == sorted(expected)
    assert cut.num_kept == len(expected)
    assert cut.tokens_kept == sum(documents[position][1] for position in expected) <= budget_tokens
    assert cut.cutoff == (documents[expected[-1]][0] if expected else None)
    left_out = ranked(documents)[len(expected) :]
    assert cut.first_out == (left_out[0] if left_out else None)


@settings(deadline=None)
@given(documents=DOCUMENTS, budget_tokens=st.integers(0, 60), data=st.data())
def test_keep_does_not_depend_on_the_order_of_documents(
    documents: list[Document], budget_tokens: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(documents))
    kept, kept_shuffled = (
        {ordered[position] for position, keep in enumerate(keep(ordered, budget_tokens)[0]) if keep}
        for ordered in (documents, shuffled)
    )
    assert kept == kept_shuffled


def test_shared_budgets_are_in_proportion_to_the_weights() -> None:
    assert shared_budgets(100, {"code": 600, "math": 200}) == {"code": 75, "math": 25}


def test_shared_budgets_round_down_to_whole_tokens() -> None:
    assert shared_budgets(100, {"a": 1, "b": 1, "c": 1}) == {"a": 33, "b": 33, "c": 33}


def test_shared_budgets_of_nothing_to_train_on_are_zero() -> None:
    assert shared_budgets(100, {"a": 0, "b": 0}) == {"a": 0, "b": 0}


@settings(deadline=None)
@given(
    budget_tokens=st.integers(0, 10**12),
    candidate_tokens=st.dictionaries(
        st.sampled_from("abcdef"), st.integers(0, 10**12), min_size=1
    ).filter(lambda tokens: sum(tokens.values()) > 0),
)
def test_shared_budgets_are_exact_shares_that_never_exceed_the_budget(
    budget_tokens: int, candidate_tokens: dict[str, int]
) -> None:
    budgets = shared_budgets(budget_tokens, candidate_tokens)
    total = sum(candidate_tokens.values())
    assert budgets.keys() == candidate_tokens.keys()
    assert budget_tokens - len(budgets) < sum(budgets.values()) <= budget_tokens
    for scope, tokens in candidate_tokens.items():
        assert 0 <= Fraction(budget_tokens * tokens, total) - budgets[scope] < 1


def test_repeats_show_the_best_share_of_the_kept_tokens_again() -> None:
    documents: list[Document] = [(9.0 - rank, 10, rank) for rank in range(5)]
    seen, cut = times(documents, 60, Repeats(fraction=0.5, times=2))
    # Four documents hold 40 tokens, of which half are seen again: 60. A fifth would make 70.
    assert seen == [2, 2, 1, 1, 0]
    assert (cut.num_kept, cut.num_repeated, cut.tokens_kept) == (4, 2, 60)


def test_repeats_cut_no_document_at_the_limit_of_their_share() -> None:
    seen, cut = times([(9.0, 7, 0), (8.0, 3, 1)], 100, Repeats(fraction=0.5, times=3))
    assert seen == [1, 1]
    assert (cut.num_repeated, cut.tokens_kept) == (0, 10)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(0, 120), st.sampled_from([0.1, 0.3, 0.5, 1.0]), st.integers(2, 5))
def test_repeats_are_those_of_the_longest_prefix_that_fits(
    documents: list[Document], budget_tokens: int, fraction: float, number: int
) -> None:
    seen, cut = times(documents, budget_tokens, Repeats(fraction=fraction, times=number))
    ranking = ranked(documents)

    def passes(length: int) -> list[int]:
        """How often each of the first documents is seen, by the words of the rule."""
        room = Fraction(str(fraction)) * sum(documents[at][1] for at in ranking[:length])
        often, used = [], 0
        for position in ranking[:length]:
            used += documents[position][1]
            often.append(number if used <= room else 1)
        return often

    fitting = [
        length
        for length in range(len(ranking) + 1)
        if sum(
            often * documents[at][1]
            for often, at in zip(passes(length), ranking[:length], strict=True)
        )
        <= budget_tokens
    ]
    expected = [0] * len(documents)
    for often, position in zip(passes(max(fitting)), ranking, strict=False):
        expected[position] = often
    assert seen == expected
    assert cut.tokens_kept == sum(
        often * tokens for often, (_, tokens, _) in zip(seen, documents, strict=True)
    )
    assert cut.tokens_kept <= budget_tokens
