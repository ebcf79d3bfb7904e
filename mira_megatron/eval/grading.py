"""Samples -> verdicts, so that a killed run goes on and equal programs are run once.

Writes  verdicts.jsonl, append-only, one line per verdict; a torn last line is dropped by the next
        run; CACHE/verdicts/<2 digits>/<digest>.json, what running a program showed, shared by all
        runs that are given the same cache folder: checkpoints often write the same program

A verdict is known by task, sample, program and grader, and holds for the data and libraries that it
was given with: where these have changed, the program is run again. Time limits and failures of this
machine are kept in verdicts.jsonl for the reader, but not in the cache; failures of this machine
are graded again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.answers.extracting import extracted, no_code_status
from mira_megatron.eval.benchmark import Benchmark, verdict_names_of
from mira_megatron.eval.sandbox.contract import Sandbox, SandboxError
from mira_megatron.eval.verdicts import (
    Judgment,
    Sample,
    Status,
    Verdict,
    digest,
    verdict_of_line,
)

logger = logging.getLogger(__name__)

VERDICTS_FILE = "verdicts.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Graded:
    """The verdicts of a whole file of predictions, and how they came about."""

    verdicts: tuple[Verdict, ...]
    num_resumed: int  # samples whose verdicts were in verdicts.jsonl
    num_cached: int  # samples whose program had been run before, in this or another run
    num_run: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Program:
    sample: Sample
    code: str
    digest: str


def grade(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    sandbox: Sandbox,
    output: Path,
    cache_folder: Path,
    *,
    workers: int,
) -> Graded:
    """Returns a verdict per sample and benchmark, in the order of the samples."""
    output.mkdir(parents=True, exist_ok=True)
    by_sample: dict[tuple[str, int], list[Verdict]] = {}
    resumed = _resumed(read_verdicts(output / VERDICTS_FILE), benchmark, sandbox.level)
    cache = _Cache(cache_folder)
    programs: list[_Program] = []
    num_resumed = num_cached = 0
    with _VerdictFile(output / VERDICTS_FILE) as file:
        for sample in samples:
            extraction = extracted(benchmark, sample)
            code = extraction.code
            code_digest = "" if code is None else digest(code)
            place = (sample.task_id, sample.number)
            no_code = (no_code_status(sample), extraction.reason or "")
            found = resumed.get((*place, code_digest))
            if found and (code is not None or (found[0].status, found[0].detail) == no_code):
                num_resumed += 1
                by_sample[place] = found
            elif code is None:
                by_sample[place] = _verdicts(
                    benchmark,
                    _Program(sample=sample, code="", digest=""),
                    Judgment(
                        statuses=dict.fromkeys(
                            verdict_names_of(benchmark, sample.task_id), no_code
                        ),
                        isolation=sandbox.level,
                    ),
                )
                file.append(by_sample[place])
            else:
                program = _Program(sample=sample, code=code, digest=code_digest)
                if judgment := cache.find(benchmark, program, sandbox.level):
                    num_cached += 1
                    by_sample[place] = _verdicts(benchmark, program, judgment)
                    file.append(by_sample[place])
                else:
                    programs.append(program)
        for count, (program, judgment) in enumerate(
            _judgments(benchmark, programs, sandbox, workers), start=1
        ):
            cache.keep(benchmark, program, judgment)
            verdicts = _verdicts(benchmark, program, judgment)
            file.append(verdicts)
            by_sample[program.sample.task_id, program.sample.number] = verdicts
            if count % 100 == 0:
                logger.info("grade %s: %d of %d programs run", benchmark.name, count, len(programs))
    return Graded(
        verdicts=tuple(
            verdict for sample in samples for verdict in by_sample[sample.task_id, sample.number]
        ),
        num_resumed=num_resumed,
        num_cached=num_cached,
        num_run=len(programs),
    )


def _resumed(
    verdicts: Sequence[Verdict], benchmark: Benchmark, level: int
) -> dict[tuple[str, int, str], list[Verdict]]:
    """Returns by task, sample and program what need not be graded again."""
    run = {verdict.task_id for verdict in verdicts if verdict.code_digest}
    digests = {task_id: benchmark.task_digest(task_id) for task_id in run & {*benchmark.task_ids}}
    num_outdated = 0
    found: dict[tuple[str, int, str], list[Verdict]] = {}
    for verdict in verdicts:
        is_ours = (
            verdict.grader == benchmark.grader and verdict.benchmark in benchmark.verdict_names
        )
        if is_ours and verdict.isolation >= level and verdict.status is not Status.INFRA:
            if verdict.code_digest and verdict.task_digest != digests.get(verdict.task_id):
                num_outdated += 1
                continue
            place = (verdict.task_id, verdict.sample, verdict.code_digest)
            found.setdefault(place, []).append(verdict)
    if num_outdated:
        logger.info("grade %s: %d verdicts are of other data", benchmark.name, num_outdated)
    return {
        place: each
        for place, each in found.items()
        if {verdict.benchmark for verdict in each} == set(verdict_names_of(benchmark, place[0]))
    }


def read_verdicts(path: Path) -> list[Verdict]:
    """Returns the verdicts of a file, the later one where a key is there twice.

    A torn last line, of a run that was killed, is cut off. Raises ValueError with file and line for
    any other line that is no verdict.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        logger.warning("%s: the last line is torn, it is graded again", path)
        os.truncate(path, len(whole))
    verdicts = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            verdict = verdict_of_line(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}; remove the line, or the file") from error
        verdicts[verdict.key] = verdict
    return list(verdicts.values())


def _judgments(
    benchmark: Benchmark, programs: Sequence[_Program], sandbox: Sandbox, workers: int
) -> Iterator[tuple[_Program, Judgment]]:
    """Yields programs with what running them showed, as they end; few are in flight at a time."""

    def judge(program: _Program) -> tuple[_Program, Judgment]:
        try:
            return program, benchmark.judge(sandbox, program.sample.task_id, program.code)
        except SandboxError as error:
            unknown = (Status.INFRA, ascii(str(error))[:160])
            names = verdict_names_of(benchmark, program.sample.task_id)
            statuses = dict.fromkeys(names, unknown)
            return program, Judgment(statuses=statuses, isolation=sandbox.level)

    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(programs)
        running: set[Future[tuple[_Program, Judgment]]] = set()
        try:
            while True:
                while len(running) < 2 * workers and (program := next(waiting, None)):
                    running.add(pool.submit(judge, program))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


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


class _Cache:
    """What running programs showed, by content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "verdicts"

    def find(self, benchmark: Benchmark, program: _Program, level: int) -> Judgment | None:
        """Returns what a run at the same level or a better one showed."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            content = json.loads(self._path(benchmark, program).read_bytes())
            if content["isolation"] >= level:
                return Judgment(
                    statuses={
                        name: (Status(status), str(detail))
                        for name, (status, detail) in content["statuses"].items()
                    },
                    isolation=int(content["isolation"]),
                )
        return None

    def keep(self, benchmark: Benchmark, program: _Program, judgment: Judgment) -> None:
        """Keeps what the same program would show again."""
        if judgment.is_lasting:
            path = self._path(benchmark, program)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"statuses": dict(judgment.statuses), "isolation": judgment.isolation}
            write_json(path, content, is_flushed=False)

    def _path(self, benchmark: Benchmark, program: _Program) -> Path:
        task = benchmark.task_digest(program.sample.task_id)
        key = digest(benchmark.grader, task, program.digest)
        return self._folder / key[:2] / f"{key}.json"


def _verdicts(benchmark: Benchmark, program: _Program, judgment: Judgment) -> list[Verdict]:
    task_id = program.sample.task_id
    task_digest = benchmark.task_digest(task_id) if program.digest else ""
    return [
        Verdict(
            benchmark=name,
            task_id=task_id,
            sample=program.sample.number,
            status=status,
            detail=detail,
            code_digest=program.digest,
            grader=benchmark.grader,
            isolation=judgment.isolation,
            task_digest=task_digest,
        )
        for name, (status, detail) in judgment.statuses.items()
    ]
