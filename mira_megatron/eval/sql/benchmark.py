"""Spider and BIRD: one prediction is executed once per wording and judged under several rules.

Options of a suite's entry, all of them part of what a number means:
    version     of the data; BIRD's dev was corrected twice, and numbers do not compare
    databases   folder of the databases beside the data file: `database`, `dev_databases`
    gold_file   statements in the published form, in place of those in the data file
    evidence    false: BIRD's `evidence` is not shown to the model
    test_suite  Spider: folder with further rows for each database; adds the verdict spider_ts
    cpu_seconds of one statement
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.sql.answers import statement_in
from mira_megatron.eval.sql.databases import Databases, find_databases, table_definitions
from mira_megatron.eval.sql.execution import StatementLimits, execute, sqlite_version
from mira_megatron.eval.sql.gold import GoldRows, GoldStatement, day_of
from mira_megatron.eval.sql.prediction_files import bird_predictions, spider_predictions
from mira_megatron.eval.sql.prompts import sql_prompt
from mira_megatron.eval.sql.protocols import (
    BIRD_PROTOCOLS,
    SPIDER,
    SPIDER_PROTOCOLS,
    status_under,
)
from mira_megatron.eval.sql.rates import by_difficulty, rates
from mira_megatron.eval.sql.tasks import SqlTask, load_bird, load_spider
from mira_megatron.eval.verdicts import Extraction, Judgment, Sample, Status, Verdict, digest

GRADER = "sql/1"
TEST_SUITE_VERDICT = "spider_ts"

# Databases of a test suite in one job: what comes back of each is held until all are compared.
_VARIANTS_PER_JOB = 16
_OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "version": str,
    "databases": str,
    "gold_file": str,
    "evidence": bool,
    "test_suite": str,
    "cpu_seconds": (int, float),
}
_FOLDERS = {"spider": "database", "bird": "dev_databases"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SqlOptions:
    """What an entry's options come to."""

    version: str
    databases: Path
    gold_file: Path | None
    is_evidence_given: bool
    test_suite: Path | None
    limits: StatementLimits


class SqlBenchmark:
    """Spider's or BIRD's development set over its databases."""

    def __init__(
        self, kind: str, name: str, path: Path, options: SqlOptions, cache_folder: Path
    ) -> None:
        self.name = name
        self.grader = f"{GRADER}+sqlite-{sqlite_version()}"
        self._is_spider = kind == "spider"
        self._options = options
        load = load_spider if self._is_spider else load_bird
        self.tasks = load(path, options.gold_file)
        self._protocols = SPIDER_PROTOCOLS if self._is_spider else BIRD_PROTOCOLS
        self._databases: Databases = find_databases(
            options.databases,
            (task.database for task in self.tasks.values()),
            options.test_suite,
        )
        self._gold = GoldRows(cache_folder, options.limits)
        self._tables = cache(table_definitions)

    @property
    def verdict_names(self) -> tuple[str, ...]:
        """The rules, first the one that the literature's numbers follow."""
        suite = (TEST_SUITE_VERDICT,) if self._databases.variants else ()
        return (*self._protocols, *suite)

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the file."""
        return list(self.tasks)

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns the question with its database's tables."""
        task = self.tasks[task_id]
        return sql_prompt(
            task,
            self._tables(self._databases.paths[task.database]),
            style,
            is_evidence_given=not self._is_spider and self._options.is_evidence_given,
        )

    def extract(self, sample: Sample) -> Extraction:
        """Returns the statement in a sample, or why there is none."""
        return statement_in(sample)

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the statement and the grader."""
        task = self.tasks[task_id]
        files = (self._databases.paths[task.database], *self._variants(task))
        return digest(
            *self.verdict_names,
            task.gold,
            day_of(task.gold),
            repr(astuple(self._options.limits)),
            *(self._databases.digest_of(path) for path in files),
        )

    def gold(self, task_id: str) -> str:
        """Returns a statement that must pass."""
        return self.tasks[task_id].gold

    def bad(self, task_id: str) -> str:
        """Returns a statement that must not pass: one row that answers no question."""
        return "SELECT 'no answer to any question'"

    def cluster(self, task_id: str) -> str:
        """Returns the database: questions about one share its tables and its traps."""
        return self.tasks[task_id].database

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns what each rule makes of a statement's rows."""
        task = self.tasks[task_id]
        path = self._databases.paths[task.database]
        golds = {
            each.prepare_gold(task.gold): self._gold_statement(path, each.prepare_gold(task.gold))
            for each in self._protocols.values()
        }
        gold_rows = dict(
            zip(golds, self._gold.executions(sandbox, list(golds.values())), strict=True)
        )
        wordings = list(dict.fromkeys(each.prepare(code) for each in self._protocols.values()))
        executed = execute(sandbox, [(path, each) for each in wordings], self._options.limits)
        rows = dict(zip(wordings, executed.executions, strict=True))
        statuses = {}
        for name, each in self._protocols.items():
            gold = each.prepare_gold(task.gold)
            statuses[name] = status_under(each, gold, gold_rows[gold], rows[each.prepare(code)])
        if self._databases.variants:
            statuses[TEST_SUITE_VERDICT] = self._suite_status(
                sandbox, task, code, statuses["spider"]
            )
        return Judgment(
            statuses=statuses,
            isolation=executed.outcome.isolation,
            seconds=executed.outcome.wall_seconds,
        )

    def read_predictions(self, path: Path) -> list[Sample]:
        """Returns the samples of a file in the benchmark's own format."""
        read = spider_predictions if self._is_spider else bird_predictions
        return read(path, self.tasks)

    def facts(self, verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
        """Returns what the results say beside the scores: data, SQLite, rates in percent."""
        names = {verdict.benchmark for verdict in verdicts}
        grouped = {
            name: [each for each in verdicts if each.benchmark == name]
            for name in self.verdict_names
            if name in names
        }
        return {
            "version": self._options.version,
            "databases": self._databases.digest,
            "sqlite": sqlite_version(),
            "rates": {name: rates(each) for name, each in grouped.items()},
            "by_difficulty": {
                name: found
                for name, each in grouped.items()
                if (found := by_difficulty(each, self.tasks))
            },
        }

    def _suite_status(
        self, sandbox: Sandbox, task: SqlTask, code: str, on_main: tuple[Status, str]
    ) -> tuple[Status, str]:
        """Returns the verdict over all databases of a suite: the first that is no pass decides."""
        if on_main[0] is not Status.PASS:
            return on_main
        gold, wording = SPIDER.prepare_gold(task.gold), SPIDER.prepare(code)
        variants = self._variants(task)
        for start in range(0, len(variants), _VARIANTS_PER_JOB):
            paths = variants[start : start + _VARIANTS_PER_JOB]
            wanted = self._gold.executions(
                sandbox, [self._gold_statement(path, gold) for path in paths]
            )
            executed = execute(sandbox, [(path, wording) for path in paths], self._options.limits)
            for path, gold_rows, rows in zip(paths, wanted, executed.executions, strict=True):
                status, detail = status_under(SPIDER, gold, gold_rows, rows)
                if status is not Status.PASS:
                    return status, f"{detail} ({path.name})"
        return on_main

    def _variants(self, task: SqlTask) -> tuple[Path, ...]:
        return self._databases.variants.get(task.database, ())

    def _gold_statement(self, path: Path, statement: str) -> GoldStatement:
        return GoldStatement(
            path=path, database_digest=self._databases.digest_of(path), statement=statement
        )


def open_sql(
    kind: str, name: str, path: Path, options: Mapping[str, Any], cache_folder: Path
) -> SqlBenchmark:
    """Returns the benchmark of a suite's entry; `kind` is spider or bird.

    Raises ValueError or FileNotFoundError for options, data and databases that are not as expected.
    """
    return SqlBenchmark(kind, name, path, _read_options(kind, name, path, options), cache_folder)


def _read_options(kind: str, name: str, path: Path, options: Mapping[str, Any]) -> SqlOptions:
    for option, value in options.items():
        kinds = _OPTIONS.get(option)
        if kinds is None or not isinstance(value, kinds):
            raise ValueError(f"{name}.options: {option}={value!r}, expected {', '.join(_OPTIONS)}")
    if not str(options.get("version", "")).strip():
        raise ValueError(
            f"{name}.options: no version; say which release of the data {path} is, such as "
            "dev_20240627: numbers on two releases do not compare"
        )
    if "test_suite" in options and kind != "spider":
        raise ValueError(f"{name}.options: test_suite is for Spider alone")
    folder = path.parent
    seconds = options.get("cpu_seconds")
    return SqlOptions(
        version=str(options["version"]),
        databases=folder / options.get("databases", _FOLDERS[kind]),
        gold_file=folder / options["gold_file"] if "gold_file" in options else None,
        is_evidence_given=options.get("evidence", True),
        test_suite=folder / options["test_suite"] if "test_suite" in options else None,
        limits=StatementLimits() if seconds is None else StatementLimits(cpu_seconds=seconds),
    )
