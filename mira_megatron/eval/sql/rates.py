"""What a score of execution accuracy does not say: what failed, and what gold leaves empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mira_megatron.eval.sql.protocols import GOLD_ERROR, GOLD_TIMEOUT, NO_GOLD_ROWS
from mira_megatron.eval.sql.tasks import SqlTask
from mira_megatron.eval.verdicts import Status, Verdict


def rates(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Returns percentages of one benchmark's samples.

    `pred_error` and `timeout` of the prediction; `gold_error` where the gold statement failed,
    `gold_timeout` where it was out of time here;
    `vacuous` where it returned no rows, so that any empty answer passes, and `vacuous_pass` where
    the sample passed by that.
    """
    num_timeouts = sum(verdict.status is Status.TIMEOUT for verdict in verdicts)
    num_of_gold = sum(verdict.detail.startswith(GOLD_TIMEOUT) for verdict in verdicts)
    counts = {
        "pred_error": sum(verdict.status is Status.ERROR for verdict in verdicts),
        "timeout": num_timeouts - num_of_gold,
        "gold_timeout": num_of_gold,
        "gold_error": sum(verdict.detail.startswith(GOLD_ERROR) for verdict in verdicts),
        "vacuous": sum(verdict.detail.startswith(NO_GOLD_ROWS) for verdict in verdicts),
        "vacuous_pass": sum(
            verdict.is_pass and verdict.detail.startswith(NO_GOLD_ROWS) for verdict in verdicts
        ),
    }
    return {name: 100 * count / len(verdicts) for name, count in counts.items()}


def by_difficulty(
    verdicts: Sequence[Verdict], tasks: Mapping[str, SqlTask]
) -> dict[str, dict[str, float]]:
    """Returns tasks and the mean over them of the percentage of samples that pass, by difficulty.

    Empty where the data file has no difficulties.
    """
    passes: dict[str, dict[str, list[bool]]] = {}
    for verdict in verdicts:
        difficulty = tasks[verdict.task_id].difficulty
        if difficulty:
            of_tasks = passes.setdefault(difficulty, {})
            of_tasks.setdefault(verdict.task_id, []).append(verdict.is_pass)
    return {
        difficulty: {
            "num_tasks": len(of_tasks),
            "pass@1": 100
            * sum(sum(each) / len(each) for each in of_tasks.values())
            / len(of_tasks),
        }
        for difficulty, of_tasks in sorted(passes.items())
    }
