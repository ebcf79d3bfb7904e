"""tasks.jsonl: a benchmark's tasks, what hangs together, and the programs that its score is of.

verdicts.jsonl only grows: it also holds verdicts of programs that were graded here before, and of
earlier graders. tasks.jsonl is written anew with every score and says which of them count.

Line  task_id; cluster, what tasks that are no independent draws have in common; programs, sample
      number -> digest of its program ("" where there is none), empty for a task left out
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.atomic_files import write_bytes
from mira_megatron.eval.benchmark import Benchmark
from mira_megatron.eval.verdicts import Verdict

TASKS_FILE = "tasks.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class GradedTask:
    """One task of a benchmark, and the programs that were graded."""

    task_id: str
    cluster: str
    programs: Mapping[int, str]


def write_tasks(path: Path, benchmark: Benchmark, verdicts: Sequence[Verdict]) -> None:
    """Writes every task of the benchmark, in its order, with the programs of the verdicts."""
    programs: dict[str, dict[int, str]] = {}
    for verdict in verdicts:
        programs.setdefault(verdict.task_id, {})[verdict.sample] = verdict.code_digest
    lines = [
        json.dumps(
            {
                "task_id": task_id,
                "cluster": benchmark.cluster(task_id),
                "programs": programs.get(task_id, {}),
            }
        )
        for task_id in benchmark.task_ids
    ]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read_tasks(path: Path) -> list[GradedTask]:
    """Returns the tasks of a file; FileNotFoundError, or ValueError with file and line."""
    tasks: dict[str, GradedTask] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            fields = json.loads(line)
            task_id, cluster = fields["task_id"], fields["cluster"]
            programs = {int(sample): str(each) for sample, each in fields["programs"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: no task ({error!r}); grade again") from error
        if not isinstance(task_id, str) or not isinstance(cluster, str) or task_id in tasks:
            raise ValueError(
                f"{path}:{number}: expected a new task_id and its cluster; grade again"
            )
        tasks[task_id] = GradedTask(task_id=task_id, cluster=cluster, programs=programs)
    if not tasks:
        raise ValueError(f"{path}: no tasks; grade again")
    return list(tasks.values())
