"""Floors, caps, shares, unspent budget and documents without a score, by hand and by property."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import (
    CANDIDATES,
    CORPUS,
    GROUPS,
    HALF,
    Scored,
    chosen,
    documents,
    kept,
    write_recipe,
)

from mira_megatron.config import load_recipe
from mira_megatron.retention.arms import SCOPES
from mira_megatron.retention.budgets import shared_budgets
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.selection import units
from mira_megatron.retention.ties import tie_values


def test_floor_reserves_the_best_of_its_source_before_the_ranking() -> None:
    # Without it all of code but the best would go: {books0, books1, wiki0, code0}.
    assert kept(CANDIDATES, "global", HALF, floor_tokens={"code": 10}) == {
        "books0",
        "books1",
        "code0",
        "code1",
    }


def test_floor_that_the_ranking_holds_anyway_changes_nothing() -> None:
    assert kept(CANDIDATES, "global", HALF, floor_tokens={"books": 10}) == kept(
        CANDIDATES, "global", HALF
    )


def test_floor_is_a_budget_that_no_document_exceeds() -> None:
    choice = chosen(CANDIDATES, "global", HALF, floor_tokens={"code": 14})
    assert choice.sources["code"].tokens_reserved == 10
    assert choice.sources["code"].num_reserved == 2


def test_floor_raises_its_scope_above_its_share_and_the_others_give() -> None:
    cuts = chosen(CANDIDATES, "group", HALF, floor_tokens={"code": 15}).cuts
    assert {scope: cut.budget_tokens for scope, cut in cuts.items()} == {
        "text-code": 15,
        "text-prose": 5,
    }


def test_floor_above_what_its_source_has_reserves_no_more_than_that() -> None:
    cuts = chosen(CANDIDATES, "source", HALF, floor_tokens={"wiki": 19}).cuts
    assert {scope: cut.budget_tokens for scope, cut in cuts.items()} == {
        "books": 3,
        "code": 6,
        "wiki": 10,
    }


def test_cap_keeps_the_best_of_its_source_and_the_next_ranked_take_its_place() -> None:
    choice = chosen(CANDIDATES, "global", HALF, cap_tokens={"books": 5})
    assert kept(CANDIDATES, "global", HALF, cap_tokens={"books": 5}) == {
        "books0",
        "wiki0",
        "code0",
        "code1",
    }
    assert choice.sources["books"].decisions_D.tolist() == [Decision.KEPT, Decision.BEYOND_CAP]
    assert choice.cuts["all"].first_out == "code2"


@pytest.mark.parametrize(
    ("unspent", "budgets"),
    [
        ("leave", {"books": 7, "wiki": 7, "code": 15}),
        ("share", {"books": 8, "wiki": 5, "code": 16}),
    ],
)
def test_unspent_budget_is_left_or_shared_out(unspent: str, budgets: dict[str, int]) -> None:
    choice = chosen(CANDIDATES, "source", 30, cap_tokens={"wiki": 5}, unspent=unspent)
    assert {scope: cut.budget_tokens for scope, cut in choice.cuts.items()} == budgets


def test_equal_shares_do_not_look_at_tokens() -> None:
    choice = chosen(CANDIDATES, "source", 21, shares="equal")
    assert [cut.budget_tokens for cut in choice.cuts.values()] == [7, 7, 7]


def test_floors_beyond_a_budget_that_pinned_sources_leave_are_refused_with_both_sides() -> None:
    pinned = documents("notes", (None, 12))
    message = (
        r"recipe.yaml: arms.a: floor_tokens \(code 9\) add up to 9, more than the budget that is "
        r"left after pinned sources of 8. Lower the floors or raise the budget"
    )
    with pytest.raises(ValueError, match=message):
        chosen([*CANDIDATES, pinned], "group", 20, pinned=["notes"], floor_tokens={"code": 9})


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            {"floor_tokens": {"code": 9}, "cap_tokens": {"code": 8}},
            r"floor_tokens.code=9 is above cap_tokens.code=8",
        ),
        (
            {"floor_tokens": {"code": 60, "wiki": 50}},
            r"floor_tokens \(code 60, wiki 50\) add up to 110, more than the budget_tokens of 100",
        ),
        ({"pinned": ["wiki"], "excluded": ["wiki"]}, "wiki is pinned and excluded"),
        ({"pinned": ["wiki"], "floor_tokens": {"wiki": 1}}, "wiki is pinned and has floor_tokens"),
        ({"excluded": ["wiki"], "cap_tokens": {"wiki": 1}}, "wiki is excluded and has floor_"),
        ({"excluded": ["wikki"]}, r"excluded: no source 'wikki'. Did you mean 'wiki'"),
        ({"cap_tokens": {"wikki": 5}}, r"cap_tokens: no source 'wikki'. Did you mean 'wiki'"),
        ({"cap_tokens": {"wiki": 0}}, r"cap_tokens.wiki=0 < 1"),
        ({"shares": "even"}, "shares='even' must be one of proportional, equal"),
        ({"unspent": "keep"}, "unspent='keep' must be one of leave, share"),
        ({"nulls": "zero"}, "nulls='zero' must be one of drop, keep_random_share, source_median"),
        (
            {"repeat_fraction": 0.5, "repeat_times": 2, "cap_tokens": {"wiki": 5}},
            "repeat_times=2 beside floor_tokens, cap_tokens",
        ),
        (
            {"repeat_fraction": 0.5, "repeat_times": 2, "unspent": "share"},
            "repeat_times=2 beside unspent=share.*Give the arm unspent: leave, or no repeats",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    tmp_path: Path, arm: dict[str, Any], message: str
) -> None:
    arm = {"score": "given", "scope": "group", "budget_tokens": 100, **arm}
    path = write_recipe(tmp_path, {"mine": arm})
    with pytest.raises(ValueError, match=rf"recipe\.yaml: arms\.mine.*{message}"):
        units(load_recipe(path))


def test_arm_takes_what_it_does_not_say_from_select(tmp_path: Path) -> None:
    general = {"budget_tokens": 50, "nulls": "source_median", "floor_tokens": {"wiki": 1e1}}
    arms = {
        "own": {"score": "given", "scope": "group", "floor_tokens": {"code": 5}},
        "as_said": {"score": "given", "scope": "group"},
    }
    configs = {
        unit.name: unit.config
        for unit in units(load_recipe(write_recipe(tmp_path, arms, select=general)))
    }
    assert configs["own"]["floor_tokens"] == {"code": 5}
    assert configs["as_said"]["floor_tokens"] == {"wiki": 10}
    assert {config["nulls"] for config in configs.values()} == {"source_median"}


def test_pinned_and_excluded_sources_are_not_ranked(tmp_path: Path) -> None:
    arm = {"score": "given", "scope": "group", "budget_tokens": 100}
    arm |= {"pinned": ["wiki"], "excluded": ["code"]}
    (unit,) = units(load_recipe(write_recipe(tmp_path, {"mine": arm})))
    assert "record_scores/given/books" in unit.upstream
    assert not {"record_scores/given/wiki", "record_scores/given/code"} & set(unit.upstream)
    assert unit.raw_inputs["sources pinned"] == "wiki"
    assert unit.raw_inputs["sources left_out"] == "code"


@pytest.mark.parametrize("seed", range(8))  # so that a tie would be broken either way
def test_source_median_ranks_the_unscored_at_the_lower_of_two_middle_scores(seed: int) -> None:
    corpus = [documents("books", (9.0, 5), (1.0, 5), (4.0, 5), (3.0, 5), (None, 5))]

    def best(budget_tokens: int) -> set[str]:
        return kept(corpus, "source", budget_tokens, seed=seed, nulls="source_median")

    # The median is 3: behind 4, level with 3 by the tie rule, ahead of 1.
    assert best(10) == {"books0", "books2"}
    assert best(20) == {"books0", "books2", "books3", "books4"}


def test_source_median_of_a_source_without_any_score_keeps_nothing() -> None:
    corpus = [documents("books", (None, 5), (None, 5))]
    choice = chosen(corpus, "source", 10, nulls="source_median")
    assert choice.sources["books"].decisions_D.tolist() == [Decision.NO_SCORE] * 2


def drawn(entry: SourceDocuments, scored_tokens_kept: int) -> set[int]:
    """Which unscored documents are drawn, from the definition; seed 1."""
    scored_tokens = int(entry.tokens_D[entry.is_scored_D].sum())
    ties = tie_values(entry.record_ids, 1)
    return {
        int(at)
        for at in np.flatnonzero(~entry.is_scored_D)
        if int(ties[at]) * scored_tokens < scored_tokens_kept * 2**64
    }


def test_random_share_draws_each_unscored_document_by_its_own_tie_value() -> None:
    scored = [(float(number), 10) for number in range(8)]
    (corpus,) = [documents("books", *scored, *[(None, 1)] * 40)]
    # 40 of the 80 scored tokens are kept, and so what has its tie value in the lower half.
    expected = drawn(corpus, 40)
    choice = chosen([corpus], "source", 40 + len(expected), nulls="keep_random_share")
    times_D = choice.sources["books"].times_D
    assert times_D[:8].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert set(np.flatnonzero(times_D[8:]) + 8) == expected
    assert 10 < len(expected) < 30
    assert choice.cuts["books"].tokens_kept == 40 + len(expected)


def test_random_share_keeps_long_documents_as_often_as_short_ones() -> None:
    # A 100 times as long as others, and alone more than half of the unscored tokens.
    scored = [(float(number), 100) for number in range(100)]
    corpus = documents("books", *scored, (None, 500), *[(None, 5)] * 60)
    kept_D = np.zeros(len(corpus.tokens_D))
    for seed in range(200):
        choice = chosen([corpus], "source", 5400, seed=seed, nulls="keep_random_share")
        kept_D += choice.sources["books"].times_D
    # Half of 10,800 tokens. Of 200 draws with a chance of 1/2, 100 keep, give or take 7.
    assert 70 < kept_D[100] < 130
    assert 95 < kept_D[101:].mean() < 105


def test_random_share_of_all_scored_draws_all() -> None:
    corpus = documents("books", (9.0, 10), *[(None, 10)] * 6)
    choice = chosen([corpus], "source", 70, nulls="keep_random_share")
    assert choice.sources["books"].times_D.tolist() == [1] * 7


@settings(deadline=None)
@given(scored=st.lists(st.integers(1, 9), min_size=1, max_size=6), cap=st.integers(1, 60))
def test_cap_holds_what_is_drawn_and_nothing_shorter(scored: list[int], cap: int) -> None:
    ranked = [(9.0 - number, tokens) for number, tokens in enumerate(scored)]
    corpus = documents("books", *ranked, (None, 3), (None, 20), (None, 1))
    arm: dict[str, Any] = {"nulls": "keep_random_share", "cap_tokens": {"books": cap}}
    times_D = chosen([corpus], "source", 1000, **arm).sources["books"].times_D

    def with_drawn(length: int) -> int:
        tokens = sum(scored[:length])
        return tokens + sum(int(corpus.tokens_D[at]) for at in drawn(corpus, tokens))

    longest = max(n for n in range(len(scored) + 1) if with_drawn(n) <= cap)
    assert times_D[: len(scored)].tolist() == [1] * longest + [0] * (len(scored) - longest)
    assert int(np.dot(times_D, corpus.tokens_D)) == with_drawn(longest)


NULLS = st.sampled_from(["drop", "keep_random_share", "source_median"])
BOUNDS = st.dictionaries(st.sampled_from(list(GROUPS)), st.integers(1, 30))


@settings(deadline=None)
@given(
    corpus=CORPUS,
    scope=st.sampled_from(SCOPES),
    budget_tokens=st.integers(0, 120),
    nulls=NULLS,
    floors=BOUNDS,
    above=BOUNDS,
    shares=st.sampled_from(["proportional", "equal"]),
    unspent=st.sampled_from(["leave", "share"]),
)
def test_budget_floors_and_caps_hold(
    corpus: Mapping[str, list[Scored]],
    scope: str,
    budget_tokens: int,
    nulls: str,
    floors: dict[str, int],
    above: dict[str, int],
    shares: str,
    unspent: str,
) -> None:
    entries = [documents(name, *corpus[name]) for name in GROUPS]
    caps = {name: floors.get(name, 0) + more for name, more in above.items()}
    arm: dict[str, Any] = {"nulls": nulls, "shares": shares, "unspent": unspent}
    arm |= {"floor_tokens": floors, "cap_tokens": caps}
    try:
        choice = chosen(entries, scope, budget_tokens, **arm)
    except ValueError:
        if sum(floors.values()) > budget_tokens:
            return
        raise
    assert sum(cut.tokens_kept for cut in choice.cuts.values()) <= budget_tokens
    for cut in choice.cuts.values():
        assert cut.tokens_kept <= cut.budget_tokens
    for entry in entries:
        times_D = choice.sources[entry.source].times_D
        tokens = int(np.dot(entry.tokens_D, times_D))
        assert tokens <= caps.get(entry.source, tokens)
        # What it would keep alone within its floor, it keeps here.
        if (floor := floors.get(entry.source)) is not None:
            alone = chosen([entry], "source", floor, nulls=nulls).sources[entry.source].times_D
            is_ranked_D = entry.is_scored_D | (nulls == "source_median")
            assert not (is_ranked_D & (alone > times_D)).any()
            if nulls != "keep_random_share":
                assert tokens >= int(np.dot(entry.tokens_D, alone))


@settings(deadline=None)
@given(corpus=CORPUS, budget_tokens=st.integers(0, 120))
def test_random_share_is_the_longest_ranking_that_fits_with_what_it_draws(
    corpus: Mapping[str, list[Scored]], budget_tokens: int
) -> None:
    entries = {name: documents(name, *corpus[name]) for name in GROUPS}
    choice = chosen([*entries.values()], "global", budget_tokens, nulls="keep_random_share")
    ranking = sorted(
        (-float(entry.scores_D[at]), int(tie_values(entry.record_ids, 1)[at]), name, at)
        for name, entry in entries.items()
        for at in np.flatnonzero(entry.is_scored_D)
    )

    def with_share(length: int) -> int:
        tokens = dict.fromkeys(entries, 0)
        for _, _, name, at in ranking[:length]:
            tokens[name] += int(entries[name].tokens_D[at])
        return sum(
            kept + sum(int(entries[name].tokens_D[at]) for at in drawn(entries[name], kept))
            for name, kept in tokens.items()
        )

    longest = max(n for n in range(len(ranking) + 1) if with_share(n) <= budget_tokens)
    expected = {(name, at) for _, _, name, at in ranking[:longest]}
    assert {
        (name, at)
        for name, entry in entries.items()
        for at in np.flatnonzero(entry.is_scored_D & (choice.sources[name].times_D > 0))
    } == expected
    for name, entry in entries.items():
        times_D = choice.sources[name].times_D
        kept_scored = int(np.dot(entry.tokens_D, times_D * entry.is_scored_D))
        assert set(np.flatnonzero(~entry.is_scored_D & (times_D > 0))) == drawn(entry, kept_scored)


WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 50), min_size=1)


@settings(deadline=None)
@given(weights=WEIGHTS, budget_tokens=st.integers(0, 200), data=st.data())
def test_shared_budgets_are_the_only_shares_within_bounds(
    weights: dict[str, int], budget_tokens: int, data: st.DataObject
) -> None:
    floors = {
        scope: data.draw(st.integers(0, 40)) if weight else 0 for scope, weight in weights.items()
    }
    capacities = {scope: floor + data.draw(st.integers(0, 60)) for scope, floor in floors.items()}
    if sum(floors.values()) > budget_tokens:
        return
    found = shared_budgets(budget_tokens, weights, floors=floors, capacities=capacities)
    assert sum(found.values()) <= budget_tokens
    open_scopes = [scope for scope in weights if weights[scope]]
    for scope in open_scopes:
        assert floors[scope] <= found[scope] <= capacities[scope]
    # All is shared out, but for less than a token each, unless every capacity is reached.
    if any(found[scope] < capacities[scope] for scope in open_scopes):
        assert sum(found.values()) > budget_tokens - len(weights)
    # One level for all: who has more per weight than another is at its floor, or that one is full.
    for one in open_scopes:
        for other in open_scopes:
            if (found[one] - 1) * weights[other] > (found[other] + 1) * weights[one]:
                assert found[one] == floors[one] or found[other] == capacities[other]
