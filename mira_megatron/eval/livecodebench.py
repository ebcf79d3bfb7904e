"""LiveCodeBench, code generation: programs that read and print, or one function of a class.

A program passes when it passes every test, public and private, each within six CPU seconds. Right
answers never enter the sandbox: what was printed or returned is compared here. The edition (release
and window) is part of the grader's name and so of every verdict: a score without it means nothing.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.exec_environment import ExecEnvironment, exec_environment
from mira_megatron.eval.grouped_calls import Call, CallStatus, call_groups
from mira_megatron.eval.livecodebench_data import Edition, LcbTask, load_tasks
from mira_megatron.eval.livecodebench_prompts import code_between_last_fences, lcb_prompt
from mira_megatron.eval.livecodebench_tests import LcbTest
from mira_megatron.eval.sandbox.contract import Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter
from mira_megatron.eval.stdin_programs import Run, RunStatus, is_same_printed, run_on_inputs
from mira_megatron.eval.tool_versions import sandboxed_python
from mira_megatron.eval.verdicts import Extraction, Form, Judgment, Sample, Status, Verdict, digest

GRADER = "livecodebench/1"
NAME = "livecodebench"

CALL_SECONDS = 6  # of CPU time; the publisher's are of the wall clock
# Names of these are known to every program, as published: starter code has bare List and Optional.
# The order decides where two modules have the same name.
_STARRED = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *("statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins"),
    "typing",
)
_NAMED = _STARRED[:-2]
_HEADER = "".join(
    [f"from {name} import *\n" for name in _STARRED]
    + [f"import {name}\n" for name in _NAMED]
    + ["sys.setrecursionlimit(50000)\n"]
)
_ENTRY = "mira_entry_point"
# Most wrong programs fail early: so few tests first, then as many as fit into one sandbox.
_FIRST_TESTS = 4
_BATCH_TESTS = 64
_BATCH_BYTES = 1 << 25
_TASKS_IN_MEMORY = 4  # with their tests
_GIB = 1 << 30

Judged = tuple[Status, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Runtime:
    interpreter: Interpreter | None
    call_seconds: int


class LiveCodeBench:
    """One edition of the benchmark over a folder of its raw files."""

    name = NAME
    verdict_names = (NAME,)

    def __init__(
        self,
        folder: Path,
        edition: Edition,
        python: Path | None = None,
        call_seconds: int = CALL_SECONDS,
    ) -> None:
        """`python` runs the programs, with the libraries it has; None: the system's python3."""
        if type(call_seconds) is not int or call_seconds < 1:
            raise ValueError(
                f"{NAME}: call_seconds={call_seconds!r}, expected a whole number above 0"
            )
        self.edition = edition
        self._python = python
        self._call_seconds = call_seconds
        seconds = "" if call_seconds == CALL_SECONDS else f" {call_seconds} s"
        self.grader = f"{GRADER} {edition}{seconds}"
        self.tasks = load_tasks(folder, edition)
        self._tests = lru_cache(_TASKS_IN_MEMORY)(lambda task_id: self.tasks[task_id].tests())

    @cached_property
    def _environment(self) -> ExecEnvironment | None:
        return exec_environment(self._python) if self._python else None

    @cached_property
    def _python_version(self) -> str | bytes:
        return self._environment.digest if self._environment else sandboxed_python()

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the files."""
        return list(self.tasks)

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns what a model is asked, with room for 2,000 tokens."""
        return lcb_prompt(self.tasks[task_id], style)

    def extract(self, sample: Sample) -> Extraction:
        """Returns the program: between an answer's last two fences, or the text as it is."""
        if sample.form is Form.ANSWER:
            return code_between_last_fences(sample.text)
        if not sample.text.strip():
            return Extraction(code=None, reason="empty")
        return Extraction(code=sample.text)

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the program and the grader."""
        return digest(self.tasks[task_id].digest, self._python_version)

    def gold(self, task_id: str) -> str | None:
        """Returns None: solutions are not published."""
        return None

    def cluster(self, task_id: str) -> str:
        """Returns the task itself."""
        return task_id

    def facts(self, verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
        """Returns what a score of this benchmark means nothing without, as JSON has it."""
        days = [task.day.isoformat() for task in self.tasks.values()]
        return {
            "edition": str(self.edition),
            "release": self.edition.release,
            "first_contest": min(days),
            "last_contest": max(days),
            "call_seconds": self._call_seconds,
            "python": self._environment.version if self._environment else None,
        }

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns the verdict on a program. Raises ValueError for tests that cannot be read."""
        task = self.tasks[task_id]
        judge = _judge_calls if task.function else _judge_runs
        tests = self._tests(task_id)
        runtime = _Runtime(
            interpreter=self._environment.interpreter if self._environment else None,
            call_seconds=self._call_seconds,
        )
        verdict: Judged = (Status.PASS, "")
        isolation, seconds, first = sandbox.level, 0.0, 0
        for batch in batches(tests):
            index, verdict, outcome = judge(sandbox, task, code, batch, runtime)
            isolation = min(isolation, outcome.isolation)
            seconds += outcome.wall_seconds
            if verdict[0] is not Status.PASS:
                verdict = verdict[0], f"test {first + index + 1} of {len(tests)}: {verdict[1]}"
                break
            first += len(batch)
        return Judgment(statuses={NAME: verdict}, isolation=isolation, seconds=seconds)


def batches(tests: Sequence[LcbTest]) -> Iterator[Sequence[LcbTest]]:
    """Yields the tests in order: the first four, then bounded by their number and bytes."""
    yield tests[:_FIRST_TESTS]
    batch: list[LcbTest] = []
    num_bytes = 0
    for test in tests[_FIRST_TESTS:]:
        size = len(test.input) + len(test.output)
        if batch and (len(batch) == _BATCH_TESTS or num_bytes + size > _BATCH_BYTES):
            yield batch
            batch, num_bytes = [], 0
        batch.append(test)
        num_bytes += size
    if batch:
        yield batch


def with_header(code: str) -> str:
    """Returns the program with the names known that the publisher makes known.

    They go behind imports from `__future__`, which may stand at the beginning only.
    """
    if "__future__" in code:
        try:
            body = ast.parse(code).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            body = []  # it will not compile in the sandbox either
        ends = [
            statement.end_lineno or 0
            for statement in body
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        ]
        if ends:
            lines = code.split("\n")
            return "\n".join([*lines[: max(ends)], _HEADER, *lines[max(ends) :]])
    return f"{_HEADER}\n{code}"


def _judge_runs(
    sandbox: Sandbox,
    task: LcbTask,
    code: str,
    tests: Sequence[LcbTest],
    runtime: _Runtime,
) -> tuple[int, Judged, Outcome]:
    ran = run_on_inputs(
        sandbox,
        with_header(code),
        [test.input for test in tests],
        cpu_seconds=runtime.call_seconds,
        limits=_limits(tests, runtime.call_seconds),
        modules=_STARRED,
        interpreter=runtime.interpreter,
    )
    verdict = _first_wrong(
        [_run_verdict(run, test) for run, test in zip(ran.runs, tests, strict=False)]
    )
    return *verdict, ran.outcome


def _judge_calls(
    sandbox: Sandbox,
    task: LcbTask,
    code: str,
    tests: Sequence[LcbTest],
    runtime: _Runtime,
) -> tuple[int, Judged, Outcome]:
    place = "Solution()." if "class Solution" in code else ""
    try:
        lines = [test.input.rstrip("\n").split("\n") for test in tests]
        arguments = [[json.loads(line) for line in each] for each in lines]
        expected = [json.loads(test.output) for test in tests]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{task.place}: a functional test that is not JSON ({error})") from error
    called = call_groups(
        sandbox,
        f"{with_header(code)}\n\n{_ENTRY} = {place}{task.function}\n",
        _ENTRY,
        [arguments],
        [[float(runtime.call_seconds)] * len(tests)],
        _limits(tests, runtime.call_seconds),
        runtime.interpreter,
    )
    (calls,) = called.groups
    verdict = _first_wrong(
        [_call_verdict(call, value) for call, value in zip(calls, expected, strict=False)]
    )
    return *verdict, called.outcome


def _first_wrong(verdicts: Sequence[Judged]) -> tuple[int, Judged]:
    for index, verdict in enumerate(verdicts):
        if verdict[0] is not Status.PASS:
            return index, verdict
    return 0, (Status.PASS, "")


def _run_verdict(run: Run, test: LcbTest) -> Judged:
    match run.status:
        case RunStatus.ENDED if is_same_printed(run.stdout, test.output):
            return Status.PASS, ""
        case RunStatus.ENDED:
            return Status.FAIL, "wrong answer"
        case RunStatus.TIMED_OUT:
            return Status.TIMEOUT, "out of time"
        case _:
            return Status.ERROR, run.detail


def _call_verdict(call: Call, expected: object) -> Judged:
    match call.status:
        case CallStatus.VALUE:
            # Right answers come from JSON, which has no tuples; the publisher takes one for a list.
            value = list(call.value) if isinstance(call.value, tuple) else call.value
            if value == expected:
                return Status.PASS, ""
            return Status.FAIL, "wrong answer"
        case CallStatus.TIMED_OUT:
            return Status.TIMEOUT, "out of time"
        case _:
            return Status.ERROR, call.detail


def _limits(tests: Sequence[LcbTest], call_seconds: int) -> Limits:
    """Returns limits for all tests together; each one's CPU seconds are bounded beside them."""
    return Limits(
        wall_seconds=60 + 4 * call_seconds * len(tests),  # for a machine that is shared
        cpu_seconds=60 + call_seconds * len(tests),
        memory_bytes=4 * _GIB,
        # What is printed comes as JSON, where a newline is two bytes.
        output_bytes=_GIB // 64 + 4 * sum(len(test.output) for test in tests),
        num_processes=64,
        file_bytes=_GIB // 8 + 4 * max(len(test.input) for test in tests),
        num_open_files=64,
    )
