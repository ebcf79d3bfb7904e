"""Samples -> verdicts, so that a killed run goes on and equal programs are run once.

Writes  verdicts.jsonl, append-only, one line per verdict; a torn last line is dropped by the next
        run. A shard writes a file of its own (grade_shards.py), and the run without a shard takes
        what they hold into verdicts.jsonl.

A verdict is known by task, sample, program and grader, and holds for the data and libraries that it
was given with: where these have changed, the program is run again. Time limits and failures of this
machine are kept for the reader; failures of this machine are graded again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mira_megatron.eval.answers.extracting import extracted, no_code_status
from mira_megatron.eval.benchmark import Benchmark, verdict_names_of
from mira_megatron.eval.grade_shards import Shard, shard_files
from mira_megatron.eval.program_runs import Program, run_programs
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Judgment, Sample, Status, Verdict, digest, verdict_of_line
from mira_megatron.file_lock import held_lock

logger = logging.getLogger(__name__)

VERDICTS_FILE = "verdicts.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """The verdicts of a whole file of predictions, and how they came about."""

    verdicts: tuple[Verdict, ...]
    num_resumed: int  # samples whose verdicts were in verdicts.jsonl, or left by a shard
    num_cached: int  # samples whose program had been run before, in this or another run
    num_run: int


def grade(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    output: Path,
    cache_folder: Path,
    *,
    workers: int,
    shard: Shard | None = None,
) -> Graded:
    """Returns a verdict per sample and benchmark, in the order of the samples.

    With a shard, of its tasks' samples alone. Raises LockHeldError where another process writes
    the same file.
    """
    path = output / (VERDICTS_FILE if shard is None else shard.file_name)
    refusal = f"{path}: another process grades into it; run the same again when it has ended"
    with held_lock(path.with_name(f".{path.stem}.lock"), refusal):
        own = read_verdicts(path)
        others = [verdict for other in _others(output, path) for verdict in _read(other)]
        known = _usable([*others, *own], benchmark, sandbox.level)
        in_file = set(own)
        if shard is not None:
            positions = {task_id: number for number, task_id in enumerate(benchmark.task_ids)}
            samples = [each for each in samples if shard.has(positions[each.task_id])]
        with _VerdictFile(path) as file:
            return _graded(
                benchmark, samples, sandbox, cache_folder, workers, _Book(file, known, in_file)
            )


def _graded(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    cache_folder: Path,
    workers: int,
    book: _Book,
) -> Graded:
    by_sample: dict[tuple[str, int], list[Verdict]] = {}
    programs: list[Program] = []
    num_resumed = 0
    for sample in samples:
        extraction = extracted(benchmark, sample)
        code = extraction.code
        place = (sample.task_id, sample.number)
        no_code = (no_code_status(sample), extraction.reason or "")
        found = book.known_of((*place, "" if code is None else digest(code)))
        if found and (code is not None or (found[0].status, found[0].detail) == no_code):
            num_resumed += 1
            by_sample[place] = found
        elif code is None:
            statuses = dict.fromkeys(verdict_names_of(benchmark, sample.task_id), no_code)
            judgment = Judgment(statuses=statuses, isolation=sandbox.level)
            by_sample[place] = _verdicts(benchmark, *place, "", judgment)
            book.add(by_sample[place])
        else:
            programs.append(Program(task_id=sample.task_id, number=sample.number, code=code))
    num_cached = num_run = 0
    for run in run_programs(benchmark, programs, sandbox, cache_folder, workers=workers):
        program = run.program
        verdicts = _verdicts(
            benchmark, program.task_id, program.number, program.digest, run.judgment
        )
        book.add(verdicts)
        by_sample[program.task_id, program.number] = verdicts
        num_cached += run.is_cached
        num_run += not run.is_cached
        if num_run % 100 == 0 and not run.is_cached:
            logger.info("grade %s: %d of %d programs run", benchmark.name, num_run, len(programs))
    return Graded(
        verdicts=tuple(
            verdict for sample in samples for verdict in by_sample[sample.task_id, sample.number]
        ),
        num_resumed=num_resumed,
        num_cached=num_cached,
        num_run=num_run,
    )


def _usable(
    verdicts: Sequence[Verdict], benchmark: Benchmark, level: int
) -> dict[tuple[str, int, str], list[Verdict]]:
    """Returns by task, sample and program what need not be graded again; later verdicts win."""
    run = {verdict.task_id for verdict in verdicts if verdict.code_digest}
    digests = {task_id: benchmark.task_digest(task_id) for task_id in run & {*benchmark.task_ids}}
    num_outdated = 0
    found: dict[tuple[str, int, str], dict[str, Verdict]] = {}
    for verdict in verdicts:
        is_ours = (
            verdict.grader == benchmark.grader and verdict.benchmark in benchmark.verdict_names
        )
        if is_ours and verdict.isolation >= level and verdict.status is not Status.INFRA:
            if verdict.code_digest and verdict.task_digest != digests.get(verdict.task_id):
                num_outdated += 1
                continue
            place = (verdict.task_id, verdict.sample, verdict.code_digest)
            found.setdefault(place, {})[verdict.benchmark] = verdict
    if num_outdated:
        logger.info("grade %s: %d verdicts are of other data", benchmark.name, num_outdated)
    return {
        place: list(by_name.values())
        for place, by_name in found.items()
        if set(by_name) == set(verdict_names_of(benchmark, place[0]))
    }


def all_verdicts(output: Path) -> list[Verdict]:
    """Returns what a folder holds, of all graders: what shards left, then verdicts.jsonl."""
    path = output / VERDICTS_FILE
    # Whoever asks holds no lock: a torn line may be one that another process is writing.
    files = [*_others(output, path), *([path] if path.exists() else [])]
    return [verdict for file in files for verdict in _read(file)]


def read_verdicts(path: Path) -> list[Verdict]:
    """Returns the verdicts of a file, the later one where a key is there twice.

    A torn last line, of a run that was killed, is cut off: only whoever holds the file's lock may
    ask. Raises ValueError with file and line for any other line that is no verdict.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        logger.warning("%s: the last line is torn, it is graded again", path)
        os.truncate(path, whole)
    return _read(path)


def append_verdicts(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Adds lines to a file of verdicts."""
    with _VerdictFile(path) as file:
        file.append(verdicts)


def _read(path: Path) -> list[Verdict]:
    """Returns the verdicts of whole lines; another process may be writing the last one."""
    content = path.read_bytes()
    verdicts: dict[str, Verdict] = {}
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            verdict = verdict_of_line(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}; remove the line, or the file") from error
        verdicts.pop(verdict.key, None)  # so that the latest comes last
        verdicts[verdict.key] = verdict
    return list(verdicts.values())


def _others(output: Path, path: Path) -> list[Path]:
    """Returns the other files of verdicts in a folder, verdicts.jsonl behind those of shards."""
    whole = output / VERDICTS_FILE
    return [each for each in (*shard_files(output), whole) if each != path and each.exists()]


class _Book:
    """What is known of samples, and the file that it is to stand in."""

    def __init__(
        self,
        file: _VerdictFile,
        known: dict[tuple[str, int, str], list[Verdict]],
        in_file: set[Verdict],
    ) -> None:
        self._file = file
        self._known = known
        self._in_file = in_file

    def known_of(self, place: tuple[str, int, str]) -> list[Verdict] | None:
        """Returns the verdicts on a sample's program, once they stand in the file."""
        verdicts = self._known.get(place)
        if verdicts and not self._in_file.issuperset(verdicts):
            self.add(verdicts)
        return verdicts

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self._file.append(verdicts)
        self._in_file.update(verdicts)


class _VerdictFile:
    """Takes verdicts, all of a sample in one write, so that a kill tears one line at most."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def append(self, verdicts: Sequence[Verdict]) -> None:
        self._file.write(b"".join(verdict.to_line() for verdict in verdicts))

    def __exit__(self, *exception: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


def _verdicts(
    benchmark: Benchmark, task_id: str, number: int, code_digest: str, judgment: Judgment
) -> list[Verdict]:
    task_digest = benchmark.task_digest(task_id) if code_digest else ""
    return [
        Verdict(
            benchmark=name,
            task_id=task_id,
            sample=number,
            status=status,
            detail=detail,
            code_digest=code_digest,
            grader=benchmark.grader,
            isolation=judgment.isolation,
            task_digest=task_digest,
        )
        for name, (status, detail) in judgment.statuses.items()
    ]
