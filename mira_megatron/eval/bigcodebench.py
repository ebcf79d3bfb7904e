"""BigCodeBench, all of it and its hard tasks: one program, one or two verdicts.

A program is run together with the task's unittest tests, in an interpreter that has the tasks'
libraries. It is calibrated as published: the task's imports and signature come first, so that a
program that only left out an import is not wrong for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mira_megatron.eval.answers.python_program import python_program
from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.bigcodebench_data import BcbOptions, bcb_files, load_tasks
from mira_megatron.eval.bigcodebench_prompts import bcb_prompt
from mira_megatron.eval.exec_environment import (
    ExecEnvironment,
    exec_environment,
    failing_imports,
)
from mira_megatron.eval.sandbox.contract import Limits, Sandbox
from mira_megatron.eval.unittest_runs import run_with_tests
from mira_megatron.eval.verdicts import Extraction, Judgment, Sample, Verdict, digest

GRADER = "bigcodebench/1"
FULL, HARD = "bigcodebench_full", "bigcodebench_hard"

_SECONDS = 240  # as published
_GIB = 1 << 30
_LIMITS = Limits(
    wall_seconds=_SECONDS,
    cpu_seconds=_SECONDS,
    memory_bytes=30 * _GIB,  # as published: of addresses, which libraries reserve many of
    output_bytes=2 << 20,
    num_processes=256,
    file_bytes=_GIB // 2,
    num_open_files=1024,
)


class BigCodeBench:
    """The benchmark over one file, with verdicts on the tasks of its hard file beside."""

    name = "bigcodebench"
    grader = GRADER

    def __init__(self, path: Path, options: BcbOptions) -> None:
        self._options = options
        hard_path = bcb_files(path, options)[-1] if options.hard is not None else None
        self.tasks = load_tasks(path, hard_path)
        self.verdict_names = (FULL,) if hard_path is None else (FULL, HARD)

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the file."""
        return list(self.tasks)

    @cached_property
    def environment(self) -> ExecEnvironment:
        """What programs are run with. Raises ValueError where no sandbox can see it."""
        return exec_environment(self._options.python)

    def verdict_names_of(self, task_id: str) -> tuple[str, ...]:
        """Returns the benchmarks that the task belongs to."""
        task = self.tasks.get(task_id)  # a file of verdicts may know others
        return (FULL, HARD) if task is not None and task.is_hard else (FULL,)

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns what the publisher asks, with room for 1,280 tokens."""
        return bcb_prompt(
            self.tasks[task_id],
            style,
            split=self._options.split,
            has_prefill=self._options.has_prefill,
        )

    def extract(self, sample: Sample) -> Extraction:
        """Returns the calibrated program."""
        task = self.tasks[sample.task_id]
        found = python_program(sample, task.complete_prompt, task.entry_point)
        if found.code is None:
            return found
        return Extraction(code=f"{self.calibration(sample.task_id)}{found.code}")

    def calibration(self, task_id: str) -> str:
        """Returns what the publisher's script puts before every solution."""
        return f"{self.tasks[task_id].code_prompt}\n    pass\n"

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the program and the grader."""
        return digest(self.tasks[task_id].digest, self.environment.digest)

    def gold(self, task_id: str) -> str:
        """Returns a program that must pass; on a machine that lacks a library it may not."""
        task = self.tasks[task_id]
        return task.complete_prompt + task.solution

    def bad(self, task_id: str) -> str:
        """Returns a program that must not pass: it leaves before any test, as if all was well."""
        return "import os\nos._exit(0)\n"

    def cluster(self, task_id: str) -> str:
        """Returns the task itself: tasks are independent, and the hard ones are the same tasks."""
        return task_id

    def facts(self, verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
        """Returns what programs were run with, as JSON has it: other libraries, other verdicts."""
        return {
            "num_hard_tasks": sum(task.is_hard for task in self.tasks.values()),
            "python": self.environment.version,
            "packages": list(self.environment.packages),
        }

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns the verdicts on a program: the hard one is the full one again."""
        ran = run_with_tests(
            sandbox, self.environment.interpreter, code, self.tasks[task_id].tests, _LIMITS
        )
        return Judgment(
            statuses=dict.fromkeys(self.verdict_names_of(task_id), (ran.status, ran.detail)),
            isolation=ran.outcome.isolation,
            seconds=ran.outcome.wall_seconds,
        )

    def missing_libraries(self, sandbox: Sandbox) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """Returns each module that tasks name and that does not import in the sandbox, with what
        Python says and the tasks. Raises ValueError where the interpreter does not start there.
        """
        users: dict[str, list[str]] = {}
        for task in self.tasks.values():
            for library in task.libraries:
                users.setdefault(library, []).append(task.task_id)
        failures = failing_imports(sandbox, self.environment, sorted(users))
        return {name: (said, tuple(users[name])) for name, said in failures.items()}
