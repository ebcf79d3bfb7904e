"""How far a score can be off through answers that were lost on the way, whatever they held."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from mira_megatron.eval.verdicts import Status

LOST = (Status.INFRA, Status.TRUNCATED, Status.NO_CODE)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossBounds:
    """Fractions; every lost sample counts as wrong in the score itself."""

    lowest: float  # all lost ones wrong: the score
    highest: float  # all lost ones right
    highest_by_infra: float  # those right that this machine failed to grade
    of_answered: float | None  # over tasks with a sample that is not lost; None: all are lost


def loss_bounds(statuses: Mapping[str, Sequence[Status]]) -> LossBounds:
    """Returns the bounds of a benchmark's score, from its samples' statuses by task.

    Raises ValueError without a task, or for a task without a sample.
    """
    if not statuses or not all(statuses.values()):
        raise ValueError("no samples of some task: no bounds")
    answered = [
        [status for status in each if status not in LOST]
        for each in statuses.values()
        if any(status not in LOST for status in each)
    ]
    return LossBounds(
        lowest=_mean_fraction(statuses.values(), (Status.PASS,)),
        highest=_mean_fraction(statuses.values(), (Status.PASS, *LOST)),
        highest_by_infra=_mean_fraction(statuses.values(), (Status.PASS, Status.INFRA)),
        of_answered=_mean_fraction(answered, (Status.PASS,)) if answered else None,
    )


def _mean_fraction(tasks: Collection[Sequence[Status]], counted: Sequence[Status]) -> float:
    fractions = [sum(status in counted for status in each) / len(each) for each in tasks]
    return fsum(fractions) / len(fractions)
