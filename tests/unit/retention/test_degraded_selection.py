"""Degraded copies from ingest to keep masks: no copy of a held-out text is ever trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from mira_megatron import layout
from mira_megatron.ablation.degraded import kept_degraded
from mira_megatron.ablation.words import degraded_texts, degraded_titles
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus import ingest
from mira_megatron.corpus.degradation import WAYS
from mira_megatron.explain.located_records import locate
from mira_megatron.explain.same_texts import copies_that_bar
from mira_megatron.manifest import Counts
from mira_megatron.records import RECORD_SCORE_SCHEMA
from mira_megatron.report.outcomes import read_arm
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.documents import read_documents
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.retention.selection import units
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.tokenization import tokenize
from mira_megatron.tokenization.degraded_documents import COPY_SCHEMA

NULLS = ("drop", "source_median", "keep_random_share")
ARMS: dict[str, dict[str, Any]] = {
    **{nulls: {"scope": "global", "nulls": nulls} for nulls in NULLS},
    "by_source": {"scope": "source", "nulls": "source_median"},
    "pinned": {"scope": "group", "pinned": ["one", "two"]},
    "second": {"scope": "global", "without": ["half"]},
    "half": {"scope": "global", "budget_fraction": 0.5},
}
# Every text of "one" has a copy in each way; "two" repeats some texts of "one", and some copies.
TEXTS = [
    f"story {n}\n" + "".join(f"line {i} of {n * 7919}\n" for i in range(4 + n % 3))
    for n in range(60)
]


def write_scores(workspace: Workspace, settings: None) -> WorkResult:
    """The work of a unit that stands where aggregate would: every fifth row has no score."""
    assert settings is None
    (upstream,) = workspace.unit.upstream
    for path, part in workspace.upstream_parts(upstream, ".parquet"):
        ids = pq.read_table(path)["record_id"].to_pylist()
        scores = [None if number % 5 == 4 else float(number % 3) for number in range(len(ids))]
        reasons = ["failed" if score is None else None for score in scores]
        columns = {"record_id": ids, "score": scores, "reason": reasons}
        write_parquet(workspace.folder / part.path, pa.table(columns, schema=RECORD_SCORE_SCHEMA))
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def recipe_of(folder: Path, texts: Mapping[str, list[str]], **of_one: Any) -> Recipe:
    for source, lines in texts.items():
        content = b"".join(orjson.dumps({"text": text}) + b"\n" for text in lines)
        (folder / f"{source}.jsonl").write_bytes(content)
    rows = {"format": "jsonl", "family": "text", "fields": {"text": "text"}, "group": "text-all"}
    values = {
        "run_folder": str(folder / "run"),
        "sources": {
            source: {**rows, "paths": [f"{source}.jsonl"], **(of_one if source == "one" else {})}
            for source in texts
        },
        "ingest": {"records_per_part": 16, "max_bad_fraction": 0},
        "tokenize": {
            "tokenizer": None,
            "train_vocab_size": 300,
            "train_on": ["one"],
            "train_chars": 999,
            "validation_fraction": 0.2,
            "validation_max_tokens": 10_000,
            "eod_token": "<|endoftext|>",
        },
        "select": {"budget_fraction": 1.0},
        "arms": {
            arm: {"score": "given", **({"budget_fraction": 1.0} | entry)}
            for arm, entry in ARMS.items()
        },
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def run_records(recipe: Recipe) -> None:
    for unit in [*ingest.units(recipe), *tokenize.units(recipe)]:
        run_unit(unit, Run(folder=recipe.run_folder), Resources())


def run_arms(recipe: Recipe) -> None:
    run = Run(folder=recipe.run_folder)
    for source in recipe.mapping("sources"):
        scores = Unit(
            stage="aggregate",
            name=source,
            folder=layout.record_scores("given", source),
            version=1,
            config={},
            upstream=(layout.records(source),),
            work="test_degraded_selection:write_scores",
        )
        run_unit(scores, run, Resources())
    by_name = {unit.name: unit for unit in units(recipe)}
    for arm in ("half", *by_name):
        run_unit(by_name[arm], run, Resources())


def rows_of(recipe: Recipe, source: str) -> list[dict[str, Any]]:
    """Every document: its row of the documents table, its record's text and meta."""
    parts = sorted((recipe.run_folder / layout.records(source)).glob("part-*.parquet"))
    records = pa.concat_tables(pq.read_table(part, columns=["text", "meta"]) for part in parts)
    (documents,) = (recipe.run_folder / layout.tokens(source)).glob("*.records.parquet")
    table = pq.read_table(documents)
    found: list[dict[str, Any]] = [
        {"source": source, "number": number, **row, **record}
        for number, (row, record) in enumerate(
            zip(table.to_pylist(), records.to_pylist(), strict=True)
        )
    ]
    return found


def is_kept(recipe: Recipe, arm: str, source: str) -> np.ndarray[Any, Any]:
    return read_keep_mask(recipe.run_folder / layout.keep(arm) / f"{source}.keep.npy").is_kept


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A finished selection of all arms."""
    folder = tmp_path_factory.mktemp("degraded")
    option = {"degraded_copies": 4, "degradations": list(WAYS)}
    first = folder / "first"
    first.mkdir()
    alone = recipe_of(first, {"one": TEXTS}, **option)
    run_records(alone)
    copied = [row["text"] for row in rows_of(alone, "one") if row["meta"]]
    recipe = recipe_of(folder, {"one": TEXTS, "two": [*TEXTS[::4], *copied[::3]]}, **option)
    run_records(recipe)
    run_arms(recipe)
    return recipe


def test_copies_have_their_parents_hash_and_are_never_held_out(chosen: Recipe) -> None:
    rows = rows_of(chosen, "one")
    assert sum(row["is_validation"] for row in rows) >= 5
    copies = [row for row in rows if row["meta"]]
    assert len(copies) == 240
    assert not any(row["is_validation"] for row in copies)
    for row in copies:
        assert row["text_hash"].hex() == orjson.loads(row["meta"])["derived_from"]
    for row in rows:
        if not row["meta"]:
            assert row["text_hash"] == xxhash.xxh3_128_digest(row["text"].encode())


def test_copies_are_listed_beside_the_documents(chosen: Recipe) -> None:
    tokens = chosen.run_folder / layout.tokens("one")
    table = pq.read_table(tokens / layout.COPIES)
    assert table.schema == COPY_SCHEMA
    assert table.to_pylist() == [
        {
            "document": row["number"],
            "degraded": orjson.loads(row["meta"])["degraded"],
            "own_text_hash": xxhash.xxh3_128_digest(row["text"].encode()),
        }
        for row in rows_of(chosen, "one")
        if row["meta"]
    ]
    assert not (chosen.run_folder / layout.tokens("two") / layout.COPIES).exists()


def test_real_documents_are_held_out_as_they_are_without_copies(
    chosen: Recipe, tmp_path: Path
) -> None:
    plain = recipe_of(tmp_path, {"one": TEXTS})
    run_records(plain)
    held_out = [
        {row["text"] for row in rows_of(recipe, "one") if row["is_validation"]}
        for recipe in (plain, chosen)
    ]
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_keeps_a_copy_of_a_held_out_text(chosen: Recipe, arm: str) -> None:
    rows = [row for source in ("one", "two") for row in rows_of(chosen, source)]
    kept = {source: is_kept(chosen, arm, source) for source in ("one", "two")}
    held_out = {xxhash.xxh3_128_digest(r["text"].encode()) for r in rows if r["is_validation"]}
    parents = {digest.hex() for digest in held_out}
    num_copies_of_held_out = num_like_held_out = num_kept_copies = 0
    for row in rows:
        parent = orjson.loads(row["meta"])["derived_from"] if row["meta"] else None
        says_held_out = xxhash.xxh3_128_digest(row["text"].encode()) in held_out
        num_copies_of_held_out += parent in parents
        num_like_held_out += says_held_out and parent is not None and parent not in parents
        if parent in parents or says_held_out:
            assert not kept[row["source"]][row["number"]]
        elif parent is not None:
            num_kept_copies += int(kept[row["source"]][row["number"]])
    assert num_copies_of_held_out >= 20
    assert num_like_held_out >= 3
    # A copy counts as its parent's text, so the second phase loses those of what the first keeps.
    assert num_kept_copies >= (0 if arm == "second" else 20)


def test_an_arm_that_goes_without_another_takes_no_copy_of_what_that_one_keeps(
    chosen: Recipe,
) -> None:
    first: set[bytes] = set()
    second: set[bytes] = set()
    for arm, texts in (("half", first), ("second", second)):
        for source in ("one", "two"):
            kept = is_kept(chosen, arm, source)
            texts |= {row["text_hash"] for row in rows_of(chosen, source) if kept[row["number"]]}
    assert first
    assert second
    assert not first & second


def test_a_copy_is_told_which_held_out_document_bars_it(chosen: Recipe) -> None:
    certificate = orjson.loads(
        (chosen.run_folder / layout.keep("drop") / layout.CERTIFICATE).read_bytes()
    )
    barred = {"parent": 0, "own": 0}
    rows = [row for source in ("one", "two") for row in rows_of(chosen, source)]
    held_out = {row["text_hash"] for row in rows if row["is_validation"]}
    for row in rows_of(chosen, "one"):
        own = xxhash.xxh3_128_digest(row["text"].encode())
        by = {row["text_hash"], own} & held_out
        if not row["meta"] or not by:
            continue
        located = locate(chosen, row["record_id"], source="one")
        found = copies_that_bar(
            chosen.run_folder, certificate, located, Decision.DUPLICATE_OF_HELD_OUT
        )
        ids = {
            each["record_id"] for each in rows if each["is_validation"] and each["text_hash"] in by
        }
        assert {each.record_id for each in found} == ids
        barred["parent" if row["text_hash"] in held_out else "own"] += 1
    assert min(barred.values()) >= 3


def workspace_of(recipe: Recipe) -> Workspace:
    sources = list(recipe.mapping("sources"))
    folders = [layout.tokens(source) for source in sources]
    folders += [layout.record_scores("given", source) for source in sources]
    unit = Unit(
        stage="ablation",
        name="table",
        folder="ablation",
        version=1,
        config={},
        upstream=(*folders, *(layout.keep(arm) for arm in ARMS)),
        work="",
    )
    run = Run(folder=recipe.run_folder)
    folder = recipe.run_folder / "ablation"
    return Workspace(run=run, unit=unit, folder=folder, fingerprint="", resources=Resources())


def test_kept_degraded_counts_candidates_and_kept_of_every_way(chosen: Recipe) -> None:
    workspace = workspace_of(chosen)
    documents = read_documents(workspace, ["one", "two"])
    rows = kept_degraded(workspace, [read_arm(workspace, "half", documents)])
    assert [row.way for row in rows] == [None, *WAYS]
    barred = documents["one"]["repeats_held_out"].to_pylist()
    kept = is_kept(chosen, "half", "one")
    for found in rows:
        of_way = [
            row
            for row in rows_of(chosen, "one")
            if (orjson.loads(row["meta"])["degraded"] if row["meta"] else None) == found.way
        ]
        candidates = [row for row in of_way if not barred[row["number"]]]
        chosen_rows = [row for row in of_way if kept[row["number"]]]
        assert found.arm == "half"
        assert found.num_kept == len(chosen_rows) > 0
        assert found.tokens_kept == sum(row["num_tokens"] for row in chosen_rows)
        assert found.num_candidates == len(candidates) > found.num_kept
        assert found.tokens_candidates == sum(row["num_tokens"] for row in candidates)
    assert degraded_titles(rows) == ["real records", *WAYS[:-1], "machine-made"]
    share = f"{100 * rows[0].tokens_kept / rows[0].tokens_candidates:.1f}%"
    assert degraded_texts(rows)["half"][0] == f"{rows[0].tokens_kept:,} ({share})"


def test_kept_degraded_is_nothing_where_no_source_has_copies(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"one": TEXTS[:20], "two": TEXTS[20:30]})
    run_records(recipe)
    run_arms(recipe)
    workspace = workspace_of(recipe)
    documents = read_documents(workspace, ["one", "two"])
    assert kept_degraded(workspace, [read_arm(workspace, "half", documents)]) == ()
