from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mira_megatron.config import Recipe
from mira_megatron.corpus.degraded_copies import parent_hash, way_and_parent
from mira_megatron.manifest import Manifest
from mira_megatron.records import DISTILL, RELIABILITY, TEACHER_RATING_SCHEMA
from mira_megatron.rubric import label
from mira_megatron.scoring.rating import split_of
from mira_megatron.stage import Resources, Run, run_unit

pytest_plugins = ("judged_recipes",)

Make = Callable[..., Recipe]

LABEL = {"records_per_source": 5, "reliability_fraction": 0.4}
ENDPOINT = {
    **{"engine": "endpoint", "model": "m", "endpoints": ["http://127.0.0.1:9/v1"]},
    **{"temperature": 0.7, "top_p": 0.95, "max_tokens": 100},
}


def _rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


def _label(recipe: Recipe) -> tuple[Manifest, Path]:
    """Returns the manifest and the folder of the one source's teacher ratings."""
    (unit,) = label.units(recipe)
    run = Run(folder=recipe.run_folder)
    return run_unit(unit, run, Resources()), run.folder / unit.folder


def test_label_section_changes_what_it_names_of_its_teacher(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={**LABEL, "max_tokens": 4000}, teacher=ENDPOINT)
    recipe = replace(recipe, values={**recipe.values, "score": ENDPOINT})
    (unit,) = label.units(recipe)
    assert (unit.config["max_tokens"], unit.config["temperature"]) == (4000, 0.7)


def test_label_without_a_teacher_says_which_section_is_missing(judged_recipe: Make) -> None:
    recipe = judged_recipe(label=LABEL)
    values = {name: value for name, value in recipe.values.items() if name != "teacher"}
    with pytest.raises(ValueError, match="label: needs a section `teacher`"):
        label.units(replace(recipe, values=values))


def test_teacher_whose_anchors_the_scorer_cannot_rate_is_refused_unpaid(
    judged_recipe: Make,
) -> None:
    recipe = judged_recipe(label=LABEL)
    values = {**recipe.values, "teacher": ENDPOINT, "scorers": {}}
    with pytest.raises(ValueError, match="rule_judge cannot rate what a model names"):
        label.units(replace(recipe, values=values))


def test_label_writes_one_rating_per_sampled_record_in_record_order(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={"records_per_source": 15, "reliability_fraction": 0.4})
    manifest, folder = _label(recipe)
    rows = _rows(folder)
    assert rows.schema.equals(TEACHER_RATING_SCHEMA)
    in_order = _rows(recipe.run_folder / "records/notes")
    labelled = rows["record_id"].to_pylist()
    assert len(labelled) == 15
    assert labelled == [each for each in in_order["record_id"].to_pylist() if each in labelled]
    assert (manifest.counts.num_in, manifest.counts.num_out) == (15, 15)


def test_label_counts_statuses_and_halves(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={"records_per_source": 100, "reliability_fraction": 0.4})
    manifest, folder = _label(recipe)
    rows = _rows(folder).select(["status", "split"]).to_pydict()
    assert manifest.counts.totals == {**Counter(rows["status"]), **Counter(rows["split"])}
    assert set(rows["split"]) == {DISTILL, RELIABILITY}


def test_label_split_is_by_what_a_record_holds(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={"records_per_source": 100, "reliability_fraction": 0.4})
    _, folder = _label(recipe)
    records = _rows(recipe.run_folder / "records/notes").to_pylist()
    hashes = {record["record_id"]: record["content_hash"] for record in records}
    for row in _rows(folder).to_pylist():
        assert row["split"] == split_of(hashes[row["record_id"]], 0.4)


def test_label_has_degraded_copies_on_the_side_of_their_parent(judged_recipe: Make) -> None:
    copies = {"degraded_copies": 2.0, "degradations": ["shuffled", "truncated", "duplicated"]}
    sections = {"label": {"records_per_source": 100, "reliability_fraction": 0.4}}
    recipe = judged_recipe(of_source=copies, **sections)
    _, folder = _label(recipe)
    split = {row["record_id"]: row["split"] for row in _rows(folder).to_pylist()}
    sides: dict[str, set[str]] = {}
    num_copies = 0
    for record in _rows(recipe.run_folder / "records/notes").to_pylist():
        copy = way_and_parent(record["meta"])
        num_copies += copy is not None
        parent = parent_hash(record["text"]) if copy is None else copy[1]
        sides.setdefault(parent, set()).add(split[record["record_id"]])
    assert num_copies > 20
    assert {len(found) for found in sides.values()} == {1}
    assert set(split.values()) == {DISTILL, RELIABILITY}


def test_label_part_without_a_sampled_record_has_no_file(judged_recipe: Make) -> None:
    recipe = judged_recipe(label={"records_per_source": 1, "reliability_fraction": 0.4})
    manifest, folder = _label(recipe)
    assert len(list(folder.glob("*.parquet"))) == 1
    assert [part.num_rows for part in manifest.parts] == [1]


def test_label_half_that_is_empty_is_said(
    judged_recipe: Make, caplog: pytest.LogCaptureFixture
) -> None:
    _label(judged_recipe(label={"records_per_source": 20, "reliability_fraction": 1e-9}))
    assert "of 20 labelled records none is in the reliability half" in caplog.text


def test_label_without_a_section_has_nothing_to_do(judged_recipe: Make) -> None:
    assert label.units(judged_recipe()) == []


@pytest.mark.parametrize(
    "section",
    [
        {"records_per_source": 0, "reliability_fraction": 0.1},
        {"records_per_source": 10, "reliability_fraction": 1.0},
    ],
)
def test_label_setting_out_of_range_is_refused(
    judged_recipe: Make, section: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="label: "):
        label.units(judged_recipe(label=section))


def test_split_of_takes_about_the_fraction_asked_for() -> None:
    halves = Counter(split_of(f"{number:032x}", 0.2) for number in range(10_000))
    assert 1_840 <= halves[RELIABILITY] <= 2_160  # four standard deviations
