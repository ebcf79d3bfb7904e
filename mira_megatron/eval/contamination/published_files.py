"""Items from benchmarks' data files in their published formats: jsonl(.gz), json or parquet.

Only what could lie in a corpus is read, so a file that lacks what grading needs will do. A reader
raises ValueError with the file, the row and the field that it misses.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mira_megatron.eval.contamination.items import TEST, Item, Kind, Surface, TextForm
from mira_megatron.eval.multipl_e import humaneval_number

_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet")
_HUMAN_EVAL = "human_eval/HumanEval.jsonl.gz"  # beside the folder of MultiPL-E's files

Row = Mapping[str, Any]
Reader = Callable[[str, Iterator["LocatedRow"]], Iterator[Item]]


class LocatedRow:
    """A row that knows where it stands, for messages."""

    def __init__(self, fields: Row, where: str) -> None:
        self.fields = fields
        self.where = where

    def text(self, *names: str, default: str | None = None) -> str:
        """Returns the first of the named fields that is a text; ValueError where none is."""
        for name in names:
            value = self.fields.get(name)
            if isinstance(value, str):  # half a surrogate pair, as JSON may have, is no text
                return value.encode("utf-8", "replace").decode()
        if default is None:
            raise ValueError(
                f"{self.where}: no text {' or '.join(names)}; it has {', '.join(self.fields)}. "
                "Give the benchmark's own file, in its published format"
            )
        return default


def read_items(kind: str, benchmark: str, path: Path, split: str = TEST) -> list[Item]:
    """Returns the items of a benchmark's file, or of all data files of a folder.

    Raises FileNotFoundError where there is none, and ValueError for a format that is not the kind's
    published one.
    """
    reader = READERS.get(kind)
    if reader is None:
        raise ValueError(f"{benchmark}: kind {kind!r} is none of {', '.join(READERS)}")
    items = list(reader(benchmark, _rows(path, benchmark)))
    if kind == "multipl_e":
        items = _with_originals(items, path.parent.parent / _HUMAN_EVAL)
    found: dict[str, Item] = {}
    for item in items:  # a release of LiveCodeBench may repeat a problem of an earlier file
        found.setdefault(item.task_id, replace(item, split=split))
    if not found:
        raise ValueError(f"{path}: no items of {benchmark}")
    return list(found.values())


def data_files(path: Path) -> list[Path]:
    """Returns a file, or the data files of a folder, sorted; FileNotFoundError for neither."""
    if path.is_file():
        return [path]
    files = sorted(each for each in path.glob("*") if each.name.endswith(_ENDINGS))
    if not files:
        raise FileNotFoundError(
            f"{path}: no such data file; name the folder that has it with --data-folder, or leave "
            "this benchmark out with --benchmark (in a recipe: eval.data_folder, eval.benchmarks)"
        )
    return files


def _mbpp(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    """EvalPlus' format, or that of the original with its training split."""
    for row in rows:
        tests = "\n".join(map(str, row.fields.get("test_list") or ()))
        yield _item(
            benchmark,
            str(row.fields.get("task_id")),
            (Kind.PROMPT, TextForm.CODE, row.text("prompt", "text")),
            (Kind.SOLUTION, TextForm.CODE, row.text("canonical_solution", "code")),
            (Kind.TESTS, TextForm.CODE, row.text("assertion", default=tests)),
        )


def _multipl_e(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    for row in rows:
        task_id = row.text("name")
        yield _item(
            benchmark,
            task_id,
            (Kind.PROMPT, TextForm.CODE, row.text("prompt")),
            (Kind.TESTS, TextForm.CODE, row.text("tests")),
            cluster=humaneval_number(task_id),
        )


def _with_originals(items: Sequence[Item], path: Path) -> list[Item]:
    """Returns items with the tasks that they were translated from, where that file is there."""
    if not path.is_file():
        return list(items)
    originals = {row.text("task_id"): row for row in _rows(path, "human_eval")}
    found = []
    for item in items:
        original = originals.get(item.cluster)
        if original is not None:
            more = (
                _surface(Kind.ORIGINAL_PROMPT, TextForm.CODE, original.text("prompt")),
                _surface(
                    Kind.ORIGINAL_SOLUTION, TextForm.CODE, original.text("canonical_solution")
                ),
            )
            item = replace(item, surfaces=(*item.surfaces, *more))
        found.append(item)
    return found


def _bigcodebench(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    for row in rows:
        yield _item(
            benchmark,
            row.text("task_id"),
            (Kind.PROMPT, TextForm.CODE, row.text("complete_prompt")),
            (Kind.PROMPT, TextForm.PROSE, row.text("instruct_prompt", default="")),
            (Kind.SOLUTION, TextForm.CODE, row.text("canonical_solution")),
            (Kind.TESTS, TextForm.CODE, row.text("test")),
        )


def _livecodebench(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    for row in rows:
        yield _item(
            benchmark,
            row.text("question_id"),
            (Kind.PROMPT, TextForm.PROSE, row.text("question_content")),
        )


def _spider(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    return _text_to_sql("spider", benchmark, rows)


def _bird(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    return _text_to_sql("bird", benchmark, rows)


def _text_to_sql(kind: str, benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    for number, row in enumerate(rows):
        query = row.text("SQL", "query")
        yield _item(
            benchmark,
            # As grading names them: scores on clean tasks are found by these ids.
            f"{kind}/{row.fields.get('question_id', number)}",
            (Kind.PROMPT, TextForm.PROSE, row.text("question")),
            (Kind.SOLUTION, TextForm.SQL, query),
            # Several questions ask for the same query, one behind the other.
            cluster=f"{row.text('db_id')} {' '.join(query.lower().split())}",
            query=query,
        )


def _swe(benchmark: str, rows: Iterator[LocatedRow]) -> Iterator[Item]:
    for row in rows:
        task_id, repository = row.text("instance_id"), row.text("repo")
        references = [row.text("base_commit"), task_id]
        number = str(row.fields.get("pull_number") or task_id.rpartition("-")[2])
        numbers = {number, *map(str, row.fields.get("issue_numbers") or ())}
        for each in sorted(numbers):
            if each.isdigit():
                references += [f"{repository}/{word}/{each}" for word in ("pull", "issues")]
                references.append(f"{repository}#{each}")
        yield _item(
            benchmark,
            task_id,
            (Kind.PROMPT, TextForm.PROSE, row.text("problem_statement")),
            (Kind.SOLUTION, TextForm.CODE, _added_lines(row.text("patch"))),
            (Kind.TESTS, TextForm.CODE, _added_lines(row.text("test_patch", default=""))),
            references=tuple(references),
            test_names=_names(row.fields.get("FAIL_TO_PASS")),
        )


READERS: Mapping[str, Reader] = {
    "mbpp": _mbpp,
    "multipl_e": _multipl_e,
    "bigcodebench": _bigcodebench,
    "livecodebench": _livecodebench,
    "spider": _spider,
    "bird": _bird,
    "swe_multilingual": _swe,
}


def _added_lines(patch: str) -> str:
    """Returns what a patch adds: what it takes away is in every earlier checkout."""
    lines = [line[1:] for line in patch.splitlines() if re.match(r"\+(?!\+\+ )", line)]
    return "\n".join(lines)


def _names(value: object) -> tuple[str, ...]:
    """Returns the names of tests from a list, or from a list written as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    names = value if isinstance(value, list) else []
    return tuple(sorted({name for name in names if isinstance(name, str)}))


def _surface(kind: Kind, form: TextForm, text: str) -> Surface:
    return Surface(kind=kind, form=form, text=text)


def _item(
    benchmark: str,
    task_id: str,
    *surfaces: tuple[Kind, TextForm, str],
    cluster: str | None = None,
    **more: Any,
) -> Item:
    return Item(
        benchmark=benchmark,
        task_id=task_id,
        cluster=cluster or f"{benchmark} {task_id}",
        surfaces=tuple(_surface(*each) for each in surfaces if each[2].strip()),
        **more,
    )


def _rows(path: Path, benchmark: str) -> Iterator[LocatedRow]:
    for file in data_files(path):
        for number, fields in enumerate(_file_rows(file), start=1):
            where = f"{file}: row {number} of {benchmark}"
            if not isinstance(fields, dict):
                raise ValueError(f"{where}: {type(fields).__name__}, expected an object")
            yield LocatedRow(fields, where)


def _file_rows(path: Path) -> Iterator[Any]:
    if path.name.endswith(".parquet"):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
            yield from batch.to_pylist()
        return
    try:
        if path.name.endswith(".json"):
            rows = json.loads(path.read_bytes())
            yield from rows if isinstance(rows, list) else [rows]
            return
        # Line by line: with their hidden tests, LiveCodeBench's files have gigabytes.
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
