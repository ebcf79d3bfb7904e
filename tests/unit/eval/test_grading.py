from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.grade_shards import Shard
from mira_megatron.eval.grading import Graded, all_verdicts, grade, read_verdicts
from mira_megatron.eval.sandbox.contract import Job, Outcome, SandboxError
from mira_megatron.eval.verdicts import (
    Extraction,
    Judgment,
    Sample,
    Status,
    Verdict,
    verdict_of_line,
)
from mira_megatron.file_lock import LockHeldError, held_lock


@dataclass
class NoSandbox:
    """Runs nothing: the benchmark below judges programs by their text."""

    level: int = 3

    def run(self, job: Job) -> Outcome:
        raise NotImplementedError


@dataclass
class ByText:
    """Passes a program that says so."""

    name: str = "by_text"
    grader: str = "by_text/1"
    verdict_names: tuple[str, ...] = ("by_text", "by_text_plus")
    judged: list[str] = field(default_factory=list)
    data: str = "dev_20240627"

    @property
    def task_ids(self) -> list[str]:
        return ["a", "b"]

    def prompt(self, task_id: str, style: Style) -> Prompt:
        return Prompt(template="by_text/1", text=f"{style} {task_id}", max_tokens=1)

    def extract(self, sample: Sample) -> Extraction:
        return (
            Extraction(code=sample.text) if sample.text else Extraction(code=None, reason="empty")
        )

    def task_digest(self, task_id: str) -> str:
        return f"{self.data} {task_id}"

    def judge(self, sandbox: object, task_id: str, code: str) -> Judgment:
        self.judged.append(code)
        if code == "broken":
            raise SandboxError("no process left")
        status = Status(code)
        return Judgment(statuses=dict.fromkeys(self.verdict_names, (status, "")), isolation=3)

    def gold(self, task_id: str) -> str | None:
        return None

    def cluster(self, task_id: str) -> str:
        return task_id


def samples(*texts: str) -> list[Sample]:
    return [Sample(task_id="a", number=number, text=text) for number, text in enumerate(texts)]


def graded(
    benchmark: ByText, output: Path, *texts: str, cache: Path | None = None, level: int = 3
) -> Graded:
    sandbox = NoSandbox(level)
    cache = cache or output / "cache"
    return grade(benchmark, samples(*texts), sandbox, output, cache, workers=2)


def graded_shard(benchmark: ByText, output: Path, index: int, *texts: str) -> Graded:
    """Grades a text per task of "a" and "b", of two shards; every shard has a cache of its own."""
    both = [
        Sample(task_id=each, number=0, text=text) for each, text in zip("ab", texts, strict=True)
    ]
    shard = Shard(index=index, count=2)
    cache = output / f"cache{index}"
    return grade(benchmark, both, NoSandbox(), output, cache, workers=1, shard=shard)


def statuses(result: Graded) -> list[str]:
    return [verdict.status.value for verdict in result.verdicts]


def test_verdicts_come_in_the_order_of_the_samples(tmp_path: Path) -> None:
    result = graded(ByText(), tmp_path, "pass", "fail", "", "error")
    assert statuses(result)[::2] == ["pass", "fail", "no_code", "error"]
    assert [each.benchmark for each in result.verdicts[:2]] == ["by_text", "by_text_plus"]
    assert [verdict.sample for verdict in result.verdicts] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.verdicts[4].detail == "empty"


def test_a_second_run_judges_nothing(tmp_path: Path) -> None:
    first = graded(ByText(), tmp_path, "pass", "fail", "timeout")
    lines = (tmp_path / "verdicts.jsonl").read_bytes()
    benchmark = ByText()
    second = graded(benchmark, tmp_path, "pass", "fail", "timeout")
    assert benchmark.judged == []
    assert second.num_resumed == 3
    assert statuses(second) == statuses(first)
    assert (tmp_path / "verdicts.jsonl").read_bytes() == lines


def test_verdicts_on_other_data_are_no_verdicts(tmp_path: Path) -> None:
    graded(ByText(), tmp_path, "pass", "fail", "")
    benchmark = ByText(data="dev_20251106")

    result = graded(benchmark, tmp_path, "pass", "fail", "")

    assert sorted(benchmark.judged) == ["fail", "pass"]
    assert result.num_resumed == 1  # there was no program to run
    assert {each.task_digest for each in result.verdicts} == {"dev_20251106 a", ""}
    again = graded(ByText(), tmp_path, "pass", "fail", "")
    assert (again.num_resumed, again.num_cached) == (1, 2)
    assert {each.task_digest for each in again.verdicts} == {"dev_20240627 a", ""}
    assert len(read_verdicts(tmp_path / "verdicts.jsonl")) == 6


def test_a_torn_line_is_cut_off_and_its_sample_judged_again(tmp_path: Path) -> None:
    graded(ByText(), tmp_path, "pass", "fail", cache=tmp_path / "one")
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    benchmark = ByText()
    result = graded(benchmark, tmp_path, "pass", "fail", cache=tmp_path / "two")
    assert len(benchmark.judged) == 1
    assert statuses(result) == ["pass", "pass", "fail", "fail"]
    assert len(read_verdicts(path)) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda benchmark: replace(benchmark, grader="by_text/2"),
        lambda benchmark: replace(benchmark, verdict_names=("by_text", "other")),
    ],
)
def test_another_grader_judges_again(tmp_path: Path, change: Callable[[ByText], ByText]) -> None:
    graded(ByText(), tmp_path, "pass", cache=tmp_path / "one")
    benchmark = change(ByText())
    graded(benchmark, tmp_path, "pass", cache=tmp_path / "two")
    assert benchmark.judged == ["pass"]


def test_another_program_of_the_same_sample_is_judged(tmp_path: Path) -> None:
    graded(ByText(), tmp_path, "pass")
    result = graded(ByText(), tmp_path, "fail")
    assert statuses(result) == ["fail", "fail"]


def test_a_program_known_from_another_run_is_not_run(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    graded(ByText(), tmp_path / "one", "pass", "timeout", cache=cache)
    benchmark = ByText()
    result = graded(benchmark, tmp_path / "two", "pass", "timeout", cache=cache)
    assert result.num_cached == 1
    assert benchmark.judged == ["timeout"]  # depends on the machine, so it is not kept
    assert statuses(result) == ["pass", "pass", "timeout", "timeout"]


def test_a_better_sandbox_asks_again(tmp_path: Path) -> None:
    graded(ByText(), tmp_path, "pass")
    benchmark = ByText()
    graded(benchmark, tmp_path, "pass", level=4)
    assert benchmark.judged == ["pass"]


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "[" * 100_000, '{"isolation": 3, "statuses": []}'),
        *('{"isolation": 3, "statuses": {}}', '{"isolation": 1e999, "statuses": {}}'),
    ],
)
def test_a_damaged_cache_entry_is_named_and_made_again(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    graded(ByText(), tmp_path / "one", "pass", cache=cache)
    (entry,) = cache.glob("verdicts/*/*.json")
    written = entry.read_bytes()
    entry.write_text(content)
    benchmark = ByText()
    graded(benchmark, tmp_path / "two", "pass", cache=cache)
    assert benchmark.judged == ["pass"]
    assert f"{entry}: damaged" in caplog.text
    assert entry.read_bytes() == written


def test_what_this_machine_failed_on_is_judged_again(tmp_path: Path) -> None:
    result = graded(ByText(), tmp_path, "broken", "pass")
    assert statuses(result) == ["infra", "infra", "pass", "pass"]
    benchmark = ByText()
    graded(benchmark, tmp_path, "broken", "pass")
    assert benchmark.judged == ["broken"]


def test_a_line_that_is_no_verdict_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b"{}\n")
    with pytest.raises(ValueError, match=r"verdicts\.jsonl:1: no verdict"):
        read_verdicts(path)


def test_the_verdict_that_was_written_last_is_read_last(tmp_path: Path) -> None:
    for grader in ("by_text/1", "by_text/2"):
        graded(replace(ByText(), grader=grader), tmp_path, "pass")
    path = tmp_path / "verdicts.jsonl"
    first = path.read_bytes().splitlines(keepends=True)[:2]
    path.write_bytes(path.read_bytes() + b"".join(first))
    assert [verdict.grader for verdict in read_verdicts(path)] == ["by_text/2"] * 2 + [
        "by_text/1"
    ] * 2


@given(st.text(), st.text(), st.sampled_from(Status), st.integers(0, 9))
def test_a_verdict_is_the_same_after_its_line(
    task_id: str, detail: str, status: Status, number: int
) -> None:
    verdict = Verdict(
        benchmark="b",
        task_id=task_id,
        sample=number,
        status=status,
        detail=detail,
        code_digest="",
        grader="g/1",
        isolation=3,
    )
    line = verdict.to_line()
    assert line.count(b"\n") == 1
    assert verdict_of_line(line) == verdict


def test_shards_are_put_together_by_the_run_without_one(tmp_path: Path) -> None:
    first = graded_shard(ByText(), tmp_path, 0, "pass", "fail")
    assert [verdict.task_id for verdict in first.verdicts] == ["a", "a"]
    graded_shard(ByText(), tmp_path, 1, "pass", "fail")
    assert not (tmp_path / "verdicts.jsonl").exists()
    benchmark = ByText()
    both = [
        Sample(task_id="a", number=0, text="pass"),
        Sample(task_id="b", number=0, text="fail"),
    ]
    for _ in range(2):
        merged = grade(benchmark, both, NoSandbox(), tmp_path, tmp_path / "cache", workers=1)
        assert (merged.num_resumed, benchmark.judged) == (2, [])
        assert statuses(merged) == ["pass", "pass", "fail", "fail"]
        assert len((tmp_path / "verdicts.jsonl").read_bytes().splitlines()) == 4


def test_what_a_shard_did_not_get_to_is_graded_by_the_run_without_one(tmp_path: Path) -> None:
    graded_shard(ByText(), tmp_path, 0, "pass", "fail")
    path = tmp_path / "verdicts.0-of-2.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-10])  # as a shard that writes, or was killed
    benchmark = ByText()
    both = [
        Sample(task_id="a", number=0, text="pass"),
        Sample(task_id="b", number=0, text="fail"),
    ]
    merged = grade(benchmark, both, NoSandbox(), tmp_path, tmp_path / "cache", workers=1)
    assert benchmark.judged == ["pass", "fail"]
    assert len(merged.verdicts) == 4
    assert path.read_bytes() == content[:-10]  # of a shard that may still write it


def test_a_shard_goes_on_with_what_it_had(tmp_path: Path) -> None:
    graded_shard(ByText(), tmp_path, 0, "pass", "fail")
    again = ByText()
    assert graded_shard(again, tmp_path, 0, "pass", "fail").num_resumed == 1
    assert again.judged == []


def test_a_failure_of_the_machine_in_the_file_gives_way_to_a_shards_verdict(
    tmp_path: Path,
) -> None:
    graded(ByText(), tmp_path, "broken")
    line = (tmp_path / "verdicts.jsonl").read_bytes()
    (tmp_path / "verdicts.0-of-1.jsonl").write_bytes(line.replace(b'"infra"', b'"fail"'))
    merged = graded(ByText(), tmp_path, "broken")
    assert statuses(merged) == ["fail", "fail"]
    kept = read_verdicts(tmp_path / "verdicts.jsonl")
    assert [verdict.status for verdict in kept] == [Status.FAIL, Status.FAIL]


def test_a_file_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    with (
        held_lock(tmp_path / ".verdicts.lock", ""),
        pytest.raises(LockHeldError, match=r"verdicts.jsonl: another process grades into it"),
    ):
        graded(ByText(), tmp_path, "pass")
    assert statuses(graded(ByText(), tmp_path, "pass")) == ["pass", "pass"]


def test_a_line_that_another_process_is_writing_stays(tmp_path: Path) -> None:
    graded(ByText(), tmp_path, "pass", "fail")
    path = tmp_path / "verdicts.jsonl"
    written = path.read_bytes()[:-10]
    path.write_bytes(written)
    with held_lock(tmp_path / ".verdicts.lock", ""):
        assert len(all_verdicts(tmp_path)) == 3
    assert path.read_bytes() == written


def test_verdicts_of_shards_on_other_data_are_no_verdicts(tmp_path: Path) -> None:
    graded_shard(ByText(), tmp_path, 0, "pass", "pass")
    graded(ByText(), tmp_path, "pass")
    for count in (1, 0):
        benchmark = ByText(data="dev_20251106")
        result = graded(benchmark, tmp_path, "pass")
        assert (len(benchmark.judged), result.num_resumed) == (count, 1 - count)
