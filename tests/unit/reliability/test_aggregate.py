from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rated_tables import COLUMNS, Rating, ratings

from mira_megatron.config import load_recipe
from mira_megatron.manifest import Counts, Manifest
from mira_megatron.reliability.aggregate import AggregateConfig, units
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit


def write_ratings(workspace: Workspace, settings: Mapping[str, Sequence[Rating]]) -> WorkResult:
    """The work of a unit that stands where the score stage would: one part per entry."""
    for name, rows in settings.items():
        write_parquet(workspace.folder / name, ratings(rows))
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def write_mixed(workspace: Workspace, settings: Mapping[str, Sequence[str]]) -> WorkResult:
    """The work of a unit whose parts hold one record for each named answer mode."""
    for name, modes in settings.items():
        tables = [ratings([(f"{name} {mode}", [1, 2, 3], "ok")]) for mode in modes]
        place = COLUMNS.get_field_index("answer_mode")
        mixed = [
            table.set_column(place, COLUMNS.field(place), pa.array([mode]))
            for table, mode in zip(tables, modes, strict=True)
        ]
        write_parquet(workspace.folder / name, pa.concat_tables(mixed))
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def aggregated(
    folder: Path, parts: Mapping[str, Sequence[Any]], workers: int, work: str = "write_ratings"
) -> Manifest:
    """Runs the stage over rating parts and returns its manifest."""
    recipe = {
        "run_folder": str(folder),
        "sources": {
            "wiki": {
                "format": "jsonl",
                "family": "text",
                "fields": {"text": "text"},
                "paths": ["never read.jsonl"],
            }
        },
        "aggregate": {"scoring": "s", "trim_fraction": 0.2, "min_slots": 3},
    }
    path = folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(recipe))
    run = Run(folder=folder)
    given_ratings = Unit(
        stage="score",
        name="wiki",
        folder="ratings/mira/wiki",
        version=1,
        config={},
        work=f"test_aggregate:{work}",
        settings=parts,
    )
    run_unit(given_ratings, run, Resources())
    (unit,) = units(load_recipe(path))
    return run_unit(unit, run, Resources(workers=workers))


PARTS: dict[str, Sequence[Rating]] = {
    part_name(0): [("a", [1, 2, 3], "ok"), ("b", [], "failed")],
    part_name(1): [("c", [9], "ok"), ("d", [4, 4, 4], "partial"), ("e", [], "failed")],
}


def test_aggregate_keeps_part_names_and_counts_every_reason(tmp_path: Path) -> None:
    manifest = aggregated(tmp_path, PARTS, workers=1)
    assert [(part.path, part.num_rows) for part in manifest.parts] == [
        ("part-00000.parquet", 2),
        ("part-00001.parquet", 3),
    ]
    assert manifest.counts.num_in == manifest.counts.num_out == 5
    assert manifest.counts.totals == {"scored": 2, "null: failed": 2, "null: too_few_slots": 1}
    second = pq.read_table(tmp_path / "record_scores/s/wiki/part-00001.parquet").to_pylist()
    assert [(row["record_id"], row["score"], row["reason"]) for row in second] == [
        ("c", None, "too_few_slots"),
        ("d", 4.0, None),
        ("e", None, "failed"),
    ]


def test_aggregate_writes_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    one, two = (aggregated(tmp_path / str(workers), PARTS, workers) for workers in (1, 2))
    assert one.parts == two.parts


def test_aggregate_of_parts_rated_alike_goes_on(tmp_path: Path) -> None:
    alike = {part_name(number): ["full", "full"] for number in (0, 1)}
    assert aggregated(tmp_path, alike, 1, "write_mixed").counts.num_out == 4


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("parts", "where", "elsewhere"),
    [
        ([["full", "full"], ["expected"]], "part-00000", "part-00001"),
        ([["full"], ["full", "expected"]], "part-00001", "part-00001"),
    ],
)
def test_aggregate_never_mixes_answer_modes(
    tmp_path: Path, parts: list[list[str]], where: str, elsewhere: str, workers: int
) -> None:
    mixed = {part_name(number): modes for number, modes in enumerate(parts)}
    with pytest.raises(ValueError, match=rf"{elsewhere}\.parquet: holds ratings of .*") as caught:
        aggregated(tmp_path, mixed, workers, "write_mixed")
    message = str(caught.value)
    for mode in ("full", "expected"):
        assert f"ratings of model=m, prompt_key=0123, answer_mode={mode}" in message
    assert f"{where}.parquet ratings of" in message
    assert "run `mira score`" in message
    assert not list(tmp_path.glob("record_scores/**/manifest.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trim_fraction": 0.5}, r"trim_fraction=0\.5 must be in \[0, 0\.5\)"),
        ({"trim_fraction": -0.1}, r"trim_fraction=-0\.1 must be in"),
        ({"min_slots": 0}, r"min_slots=0 must be in 1\.\.15"),
        ({"min_slots": 16}, r"min_slots=16 must be in 1\.\.15"),
    ],
)
def test_aggregate_config_out_of_range_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    settings = {"scoring": "s", "trim_fraction": 0.1, "min_slots": 5, **changes}
    with pytest.raises(ValueError, match=message):
        AggregateConfig(**settings)
