"""Folders as `mira grade` and `mira evaluate` leave them, written by tests."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mira_megatron.eval.comparison.comparison import Comparison, Options, compare
from mira_megatron.eval.comparison.table import AVERAGES
from mira_megatron.eval.statistics.resampling import Resampling
from mira_megatron.eval.verdicts import Status, Verdict

PASS, FAIL = Status.PASS, Status.FAIL
Statuses = Mapping[str, Sequence[Status]]  # by task

# Entry -> kind, benchmarks, number of tasks, clusters (None: each task is its own).
NINE: Mapping[str, tuple[str, tuple[str, ...], int, int | None]] = {
    "mbpp": ("mbpp", ("mbpp", "mbpp_plus"), 60, None),
    "bigcodebench": ("bigcodebench", ("bigcodebench_full", "bigcodebench_hard"), 80, None),
    "livecodebench": ("livecodebench", ("livecodebench",), 40, None),
    **{name: ("multipl_e", (name,), 30, None) for name in AVERAGES["multipl_e"]},
    "spider": ("spider", ("spider", "spider_strict"), 60, 8),
    "bird": ("bird", ("bird",), 60, 6),
    "swe_multilingual": ("swe", ("swe_multilingual",), 50, 15),
}


def write_entry(
    folder: Path,
    entry: str,
    statuses: Mapping[str, Statuses],
    *,
    kind: str | None = None,
    clusters: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
    **fields: Any,
) -> Path:
    """Writes one entry's three files: statuses by benchmark and task."""
    place = folder / entry
    place.mkdir(parents=True, exist_ok=True)
    grader = str(fields.get("grader", "g/1"))
    programs: dict[str, dict[int, str]] = {}
    lines = []
    for name, by_task in statuses.items():
        for task, each in by_task.items():
            for number, status in enumerate(each):
                program = "" if status is Status.NO_CODE else f"{task}-{number}"
                programs.setdefault(task, {})[number] = program
                lines.append(verdict(name, task, number, status, program, grader).to_line())
    (place / "verdicts.jsonl").write_bytes(b"".join(lines))
    rows = [
        {
            "task_id": task,
            "cluster": (clusters or {}).get(task, task),
            "programs": programs.get(task, {}),
        }
        for task in (*programs, *left_out)
    ]
    (place / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {
        "benchmark": entry,
        "kind": kind or entry,
        "category": "c",
        "protocol": "p",
        "data": {"path": "data.jsonl", "sha256": "0" * 64},
        "grader": grader,
        "isolation": 3,
        "scores": {name: _score(by_task) for name, by_task in statuses.items()},
        **fields,
    }
    (place / "results.json").write_text(json.dumps(results))
    return place


def verdict(
    benchmark: str, task: str, number: int, status: Status, program: str, grader: str = "g/1"
) -> Verdict:
    return Verdict(
        benchmark=benchmark,
        task_id=task,
        sample=number,
        status=status,
        detail="",
        code_digest=program,
        grader=grader,
        isolation=3,
    )


def _score(by_task: Statuses) -> dict[str, Any]:
    shares = [sum(status is PASS for status in each) / len(each) for each in by_task.values()]
    return {
        "pass@1": 100 * sum(shares) / len(shares),
        "num_tasks": len(by_task),
        "num_samples": sum(map(len, by_task.values())),
        "statuses": {},
    }


def bits(right: str, prefix: str = "t") -> dict[str, list[Status]]:
    """Returns one sample per task: "1" for right, "0" for wrong."""
    return {f"{prefix}{n}": [PASS if bit == "1" else FAIL] for n, bit in enumerate(right)}


def write_nine(
    folder: Path,
    *,
    share: float = 0.5,
    seed: int = 0,
    without: Sequence[str] = (),
    lost: Sequence[Status] = (),
    prefix: str = "",
    **fields: Any,
) -> Path:
    """Writes a whole suite; a task's luck is its own, so arms of other shares agree on most."""
    for entry, (kind, names, num_tasks, num_clusters) in NINE.items():
        if entry in without:
            continue
        tasks = [f"{prefix}{kind}/{number}" for number in range(num_tasks)]
        clusters = {
            task: f"{prefix}c{number % num_clusters if num_clusters else number}"
            for number, task in enumerate(tasks)
        }
        statuses: dict[str, dict[str, list[Status]]] = {name: {} for name in names}
        for number, task in enumerate(tasks):
            luck = random.Random(f"{entry} {task}").random()
            own = random.Random(f"{seed} {entry} {task}").random()
            is_right = 0.8 * luck + 0.2 * own < share
            for place, name in enumerate(names):
                if name == "bigcodebench_hard" and number % 4:
                    continue
                status = PASS if is_right and (place == 0 or luck > 0.1) else FAIL
                if lost and number % 11 == 3:
                    status = lost[number % len(lost)]
                statuses[name][task] = [status]
        write_entry(folder, entry, statuses, kind=kind, clusters=clusters, **fields)
    return folder


def compared(
    *folders: Path, labelled: Sequence[tuple[str, Path]] = (), **options: Any
) -> Comparison:
    return compare(
        Options(
            folders=folders,
            labelled=labelled,
            against=options.get("against"),
            baseline=options.get("baseline"),
            contamination=options.get("contamination"),
            allows_unlike=options.get("allows_unlike", False),
            resampling=Resampling(num_resamples=options.get("resamples", 400), seed=0),
        )
    )
