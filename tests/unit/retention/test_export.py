"""Decisions for other tools: one row per document, in three formats."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from small_run import ARM, HELD_OUT, ROWS_PER_PART, SmallRecord, finish, record_id, write_run

from mira_megatron import layout
from mira_megatron.cli import main
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.records import RECORD_SCHEMA
from mira_megatron.retention.export import EXPORT_SCHEMA, export_selection
from mira_megatron.shards import part_name, write_parquet

RECORDS = [
    SmallRecord(text="best", score=9.0, origin="a/b.jsonl:12"),
    SmallRecord(text="worse", score=2.0, origin="with:colon.jsonl:3"),
    SmallRecord(text="none", score=None, reason="failed", origin="no row"),
    HELD_OUT,
    # Held out, and without a score: that is not why it is dropped.
    SmallRecord(text="odd", score=None, reason="unparsed", is_validation=True),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Two sources; of wiki the best document fits its share, 12 of 16 tokens."""
    return write_run(tmp_path, {"wiki": RECORDS, "qa": RECORDS[:1]}, budget_tokens=16)


def write_records(
    folder: Path, source: str, records: Sequence[SmallRecord], first_number: int
) -> None:
    """Writes what ingest would leave of these records, whose ids count from a number."""
    rows: list[dict[str, Any]] = [
        {
            "record_id": record_id(source, number),
            "content_hash": "0" * 32,
            "source": source,
            "family": "text",
            "text": record.text,
            "meta": None,
            "control_spans": [],
            "num_chars": len(record.text),
            "origin": record.origin,
        }
        for number, record in enumerate(records, start=first_number)
    ]
    num_rows: dict[str, int] = {}
    for start in range(0, len(rows), ROWS_PER_PART):
        part = rows[start : start + ROWS_PER_PART]
        name = part_name(start // ROWS_PER_PART)
        write_parquet(folder / name, pa.Table.from_pylist(part, schema=RECORD_SCHEMA))
        num_rows[name] = len(part)
    finish(folder, "ingest", source, num_rows=len(rows), rows=num_rows)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]
    if path.suffix == ".csv":
        options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
        table = pyarrow.csv.read_csv(path, convert_options=options)
    else:
        table = pq.read_table(path)
        assert table.schema.equals(EXPORT_SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_export_says_of_every_document_what_became_of_it(recipe: Recipe, ending: str) -> None:
    path = recipe.path.parent / f"decisions.{ending}"
    assert main(["export", str(recipe.path), str(path)]) == 0
    rows = read(path)
    assert [row["record_id"] for row in rows] == ["qa-0000", *(f"wiki-{n:04d}" for n in range(5))]
    assert [(row["origin"], row["row"]) for row in rows[1:4]] == [
        ("a/b.jsonl", 12),
        ("with:colon.jsonl", 3),
        ("no row", None),
    ]
    assert [(row["score"], row["decision"], row["reason"]) for row in rows[1:]] == [
        (9.0, "kept", None),
        (2.0, "dropped", "not_selected"),
        (None, "dropped", "no_score: failed"),
        (5.0, "dropped", "held_out"),
        (None, "dropped", "held_out"),
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (RECORDS[1:], r"records 0 to 3 of .*part-00000.*\.parquet are not the documents of tok"),
        (RECORDS[:4], r"the 4 records of .*records/wiki are not the 5 documents of tokens/wiki"),
        ([*RECORDS, HELD_OUT], r"records 3 to 6 of .* are not the documents of tokens/wiki"),
    ],
)
def test_export_refuses_origins_of_records_that_were_ingested_again(
    recipe: Recipe, tmp_path: Path, records: list[SmallRecord], message: str
) -> None:
    folder = recipe.run_folder / layout.records("wiki")
    shutil.rmtree(folder)
    write_records(folder, "wiki", records, RECORDS.index(records[0]))
    with pytest.raises(ValueError, match=rf"{message}.*Score and tokenise the same records again"):
        export_selection(recipe, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_export_names_what_is_wrong(recipe: Recipe) -> None:
    folder = recipe.path.parent
    with pytest.raises(ValueError, match=r"out.xlsx: must end in one of .parquet, .jsonl, .csv"):
        export_selection(recipe, folder / "out.xlsx")
    (folder / "out.csv").touch()
    with pytest.raises(ValueError, match="nothing is overwritten"):
        export_selection(recipe, folder / "out.csv")
    with pytest.raises(ValueError, match=f"no arm 'mira_grup'. Did you mean '{ARM}'"):
        export_selection(recipe, folder / "out.jsonl", "mira_grup")
    two = load_recipe(recipe.path, ["arms.b.score=rule_judge", "arms.b.scope=global"])
    with pytest.raises(ValueError, match=rf"several arms, name one: --arm b \| {ARM}"):
        export_selection(two, folder / "out.jsonl")
    with pytest.raises(ValueError, match="keep/b: not finished"):
        export_selection(two, folder / "out.jsonl", "b")
    assert not (folder / "out.jsonl").exists()
