from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_files import ADD, MULTIPL_E, write_lines, write_mbpp, write_multipl_e
from sql_files import write_bird, write_spider

from mira_megatron.eval.contamination.items import TRAIN, Item, Kind, TextForm
from mira_megatron.eval.contamination.published_files import READERS, read_items
from mira_megatron.eval.sql.tasks import load_bird, load_spider

PATCH = "--- a/x.py\n+++ b/x.py\n@@ -1 +1,2 @@\n-old = 1\n+new = 2\n+++count\n same\n"
ROWS: Mapping[str, tuple[dict[str, Any], dict[tuple[Kind, TextForm], str]]] = {
    "bigcodebench": (
        {
            "task_id": "BigCodeBench/0",
            "complete_prompt": "def task_func():",
            "instruct_prompt": "Do it.",
            "canonical_solution": "    return 1",
            "test": "class TestCases: ...",
        },
        {
            (Kind.PROMPT, TextForm.CODE): "def task_func():",
            (Kind.PROMPT, TextForm.PROSE): "Do it.",
            (Kind.SOLUTION, TextForm.CODE): "    return 1",
            (Kind.TESTS, TextForm.CODE): "class TestCases: ...",
        },
    ),
    "livecodebench": (
        {"question_id": "1873_A", "question_content": "There are three cards."},
        {(Kind.PROMPT, TextForm.PROSE): "There are three cards."},
    ),
    "spider": (
        {"db_id": "pets", "question": "How many?", "query": "SELECT count(*) FROM pets"},
        {
            (Kind.PROMPT, TextForm.PROSE): "How many?",
            (Kind.SOLUTION, TextForm.SQL): "SELECT count(*) FROM pets",
        },
    ),
    "bird": (
        {"question_id": 3, "db_id": "pets", "question": "How many?", "SQL": "SELECT 1"},
        {
            (Kind.PROMPT, TextForm.PROSE): "How many?",
            (Kind.SOLUTION, TextForm.SQL): "SELECT 1",
        },
    ),
    "swe_multilingual": (
        {
            "instance_id": "apache__druid-13704",
            "repo": "apache/druid",
            "base_commit": "51dfde02",
            "problem_statement": "It fails.",
            "patch": PATCH,
            "test_patch": PATCH,
            "FAIL_TO_PASS": '["b", "a"]',
        },
        {
            (Kind.PROMPT, TextForm.PROSE): "It fails.",
            (Kind.SOLUTION, TextForm.CODE): "new = 2\n++count",
            (Kind.TESTS, TextForm.CODE): "new = 2\n++count",
        },
    ),
}


def texts(item: Item) -> dict[tuple[Kind, TextForm], str]:
    return {(surface.kind, surface.form): surface.text for surface in item.surfaces}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "jsonl.gz"])
def test_a_published_file_gives_the_surfaces_of_its_items(
    tmp_path: Path, kind: str, ending: str
) -> None:
    fields, expected = ROWS[kind]
    path = tmp_path / f"data.{ending}"
    match ending:
        case "json":
            path.write_text(json.dumps([fields], indent=1))
        case "parquet":
            pq.write_table(pa.Table.from_pylist([fields]), path)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(json.dumps(fields).encode()))
        case _:
            write_lines(path, [fields])
    for given in (path, tmp_path):  # a folder of data files will do
        (item,) = read_items(kind, "bench", given)
        assert texts(item) == expected
        assert (item.benchmark, item.split) == ("bench", "test")


def test_references_of_an_instance_are_its_commit_and_its_pull_request(tmp_path: Path) -> None:
    fields, _ = ROWS["swe_multilingual"]
    path = write_lines(tmp_path / "a.jsonl", [{**fields, "issue_numbers": [12]}])
    (item,) = read_items("swe_multilingual", "swe", path)
    assert {
        "51dfde02",
        "apache__druid-13704",
        "apache/druid/pull/13704",
        "apache/druid#13704",
        "apache/druid/issues/12",
    } <= set(item.references)
    assert item.test_names == ("a", "b")


def test_mbpp_is_read_as_evalplus_and_as_the_original_has_it(tmp_path: Path) -> None:
    item, _ = read_items("mbpp", "mbpp", write_mbpp(tmp_path / "plus.jsonl"))
    assert texts(item)[Kind.SOLUTION, TextForm.CODE] == ADD["canonical_solution"]
    row = {"task_id": 601, "text": "Add.", "code": "def add(): ...", "test_list": ["assert 1"]}
    (item,) = read_items("mbpp", "mbpp", write_lines(tmp_path / "own.jsonl", [row]), TRAIN)
    assert (item.task_id, item.split) == ("601", TRAIN)
    assert texts(item)[Kind.TESTS, TextForm.CODE] == "assert 1"


def test_a_translation_has_the_task_that_it_was_made_from(tmp_path: Path) -> None:
    (tmp_path / "multipl_e").mkdir()
    path = write_multipl_e(tmp_path / "multipl_e/java.jsonl", "java")
    (alone,) = read_items("multipl_e", "multipl_e_java", path)
    assert set(texts(alone).values()) == {MULTIPL_E["java"][0], MULTIPL_E["java"][3]}
    assert alone.cluster == "HumanEval/53"
    original = {"task_id": "HumanEval/53", "prompt": "def add():", "canonical_solution": "  pass"}
    (tmp_path / "human_eval").mkdir()
    file = tmp_path / "human_eval/HumanEval.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(original).encode()))
    (item,) = read_items("multipl_e", "multipl_e_java", path)
    assert texts(item)[Kind.ORIGINAL_SOLUTION, TextForm.CODE] == "  pass"


def test_questions_of_one_query_are_one_cluster(tmp_path: Path) -> None:
    fields, _ = ROWS["spider"]
    rows = [fields, {**fields, "query": "select  count(*) from pets"}, {**fields, "db_id": "x"}]
    first, second, third = read_items("spider", "spider", write_lines(tmp_path / "a.jsonl", rows))
    assert first.cluster == second.cluster != third.cluster
    assert [first.task_id, second.task_id, third.task_id] == ["spider/0", "spider/1", "spider/2"]


def test_questions_have_the_ids_that_they_are_graded_by(tmp_path: Path) -> None:
    queries = ["SELECT 1", "SELECT 2"]
    for kind, write, load in (
        ("spider", write_spider, load_spider),
        ("bird", write_bird, load_bird),
    ):
        path = write(tmp_path, queries)
        assert [item.task_id for item in read_items(kind, "bench", path)] == list(load(path))


@pytest.mark.parametrize("kind", [*ROWS, "mbpp", "multipl_e"])
def test_a_file_of_another_format_is_named_with_its_row(tmp_path: Path, kind: str) -> None:
    assert kind in READERS
    path = write_lines(tmp_path / "a.jsonl", [{"x": "y"}])
    with pytest.raises(ValueError, match=r"a\.jsonl: row 1 of bench: no text .*it has x"):
        read_items(kind, "bench", path)


def test_what_is_no_data_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such data file"):
        read_items("mbpp", "mbpp", tmp_path / "nowhere")
    broken = tmp_path / "a.jsonl"
    broken.write_text('{"task_id": ')
    with pytest.raises(ValueError, match=r"a\.jsonl: not JSON"):
        read_items("mbpp", "mbpp", broken)
    broken.write_text("[1]\n")
    with pytest.raises(ValueError, match="row 1 of mbpp: list, expected an object"):
        read_items("mbpp", "mbpp", broken)
    broken.write_text("\n")
    with pytest.raises(ValueError, match="no items of mbpp"):
        read_items("mbpp", "mbpp", broken)


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question_id": "1", "question_content": "\ud83d here"}))
    (item,) = read_items("livecodebench", "lcb", path)
    assert item.surfaces[0].text == "? here"
