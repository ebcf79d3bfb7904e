from __future__ import annotations

from pathlib import Path

import pytest

from mira_megatron.eval.regrading import check_regraded, earlier_verdicts, flips
from mira_megatron.eval.verdicts import Status, Verdict


def verdict(
    grader: str, status: Status, number: int = 0, benchmark: str = "b", program: str = ""
) -> Verdict:
    return Verdict(
        benchmark=benchmark,
        task_id="t",
        sample=number,
        status=status,
        detail="",
        code_digest=program,
        grader=grader,
        isolation=3,
    )


def test_flips_are_told_against_the_latest_earlier_grader() -> None:
    before = [
        verdict("g/1", Status.FAIL),
        verdict("g/2", Status.PASS),
        verdict("g/3", Status.ERROR),
        verdict("g/2", Status.PASS, 1),
    ]
    after = [verdict("g/3", Status.FAIL), verdict("g/3", Status.PASS, 1)]
    (flip,) = flips(earlier_verdicts(before, "g/3"), after)
    assert str(flip) == "b t #0: pass -> fail (was g/2)"
    assert flip.to_fields()["before"] == "pass"


@pytest.mark.parametrize(
    ("before", "after", "num_flips"),
    [
        (Status.PASS, Status.PASS, 0),
        (Status.INFRA, Status.PASS, 0),
        (Status.PASS, Status.INFRA, 0),
        (Status.FAIL, Status.ERROR, 1),
    ],
)
def test_failures_of_the_machine_flip_nothing(
    before: Status, after: Status, num_flips: int
) -> None:
    earlier = earlier_verdicts([verdict("g/1", before)], "g/2")
    assert len(flips(earlier, [verdict("g/2", after)])) == num_flips


def test_another_program_of_a_sample_flips_nothing() -> None:
    before = [
        verdict("g/1", Status.FAIL, program="a"),
        verdict("g/1", Status.PASS, program="b"),
        verdict("g/1", Status.FAIL, 1, program="a"),
    ]
    after = [verdict("g/2", Status.PASS, program="a"), verdict("g/2", Status.PASS, 1, program="c")]
    (flip,) = flips(earlier_verdicts(before, "g/2"), after)
    assert str(flip) == "b t #0: fail -> pass (was g/1)"


def test_two_benchmarks_of_a_sample_flip_apart() -> None:
    earlier = earlier_verdicts(
        [verdict("g/1", Status.PASS), verdict("g/1", Status.FAIL, benchmark="plus")], "g/2"
    )
    after = [verdict("g/2", Status.PASS), verdict("g/2", Status.PASS, benchmark="plus")]
    assert [flip.benchmark for flip in flips(earlier, after)] == ["plus"]


def test_another_graders_verdicts_are_not_replaced_unless_told() -> None:
    path = Path("out/verdicts.jsonl")
    verdicts = [verdict("g/1", Status.PASS), verdict("g/1", Status.PASS, 1)]
    with pytest.raises(ValueError, match=r"2 samples have verdicts of g/1, and this is g/2. Add"):
        check_regraded(path, verdicts, [("t", 0), ("t", 1)], "g/2")
    check_regraded(path, verdicts, [("t", 0)], "g/1")
    check_regraded(path, verdicts, [("t", 2)], "g/2")
    check_regraded(path, [*verdicts, verdict("g/2", Status.FAIL)], [("t", 0)], "g/2")
