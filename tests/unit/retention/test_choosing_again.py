"""A choice made again for sources whose scores are others now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import CANDIDATES, CORPUS, GROUPS, HALF, Scored, chosen, documents, kept_ids

from mira_megatron.retention.arms import ArmConfig
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.choosing import Choice, EarlierChoice, choose

ARMS = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["global", "group", "source"]),
        "nulls": st.sampled_from(["drop", "keep_random_share", "source_median"]),
        "unspent": st.sampled_from(["leave", "share"]),
        "shares": st.sampled_from(["proportional", "equal"]),
        "floor_tokens": st.sampled_from([{}, {"wiki": 3}, {"code": 4}]),
        "cap_tokens": st.sampled_from([{}, {"code": 5}, {"books": 6}]),
    }
)


def rescored(entry: SourceDocuments, scored: list[Scored]) -> SourceDocuments:
    """The same documents with the scores of others, over and over."""
    scores = [scored[number % len(scored)][0] for number in range(len(entry.tokens_D))]
    return replace(
        entry,
        scores_D=np.array([score or 0 for score in scores], np.float32),
        is_scored_D=np.array([score is not None for score in scores]),
    )


def as_tuple(choice: Choice) -> Any:
    masks = {source: each.times_D.tolist() for source, each in choice.sources.items()}
    told = {source: each.decisions_D.tolist() for source, each in choice.sources.items()}
    return masks, told, dict(choice.cuts)


@settings(max_examples=200)
@given(CORPUS, CORPUS, st.sets(st.sampled_from(sorted(GROUPS))), ARMS, st.integers(8, 60))
def test_choice_made_again_equals_one_made_anew(
    corpus: dict[str, list[Scored]],
    others: dict[str, list[Scored]],
    names: set[str],
    arm: dict[str, Any],
    budget_tokens: int,
) -> None:
    before = [documents(source, *scored) for source, scored in corpus.items()]
    after = [
        rescored(entry, others[entry.source]) if entry.source in names else entry
        for entry in before
    ]
    arm = {**arm, "budget_tokens": budget_tokens}
    earlier = EarlierChoice(choice=chosen(before, **arm), rescored=names)
    again = choose(
        after,
        ArmConfig(score="s", **arm),
        seed=1,
        groups=GROUPS,
        pinned=(),
        budget_tokens=budget_tokens,
        where="recipe.yaml: arms.a",
        earlier=earlier,
    )
    assert as_tuple(again) == as_tuple(chosen(after, **arm))


def test_choice_made_again_ranks_only_the_scopes_of_what_changed() -> None:
    first = chosen(CANDIDATES, "source", HALF)
    wiki = documents("wiki", (1.0, 5), (7.0, 5))
    corpus = [wiki if entry.source == "wiki" else entry for entry in CANDIDATES]
    again = choose(
        corpus,
        ArmConfig(score="s", scope="source", budget_tokens=1),
        seed=1,
        groups=GROUPS,
        pinned=(),
        budget_tokens=HALF,
        where="recipe.yaml: arms.a",
        earlier=EarlierChoice(choice=first, rescored={"wiki"}),
    )
    assert kept_ids(corpus, again) == {"books0", "wiki1", "code0", "code1"}
    assert again.cuts["code"] is first.cuts["code"]
    assert again.cuts["wiki"] is not first.cuts["wiki"]
