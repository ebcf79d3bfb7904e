"""Which libraries of a suite's benchmarks the interpreter that it names does not have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.eval.bigcodebench import BigCodeBench
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.suite import Entry, load_suite, open_benchmark


def library_findings(
    sandbox: Sandbox, suite: Path, data_folder: Path | None = None
) -> list[Finding]:
    """Returns a line for every library that tasks name and that does not import in the sandbox.

    Raises ValueError for a suite that cannot be read; a missing data file is a finding.
    """
    entries = load_suite(suite, data_folder).entries.values()
    with tempfile.TemporaryDirectory() as cache:
        return [
            finding
            for entry in entries
            if entry.kind == "bigcodebench"
            for finding in _of_entry(sandbox, entry, Path(cache))
        ]


def _of_entry(sandbox: Sandbox, entry: Entry, cache: Path) -> Iterator[Finding]:
    try:
        benchmark = open_benchmark(entry, cache)
    except FileNotFoundError as error:
        yield Finding(
            level=UNKNOWN,
            what=str(error),
            where=entry.name,
            way_out="the libraries are told once the file is there",
        )
        return
    assert isinstance(benchmark, BigCodeBench)
    try:
        missing = benchmark.missing_libraries(sandbox)
    except (ValueError, FileNotFoundError) as error:
        yield Finding(
            level=ERROR,
            what=str(error),
            where=entry.name,
            way_out="name an interpreter with the suite's option `python`",
        )
        return
    path = benchmark.environment.interpreter.path
    for name, (said, tasks) in missing.items():
        yield Finding(
            level=WARNING,
            what=f"{name}, of {len(tasks):,} tasks, does not import: {said}",
            where=entry.name,
            way_out=f"install it for {path}; without it these tasks cannot pass",
        )
    if not missing:
        yield Finding(level=INFO, what=f"all libraries import with {path}", where=entry.name)
