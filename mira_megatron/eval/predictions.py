"""Predictions made elsewhere, in the benchmarks' own formats, read as samples.

    EvalPlus    samples.jsonl: task_id with `solution` (a whole program) or `completion`
    MultiPL-E   per line task_id (or name) with `generation` (prompt and completion), `completion`,
                or a list of `completions`; or a .json of details, {task: [[number, {code}]]}
    LiveCodeBench  a .json list of {question_id, code_list}

Several lines of one task are its samples 0, 1, 2 ... in the order of the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mira_megatron.eval.verdicts import Form, Sample

_WHOLE = ("solution", "generation", "code")
_BEHIND_PROMPT = ("completion",)


def read_predictions(path: Path, task_ids: Sequence[str]) -> list[Sample]:
    """Returns the samples of a file; ValueError with file and line, also for unknown tasks."""
    known = set(task_ids)
    numbers: Counter[str] = Counter()
    samples = []
    for where, task_id, text, form in _entries(path):
        if task_id not in known:
            raise ValueError(
                f"{where}: task {task_id!r} is none of this benchmark's {len(known):,} "
                f"(the first is {task_ids[0]!r}); give the predictions of the same data file"
            )
        samples.append(Sample(task_id=task_id, number=numbers[task_id], text=text, form=form))
        numbers[task_id] += 1
    if not samples:
        raise ValueError(f"{path}: no predictions")
    return samples


def check_complete(samples: Sequence[Sample], task_ids: Sequence[str], path: Path) -> None:
    """Raises ValueError where a task has no sample: a score over fewer tasks is another score."""
    have = {sample.task_id for sample in samples}
    missing = [task_id for task_id in task_ids if task_id not in have]
    if missing:
        raise ValueError(
            f"{path}: {len(missing):,} of {len(task_ids):,} tasks have no prediction, the first is "
            f"{missing[0]!r}. Add them, or grade what is there with --subset"
        )


def _entries(path: Path) -> Iterator[tuple[str, str, str, Form]]:
    """Yields where, task, text and its form."""
    content = path.read_bytes()
    if path.suffix == ".json":
        is_list = content.lstrip().startswith(b"[")
        yield from (_code_lists if is_list else _detail_entries)(content, path)
        return
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        fields = _parsed(line, where)
        task_id = fields.get("task_id", fields.get("name"))
        if not isinstance(task_id, str):
            raise ValueError(f"{where}: no task_id (or name)")
        for text, form in _texts(fields, where):
            yield where, task_id, text, form


def _detail_entries(content: bytes, path: Path) -> Iterator[tuple[str, str, str, Form]]:
    for task_id, runs in _parsed(content, str(path)).items():
        where = f"{path}: {task_id}"
        if not isinstance(runs, list):
            raise ValueError(f"{where}: expected a list of [number, {{code}}]")
        for run in runs:
            fields = run[1] if isinstance(run, list) and len(run) == 2 else None
            if not isinstance(fields, dict):
                raise ValueError(f"{where}: expected a list of [number, {{code}}]")
            for text, form in _texts(fields, where):
                yield where, task_id, text, form


def _code_lists(content: bytes, path: Path) -> Iterator[tuple[str, str, str, Form]]:
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    for number, entry in enumerate(entries, start=1):
        match entry:
            case {"question_id": str(task_id), "code_list": [*codes]} if all(
                isinstance(code, str) for code in codes
            ):
                for code in codes:
                    yield f"{path}: entry {number}", task_id, code, Form.PROGRAM
            case _:
                raise ValueError(f"{path}: entry {number}: expected {{question_id, code_list}}")


def _texts(fields: Mapping[str, Any], where: str) -> Iterator[tuple[str, Form]]:
    """Yields every text of an entry; what holds the prompt already is a whole program."""
    for name in (*_WHOLE, *_BEHIND_PROMPT):
        if isinstance(fields.get(name), str):
            yield fields[name], Form.PROGRAM if name in _WHOLE else Form.COMPLETION
            return
    texts = fields.get("completions")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        expected = ", ".join((*_WHOLE, *_BEHIND_PROMPT, "completions"))
        raise ValueError(f"{where}: no text; expected one of {expected}")
    for text in texts:
        yield text, Form.COMPLETION


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: {type(fields).__name__}, expected an object")
    return fields
