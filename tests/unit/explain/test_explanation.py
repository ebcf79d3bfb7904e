"""Explanations of small runs whose decisions a reader can check by hand."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from explained_runs import write_explained_run
from small_run import ARM, HELD_OUT, TABLE, SmallRecord, finish, record_id

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.explain.decided_records import Decided
from mira_megatron.explain.explanation import Explanation, explain
from mira_megatron.shards import write_parquet

# 20 tokens are kept: the best two of 10. Equal scores are ordered by the tie rule.
WIKI = [
    SmallRecord(text="best", score=9.0, origin="a/b.jsonl:12"),
    SmallRecord(text="third", score=6.0),
    SmallRecord(text="second", score=7.5),
    SmallRecord(text="none", score=None, reason="failed"),
    HELD_OUT,
    SmallRecord(text=HELD_OUT.text, score=10.0),
    SmallRecord(text="last", score=1.0, num_tokens=7),
]
BEST, THIRD, SECOND, NONE, VALID, REPEATS, LAST = range(7)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return write_explained_run(tmp_path_factory.mktemp("run"), {"wiki": WIKI}, budget_tokens=20)


def of_wiki(recipe: Recipe, number: int) -> Explanation:
    return explain(recipe, record_id("wiki", number))


def tie(own_id: str) -> int:
    return xxhash.xxh3_64_intdigest(f"7:{own_id}".encode())


def decision_on(found: Explanation) -> Decided:
    (arm,) = found.arms
    assert arm.decided is not None
    return arm.decided


def test_kept_record_has_origin_scores_place_and_distance(recipe: Recipe) -> None:
    found = of_wiki(recipe, SECOND)
    assert found.record is not None
    assert (found.record.origin, found.source_group) == ("corpus.jsonl:1", "text-wiki")
    decided = decision_on(found)
    assert (decided.is_kept, decided.times, decided.why) == (True, 1, "above_cutoff")
    assert (decided.cutoff, decided.score_minus_cutoff, decided.scope) == (7.5, 0.0, "text-wiki")
    assert decided.distance is not None
    assert (decided.distance.rank, decided.distance.num_ranked) == (2, 4)
    # None is kept behind it: without its own 10 tokens in the budget it is dropped.
    assert (decided.distance.num_between, decided.distance.tokens_between) == (0, 10)
    assert found.tokens is not None
    assert (found.tokens.document, found.tokens.byte_offset, found.tokens.num_bytes) == (2, 80, 40)


def test_best_record_counts_what_is_kept_behind_it(recipe: Recipe) -> None:
    distance = decision_on(of_wiki(recipe, BEST)).distance
    assert distance is not None
    assert (distance.rank, distance.num_between, distance.tokens_between) == (1, 1, 20)


def test_dropped_record_counts_what_is_dropped_ahead_of_it(recipe: Recipe) -> None:
    decided = decision_on(of_wiki(recipe, LAST))
    assert (decided.is_kept, decided.decision, decided.why) == (
        False,
        "not_selected",
        "below_cutoff",
    )
    assert decided.score_minus_cutoff == -6.5
    assert decided.distance is not None
    assert (decided.distance.rank, decided.distance.num_between) == (4, 1)
    assert decided.distance.tokens_between == 17


def test_record_without_a_score_says_why(recipe: Recipe) -> None:
    found = of_wiki(recipe, NONE)
    assert [(each.score, each.reason) for each in found.scores] == [(None, "failed")]
    decided = decision_on(found)
    assert (decided.decision, decided.why, decided.distance) == ("no_score", "failed", None)
    assert found.rating is not None
    assert (found.rating.status, found.rating.reason) == ("failed", "timed out")
    assert {slot.part for slot in found.rating.slots} == {"missing"}


def test_held_out_record_is_no_candidate(recipe: Recipe) -> None:
    found = of_wiki(recipe, VALID)
    decided = decision_on(found)
    assert (decided.decision, decided.distance, decided.copies) == ("held_out", None, ())
    assert found.tokens is not None
    assert found.tokens.is_validation


def test_copy_of_a_held_out_record_names_it(recipe: Recipe) -> None:
    decided = decision_on(of_wiki(recipe, REPEATS))
    assert decided.decision == "duplicate_of_held_out"
    assert [(copy.record_id, copy.is_held_out) for copy in decided.copies] == [
        (record_id("wiki", VALID), True)
    ]


def test_of_equal_scores_at_the_cutoff_one_is_behind_by_the_tie_rule(tmp_path: Path) -> None:
    records = [HELD_OUT, *(SmallRecord(text=f"text {number}", score=5.0) for number in range(3))]
    recipe = write_explained_run(tmp_path, {"wiki": records}, budget_tokens=20)
    decided = [decision_on(of_wiki(recipe, number)) for number in (1, 2, 3)]
    assert sorted(each.why or "" for each in decided) == ["above_cutoff", "above_cutoff", "tie"]
    ranks = [each.distance.rank for each in decided if each.distance]
    by_tie = sorted(range(1, 4), key=lambda number: tie(record_id("wiki", number)))
    assert [by_tie.index(number) + 1 for number in range(1, 4)] == ranks


@pytest.mark.parametrize(("scope", "seed"), [("global", 1), ("group", 2), ("source", 3)])
def test_ranks_and_distances_are_those_of_a_full_sort(
    tmp_path: Path, scope: str, seed: int
) -> None:
    drawn = random.Random(seed)
    sources = {
        name: [
            HELD_OUT,
            *(
                SmallRecord(
                    text=f"{name} {number}",
                    score=drawn.choice([None, 2.0, 4.5, 4.5, 8.0]),
                    reason="failed",
                    num_tokens=drawn.randint(1, 20),
                )
                for number in range(12)
            ),
        ]
        for name in ("wiki", "code")
    }
    recipe = write_explained_run(tmp_path, sources, budget_tokens=90, scope=scope)
    ranked: dict[str, list[tuple[float, int, str, int]]] = {}
    for name, records in sources.items():
        for number, record in enumerate(records):
            if record.score is not None and not record.is_validation:
                own_id = record_id(name, number)
                key = (-record.score, tie(own_id), own_id, record.num_tokens)
                ranked.setdefault("all" if scope == "global" else name, []).append(key)
    for of_scope in ranked.values():
        of_scope.sort()
        decisions = [decision_on(explain(recipe, key[2])) for key in of_scope]
        is_kept = [each.is_kept for each in decisions]
        assert is_kept == sorted(is_kept, reverse=True)
        num_kept = sum(is_kept)
        for place, decided in enumerate(decisions):
            distance = decided.distance
            assert distance is not None
            between = (
                of_scope[place:num_kept] if decided.is_kept else of_scope[num_kept : place + 1]
            )
            assert (distance.rank, distance.num_ranked) == (place + 1, len(of_scope))
            assert distance.num_between == len(between) - 1
            assert distance.tokens_between == sum(key[3] for key in between)


def with_mask(recipe: Recipe, masked: str) -> None:
    """Has the score table of `wiki` be made under a mask of one anchor."""
    mask = layout.reliability_mask(TABLE, "wiki")
    cells = [
        {
            "anchor_id": f"A{slot}",
            "n": 40,
            "mae": 2.5,
            "rho": 0.125,
            "decision": "masked" if f"A{slot}" == masked else "keep",
            "is_masked": f"A{slot}" == masked,
        }
        for slot in range(1, 16)
    ]
    write_parquet(recipe.run_folder / mask / layout.CELLS, pa.Table.from_pylist(cells))
    scores = recipe.run_folder / layout.record_scores(TABLE, "wiki")
    config = {"rubric": TABLE, "trim_fraction": 0.1, "min_slots": 5}
    finish(scores, "aggregate", "wiki", config=config)
    manifest = json.loads((scores / "manifest.json").read_bytes())
    manifest["inputs"] = {mask: "0" * 32}
    (scores / "manifest.json").write_text(json.dumps(manifest))


def test_masked_slot_is_marked_and_does_not_count(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI})
    with_mask(recipe, "A3")
    found = of_wiki(recipe, BEST)
    assert found.rating is not None
    slots = {slot.anchor_id: slot for slot in found.rating.slots}
    assert (slots["A3"].part, slots["A4"].part) == ("masked", "counted")
    assert slots["A3"].reliability is not None
    assert (slots["A3"].reliability.decision, slots["A3"].reliability.mae) == ("masked", 2.5)
    assert found.rating.arithmetic is not None
    assert found.rating.arithmetic.num_usable == 14
    assert found.is_score_reproduced


def test_score_that_its_slots_do_not_give_is_noticed(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI})
    with_mask(recipe, "A3")
    (part, *_) = sorted((recipe.run_folder / layout.ratings(TABLE, "wiki")).glob("part-*"))
    table = pq.read_table(part)
    halves = [[None if s is None else s / 2 for s in row] for row in table["scores"].to_pylist()]
    column = table.schema.get_field_index("scores")
    field = table.schema.field("scores")
    write_parquet(part, table.set_column(column, field, pa.array(halves, field.type)))
    assert of_wiki(recipe, BEST).is_score_reproduced is False


def test_scores_in_another_order_are_joined_by_id(tmp_path: Path) -> None:
    scores = [9.0, 1.0, 6.0, 4.0, 8.0, 2.0]
    records = [
        HELD_OUT,
        *(
            SmallRecord(text=f"text {number}", score=score, num_tokens=number + 1)
            for number, score in enumerate(scores)
        ),
    ]
    recipe = write_explained_run(tmp_path, {"wiki": records}, budget_tokens=10)
    expected = [decision_on(of_wiki(recipe, number)) for number in range(len(records))]
    folder = recipe.run_folder / layout.record_scores(TABLE, "wiki")
    parts = sorted(folder.glob("part-*.parquet"))
    whole = pa.concat_tables([pq.read_table(part) for part in parts])
    rows = list(reversed(range(whole.num_rows)))
    for part in parts:
        num_rows = pq.read_metadata(part).num_rows
        write_parquet(part, whole.take(rows[:num_rows]))
        del rows[:num_rows]
    found = [decision_on(of_wiki(recipe, number)) for number in range(len(records))]
    assert found == expected


def test_arm_without_a_selection_is_waiting(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI})
    arms = {ARM: recipe.values["arms"][ARM], "later": {"score": TABLE, "scope": "global"}}
    path = recipe.path
    path.write_text(json.dumps({**json.loads(path.read_text()), "arms": arms}))
    found = explain(load_recipe(path), record_id("wiki", BEST))
    assert {arm.arm: (arm.state, arm.decided is None) for arm in found.arms} == {
        ARM: ("done", False),
        "later": ("waiting", True),
    }


def test_arm_that_reads_another_table_by_now_is_told_by_the_one_it_ranked_by(
    tmp_path: Path,
) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI}, budget_tokens=20)
    other = recipe.run_folder / layout.record_scores("other", "wiki")
    shutil.copytree(recipe.run_folder / layout.record_scores(TABLE, "wiki"), other)
    for path in other.glob("part-*.parquet"):
        table = pq.read_table(path)
        scores = pa.array([0.5] * table.num_rows, pa.float32())
        write_parquet(path, table.set_column(1, table.schema.field("score"), scores))
    changed = load_recipe(recipe.path, [f"arms.{ARM}.score=other", "aggregate.scoring=other"])
    found = of_wiki(changed, SECOND)
    decided = decision_on(found)
    assert found.arms[0].state != "done"
    assert (decided.score_table, decided.score_minus_cutoff) == (TABLE, 0.0)
    assert decided.why == "above_cutoff"
    assert decided.distance is not None
    assert decided.distance.rank == 2
    assert {each.table: each.score for each in found.scores} == {"other": 0.5, TABLE: 7.5}


def test_arm_whose_recipe_changed_says_so(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI})
    other = load_recipe(recipe.path, ["select.budget_tokens=10"])
    (arm,) = explain(other, record_id("wiki", BEST)).arms
    assert arm.state == "different"


def test_source_that_is_only_ingested_is_found(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI})
    only_ingested(recipe)
    found = explain(load_recipe(recipe.path), record_id("wiki", LAST))
    assert (found.row, found.tokens, found.rating, found.scores) == (LAST, None, None, ())
    assert found.record is not None


def only_ingested(recipe: Recipe) -> None:
    """Removes what later stages made."""
    for folder in ("tokens", "ratings", "record_scores", "keep", "anchors"):
        shutil.rmtree(recipe.run_folder / folder)


def test_unknown_id_is_refused_with_ids_that_begin_alike(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"wiki-00010.*With 'wiki-0' begin wiki-0000 of wiki"):
        explain(recipe, "wiki-00010")


def test_beginning_of_several_ids_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"7 records' ids begin with 'wiki-000'"):
        explain(recipe, "wiki-000")


def test_beginning_of_one_id_is_enough(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": WIKI, "qa": WIKI[4:5]})
    assert explain(recipe, "q").record_id == "qa-0000"
    with pytest.raises(ValueError, match="no record's id"):
        explain(recipe, "q", source="wiki")
    with pytest.raises(ValueError, match="Did you mean 'wiki'"):
        explain(recipe, "q", source="wikis")


def test_id_that_begins_others_names_its_own_record(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": [HELD_OUT] * 12})
    rename(recipe, "wiki-0001", "wiki-000")
    assert explain(recipe, "wiki-000").record_id == "wiki-000"


def rename(recipe: Recipe, old: str, new: str) -> None:
    """Gives a record of wiki another id in the documents table."""
    path = recipe.run_folder / layout.tokens("wiki") / "wiki.records.parquet"
    table = pq.read_table(path)
    ids: list[Any] = [new if each == old else each for each in table["record_id"].to_pylist()]
    write_parquet(path, table.set_column(0, table.schema.field(0), [ids]))
