"""A dimension of the rule judge: a name, and the rule that scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mira_megatron.rubric.verdict import Finding

Features = TypeVar("Features")

STYLE = 1.0
# Of the dimensions that find faults in what was done, against those of form: our choice.
CONSEQUENCE = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension(Generic[Features]):
    """One thing that the rule judge can measure on the records of a family."""

    name: str
    rule: Callable[[Features], Finding]
    # What most records score: the median of benchmarks/rule_judge_scales.py, where it has one. A
    # score tells the more about a record the farther it lies from it.
    usual: int
    part: str | None = None  # one of records.PARTS_OF_THINK for qa_with_think
    weight: float = STYLE  # in the overall
