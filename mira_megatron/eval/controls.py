"""Programs whose verdicts are known, run here before a score is believed.

Writes  controls.json: the tasks whose gold program does not pass in here, whatever a model writes,
        with what was seen; who graded, at which isolation, with which versions
        CACHE/controls/<digest>/, what the programs showed, per Python and system

Every task has a gold program, which must pass, and a known-bad one, which must not. A bad program
that passes means that the grader is broken here, and stops everything. A gold program that does
not pass takes its task out of the controlled score; it stays in the other. MultiPL-E has no gold
programs: a right and a wrong program of its language stand for all of its tasks.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import __version__
from mira_megatron.atomic_files import write_json
from mira_megatron.eval.benchmark import Benchmark, HasBadPrograms
from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.multipl_e import MultiplE
from mira_megatron.eval.program_runs import Program, Run, run_programs
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.tool_versions import tool_versions
from mira_megatron.eval.verdicts import Status, digest

CONTROLS_FILE = "controls.json"
_WAY_OUT = "--no-controls grades without this check; believe no such score"


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """What one control came to, in one benchmark."""

    benchmark: str
    task_id: str
    status: Status
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """What running the controls of some tasks showed."""

    grader: str
    isolation: int
    versions: Mapping[str, str]
    num_tasks: int
    num_gold: int  # tasks that have a gold program
    num_bad: int  # known-bad programs that were run
    failing: tuple[Control, ...]  # gold programs that do not pass, per benchmark
    passing_bad: tuple[Control, ...]

    def failing_ids(self, benchmark: str) -> list[str]:
        """Returns the tasks of a benchmark whose gold program does not pass here."""
        return [each.task_id for each in self.failing if each.benchmark == benchmark]

    def check(self, name: str) -> None:
        """Raises ValueError where a program has passed that must not."""
        if self.passing_bad:
            first = self.passing_bad[0]
            raise ValueError(
                f"{name}: {len(self.passing_bad)} known-bad programs pass, the first for "
                f"{first.benchmark} {first.task_id}: the grader {self.grader} is broken on this "
                f"machine. {_WAY_OUT}"
            )


def run_controls(
    benchmark: Benchmark,
    task_ids: Sequence[str],
    sandbox: Sandbox,
    cache_folder: Path,
    *,
    workers: int,
) -> Controls:
    """Returns what the controls of these tasks show.

    Raises ValueError where a language does not work in here at all.
    """
    language = benchmark.language if isinstance(benchmark, MultiplE) else LANGUAGES["py"]
    versions = {
        "mira_megatron": __version__,
        "grading_python": platform.python_version(),
        "system": platform.platform(),
        **tool_versions(sandbox, language),
    }
    if isinstance(benchmark, MultiplE):
        gold, bad, passing = [], [], _probed(benchmark, sandbox)
    else:
        cache = cache_folder / "controls" / digest(platform.platform(), sys.version)

        def controls_of(programs: Sequence[Program]) -> list[Control]:
            runs = run_programs(benchmark, programs, sandbox, cache, workers=workers)
            return [control for run in runs for control in _seen(run)]

        gold = controls_of(list(_gold_programs(benchmark, task_ids)))
        # Where this machine cannot grade at all, a bad program shows nothing, and may take minutes.
        unknown = {each.task_id for each in gold if each.status is Status.INFRA}
        tried = [task_id for task_id in task_ids if task_id not in unknown]
        bad = controls_of([_bad_program(benchmark, task_id) for task_id in tried])
        passing = [each for each in bad if each.status is Status.PASS]
    order = {task_id: number for number, task_id in enumerate(task_ids)}
    failing = [each for each in gold if each.status is not Status.PASS]
    return Controls(
        grader=benchmark.grader,
        isolation=sandbox.level,
        versions=versions,
        num_tasks=len(task_ids),
        num_gold=len({each.task_id for each in gold}),
        num_bad=len({each.task_id for each in bad}),
        failing=tuple(sorted(failing, key=lambda each: order[each.task_id])),
        passing_bad=tuple(passing),
    )


def write_controls(path: Path, name: str, controls: Controls) -> None:
    """Writes controls.json."""
    content = {
        "benchmark": name,
        "grader": controls.grader,
        "isolation": controls.isolation,
        "versions": dict(controls.versions),
        "num_tasks": controls.num_tasks,
        "num_gold": controls.num_gold,
        "num_bad": controls.num_bad,
        "failing": [_fields(each) for each in controls.failing],
        "passing_bad": [_fields(each) for each in controls.passing_bad],
    }
    write_json(path, content)


def _gold_programs(benchmark: Benchmark, task_ids: Sequence[str]) -> Iterator[Program]:
    for task_id in task_ids:
        gold = benchmark.gold(task_id)
        if gold is not None:
            yield Program(task_id=task_id, number=0, code=gold)


def _bad_program(benchmark: Benchmark, task_id: str) -> Program:
    code = benchmark.bad(task_id) if isinstance(benchmark, HasBadPrograms) else ""
    return Program(task_id=task_id, number=0, code=code)


def _seen(run: Run) -> list[Control]:
    return [
        Control(benchmark=name, task_id=run.program.task_id, status=status, detail=detail)
        for name, (status, detail) in run.judgment.statuses.items()
    ]


def _probed(benchmark: MultiplE, sandbox: Sandbox) -> list[Control]:
    """Returns the wrong program if it passes. Raises ValueError where the right one does not."""
    right, wrong = benchmark.probe(sandbox)
    if right[0] is not Status.PASS:
        raise ValueError(
            f"{benchmark.name}: a right program in {benchmark.language.title} does not pass in "
            f"here: {right[0]}, {right[1]}. Install {benchmark.language.package} and see "
            f"`mira doctor --eval`. {_WAY_OUT}"
        )
    if wrong[0] is not Status.PASS:
        return []
    return [Control(benchmark=benchmark.name, task_id="add", status=wrong[0], detail=wrong[1])]


def _fields(control: Control) -> dict[str, str]:
    return {
        "benchmark": control.benchmark,
        "task_id": control.task_id,
        "status": control.status.value,
        "detail": control.detail,
    }
