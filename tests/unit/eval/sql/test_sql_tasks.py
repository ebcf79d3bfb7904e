from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sql_files import write_bird, write_database, write_spider

from mira_megatron.eval.sql.databases import find_databases, table_definitions
from mira_megatron.eval.sql.tasks import load_bird, load_spider


def test_spider_tasks_are_known_by_their_place(tmp_path: Path) -> None:
    tasks = load_spider(write_spider(tmp_path, ["SELECT 1", "SELECT 2"]))
    assert list(tasks) == ["spider/0", "spider/1"]
    assert (tasks["spider/1"].gold, tasks["spider/1"].database) == ("SELECT 2", "concerts")
    assert tasks["spider/1"].evidence == tasks["spider/1"].difficulty == ""


def test_bird_tasks_are_known_by_their_question(tmp_path: Path) -> None:
    tasks = load_bird(write_bird(tmp_path, ["SELECT 1", "SELECT 2"]))
    assert list(tasks) == ["bird/100", "bird/101"]
    assert tasks["bird/101"].evidence == "old means age > 50"
    assert tasks["bird/101"].difficulty == "challenging"


def test_gold_file_takes_the_place_of_statements_and_may_hold_tabs(tmp_path: Path) -> None:
    data = write_spider(tmp_path, ["SELECT 1", "SELECT 2"])
    gold = tmp_path / "gold.sql"
    gold.write_text("SELECT\t3\tconcerts\nSELECT '\u2028'\tconcerts\n\n")
    tasks = load_spider(data, gold)
    assert [task.gold for task in tasks.values()] == ["SELECT\t3", "SELECT '\u2028'"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("SELECT 1\tconcerts\n", "1 lines for 2 tasks"),
        ("SELECT 1\tconcerts\nSELECT 2\tflights\n", r"gold\.sql:2: database 'flights'"),
        ("SELECT 1\tconcerts\nSELECT 2\n", r"gold\.sql:2: "),
    ],
)
def test_gold_file_that_does_not_fit_is_named(tmp_path: Path, lines: str, said: str) -> None:
    data = write_spider(tmp_path, ["SELECT 1", "SELECT 2"])
    gold = tmp_path / "gold.sql"
    gold.write_text(lines)
    with pytest.raises(ValueError, match=said):
        load_spider(data, gold)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query": None}, "task 1: query is None"),
        ({"db_id": "../secret"}, "expected a folder's name"),
        ({"db_id": ""}, "expected a folder's name"),
    ],
)
def test_wrong_task_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write_spider(tmp_path, ["SELECT 1", "SELECT 2"])
    tasks = json.loads(path.read_text())
    tasks[1].update(change)
    path.write_text(json.dumps(tasks))
    with pytest.raises(ValueError, match=said):
        load_spider(path)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '["x"]'])
def test_file_that_is_no_list_of_tasks_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "dev.json").write_text(content)
    with pytest.raises(ValueError, match=r"dev\.json: (not JSON|expected a list|task 0)"):
        load_spider(tmp_path / "dev.json")


def test_question_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = write_bird(tmp_path, ["SELECT 1", "SELECT 2"])
    path.write_text(path.read_text().replace("101", "100"))
    with pytest.raises(ValueError, match="bird/100 is there twice"):
        load_bird(path)


def test_databases_are_known_by_their_bytes_variants_too(tmp_path: Path) -> None:
    write_spider(tmp_path, ["SELECT 1"])
    alone = find_databases(tmp_path / "database", ["concerts"])
    write_database(tmp_path / "suite/concerts/1.sqlite", "CREATE TABLE a (b)")
    with_variants = find_databases(tmp_path / "database", ["concerts"], tmp_path / "suite")
    assert [path.name for path in with_variants.variants["concerts"]] == ["1.sqlite"]
    assert alone.digest != with_variants.digest
    write_database(
        tmp_path / "database/concerts/concerts.sqlite", "INSERT INTO singer (id) VALUES (9)"
    )
    assert find_databases(tmp_path / "database", ["concerts"]).digest != alone.digest


def test_missing_database_is_named(tmp_path: Path) -> None:
    write_spider(tmp_path, ["SELECT 1"])
    with pytest.raises(FileNotFoundError, match=r"1 of 2 databases .*flights\.sqlite"):
        find_databases(tmp_path / "database", ["concerts", "flights"])
    with pytest.raises(FileNotFoundError, match="suite/concerts: no"):
        find_databases(tmp_path / "database", ["concerts"], tmp_path / "suite")


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a/a.sqlite"
    path.parent.mkdir()
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="expected an SQLite database"):
        find_databases(tmp_path, ["a"])


def test_database_with_changes_in_a_journal_is_refused(tmp_path: Path) -> None:
    write_spider(tmp_path, ["SELECT 1"])
    journal = tmp_path / "database/concerts/concerts.sqlite-wal"
    journal.write_bytes(b"\x37\x7f\x06\x82")
    with pytest.raises(ValueError, match=r"concerts\.sqlite-wal: changes"):
        find_databases(tmp_path / "database", ["concerts"])


def test_tables_are_read_as_they_were_made(tmp_path: Path) -> None:
    script = (
        "CREATE TABLE b (x INTEGER PRIMARY KEY AUTOINCREMENT, y);\n"
        "CREATE TABLE a -- first\n (z TEXT);\nCREATE VIEW v AS SELECT 1;"
    )
    path = write_database(tmp_path / "a.sqlite", script)
    assert table_definitions(path) == [
        "CREATE TABLE b (x INTEGER PRIMARY KEY AUTOINCREMENT, y)",
        "CREATE TABLE a -- first\n (z TEXT)",
    ]
    path.write_bytes(path.read_bytes()[:100] + bytes(4000))
    with pytest.raises(ValueError, match="no SQLite database"):
        table_definitions(path)
