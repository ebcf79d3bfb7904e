"""The stage `contamination` over records that `mira ingest` made, with a planted item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from contamination_scans import SOLUTION
from eval_files import ADD, write_lines

from mira_megatron import layout
from mira_megatron.config import load_recipe
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.stage import Resources, Run, run_unit

EVAL = {"suite": "suite.yaml", "style": "chat", "engine": "transformers"}
TASK = {**ADD, "task_id": "Mbpp/1", "canonical_solution": SOLUTION}
OTHER = {**ADD, "task_id": "Other/1", "canonical_solution": SOLUTION.replace("found", "total")}


def write(folder: Path, **changes: Any) -> Path:
    """Writes a recipe of two sources, of which `code` has a task's solution in its record 3."""
    entry = {"kind": "mbpp", "category": "c", "protocol": "p", "sampling": "greedy"}
    suite = {
        "data_folder": str(folder),
        "sampling": {"greedy": {}},
        "benchmarks": {
            "mbpp": {**entry, "file": "tasks.jsonl"},
            "more": {**entry, "file": "more.jsonl"},
        },
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    write_lines(folder / "tasks.jsonl", [TASK])
    write_lines(folder / "more.jsonl", [OTHER])
    for source in ("wiki", "code"):
        rows = [{"text": f"{source} text number {number}"} for number in range(8)]
        rows[3]["text"] += SOLUTION if source == "code" else ""
        write_lines(folder / f"{source}.jsonl", rows)
    descriptor = {"format": "jsonl", "family": "text", "fields": {"text": "text"}}
    content = {
        "run_folder": str(folder / "run"),
        "sources": {name: {**descriptor, "paths": [f"{name}.jsonl"]} for name in ("wiki", "code")},
        "ingest": {"records_per_part": 5, "max_bad_fraction": 0},
        "eval": {**EVAL, "benchmarks": ["mbpp"]},
        "ablation": {},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(path: Path, stage: str = "contamination") -> None:
    """Runs a stage's units; of a recipe that trains nothing, which `mira` would refuse."""
    recipe = load_recipe(path)
    for unit in stage_units(recipe, stage):
        run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=1))


@pytest.fixture
def ingested(tmp_path: Path) -> Path:
    path = write(tmp_path)
    run(path, "ingest")
    return path


def rows_of(folder: Path, source: str) -> list[dict[str, Any]]:
    place = folder / "run" / layout.contamination(source)
    return [
        row for part in sorted(place.rglob("*.parquet")) for row in pq.read_table(part).to_pylist()
    ]


def test_record_with_a_solution_has_a_row_and_the_others_none(
    ingested: Path, tmp_path: Path
) -> None:
    run(ingested)
    found = rows_of(tmp_path, "code")
    record = pq.read_table(tmp_path / "run/records/code/part-00000.parquet")["record_id"][3].as_py()
    assert {row["record_id"] for row in found} == {record}
    assert {row["benchmark"] for row in found} == {"mbpp"}  # `more` is not asked for
    assert {(row["surface"], row["score"]) for row in found} >= {("solution", 1.0)}
    assert rows_of(tmp_path, "wiki") == []
    manifest = read_manifest(tmp_path / "run" / layout.contamination("code"))
    assert manifest is not None
    assert (manifest.counts.num_in, manifest.counts.num_out) == (8, 1)
    assert manifest.counts.totals == {"items": 1, "records over the threshold": 1}
    assert sum(part.num_rows or 0 for part in manifest.parts) == len(found)


def test_new_source_is_looked_through_alone(ingested: Path, tmp_path: Path) -> None:
    run(ingested)
    before = (tmp_path / "run" / layout.contamination("code") / "manifest.json").stat().st_mtime_ns
    content = yaml.safe_load(ingested.read_text())
    content["sources"]["more"] = {**content["sources"]["code"], "paths": ["wiki.jsonl"]}
    ingested.write_text(yaml.safe_dump(content))
    run(ingested, "ingest")
    run(ingested)
    after = (tmp_path / "run" / layout.contamination("code") / "manifest.json").stat().st_mtime_ns
    assert after == before
    assert (tmp_path / "run" / layout.contamination("more") / "manifest.json").is_file()


def test_other_tasks_are_looked_for_anew(ingested: Path, tmp_path: Path) -> None:
    run(ingested)
    assert rows_of(tmp_path, "code")
    write_lines(tmp_path / "tasks.jsonl", [ADD])
    run(ingested)
    assert rows_of(tmp_path, "code") == []


def test_missing_data_file_is_refused_with_the_way_out(ingested: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"tasks\.jsonl: no such data file.*eval\.data_folder"
    ):
        run(ingested)


@pytest.mark.parametrize("lacking", ["eval", "ablation"])
def test_recipe_without_a_section_has_no_units(tmp_path: Path, lacking: str) -> None:
    path = write(tmp_path)
    content = yaml.safe_load(path.read_text())
    del content[lacking]
    path.write_text(yaml.safe_dump(content))
    assert stage_units(load_recipe(path), "contamination") == []


def test_section_without_a_suite_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, eval={"benchmarks": ["mbpp"]}))
    with pytest.raises(ValueError, match=r"recipe.yaml: eval: needs suite"):
        stage_units(recipe, "contamination")
