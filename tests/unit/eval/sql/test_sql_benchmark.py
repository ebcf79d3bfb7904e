"""Spider and BIRD from file to results, with real databases, sandbox and files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from sql_files import CONCERTS, write_bird, write_database, write_json_file, write_spider

from mira_megatron.eval.benchmark import HasFacts, HasPredictionFormat, Style
from mira_megatron.eval.controls import run_controls
from mira_megatron.eval.grade_tool import GradeOptions, run
from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox
from mira_megatron.eval.sql.benchmark import SqlBenchmark, open_sql
from mira_megatron.eval.sql.execution import sqlite_version
from mira_megatron.eval.sql.gold import day_of
from mira_megatron.eval.suite import load_suite, open_benchmark
from mira_megatron.eval.verdicts import Sample, Status

VERSION = {"version": "dev_test"}
ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i FROM r) SELECT count(*) FROM r"


def spider(folder: Path, *queries: str, **options: Any) -> SqlBenchmark:
    path = write_spider(folder, queries)
    return open_sql("spider", "spider", path, VERSION | options, folder / "cache")


def bird(folder: Path, *queries: str, **options: Any) -> SqlBenchmark:
    path = write_bird(folder, queries)
    return open_sql("bird", "bird", path, VERSION | options, folder / "cache")


def grading_of(suite: Path, predictions: Path, folder: Path) -> GradeOptions:
    return GradeOptions(
        suite=suite,
        benchmark="bird",
        predictions=predictions,
        output=folder / "graded",
        data_folder=folder,
        cache=None,
        min_isolation=3,
        workers=2,
        is_subset=False,
    )


class Counting:
    """A sandbox that counts its jobs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.level = sandbox.level
        self.num_jobs = 0

    def run(self, job: Job) -> Outcome:
        self.num_jobs += 1
        return self._sandbox.run(job)


def test_one_prediction_gets_a_verdict_of_every_rule(sandbox: Sandbox, folder: Path) -> None:
    benchmark = spider(folder, "SELECT id, name FROM singer ORDER BY age, id")
    found = benchmark.judge(sandbox, "spider/0", "SELECT name, id FROM singer ORDER BY age, id")
    assert {name: status for name, (status, _) in found.statuses.items()} == {
        "spider": Status.PASS,
        "spider_official": Status.PASS,
        "spider_qwen": Status.PASS,
        "spider_bird": Status.FAIL,
        "spider_strict": Status.FAIL,
    }
    assert tuple(found.statuses) == benchmark.verdict_names
    assert found.isolation == sandbox.level


def test_gold_is_run_once_in_a_job_of_its_own(sandbox: Sandbox, folder: Path) -> None:
    counting = Counting(sandbox)
    benchmark = bird(folder, "SELECT id FROM singer")
    assert benchmark.judge(counting, "bird/100", "SELECT 1").statuses["bird"][0] is Status.FAIL
    assert counting.num_jobs == 2
    gold = benchmark.gold("bird/100")
    assert {
        status for status, _ in benchmark.judge(counting, "bird/100", gold).statuses.values()
    } == {Status.PASS}
    assert counting.num_jobs == 3
    assert len(list((folder / "cache/gold").iterdir())) == 1


def test_gold_of_a_changed_database_is_run_again(sandbox: Sandbox, folder: Path) -> None:
    query = "SELECT count(*) FROM singer"
    first = bird(folder, query)
    assert first.judge(sandbox, "bird/100", "SELECT 4").statuses["bird"][0] is Status.PASS
    database = folder / "dev_databases/concerts/concerts.sqlite"
    write_database(database, "INSERT INTO singer (id) VALUES (9)")
    options = VERSION
    second = open_sql("bird", "bird", folder / "dev.json", options, folder / "cache")
    assert second.judge(sandbox, "bird/100", "SELECT 4").statuses["bird"][0] is Status.FAIL
    assert first.task_digest("bird/100") != second.task_digest("bird/100")


def test_damaged_gold_rows_are_named(sandbox: Sandbox, folder: Path) -> None:
    benchmark = bird(folder, "SELECT 1")
    benchmark.judge(sandbox, "bird/100", "SELECT 1")
    (kept,) = (folder / "cache/gold").iterdir()
    kept.write_text("{")
    with pytest.raises(ValueError, match="delete it"):
        benchmark.judge(sandbox, "bird/100", "SELECT 1")


def test_gold_out_of_time_is_not_kept_nor_run_again(sandbox: Sandbox, folder: Path) -> None:
    benchmark = bird(folder, ENDLESS, cpu_seconds=0.2)
    counting = Counting(sandbox)
    for num_jobs in (2, 3):  # the gold statement's, then the predictions'
        found = benchmark.judge(counting, "bird/100", "SELECT 1")
        assert {status for status, _ in found.statuses.values()} == {Status.TIMEOUT}
        assert counting.num_jobs == num_jobs
    assert not (folder / "cache/gold").exists()


def test_gold_out_of_time_counts_with_its_task_and_leaves_the_controlled_score(
    sandbox: Sandbox, folder: Path
) -> None:
    write_bird(folder, ["SELECT id FROM singer", ENDLESS])
    suite = folder / "suite.yaml"
    suite.write_text(
        "sampling: {greedy: {temperature: 0}}\n"
        "benchmarks: {bird: {kind: bird, category: sql, file: dev.json, protocol: p,"
        " sampling: greedy, options: {version: test, cpu_seconds: 0.2}}}\n"
    )
    texts = ["SELECT id FROM singer", "SELECT 1"]
    predictions = write_json_file(
        folder / "predict_dev.json",
        {str(place): f"{text}\t----- bird -----\tconcerts" for place, text in enumerate(texts)},
    )
    assert run(Console(quiet=True), grading_of(suite, predictions, folder)) == 0
    results = json.loads((folder / "graded/results.json").read_text())
    score = results["scores"]["bird"]
    assert (score["pass@1"], score["statuses"]) == (50, {"pass": 1, "timeout": 1})
    assert score["controlled"] == {"pass@1": 100, "num_tasks": 1, "failing": ["bird/101"]}
    rates = results["facts"]["rates"]["bird"]
    assert (rates["gold_timeout"], rates["timeout"]) == (50, 0)


def test_gold_that_asks_for_the_day_is_kept_for_a_day() -> None:
    assert day_of("SELECT date('now')") == day_of("SELECT CURRENT_DATE") != ""
    assert day_of("SELECT known FROM t") == ""


def test_suite_of_databases_finds_what_one_does_not(sandbox: Sandbox, folder: Path) -> None:
    for number, rows in enumerate(("", "INSERT INTO singer (id, age) VALUES (9, 60);")):
        write_database(folder / f"suite/concerts/{number}.sqlite", CONCERTS, rows)
    benchmark = spider(folder, "SELECT id FROM singer WHERE age > 50", test_suite="suite")
    assert benchmark.verdict_names[-1] == "spider_ts"
    by_chance = benchmark.judge(sandbox, "spider/0", "SELECT id FROM singer WHERE age = 52")
    assert by_chance.statuses["spider"][0] is Status.PASS
    status, detail = by_chance.statuses["spider_ts"]
    assert (status, detail) == (Status.FAIL, "2 rows of 1, gold has 3 of 1 (1.sqlite)")
    right = benchmark.judge(sandbox, "spider/0", "SELECT id FROM singer WHERE 50 < age")
    assert right.statuses["spider_ts"] == (Status.PASS, "")


def test_chat_is_shown_tables_evidence_and_question(folder: Path) -> None:
    prompt = bird(folder, "SELECT 1").prompt("bird/100", Style.CHAT)
    (message,) = prompt.messages
    lines = message["content"].splitlines()
    assert lines[0].startswith("CREATE TABLE singer (")
    assert lines[2].startswith("CREATE TABLE stadium (")
    assert lines[4:] == [
        "-- External Knowledge: old means age > 50",
        "",
        "-- Using valid SQLite and understanding External Knowledge, answer the following "
        "questions for the tables provided above.",
        "",
        "Question: Which?",
        "",
        "Please output only the final SQL query, starts with keyword `SELECT`.",
    ]
    assert prompt.template == "sql-chat/1"


def test_completion_ends_in_select_and_says_when_evidence_is_kept_back(folder: Path) -> None:
    prompt = bird(folder, "SELECT 1", evidence=False).prompt("bird/100", Style.COMPLETION)
    assert prompt.template == "sql-no-evidence-completion/1"
    assert prompt.text.endswith(
        "-- Using valid SQLite, answer the following questions for the tables provided above.\n"
        "Question: Which?\n\nSELECT"
    )
    assert "External Knowledge" not in prompt.text
    assert prompt.stop[0] == ";"
    assert spider(folder, "SELECT 1").prompt("spider/0", Style.CHAT).template == (
        "sql-no-evidence-chat/1"
    )


def test_benchmark_is_known_by_grader_database_and_limits(folder: Path) -> None:
    benchmark = spider(folder, "SELECT 1")
    assert benchmark.grader == f"sql/1+sqlite-{sqlite_version()}"
    assert benchmark.cluster("spider/0") == "concerts"
    assert benchmark.task_digest("spider/0") != spider(folder, "SELECT 2").task_digest("spider/0")
    slower = spider(folder, "SELECT 1", cpu_seconds=60)
    assert benchmark.task_digest("spider/0") != slower.task_digest("spider/0")


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("bird", {}, "no version"),
        ("bird", {"version": "a", "test_suite": "b"}, "for Spider alone"),
        ("bird", {"version": "a", "evidence": "no"}, "evidence='no'"),
        ("bird", {"version": "a", "folder": "b"}, "folder='b', expected version"),
        ("bird", {"version": "a", "cpu_seconds": 0}, "cpu_seconds=0"),
    ],
)
def test_wrong_option_is_named(folder: Path, kind: str, options: dict[str, Any], said: str) -> None:
    path = write_bird(folder, ["SELECT 1"])
    with pytest.raises(ValueError, match=said):
        open_sql(kind, kind, path, options, folder)


def test_mira_grade_reads_birds_file_and_writes_facts(sandbox: Sandbox, folder: Path) -> None:
    queries = ["SELECT id FROM singer", "SELECT id FROM singer WHERE id > 9", "SELECT nothing"]
    write_bird(folder, queries)
    suite = folder / "suite.yaml"
    entry = {
        **{"kind": "bird", "category": "sql", "file": "dev.json", "protocol": "ex_bird"},
        **{"sampling": "greedy", "options": {"version": "dev_test"}},
    }
    content = {"sampling": {"greedy": {}}, "benchmarks": {"bird": entry}}
    suite.write_text(yaml.safe_dump(content))
    opened = open_benchmark(load_suite(suite, folder).entry("bird"), folder / "cache")
    assert isinstance(opened, HasPredictionFormat)
    assert isinstance(opened, HasFacts)
    texts = ["SELECT id FROM singer ORDER BY id DESC", "SELECT 1 WHERE 0", "SELECT nothing"]
    predictions = write_json_file(
        folder / "predict_dev.json",
        {str(place): f"{text}\t----- bird -----\tconcerts" for place, text in enumerate(texts)},
    )
    assert run(Console(quiet=True), grading_of(suite, predictions, folder)) == 0
    results = json.loads((folder / "graded/results.json").read_text())
    assert results["scores"]["bird"]["pass@1"] == pytest.approx(200 / 3)
    facts = results["facts"]
    assert (facts["version"], facts["sqlite"]) == ("dev_test", sqlite_version())
    assert facts["rates"]["bird"] == {
        **{"pred_error": 0, "timeout": 0, "gold_error": pytest.approx(100 / 3)},
        "gold_timeout": 0,
        **{"vacuous": pytest.approx(100 / 3), "vacuous_pass": pytest.approx(100 / 3)},
    }
    assert facts["by_difficulty"]["bird"] == {
        "challenging": {"num_tasks": 1, "pass@1": 100},
        "simple": {"num_tasks": 2, "pass@1": 50},
    }


def test_statement_of_a_chat_is_found(folder: Path) -> None:
    sample = Sample(task_id="spider/0", number=0, text=" id FROM singer;")
    assert spider(folder, "SELECT 1").extract(sample).code == "SELECT  id FROM singer"


def test_shipped_suite_names_both(folder: Path) -> None:
    suite = load_suite(Path(__file__).parents[4] / "eval/suites/mira9.yaml", folder)
    for name, write in (("spider", write_spider), ("bird", write_bird)):
        (folder / name).mkdir()
        write(folder / name, ["SELECT 1"])
        entry = suite.entry(name)
        assert entry.category == "sql"
        assert open_benchmark(entry, folder).verdict_names[0] == name


def test_controls_find_no_fault_where_the_right_answer_has_no_rows(
    sandbox: Sandbox, folder: Path
) -> None:
    benchmark = spider(folder, "SELECT id FROM singer", "SELECT id FROM singer WHERE age > 99")
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, folder / "cache", workers=1)
    assert (controls.num_gold, controls.num_bad) == (2, 2)
    assert (controls.failing, controls.passing_bad) == ((), ())


def test_missing_sqlglot_is_named_with_the_way_out(folder: Path) -> None:
    path = write_spider(folder, ["SELECT 1"])
    program = f"""
import sys
from pathlib import Path
sys.modules["sqlglot"] = None
from mira_megatron.eval.suite import Entry, open_benchmark
fields = dict(name="spider", kind="spider", category="sql", protocol="ex_spider", sampling="greedy")
try:
    open_benchmark(Entry(**fields, file=Path({str(path)!r})), Path("cache"))
except ValueError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == "spider needs sqlglot: pip install 'mira-megatron[eval]'\n", said.stderr
