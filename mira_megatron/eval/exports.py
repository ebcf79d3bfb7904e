"""Predictions and generations, written as each benchmark's own tools read them.

    mbpp, bigcodebench  samples.jsonl of EvalPlus and BigCodeBench: task_id, solution
    livecodebench       a .json list of {question_id, code_list}
    multipl_e           a folder with a .json.gz per task: its fields, and completions
    spider              a line per question: statement, tab, database
    bird                a .json object, {"0": "SQL<tab>----- bird -----<tab>database"}

What is written is the program that is graded here, so official tools judge the same. A sample
without a program is an empty one.
"""

from __future__ import annotations

import gzip
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mira_megatron.atomic_files import write_bytes
from mira_megatron.eval.answers.extracting import extracted
from mira_megatron.eval.benchmark import Benchmark
from mira_megatron.eval.bigcodebench import BigCodeBench
from mira_megatron.eval.livecodebench import LiveCodeBench
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.multipl_e import MultiplE
from mira_megatron.eval.sql.prediction_files import BIRD_SEPARATOR
from mira_megatron.eval.sql.statements import on_one_line
from mira_megatron.eval.sql.tasks import SqlTask
from mira_megatron.eval.verdicts import Sample


def export(kind: str, benchmark: Benchmark, samples: Sequence[Sample], path: Path) -> int:
    """Writes a file, or for MultiPL-E a folder, and returns how many programs it holds.

    Raises ValueError where the format has room for one program per task and there are several.
    """
    programs: dict[str, list[str]] = {}
    for sample in samples:
        programs.setdefault(sample.task_id, []).append(extracted(benchmark, sample).code or "")
    match kind, benchmark:
        case "multipl_e", MultiplE():
            _write_multipl_e(benchmark, programs, path)
        case "livecodebench", LiveCodeBench():
            entries = [
                {"question_id": task_id, "code_list": codes} for task_id, codes in programs.items()
            ]
            write_bytes(path, f"{json.dumps(entries, indent=1)}\n".encode())
        case "spider" | "bird", _:
            _write_sql(kind, _sql_tasks(benchmark), programs, path)
        case _, Mbpp() | BigCodeBench():
            _write_solutions(benchmark, programs, path)
        case _:
            raise ValueError(f"{kind}: has no official format of predictions")
    return sum(map(len, programs.values()))


def _write_solutions(
    benchmark: Mbpp | BigCodeBench, programs: Mapping[str, Sequence[str]], path: Path
) -> None:
    lines = []
    for task_id, codes in programs.items():
        for code in codes:
            if isinstance(benchmark, BigCodeBench):  # the official tool puts this there itself
                code = code.removeprefix(benchmark.calibration(task_id))
            lines.append(json.dumps({"task_id": task_id, "solution": code}) + "\n")
    write_bytes(path, "".join(lines).encode())


def _write_multipl_e(
    benchmark: MultiplE, programs: Mapping[str, Sequence[str]], folder: Path
) -> None:
    for task_id, codes in programs.items():
        task = benchmark.tasks[task_id]
        # One prompt is put before all completions; a program that does not begin with it is whole.
        prompt = task.prompt if all(code.startswith(task.prompt) for code in codes) else ""
        content: dict[str, Any] = {
            "name": task_id,
            "language": benchmark.language.name,
            "prompt": prompt,
            "tests": task.tests,
            "completions": [code.removeprefix(prompt) for code in codes],
            "stop_tokens": list(task.stop_words),
        }
        packed = gzip.compress(json.dumps(content).encode(), mtime=0)
        write_bytes(folder / f"{_file_name(task_id)}.json.gz", packed)


def _sql_tasks(benchmark: Benchmark) -> Mapping[str, SqlTask]:
    # The class is loaded only where its engine's parser is installed.
    module = importlib.import_module("mira_megatron.eval.sql.benchmark")
    assert isinstance(benchmark, module.SqlBenchmark)
    tasks: Mapping[str, SqlTask] = benchmark.tasks
    return tasks


def _write_sql(
    kind: str, tasks: Mapping[str, SqlTask], programs: Mapping[str, Sequence[str]], path: Path
) -> None:
    crowded = [task_id for task_id, codes in programs.items() if len(codes) > 1]
    if crowded:
        raise ValueError(
            f"{crowded[0]}: {len(programs[crowded[0]])} predictions, and {kind}'s format has one "
            "for each question"
        )
    statements = {name: (programs.get(name) or [""])[0] for name in tasks}
    if kind == "bird":
        entries = {
            str(place): f"{statements[name]}{BIRD_SEPARATOR}{task.database}"
            for place, (name, task) in enumerate(tasks.items())
        }
        write_bytes(path, f"{json.dumps(entries, indent=1)}\n".encode())
        return
    lines = [f"{on_one_line(statements[name])}\t{task.database}\n" for name, task in tasks.items()]
    write_bytes(path, "".join(lines).encode("utf-8", "surrogatepass"))


def _file_name(task_id: str) -> str:
    """Returns a name of its own for each task, that leads nowhere out of the folder."""
    name = quote(task_id, safe="", errors="surrogatepass")
    return f"%2E{name[1:]}" if name.startswith(".") else name
