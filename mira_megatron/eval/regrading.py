"""What another version of a grader makes of the same programs: the verdicts that flip.

verdicts.jsonl keeps the verdicts of every grader that was there, each with its grader's name and
version, and grading appends to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mira_megatron.eval.verdicts import Status, Verdict

Place = tuple[str, str, int, str]  # benchmark, task, sample, its program's digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """One sample's program on which two graders do not agree."""

    benchmark: str
    task_id: str
    sample: int
    earlier_grader: str
    before: Status
    after: Status

    def to_fields(self) -> dict[str, str | int]:
        """Returns what results.json has of it."""
        return asdict(self)

    def __str__(self) -> str:
        place = f"{self.benchmark} {self.task_id} #{self.sample}"
        return f"{place}: {self.before} -> {self.after} (was {self.earlier_grader})"


def earlier_verdicts(verdicts: Iterable[Verdict], grader: str) -> dict[Place, Verdict]:
    """Returns the latest verdict of another grader on every program that has one."""
    return {_place(verdict): verdict for verdict in verdicts if verdict.grader != grader}


def check_regraded(
    path: Path,
    verdicts: Sequence[Verdict],
    places: Iterable[tuple[str, int]],
    grader: str,
) -> None:
    """Raises ValueError where samples, by task and number, were graded by another grader alone."""
    by_this = {
        (verdict.task_id, verdict.sample) for verdict in verdicts if verdict.grader == grader
    }
    others = [
        verdict
        for verdict in verdicts
        if verdict.grader != grader and (verdict.task_id, verdict.sample) not in by_this
    ]
    left = {(verdict.task_id, verdict.sample) for verdict in others}.intersection(places)
    if left:
        graders = ", ".join(sorted({verdict.grader for verdict in others}))
        raise ValueError(
            f"{path}: {len(left):,} samples have verdicts of {graders}, and this is {grader}. Add "
            "--regrade to grade them again and see what changes (the old verdicts stay), or give "
            "another --output"
        )


def flips(earlier: Mapping[Place, Verdict], verdicts: Iterable[Verdict]) -> list[Flip]:
    """Returns the verdicts that are not what they were, in their order.

    A failure of this machine is no verdict on a program, so it flips nothing. Nor does a sample
    that has another program than it had: two programs may differ.
    """
    found = []
    for verdict in verdicts:
        before = earlier.get(_place(verdict))
        if before is None or Status.INFRA in (before.status, verdict.status):
            continue
        if before.status is not verdict.status:
            found.append(
                Flip(
                    benchmark=verdict.benchmark,
                    task_id=verdict.task_id,
                    sample=verdict.sample,
                    earlier_grader=before.grader,
                    before=before.status,
                    after=verdict.status,
                )
            )
    return found


def _place(verdict: Verdict) -> Place:
    return verdict.benchmark, verdict.task_id, verdict.sample, verdict.code_digest
