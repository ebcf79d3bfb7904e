"""Verdicts -> the numbers of one benchmark's results.json, and lines for a reader."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mira_megatron.eval.controls import Controls
from mira_megatron.eval.verdicts import Status, Verdict

_WITHOUT = (Status.NO_CODE, Status.TRUNCATED)  # without a program


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One benchmark's number."""

    benchmark: str
    num_tasks: int
    num_samples: int
    pass_at_1: float  # percent: the mean over tasks of the fraction of samples that pass
    counts: dict[str, int]  # samples by status
    reasons: dict[str, int]  # why samples have no program: empty, unparsable …
    num_unknown: int  # samples that another run may say more about; none where gold fails here
    num_controlled: int | None = None  # tasks whose gold program passes here; None: not looked at
    controlled_pass_at_1: float | None = None  # over these; None: there are none


def scores(verdicts: Sequence[Verdict], controls: Controls | None = None) -> list[Score]:
    """Returns a score per benchmark that the verdicts are of."""
    by_benchmark: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_benchmark.setdefault(verdict.benchmark, []).append(verdict)
    return [_score(name, each, controls) for name, each in by_benchmark.items()]


def _score(name: str, verdicts: Sequence[Verdict], controls: Controls | None) -> Score:
    by_task: dict[str, list[bool]] = {}
    for verdict in verdicts:
        by_task.setdefault(verdict.task_id, []).append(verdict.is_pass)
    fractions = {task_id: sum(passes) / len(passes) for task_id, passes in by_task.items()}
    counted = Counter(verdict.status for verdict in verdicts)
    failing = set() if controls is None else set(controls.failing_ids(name))
    score = Score(
        benchmark=name,
        num_tasks=len(by_task),
        num_samples=len(verdicts),
        pass_at_1=_percent(list(fractions.values())),
        counts={status.value: counted[status] for status in Status if counted[status]},
        num_unknown=sum(
            verdict.status is Status.INFRA and verdict.task_id not in failing
            for verdict in verdicts
        ),
        reasons=dict(
            sorted(Counter(each.detail for each in verdicts if each.status in _WITHOUT).items())
        ),
    )
    if controls is None:
        return score
    holding = [fraction for task_id, fraction in fractions.items() if task_id not in failing]
    return replace(
        score,
        num_controlled=len(holding),
        controlled_pass_at_1=_percent(holding) if holding else None,
    )


def _percent(fractions: Sequence[float]) -> float:
    return 100 * sum(fractions) / len(fractions)


def score_fields(score: Score, controls: Controls | None) -> dict[str, Any]:
    """Returns what results.json has of a score."""
    controlled = None
    if controls is not None:
        controlled = {
            "pass@1": score.controlled_pass_at_1,
            "num_tasks": score.num_controlled,
            "failing": controls.failing_ids(score.benchmark),
        }
    return {
        "pass@1": score.pass_at_1,
        "num_tasks": score.num_tasks,
        "num_samples": score.num_samples,
        "statuses": score.counts,
        "reasons": score.reasons,
        "controlled": controlled,
    }


def print_scores(console: Console, found: Sequence[Score]) -> None:
    """Prints a line per benchmark."""
    for score in found:
        statuses = ", ".join(f"{name} {count}" for name, count in score.counts.items())
        said = (
            f"{score.benchmark}: {score.pass_at_1:.2f} % of {score.num_tasks:,} tasks, "
            f"{score.num_samples:,} samples ({statuses})"
        )
        if score.num_controlled is not None and score.num_controlled < score.num_tasks:
            of = score.controlled_pass_at_1
            said += f"; {'no score' if of is None else f'{of:.2f} %'} of the "
            said += f"{score.num_controlled:,} tasks whose gold program passes here"
        print_line(console, said)


def print_line(console: Console, said: str) -> None:
    """Prints a line as it is, whatever its length."""
    console.print(said, markup=False, highlight=False, soft_wrap=True)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
