"""Ingest of sources that ask for degraded copies, run as units over files made here."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from mira_megatron.config import Recipe, fingerprinted, load_recipe
from mira_megatron.corpus.degradation import WAYS
from mira_megatron.corpus.ingest import units
from mira_megatron.corpus.renderers import render
from mira_megatron.corpus.sources import SourceConfig
from mira_megatron.manifest import Manifest
from mira_megatron.records import Record, records_from_table
from mira_megatron.rubric.views import ViewMaker
from mira_megatron.stage import Resources, Run, run_unit

ALL: dict[str, Any] = {"degraded_copies": 4, "degradations": list(WAYS)}
HALF: dict[str, Any] = {"degraded_copies": 2.0, "degradations": list(WAYS)}


def texts(num: int) -> list[str]:
    return [
        f"text {n} begins\n" + "".join(f"line {i} of {n}\n" for i in range(9)) for n in range(num)
    ]


def rows_of(family: str, num: int) -> list[dict[str, Any]]:
    """Rows of any family, each with a licence."""
    fields: list[dict[str, Any]]
    match family:
        case "text":
            fields = [{"text": text} for text in texts(num)]
        case "qa":
            fields = [{"question": f"q{n}", "answer": text} for n, text in enumerate(texts(num))]
        case "qa_with_think":
            fields = [
                {"question": f"q{n}", "think": text, "answer": text}
                for n, text in enumerate(texts(num))
            ]
        case _:
            fields = [{"messages": messages(n)} for n in range(num)]
    return [{**row, "license": "MIT"} for row in fields]


def messages(number: int) -> list[dict[str, Any]]:
    call = {"function": {"name": "run", "arguments": {"n": number}}}
    found: list[dict[str, Any]] = [{"role": "user", "content": f"mend {number}"}]
    for turn in range(4):
        found.append({"role": "assistant", "content": f"I try {turn}", "tool_calls": [call]})
        found.append({"role": "tool", "content": f"result {turn} of {number}: it fails here"})
    return found


FIELDS = {
    "text": ["text"],
    "qa": ["question", "answer"],
    "qa_with_think": ["question", "think", "answer"],
    "agent": ["messages"],
}


def recipe_of(
    folder: Path, rows: list[dict[str, Any]], family: str = "text", run: str = "run", **more: Any
) -> Recipe:
    """A recipe of one source in three files, cut into parts of five records."""
    for number in range(3):
        lines = b"".join(orjson.dumps(row) + b"\n" for row in rows[number::3])
        (folder / f"{number}.jsonl").write_bytes(lines)
    descriptor = {
        "format": "jsonl",
        "family": family,
        "fields": {name: name for name in FIELDS[family]},
        "paths": ["*.jsonl"],
        **more,
    }
    values = {
        "run_folder": str(folder / run),
        "sources": {"some": descriptor},
        "ingest": {"records_per_part": 5, "max_bad_fraction": 0.0},
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def ingested(recipe: Recipe, *, workers: int = 1) -> tuple[list[Record], Manifest]:
    (unit,) = units(recipe)
    manifest = run_unit(unit, Run(folder=recipe.run_folder), Resources(workers=workers))
    parts = sorted((recipe.run_folder / unit.folder).glob("part-*.parquet"))
    return records_from_table(pa.concat_tables(map(pq.read_table, parts))), manifest


def meta_of(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(record.meta or "{}")
    return found


def is_copy(record: Record) -> bool:
    return "degraded" in meta_of(record)


@pytest.mark.parametrize("family", FIELDS)
def test_ingest_writes_every_copy_behind_its_parent(tmp_path: Path, family: str) -> None:
    rows = rows_of(family, 7)
    records, manifest = ingested(recipe_of(tmp_path, rows, family, meta_fields=["license"], **ALL))
    assert manifest.counts.totals["degraded_copies"] == 28
    assert manifest.counts.num_out == manifest.counts.num_in == 35
    for start in range(0, 35, 5):
        parent, *copies = records[start : start + 5]
        assert [meta_of(copy)["degraded"] for copy in copies] == list(WAYS)
        text_hash = xxhash.xxh3_128_hexdigest(parent.text.encode())
        for copy in copies:
            assert meta_of(copy)["derived_from"] == text_hash
            assert meta_of(copy)["license"] == "MIT"
            assert (copy.family, copy.source, copy.origin) == (family, "some", parent.origin)
            assert copy.text != parent.text
            assert copy.num_chars == len(copy.text)
            if copy.payload is None:
                assert family == "text"
            else:
                rendered = render(family, orjson.loads(copy.payload))
                assert (rendered.text, rendered.control_spans) == (copy.text, copy.control_spans)


def test_ingest_with_copies_leaves_the_real_records_as_they_were(tmp_path: Path) -> None:
    rows = [*rows_of("text", 8), *rows_of("text", 3), {"text": "line 1 of 2\n"}]
    without, _ = ingested(recipe_of(tmp_path, rows, run="without"))
    records, manifest = ingested(recipe_of(tmp_path, rows, run="with", **ALL))
    assert [record for record in records if not is_copy(record)] == without
    # Three texts stand there twice: the copies of the second are those of the first.
    assert manifest.counts.dropped["copy_not_new"] >= 12
    ids = [record.record_id for record in records]
    assert len(set(ids)) == len(ids)
    assert len({record.text for record in records}) == len(records) - 3
    assert not any("-" in record.record_id for record in records if is_copy(record))
    assert manifest.counts.num_in == manifest.counts.num_out + sum(manifest.counts.dropped.values())


def test_ingest_writes_no_copy_that_says_what_a_real_record_says(tmp_path: Path) -> None:
    two = [{"text": "one\ntwo"}, {"text": "two\none"}]
    shuffled: dict[str, Any] = {"degraded_copies": 1, "degradations": ["shuffled"]}
    records, manifest = ingested(recipe_of(tmp_path, two, **shuffled))
    assert [record.text for record in records] == ["one\ntwo", "two\none"]
    assert manifest.counts.dropped == {"copy_not_new": 2}


def test_ingest_samples_real_records_and_takes_their_copies_along(tmp_path: Path) -> None:
    rows = rows_of("text", 12)
    without, _ = ingested(recipe_of(tmp_path, rows, run="without", max_records=4))
    records, manifest = ingested(recipe_of(tmp_path, rows, run="with", max_records=4, **ALL))
    assert [record for record in records if not is_copy(record)] == without
    hashes = {xxhash.xxh3_128_hexdigest(record.text.encode()) for record in without}
    parents = Counter(meta_of(copy)["derived_from"] for copy in records if is_copy(copy))
    assert parents == dict.fromkeys(hashes, 4)
    assert manifest.counts.dropped == {"not_sampled": 8, "copy_not_sampled": 32}


def test_ingest_holds_copies_to_the_limits_of_records(tmp_path: Path) -> None:
    rows = [{"text": " ".join(f"word{n}{i}" for i in range(9))} for n in range(4)]
    limits: dict[str, Any] = {"min_chars": 50, "max_chars": 70}  # each text has 62
    records, manifest = ingested(recipe_of(tmp_path, rows, **limits, **ALL))
    assert all(50 <= record.num_chars <= 70 for record in records)
    assert manifest.counts.dropped == {"copy_under_min_chars": 4, "copy_over_max_chars": 4}


def test_ingest_writes_as_many_copies_as_asked_for_on_average(tmp_path: Path) -> None:
    rows = rows_of("text", 300)
    records, _ = ingested(recipe_of(tmp_path, rows, **HALF))
    copies = [record for record in records if is_copy(record)]
    # 1,200 tosses of a coin: within five standard deviations of 600.
    assert abs(len(copies) - 600) < 87
    ways = Counter(meta_of(copy)["degraded"] for copy in copies)
    assert ways.keys() == set(WAYS)
    assert all(abs(num - 150) < 44 for num in ways.values())


def test_copies_do_not_depend_on_workers_files_or_the_order_of_ways(tmp_path: Path) -> None:
    rows = rows_of("agent", 11)
    first, manifest = ingested(recipe_of(tmp_path, rows, "agent", run="one", **HALF))
    recipe = recipe_of(tmp_path, rows, "agent", run="two", **HALF)
    _, again = ingested(recipe, workers=3)
    assert [part.digest for part in again.parts] == [part.digest for part in manifest.parts]
    backwards: dict[str, Any] = {"degraded_copies": 2.0, "degradations": list(reversed(WAYS))}
    other, _ = ingested(recipe_of(tmp_path, rows[::-1], "agent", run="three", **backwards))
    assert {r.record_id: r.text for r in other} == {r.record_id: r.text for r in first}


def test_judges_are_shown_nothing_that_tells_a_copy(tmp_path: Path) -> None:
    records, _ = ingested(recipe_of(tmp_path, rows_of("qa", 4), "qa", **ALL))
    maker = ViewMaker(None, None)
    for copy in filter(is_copy, records):
        shown = maker.view(copy)
        assert shown == maker.view(replace(copy, meta=None))
        assert shown.text == copy.payload
        assert "degraded" not in shown.text
        assert re.fullmatch("[0-9a-f]{32}", copy.record_id)


def test_source_without_the_option_is_fingerprinted_as_before_there_was_one() -> None:
    plain: dict[str, Any] = {"format": "text_tree", "family": "text", "paths": ["x"]}
    names = fingerprinted(SourceConfig(**plain)).keys()
    assert not names & {"degraded_copies", "degradations"}
    asked = SourceConfig(**plain, degraded_copies=1, degradations=["shuffled"])
    assert fingerprinted(asked).keys() - names == {"degraded_copies", "degradations"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"degraded_copies": 1.0}, r"degraded_copies=1.0 must be in \[0, 0\]"),
        ({"degraded_copies": -1, "degradations": ["shuffled"]}, r"in \[0, 1\]"),
        ({"degraded_copies": 1.5, "degradations": ["shuffled"]}, r"in \[0, 1\]"),
        ({"degraded_copies": float("nan"), "degradations": ["shuffled"]}, r"in \[0, 1\]"),
        ({"degraded_copies": 1, "degradations": ["rotten"]}, "'rotten' is none of truncated"),
        ({"degraded_copies": 1, "degradations": ["shuffled", "shuffled"]}, "a way twice"),
        ({**ALL, "meta_fields": ["derived_from"]}, "leave it out"),
        ({**ALL, "meta_fields": ["degraded"]}, "leave it out"),
    ],
)
def test_source_with_a_wrong_setting_of_copies_is_refused(
    setting: dict[str, Any], message: str
) -> None:
    plain = {"format": "jsonl", "family": "text", "paths": ["x"], "fields": {"text": "text"}}
    with pytest.raises(ValueError, match=message):
        SourceConfig(**{**plain, **setting})
