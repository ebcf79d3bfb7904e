"""Ingest run as a unit over jsonl files made here."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus.ingest import record_id, units
from mira_megatron.manifest import Manifest
from mira_megatron.records import RECORD_SCHEMA, Record, records_from_table
from mira_megatron.stage import Resources, Run, run_unit, unit_state

# Lines of one raw file: a text to be wrapped as a row, or raw bytes as they stand.
Lines = Sequence[str | bytes]

MALFORMED = b'{"text": '
# Raw rows of every fate: kept, repeated, empty, too short, too long, malformed.
ROWS = st.sampled_from(["", " ", "a", "ab", "abc", "abcd", "abcde", "x" * 9, MALFORMED, b"[]"])
FILES = st.lists(st.lists(ROWS, max_size=8), min_size=1, max_size=4)

MEASURED_INGEST = Path(__file__).parents[2] / "measured_ingest.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """What lies in the folder of a finished unit."""

    records: list[Record]
    manifest: Manifest
    dropped: list[dict[str, str]]

    @property
    def ids(self) -> dict[str, str]:
        """Record id -> text."""
        return {record.record_id: record.text for record in self.records}


def write_rows(folder: Path, **lines_by_name: Lines) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in lines_by_name.items():
        rows = [orjson.dumps({"text": r}) if isinstance(r, str) else r for r in lines]
        (folder / f"{name}.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))


def numbered(prefix: str, files: Sequence[Lines]) -> dict[str, Lines]:
    return {f"{prefix}{number}": lines for number, lines in enumerate(files)}


def recipe_of(
    folder: Path,
    *,
    source: str = "wiki",
    run: str = "run",
    ingest: Mapping[str, Any] | None = None,
    **descriptor: Any,
) -> Recipe:
    """A recipe that ingests every jsonl file in `folder`; damage is accepted unless told not to."""
    values = {
        "run_folder": str(folder / run),
        "sources": {
            source: {
                "format": "jsonl",
                "family": "text",
                "fields": {"text": "text"},
                "paths": ["*.jsonl"],
                **descriptor,
            }
        },
        "ingest": {"records_per_part": 3, "max_bad_fraction": 1.0, **(ingest or {})},
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def ingested(recipe: Recipe, *, workers: int = 1) -> Ingested:
    (unit,) = units(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=workers))
    folder = recipe.run_folder / unit.folder
    parts = [pq.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    assert all(part.schema == RECORD_SCHEMA for part in parts)
    lines = (folder / "dropped.jsonl").read_bytes().splitlines()
    return Ingested(
        records=records_from_table(pa.concat_tables(parts)),
        manifest=manifest,
        dropped=[orjson.loads(line) for line in lines],
    )


def test_ingest_writes_a_record_per_row_with_its_origin(tmp_path: Path) -> None:
    write_rows(tmp_path, b=["two"], a=["zero", "one"])
    found = ingested(recipe_of(tmp_path, group="text-wiki"))
    assert [(r.text, r.origin, r.num_chars) for r in found.records] == [
        ("zero", "a.jsonl:1", 4),
        ("one", "a.jsonl:2", 3),
        ("two", "b.jsonl:1", 3),
    ]
    first = found.records[0]
    assert (first.source, first.family, first.payload, first.meta) == ("wiki", "text", None, None)
    assert first.record_id == record_id("wiki", first.content_hash, 0)
    assert found.manifest.counts.num_in == found.manifest.counts.num_out == 3


def test_ingest_numbers_exact_duplicates_in_file_and_row_order(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["x", "y", "x"], b=["x"])
    found = ingested(recipe_of(tmp_path))
    x = found.records[0].record_id
    y = found.records[1].record_id
    assert [record.record_id for record in found.records] == [x, y, f"{x}-1", f"{x}-2"]
    assert found.manifest.counts.totals == {"exact_duplicates": 2}


def test_ingest_ids_of_texts_stay_when_files_are_renamed_and_added(tmp_path: Path) -> None:
    write_rows(tmp_path / "one", a=["x", "y"], b=["z", "x"])
    write_rows(tmp_path / "two", a=["new", "x", "z"], b=["x", "newer"], c=["y"])
    before = ingested(recipe_of(tmp_path / "one")).ids
    after = ingested(recipe_of(tmp_path / "two")).ids
    assert before.items() <= after.items()
    assert len(after) == 6


def test_ingest_content_hash_is_that_of_the_content_and_ids_that_of_the_source(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path, a=["x", "y"])
    wiki, blog = (
        ingested(recipe_of(tmp_path, source=name, run=name)).records for name in ("wiki", "blog")
    )
    assert [r.content_hash for r in wiki] == [r.content_hash for r in blog]
    assert not {r.record_id for r in wiki} & {r.record_id for r in blog}


def test_ingest_tells_apart_equal_texts_of_other_fields(tmp_path: Path) -> None:
    # Both rows are rendered alike: the first question ends its turn by itself.
    turn = "<|im_end|>\n<|im_start|>assistant\n"
    pairs = [(f"q{turn}a", "b"), ("q", f"a{turn}b")]
    write_rows(tmp_path, a=[orjson.dumps({"q": q, "a": a}) for q, a in pairs])
    found = ingested(recipe_of(tmp_path, family="qa", fields={"question": "q", "answer": "a"}))
    first, second = found.records
    assert first.text == second.text
    assert first.content_hash != second.content_hash
    assert first.control_spans != second.control_spans


def test_ingest_sample_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    texts = [str(number) for number in range(20)]
    write_rows(tmp_path / "forth", a=texts[:10], b=texts[10:])
    write_rows(tmp_path / "back", a=texts[:4:-1], b=texts[4::-1])
    forth, back = (
        ingested(recipe_of(tmp_path / name, max_records=7)) for name in ("forth", "back")
    )
    assert forth.ids == back.ids
    assert len(forth.ids) == 7
    assert forth.manifest.counts.dropped == {"not_sampled": 13}
    hashes = {r.content_hash for r in ingested(recipe_of(tmp_path / "forth", run="all")).records}
    assert {r.content_hash for r in forth.records} == set(sorted(hashes)[:7])


def test_ingest_counts_rows_dropped_by_their_length(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["", " \n", "ab", "abc", "abcd", "abcde", "abcdef"])
    found = ingested(recipe_of(tmp_path, min_chars=3, max_chars=5))
    assert list(found.ids.values()) == ["abc", "abcd", "abcde"]
    assert found.manifest.counts.dropped == {
        "empty_text": 2,
        "over_max_chars": 1,
        "under_min_chars": 1,
    }
    assert found.dropped == []


def test_ingest_lists_malformed_rows_with_file_and_line(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["x", MALFORMED], b=[b'{"body": "x"}', b"", "y", b"3"])
    found = ingested(recipe_of(tmp_path))
    assert [(row["origin"], row["reason"]) for row in found.dropped] == [
        ("a.jsonl:2", "invalid_json"),
        ("b.jsonl:1", "missing_field"),
        ("b.jsonl:4", "not_an_object"),
    ]
    assert found.manifest.counts.num_in == 5


def test_ingest_of_too_many_malformed_rows_stops_and_says_where_they_are(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["x", "y", "z", MALFORMED])
    message = (
        r"source wiki: 1 of 4 rows are malformed, more than ingest\.max_bad_fraction=0\.2.*"
        r"a\.jsonl:4: invalid_json .*all are listed in .*dropped\.jsonl"
    )
    with pytest.raises(ValueError, match=message):
        ingested(recipe_of(tmp_path, ingest={"max_bad_fraction": 0.2}))
    found = ingested(recipe_of(tmp_path, ingest={"max_bad_fraction": 0.25}))
    assert list(found.ids.values()) == ["x", "y", "z"]


def test_ingest_refused_for_its_rows_runs_once_the_descriptor_is_repaired(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["x"])
    with pytest.raises(ValueError, match="Check `fields` and the limits of its descriptor"):
        ingested(recipe_of(tmp_path, fields={"text": "body"}))
    assert list(ingested(recipe_of(tmp_path)).ids.values()) == ["x"]


def test_ingest_of_nothing_says_what_became_of_the_rows(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["", "  "])
    with pytest.raises(ValueError, match=r"no records left of 2 rows \(\{'empty_text': 2\}\)"):
        ingested(recipe_of(tmp_path))


def test_ingest_cuts_parts_at_records_per_part_across_files(tmp_path: Path) -> None:
    write_rows(tmp_path, a=list("abcde"), b=list("fg"))
    parts = ingested(recipe_of(tmp_path)).manifest.parts
    assert [(part.path, part.num_rows) for part in parts] == [
        ("dropped.jsonl", None),
        ("part-00000.parquet", 3),
        ("part-00001.parquet", 3),
        ("part-00002.parquet", 1),
    ]


def test_ingest_writes_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    write_rows(tmp_path, a=list("abcde"), b=["a", MALFORMED, "f"], c=list("ghij"))
    one, two = (
        ingested(recipe_of(tmp_path, run=f"run{workers}", max_records=9), workers=workers)
        for workers in (1, 2)
    )
    assert one.manifest.parts == two.manifest.parts
    assert one.manifest.fingerprint == two.manifest.fingerprint


def test_ingest_is_remade_when_a_file_is_added(tmp_path: Path) -> None:
    write_rows(tmp_path, a=["x"])
    ingested(recipe_of(tmp_path))
    write_rows(tmp_path, b=["y"])
    assert list(ingested(recipe_of(tmp_path)).ids.values()) == ["x", "y"]
    assert len(list((tmp_path / "run" / "records").glob("wiki.superseded-*"))) == 1


def test_ingest_stays_done_when_a_source_moves_to_another_group(tmp_path: Path) -> None:
    # No byte of a record depends on the group.
    write_rows(tmp_path, a=["x"])
    ingested(recipe_of(tmp_path, group="text-wiki"))
    recipe = recipe_of(tmp_path, group="text-prose")
    (unit,) = units(recipe)
    assert unit_state(unit, Run(folder=recipe.run_folder)) == "done"


@settings(deadline=None, max_examples=30)
@given(files=FILES, max_records=st.none() | st.integers(1, 9), max_chars=st.integers(2, 6))
def test_ingest_accounts_for_every_row_and_keeps_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str | bytes]],
    max_records: int | None,
    max_chars: int,
) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    # One row is always left, or ingest has nothing to write.
    write_rows(folder, **numbered("file", [["ab"], *files]))
    recipe = recipe_of(folder, min_chars=2, max_chars=max_chars, max_records=max_records)
    found = ingested(recipe)
    counts = found.manifest.counts
    assert counts.num_in == 1 + sum(map(len, files))
    assert counts.num_in == counts.num_out + sum(counts.dropped.values())
    assert counts.num_out == len(found.records) == len(found.ids)
    rows = [row for row in itertools.chain(["ab"], *files) if isinstance(row, str)]
    fitting = [row for row in rows if 2 <= len(row) <= max_chars and row.strip()]
    texts = [record.text for record in found.records]
    if max_records is None:
        assert texts == fitting
    else:
        assert len(texts) == min(max_records, len(fitting))
        assert Counter(texts) <= Counter(fitting)


@settings(deadline=None, max_examples=30)
@given(files=FILES, data=st.data())
def test_ingest_ids_do_not_depend_on_the_order_of_files_and_rows(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str | bytes]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    rows = list(itertools.chain(["ab"], *files))
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    write_rows(folder / "one", a=rows)
    write_rows(folder / "two", a=shuffled[:cut], b=shuffled[cut:])
    one, two = (ingested(recipe_of(folder / name)) for name in ("one", "two"))
    assert one.ids == two.ids
    assert one.manifest.counts == two.manifest.counts


@settings(deadline=None, max_examples=20)
@given(files=FILES, more=FILES)
def test_ingest_ids_of_a_growing_source_stay(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str | bytes]],
    more: list[list[str | bytes]],
) -> None:
    folder = tmp_path_factory.mktemp("ingest")
    write_rows(folder / "one", **numbered("m", [["ab"], *files]))
    # The new files come first by name, so that every old row moves.
    write_rows(folder / "two", **numbered("a", more), **numbered("m", [["ab"], *files]))
    one, two = (ingested(recipe_of(folder / name)) for name in ("one", "two"))
    assert one.ids.items() <= two.ids.items()


def test_ingest_holds_a_few_parts_in_memory_not_the_file(tmp_path: Path) -> None:
    # 200 MB of the costliest rows: three bytes per character, and every text in its payload again.
    # Parts are cut by characters alone, at their largest.
    path = tmp_path / "big.jsonl"
    line = '{"q": "%09d' + "問" * 100 + '", "a": "' + "答" * 300 + '"}\n'
    num_rows = 200_000_000 // len((line % 0).encode())
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line % number for number in range(num_rows))
    recipe = recipe_of(
        tmp_path,
        ingest={"records_per_part": 1_000_000},
        family="qa",
        fields={"question": "q", "answer": "a"},
    )
    command = [sys.executable, str(MEASURED_INGEST), str(recipe.path)]
    peak_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    path.unlink()
    assert peak_kib * 1024 < 500_000_000


@pytest.mark.parametrize("option", [None, orjson.OPT_INDENT_2])
def test_ingest_of_an_array_as_lines_names_the_format_that_reads_it(
    tmp_path: Path, option: int | None
) -> None:
    array = orjson.dumps([{"text": "x"}, {"text": "y"}], option=option)
    write_rows(tmp_path, a=array.splitlines())
    with pytest.raises(ValueError, match=r"one array of objects is read by format 'json'\."):
        ingested(recipe_of(tmp_path, ingest={"max_bad_fraction": 0.2}))


@pytest.mark.parametrize("row", [b'{"body": "x"}', b'{"text": 5}'])
def test_ingest_of_lines_with_other_fields_says_nothing_of_arrays(
    tmp_path: Path, row: bytes
) -> None:
    write_rows(tmp_path, a=[row])
    with pytest.raises(ValueError, match="1 of 1 rows are malformed") as refused:
        ingested(recipe_of(tmp_path, ingest={"max_bad_fraction": 0.2}))
    assert "array" not in str(refused.value)
