"""Runs programs in a sandbox, several at a time, and keeps what they showed by content.

Writes  CACHE/verdicts/<2 digits>/<digest>.json, what running a program showed, shared by all runs
        that are given the same cache folder: checkpoints often write the same program

Time limits and failures of this machine are not kept: the next run may see something else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.eval.benchmark import Benchmark, verdict_names_of
from mira_megatron.eval.kept_results import DAMAGED, keep_json
from mira_megatron.eval.sandbox.contract import Sandbox, SandboxError
from mira_megatron.eval.verdicts import Judgment, Status, digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One program for one task; `number` tells a task's programs apart."""

    task_id: str
    number: int
    code: str

    @property
    def digest(self) -> str:
        """What the program is known by."""
        return digest(self.code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What running a program showed."""

    program: Program
    judgment: Judgment
    is_cached: bool  # the same program had been run before, in this or another run


def run_programs(
    benchmark: Benchmark,
    programs: Sequence[Program],
    sandbox: Sandbox,
    cache_folder: Path,
    *,
    workers: int,
) -> Iterator[Run]:
    """Yields what every program shows: first what is known, then the others as they end."""
    cache = _Cache(cache_folder)
    unknown = []
    for program in programs:
        known = cache.find(benchmark, program, sandbox.level)
        if known is None:
            unknown.append(program)
        else:
            yield Run(program=program, judgment=known, is_cached=True)
    for program, judgment in _judgments(benchmark, unknown, sandbox, workers):
        cache.keep(benchmark, program, judgment)
        yield Run(program=program, judgment=judgment, is_cached=False)


def _judgments(
    benchmark: Benchmark, programs: Sequence[Program], sandbox: Sandbox, workers: int
) -> Iterator[tuple[Program, Judgment]]:
    """Yields programs with what running them showed, as they end; few are in flight at a time."""

    def judge(program: Program) -> tuple[Program, Judgment]:
        try:
            return program, benchmark.judge(sandbox, program.task_id, program.code)
        except SandboxError as error:
            unknown = (Status.INFRA, ascii(str(error))[:160])
            statuses = dict.fromkeys(verdict_names_of(benchmark, program.task_id), unknown)
            return program, Judgment(statuses=statuses, isolation=sandbox.level)

    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(programs)
        running: set[Future[tuple[Program, Judgment]]] = set()
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


class _Cache:
    """What running programs showed, by content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "verdicts"

    def find(self, benchmark: Benchmark, program: Program, level: int) -> Judgment | None:
        """Returns what a run at the same level or a better one showed.

        A file that is damaged is named, and made again by the run that follows.
        """
        path = self._path(benchmark, program)
        try:
            content = json.loads(path.read_bytes())
            isolation = int(content["isolation"])
            statuses = {
                str(name): (Status(status), str(detail))
                for name, (status, detail) in content["statuses"].items()
            }
            if set(statuses) != set(verdict_names_of(benchmark, program.task_id)):
                raise ValueError(f"verdicts of {', '.join(statuses) or 'nothing'}")
        except FileNotFoundError:
            return None
        except DAMAGED as error:
            logger.warning("%s: damaged (%r); its program is run again", path, error)
            return None
        return Judgment(statuses=statuses, isolation=isolation) if isolation >= level else None

    def keep(self, benchmark: Benchmark, program: Program, judgment: Judgment) -> None:
        """Keeps what the same program would show again."""
        if judgment.is_lasting:
            content = {"statuses": dict(judgment.statuses), "isolation": judgment.isolation}
            keep_json(self._path(benchmark, program), content)

    def _path(self, benchmark: Benchmark, program: Program) -> Path:
        task = benchmark.task_digest(program.task_id)
        key = digest(benchmark.grader, task, program.digest)
        return self._folder / key[:2] / f"{key}.json"
