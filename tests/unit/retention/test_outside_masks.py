"""Keep masks made elsewhere: what they drop, how that is counted, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from small_run import ARM, SmallRecord, record_id, write_recipe, write_run

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.retention.keep_masks import read_keep_mask, write_keep_mask
from mira_megatron.retention.selection import units
from mira_megatron.stage import Resources, Run, run_unit

SOURCES = {
    "wiki": [SmallRecord(text=f"wiki {number}", score=9.0 - number) for number in range(4)],
    "qa": [SmallRecord(text=f"qa {number}", score=8.0 - number) for number in range(3)],
}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run of two sources with 10 tokens per document; its own arm is done."""
    return write_run(tmp_path, SOURCES, budget_tokens=40)


def select_with(recipe: Recipe, masks: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The certificate of one more arm, composed with masks."""
    arm = {"score": "rule_judge", "scope": "global", "with_masks": masks, **settings}
    content = orjson.loads(recipe.path.read_bytes())
    recipe.path.write_bytes(orjson.dumps({**content, "arms": {"masked": arm}}))
    (unit,) = units(load_recipe(recipe.path))
    run_unit(unit, Run(folder=recipe.run_folder), Resources())
    found: dict[str, Any] = orjson.loads(
        (recipe.run_folder / unit.folder / "selection.json").read_bytes()
    )
    return found


def write_table(path: Path, keep: dict[str, object]) -> None:
    table = pa.table({"record_id": list(keep), "keep": list(keep.values())})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)


def kept(recipe: Recipe) -> dict[str, list[bool]]:
    folder = recipe.run_folder / "keep/masked"
    return {
        source: read_keep_mask(folder / f"{source}.keep.npy").is_kept.tolist() for source in SOURCES
    }


def test_document_that_a_mask_drops_is_no_candidate(recipe: Recipe) -> None:
    licence = {"wiki": [False, True, True, True], "qa": [True, True, True]}
    for source, mask in licence.items():
        np.save(recipe.path.parent / f"{source}.npy", np.array(mask))
    write_table(recipe.path.parent / "team.csv", {record_id("qa", 0): "false"})
    found = select_with(
        recipe,
        {"licence": "{source}.npy", "team": {"path": "team.csv", "unlisted": "keep"}},
    )
    # The next ranked take their places: 8, 7, 7 and 6 of what is left of 9, 8 …
    assert kept(recipe) == {"wiki": [False, True, True, True], "qa": [False, True, False]}
    denied = {source: entry["denied"] for source, entry in found["sources"].items()}
    assert denied["wiki"] == {
        "licence": {"num_documents": 1, "tokens": 10},
        "team": {"num_documents": 0, "tokens": 0},
    }
    assert denied["qa"]["team"] == {"num_documents": 1, "tokens": 10}
    assert found["scopes"]["all"]["num_candidates"] == 5
    decisions = np.load(recipe.run_folder / "keep/masked/wiki.decisions.npy")
    assert found["decisions"][decisions[0]] == "denied_by_licence"


def test_budget_fraction_counts_what_masks_leave(recipe: Recipe) -> None:
    write_table(recipe.path.parent / "team.parquet", {record_id("wiki", 0): True})
    masks = {"team": {"path": "team.parquet", "unlisted": "drop"}}
    found = select_with(recipe, masks, budget_fraction=1.0)
    assert found["budget_tokens"] == 10
    assert kept(recipe)["wiki"] == [True, False, False, False]


def test_phases_under_one_mask_take_their_fractions_of_the_same_whole(tmp_path: Path) -> None:
    # The mask denies the copy of wiki's best, of which the first phase keeps the other one.
    copied = {**SOURCES, "qa": [*SOURCES["qa"], SmallRecord(text="wiki 0", score=1.0)]}
    recipe = write_run(tmp_path, copied, budget_tokens=40)
    write_table(tmp_path / "team.csv", {record_id("qa", 3): "false"})
    arm = {"score": "rule_judge", "scope": "global", "budget_fraction": 0.5}
    arm["with_masks"] = {"team": {"path": "team.csv", "unlisted": "keep"}}
    arms = {"first": arm, "second": {**arm, "without": ["first"]}}
    content = orjson.loads(recipe.path.read_bytes())
    recipe.path.write_bytes(orjson.dumps({**content, "arms": arms}))
    budgets = []
    for unit in units(load_recipe(recipe.path)):
        run_unit(unit, Run(folder=recipe.run_folder), Resources())
        found = orjson.loads((recipe.run_folder / unit.folder / "selection.json").read_bytes())
        budgets.append(found["budget_tokens"])
    assert budgets == [35, 35]  # half of the 70 that the mask leaves, each


@pytest.mark.parametrize("values", [[1, 0, 1, 1], [True, False, True, True]])
def test_table_per_source_may_say_numbers_or_words(recipe: Recipe, values: list[object]) -> None:
    for source in SOURCES:
        keep = dict(zip([record_id(source, n) for n in range(4)], values, strict=True))
        rows = {key: keep[key] for key in list(keep)[: len(SOURCES[source])]}
        write_table(recipe.path.parent / f"{source}.parquet", rows)
    select_with(recipe, {"team": "{source}.parquet"})
    assert kept(recipe) == {"wiki": [True, False, True, True], "qa": [True, False, False]}


def test_mask_of_another_arm_fits_the_index_it_was_made_for(recipe: Recipe) -> None:
    own = "run/keep/mira_group/{source}.keep.npy"
    select_with(recipe, {"first": own}, budget_fraction=1.0)
    for source, is_kept in kept(recipe).items():
        first = read_keep_mask(recipe.run_folder / "keep" / ARM / f"{source}.keep.npy")
        assert is_kept == first.is_kept.tolist()


def test_mask_made_for_another_index_is_refused(recipe: Recipe) -> None:
    for source, records in SOURCES.items():
        write_keep_mask(
            recipe.path.parent / f"{source}.keep.npy",
            np.ones(len(records), dtype=np.bool_),
            np.ones(len(records), dtype=np.int64),
            idx_fingerprint="another",
            scores_fingerprint="",
        )
    with pytest.raises(ValueError, match="fingerprint another"):
        select_with(recipe, {"licence": "{source}.keep.npy"})


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(3, dtype=np.bool_), r"wiki.npy: expected 4 bools, one per document .* \(3,\)"),
        (np.ones(4, dtype=np.uint8), r"wiki.npy: expected 4 bools, .* got uint8"),
        (None, r"arms.masked.with_masks.licence: .*wiki.npy: no such mask"),
    ],
)
def test_array_that_does_not_fit_is_refused(
    recipe: Recipe, mask: np.ndarray[Any, Any] | None, message: str
) -> None:
    np.save(recipe.path.parent / "qa.npy", np.ones(3, dtype=np.bool_))
    if mask is not None:
        np.save(recipe.path.parent / "wiki.npy", mask)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        select_with(recipe, {"licence": "{source}.npy"})


ALL = {record_id(source, n): True for source in SOURCES for n in range(len(SOURCES[source]))}


@pytest.mark.parametrize(
    ("rows", "unlisted", "message"),
    [
        ({**ALL, "wiki-9999": True}, None, r"1 of its 8 ids are no document's, such as 'wiki-9999"),
        ({"wiki-0000": True}, None, "lists 0 of the 3 documents of qa.*unlisted: keep"),
        ({**ALL, "wiki-0000": None}, None, "rows without a record_id or without a keep"),
        (dict.fromkeys(ALL, 2), None, "keep must be true or false, or 1 or 0, got int64"),
        (dict.fromkeys(ALL, "yes"), "keep", "keep must be true or false, or 1 or 0, got string"),
    ],
)
def test_table_that_does_not_fit_is_refused(
    recipe: Recipe, rows: dict[str, object], unlisted: str | None, message: str
) -> None:
    write_table(recipe.path.parent / "team.parquet", rows)
    with pytest.raises(ValueError, match=f"team.parquet: .*{message}"):
        select_with(recipe, {"team": {"path": "team.parquet", "unlisted": unlisted}})


def test_table_that_lists_a_record_twice_is_refused(recipe: Recipe) -> None:
    table = pa.table({"record_id": ["wiki-0000", "wiki-0000"], "keep": [True, False]})
    pq.write_table(table, recipe.path.parent / "team.parquet")
    with pytest.raises(ValueError, match="'wiki-0000' is listed more than once"):
        select_with(recipe, {"team": {"path": "team.parquet", "unlisted": "keep"}})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mask.npy", r"an array belongs to one index, so its name must hold {source}"),
        ("mask.txt", r"must end in one of .npy, .parquet, .csv"),
        ({"path": "a.csv", "unlisted": "ask"}, "unlisted='ask' must be keep or drop"),
        ({"path": "a.csv", "listed": "keep"}, "unknown key 'listed'"),
    ],
)
def test_entry_that_is_wrong_is_refused_by_name(
    tmp_path: Path, entry: object, message: str
) -> None:
    path = write_recipe(tmp_path, ["wiki"]).path
    content = orjson.loads(path.read_bytes())
    content["select"]["with_masks"] = {"team": entry}
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(ValueError, match=f"arms.{ARM}.with_masks.team: .*{message}"):
        units(load_recipe(path))


def test_mask_that_changed_makes_the_arm_anew(recipe: Recipe) -> None:
    path = recipe.path.parent / "team.csv"
    masks = {"team": {"path": "team.csv", "unlisted": "keep"}}
    write_table(path, {record_id("qa", 0): "false"})
    first = select_with(recipe, masks)
    write_table(path, {record_id("qa", 1): "false"})
    assert select_with(recipe, masks)["digest"] != first["digest"]
