"""A small BigCodeBench file in the published format, written by tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.eval.bigcodebench import BigCodeBench
from mira_megatron.eval.bigcodebench_data import BcbOptions
from mira_megatron.eval.sandbox.interpreter import system_interpreter

SYSTEM_PYTHON = Path(system_interpreter().path)
TASK = "BigCodeBench/7"
TESTS = """\
import unittest
import json as codec
class TestCases(unittest.TestCase):
    def setUp(self):
        self.text = codec.dumps([3, 4])
    def test_case_1(self):
        self.assertEqual(task_func(self.text), 7)
    def test_case_2(self):
        with self.assertRaises(ValueError):
            task_func("[")
    def test_case_3(self):
        self.assertAlmostEqual(task_func("[0.1, 0.2]"), 0.3)
"""
CODE_PROMPT = "import json\ndef task_func(text):"
COMPLETE_PROMPT = f'{CODE_PROMPT}\n    """\n    Sum of a list in JSON.\n    """\n'
SOLUTION = "    return sum(json.loads(text))\n"


def bcb_row(task_id: str = TASK, **fields: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "complete_prompt": COMPLETE_PROMPT,
        "instruct_prompt": "Sum a list in JSON.\nYou should write self-contained code.",
        "canonical_solution": SOLUTION,
        "code_prompt": CODE_PROMPT,
        "test": TESTS,
        "entry_point": "task_func",
        "doc_struct": "{}",
        "libs": "['json']",
        **fields,
    }


def write_bcb(path: Path, *rows: Mapping[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows) or [bcb_row()]), path)
    return path


def opened_bcb(folder: Path, *rows: Mapping[str, Any], hard: tuple[str, ...] = ()) -> BigCodeBench:
    """Returns the benchmark over the rows, run with the system's Python."""
    path = write_bcb(folder / "full.parquet", *rows)
    if hard:
        write_bcb(folder / "hard.parquet", *({"task_id": task_id} for task_id in hard))
    options = BcbOptions(
        split="instruct", hard="hard.parquet" if hard else None, python=SYSTEM_PYTHON
    )
    return BigCodeBench(path, options)
