"""Why an arm decided as it did: medians, draws, floors and what is larger than a budget."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import xxhash
from explained_runs import write_explained_run
from small_run import ARM, HELD_OUT, SmallRecord, record_id

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.explain.decided_records import Decided
from mira_megatron.explain.explanation import Explanation, explain
from mira_megatron.retention import selection
from mira_megatron.stage import Resources, Run, run_unit


def decision_on(found: Explanation) -> Decided:
    (arm,) = found.arms
    assert arm.decided is not None
    return arm.decided


def tie(number: int) -> int:
    return xxhash.xxh3_64_intdigest(f"7:{record_id('wiki', number)}".encode())


def under_arm(recipe: Recipe, **settings: Any) -> Recipe:
    """Has the records be selected by an arm with other settings, and returns its recipe."""
    changed = load_recipe(recipe.path, [f"arms.{ARM}.{key}={settings[key]}" for key in settings])
    shutil.rmtree(recipe.run_folder / layout.keep(ARM))
    (unit,) = selection.units(changed)
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    return changed


def test_record_without_a_score_is_ranked_at_the_median_of_its_source(tmp_path: Path) -> None:
    records = [
        HELD_OUT,
        *(SmallRecord(text=f"text {number}", score=float(number)) for number in range(1, 6)),
        *(SmallRecord(text=f"none {number}", score=None, reason="unparsed") for number in (1, 2)),
    ]
    recipe = write_explained_run(tmp_path, {"wiki": records}, budget_tokens=40)
    recipe = under_arm(recipe, nulls="source_median")
    # 5, 4, then three at the median of 3, in tie order: two of these are kept.
    by_tie = sorted((3, 6, 7), key=lambda number: tie(number))
    for place, number in enumerate(by_tie, start=3):
        decided = decision_on(explain(recipe, record_id("wiki", number)))
        assert (decided.ranked_by, decided.score_minus_cutoff) == (3.0, 0.0)
        assert decided.why == ("above_cutoff" if place <= 4 else "tie")
        assert decided.distance is not None
        assert (decided.distance.rank, decided.distance.num_ranked) == (place, 7)
        assert decided.distance.num_equal == 3


def test_record_without_a_score_is_kept_because_it_was_drawn(tmp_path: Path) -> None:
    unscored = [SmallRecord(text=f"n{n}", score=None, reason="unparsed") for n in range(12)]
    scored = [SmallRecord(text=f"t{n}", score=float(n)) for n in range(4)]
    recipe = write_explained_run(
        tmp_path, {"wiki": [HELD_OUT, *scored, *unscored]}, budget_tokens=80
    )
    recipe = under_arm(recipe, nulls="keep_random_share")
    found = [decision_on(explain(recipe, record_id("wiki", number))) for number in range(5, 17)]
    assert {(each.decision, each.why) for each in found} == {
        ("kept", "drawn"),
        ("no_score", "unparsed"),
    }
    assert {each.distance for each in found} == {None}


@pytest.mark.parametrize("nulls", ["drop", "keep_random_share"])
def test_where_floors_spend_the_budget_nothing_is_said_of_a_cut_by_rank(
    tmp_path: Path, nulls: str
) -> None:
    none = SmallRecord(text="none", score=None, reason="unparsed", num_tokens=1)
    sources = {
        "wiki": [HELD_OUT, SmallRecord(text="low", score=2.0), none],
        "code": [
            HELD_OUT,
            *(SmallRecord(text=f"{score}", score=score) for score in (9.0, 2.0, 1.0)),
        ],
    }
    recipe = write_explained_run(tmp_path, sources, budget_tokens=15, scope="global")
    recipe = under_arm(recipe, nulls=nulls, floor_tokens="{wiki: 11}")
    reserved = decision_on(explain(recipe, record_id("wiki", 1)))
    assert (reserved.is_kept, reserved.why, reserved.is_cutoff_of_floors) == (
        True,
        "reserved",
        True,
    )
    for number in (1, 2, 3):  # above, at and below the cutoff of what is reserved
        decided = decision_on(explain(recipe, record_id("code", number)))
        assert (decided.is_kept, decided.why, decided.cutoff) == (False, "behind_floors", 2.0)


def test_record_larger_than_the_budget_keeps_all_behind_it_out(tmp_path: Path) -> None:
    records = [
        HELD_OUT,
        SmallRecord(text="big", score=9.0, num_tokens=50),
        SmallRecord(text="small", score=6.0),
    ]
    recipe = write_explained_run(tmp_path, {"wiki": records}, budget_tokens=20)
    found = [decision_on(explain(recipe, record_id("wiki", number))) for number in (1, 2)]
    assert [(each.why, each.cutoff) for each in found] == [("nothing_fits", None)] * 2
    assert not any(each.is_cutoff_of_floors for each in found)
