"""Undecided reliability cells the other way round, by the stage as it is run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from masked_runs import (
    ARM,
    COUNTS,
    FLIPPED,
    MASKED,
    OPEN_COUNTS,
    OPEN_MASKED,
    Rated,
    RatedSource,
    flipped,
    kept,
    made,
)

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.pipeline import stage_units
from mira_megatron.retention.flips import FLIP_SCHEMA
from mira_megatron.retention.sensitivity import units
from mira_megatron.stage import Run, unit_state

HALF = {"budget_fraction": 0.5}
# By its first two anchors the first document is best, by all three the last one.
BY_TWO = RatedSource(
    group="text-prose",
    cells=(COUNTS, COUNTS, OPEN_MASKED),
    documents=(
        Rated(num_tokens=10, ratings=(9, 9, 0)),
        Rated(num_tokens=10, ratings=(8, 8, 2)),
        Rated(num_tokens=10, ratings=(7, 7, 10)),
        Rated(num_tokens=10, ratings=(1, 1, 1)),
    ),
)
CERTAIN = RatedSource(
    group="text-code",
    cells=(COUNTS, COUNTS),
    documents=tuple(Rated(num_tokens=10, ratings=(score, score)) for score in (9, 8, 2, 1)),
)


def test_sensitivity_tells_what_one_undecided_cell_would_change(tmp_path: Path) -> None:
    sources = {"wiki": BY_TWO, "code": CERTAIN}
    recipe = made(tmp_path, sources, HALF)
    assert kept(recipe, sources) == {"wiki": {0, 1}, "code": {0, 1}}
    (one, joint), manifest = flipped(recipe)
    # Means of the three: 6, 6, 8 and 1. Of the first two one is kept, by the tie rule.
    assert (one["is_joint"], one["source"], one["anchor_id"]) == (False, "wiki", "A3")
    assert (one["group"], one["anchor_name"], one["is_masked"]) == ("text-prose", "Anchor 3", True)
    assert (one["n"], one["mae"], one["mae_low"], one["mae_high"]) == (40, 1.1, 0.9, 1.3)
    changed = {
        "num_entering": 1,
        "tokens_entering": 10,
        "num_leaving": 1,
        "tokens_leaving": 10,
    }
    whole = {"tokens_kept": 40, "tokens_kept_flipped": 40, "changed_fraction": 0.25}
    of_wiki = {"tokens_kept": 20, "tokens_kept_flipped": 20, "changed_fraction": 0.5}
    for row in (one, joint):
        assert {name: row[name] for name in (*changed, *whole)} == {**changed, **whole}
        assert row["by_source"] == [{"source": "wiki", **changed, **of_wiki}]
        assert row["reason"] is None
    assert joint["is_joint"]
    assert (joint["source"], joint["anchor_id"], joint["is_masked"]) == (None, None, None)
    assert (manifest.counts.num_in, manifest.counts.num_out) == (30, 1)
    assert manifest.counts.totals == {
        "max_changed_fraction": 0.25,
        "joint_changed_fraction": 0.25,
    }


def test_sensitivity_names_the_sources_that_compete_with_the_one_flipped(tmp_path: Path) -> None:
    scores = (9, 8, 6.5, 1)
    code = replace(
        CERTAIN, documents=tuple(Rated(num_tokens=10, ratings=(at, at)) for at in scores)
    )
    sources = {"wiki": BY_TWO, "code": code}
    recipe = made(tmp_path, sources, {**HALF, "scope": "global"})
    assert kept(recipe, sources) == {"wiki": {0, 1}, "code": {0, 1}}
    (one, _), _ = flipped(recipe)
    # 9 and 8 and 6.5 of `code` then go with one 8 of `wiki`, whose two 6 are behind.
    assert [
        (each["source"], each["num_entering"], each["num_leaving"]) for each in one["by_source"]
    ] == [
        ("code", 1, 0),
        ("wiki", 1, 2),
    ]
    assert one["changed_fraction"] == 0.5


def test_sensitivity_of_two_cells_is_told_one_by_one_and_together(tmp_path: Path) -> None:
    wiki = RatedSource(
        group="text-prose",
        cells=(COUNTS, COUNTS, OPEN_MASKED, OPEN_COUNTS),
        documents=(
            Rated(num_tokens=1, ratings=(5, 5, 5, 7)),
            Rated(num_tokens=2, ratings=(5, 5, 1, 4)),
            Rated(num_tokens=4, ratings=(6, 6, 2, 0)),
        ),
        is_reversed=True,  # and so it is joined by id
    )
    recipe = made(tmp_path, {"wiki": wiki}, {"budget_tokens": 4})
    rows, _ = flipped(recipe)
    # Thirds of 17, 14, 12; with A3 quarters of 22, 15, 14; without A4 halves of 10, 10, 12; both
    # flipped thirds of 15, 11, 14: the first alone is kept, as no record behind the third is.
    assert kept(recipe, {"wiki": wiki}) == {"wiki": {0, 1}}
    told = [(row["anchor_id"], row["is_masked"], row["tokens_kept_flipped"]) for row in rows]
    assert told == [("A3", True, 3), ("A4", False, 4), (None, None, 1)]
    assert [row["tokens_leaving"] for row in rows] == [0, 3, 2]
    assert [row["is_joint"] for row in rows] == [False, False, True]


def test_sensitivity_of_a_keep_set_that_grows_is_a_share_of_the_larger(tmp_path: Path) -> None:
    wiki = RatedSource(
        group="text-prose",
        cells=(COUNTS, OPEN_MASKED),
        documents=tuple(Rated(num_tokens=10, ratings=(5, 5)) for _ in range(4)),
    )
    (one, _), _ = flipped(made(tmp_path, {"wiki": wiki, "code": CERTAIN}, HALF))
    assert (one["tokens_kept"], one["tokens_kept_flipped"]) == (20, 40)
    assert (one["tokens_entering"], one["tokens_leaving"]) == (20, 0)
    assert one["changed_fraction"] == 0.5
    assert one["by_source"][0]["changed_fraction"] == 1.0


def test_sensitivity_of_a_cell_without_which_no_record_has_a_score(tmp_path: Path) -> None:
    wiki = RatedSource(
        group="text-prose", cells=(COUNTS, OPEN_COUNTS), documents=CERTAIN.documents[:2]
    )
    (one, _), _ = flipped(made(tmp_path, {"wiki": wiki, "code": CERTAIN}, HALF))
    assert (one["num_entering"], one["num_leaving"]) == (0, 1)  # one anchor is no mean of two
    assert one["by_source"][0]["tokens_kept_flipped"] == 0


def test_sensitivity_is_about_a_selection_that_was_made(tmp_path: Path) -> None:
    recipe = made(tmp_path, {"wiki": BY_TWO}, HALF)
    (recipe.run_folder / layout.keep(ARM) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"sensitivity a reads .*keep/a, which is not finished"):
        flipped(recipe)


def test_sensitivity_without_an_undecided_cell_is_empty_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = made(tmp_path, {"code": CERTAIN}, HALF)
    with caplog.at_level(logging.INFO):
        rows, manifest = flipped(recipe)
    assert rows == []
    assert f"sensitivity {ARM}: no undecided cell, nothing to flip" in caplog.text
    assert (manifest.counts.num_out, manifest.counts.totals) == (0, {})
    path = recipe.run_folder / layout.sensitivity(ARM) / layout.FLIPS
    assert pq.read_schema(path).equals(FLIP_SCHEMA)


def test_sensitivity_looks_at_ranked_sources_alone(tmp_path: Path) -> None:
    sources = {"wiki": BY_TWO, "code": CERTAIN}
    rows, _ = flipped(made(tmp_path, sources, {**HALF, "pinned": ["wiki"]}))
    assert rows == []


def test_sensitivity_is_for_scores_of_which_a_mask_decided(tmp_path: Path) -> None:
    recipe = made(tmp_path, {"wiki": BY_TWO}, HALF, reliability=None)
    assert units(recipe) == []
    assert stage_units(recipe, "sensitivity") == []
    without_arms = made(tmp_path / "b", {"wiki": BY_TWO}, HALF)
    values = {**without_arms.values, "arms": {}}
    assert units(replace(without_arms, values=values)) == []


def test_sensitivity_says_why_where_a_flip_leaves_no_choice(tmp_path: Path) -> None:
    # Unmasked, the records of `wiki` get their first scores: its floor then asks for 30 of 20.
    wiki = RatedSource(
        group="text-prose",
        cells=(COUNTS, OPEN_MASKED),
        documents=tuple(Rated(num_tokens=10, ratings=(5, 5)) for _ in range(3)),
    )
    arm = {"budget_fraction": 0.4, "floor_tokens": {"wiki": 30}}
    rows, manifest = flipped(made(tmp_path, {"wiki": wiki, "code": CERTAIN}, arm))
    for row in rows:
        assert row["reason"].startswith("arms.a: floor_tokens (wiki 30) add up to 30, more than")
        assert (row["num_entering"], row["changed_fraction"], row["by_source"]) == (None,) * 3
    assert (len(rows), manifest.counts.totals) == (2, {})


def test_sensitivity_of_another_budget_in_other_scopes_is_told_too(tmp_path: Path) -> None:
    # `wiki` has no score, so that `code` spends its share, until the flip gives it some.
    wiki = RatedSource(
        group="text-prose",
        cells=(COUNTS, OPEN_MASKED),
        documents=tuple(Rated(num_tokens=10, ratings=(5, 5)) for _ in range(4)),
    )
    sources = {"wiki": wiki, "code": CERTAIN}
    recipe = made(tmp_path, sources, {**HALF, "unspent": "share"})
    assert kept(recipe, sources) == {"wiki": set(), "code": {0, 1, 2, 3}}
    (one, _), _ = flipped(recipe)
    assert {
        row["source"]: (row["num_entering"], row["num_leaving"]) for row in one["by_source"]
    } == {
        "wiki": (2, 0),
        "code": (0, 2),
    }


def test_sensitivity_is_outdated_by_another_mask(tmp_path: Path) -> None:
    recipe = made(tmp_path, {"wiki": BY_TWO}, HALF)
    flipped(recipe)
    (unit,) = units(recipe)
    run = Run(folder=recipe.run_folder)
    assert unit_state(unit, run) == "done"
    cells = recipe.run_folder / layout.reliability_mask("s", "wiki") / layout.CELLS
    cells.unlink()
    assert unit_state(unit, run) == "outdated"


def test_sensitivity_with_two_workers_has_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for workers in (1, 2):
        recipe = made(tmp_path / str(workers), {"wiki": BY_TWO, "code": CERTAIN}, HALF)
        digests.append(flipped(recipe, workers)[1].output_digest)
    assert digests[0] == digests[1]


CERTAINLY = st.sampled_from([COUNTS, MASKED])
ANYHOW = st.sampled_from([COUNTS, MASKED, OPEN_COUNTS, OPEN_MASKED])
RATING = st.none() | st.integers(0, 10).map(float)
DOCUMENT = st.builds(
    Rated,
    num_tokens=st.integers(1, 9),
    ratings=st.tuples(RATING, RATING, RATING),
    is_held_out=st.sampled_from([False, False, False, True]),
)


def rated(group: str, *cells: st.SearchStrategy[str]) -> st.SearchStrategy[RatedSource]:
    return st.builds(
        RatedSource,
        group=st.just(group),
        cells=st.tuples(*cells, st.just(COUNTS)),
        documents=st.lists(DOCUMENT, min_size=2, max_size=6).map(tuple),
        is_reversed=st.booleans(),
    )


SOURCES = st.fixed_dictionaries(  # every undecided cell is a run of its own: three at most
    {
        "books": rated("text-prose", ANYHOW, CERTAINLY),
        "wiki": rated("text-prose", ANYHOW, ANYHOW),
        "code": rated("text-code", CERTAINLY, CERTAINLY),
    }
)
ARMS = st.fixed_dictionaries(
    {
        "scope": st.sampled_from(["global", "group", "source"]),
        "budget_fraction": st.sampled_from([0.3, 0.6]),
        "nulls": st.sampled_from(["drop", "source_median", "keep_random_share"]),
        "unspent": st.sampled_from(["leave", "share"]),
        "floor_tokens": st.sampled_from([{}, {"wiki": 2}]),
        "cap_tokens": st.sampled_from([{}, {"code": 9}]),
    }
)


COUNTED = (
    *("num_entering", "tokens_entering", "num_leaving", "tokens_leaving"),
    *("tokens_kept", "tokens_kept_flipped"),
)


def undecided(sources: Mapping[str, RatedSource]) -> list[tuple[str, int]]:
    return [
        (name, slot)
        for name, source in sorted(sources.items())
        for slot, state in enumerate(source.cells)
        if state in FLIPPED
    ]


def with_flips(
    sources: Mapping[str, RatedSource], cells: list[tuple[str, int]]
) -> dict[str, RatedSource]:
    found = dict(sources)
    for name, slot in cells:
        state = FLIPPED[found[name].cells[slot]]
        found[name] = found[name].with_cell(slot, state)
    return found


def kept_from_scratch(
    folder: Path, sources: Mapping[str, RatedSource], arm: Mapping[str, Any]
) -> dict[str, set[int]] | str:
    """What a run of its own keeps, or why its selection is refused."""
    try:
        return kept(made(folder, sources, arm), sources)
    except ValueError as error:
        return str(error)


def changes_by_source(
    sources: Mapping[str, RatedSource], before: dict[str, set[int]], after: dict[str, set[int]]
) -> dict[str, list[int]]:
    """Number and tokens of what enters, of what leaves, and tokens kept before and after."""
    found = {}
    for name, source in sources.items():
        entering, leaving = after[name] - before[name], before[name] - after[name]
        sums = [
            sum(source.documents[at].num_tokens for at in those)
            for those in (entering, leaving, before[name], after[name])
        ]
        if entering or leaving:
            found[name] = [len(entering), sums[0], len(leaving), *sums[1:]]
    return found


@settings(max_examples=8, deadline=None)
@given(SOURCES, ARMS)
def test_sensitivity_equals_a_selection_made_with_that_mask(
    sources: dict[str, RatedSource], arm: dict[str, Any]
) -> None:
    cells = undecided(sources)
    flips = [[cell] for cell in cells] + ([cells] if cells else [])
    with TemporaryDirectory() as folder:
        before = kept_from_scratch(Path(folder) / "base", sources, arm)
        assume(isinstance(before, dict))
        assert isinstance(before, dict)
        rows, _ = flipped(load_recipe(Path(folder) / "base" / "recipe.yaml"))
        scratch = [
            kept_from_scratch(Path(folder) / str(number), with_flips(sources, those), arm)
            for number, those in enumerate(flips)
        ]
    for row, after in zip(rows, scratch, strict=True):
        if isinstance(after, str):
            assert row["reason"] in after
            continue
        told = {each["source"]: [each[name] for name in COUNTED] for each in row["by_source"] or ()}
        assert (row["reason"], told) == (None, changes_by_source(sources, before, after))
