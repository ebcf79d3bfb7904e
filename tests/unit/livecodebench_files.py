"""Small LiveCodeBench files in the published format, written by tests."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval_files import write_lines

Tests = Sequence[tuple[str, str]]

SUM = [("3\n1 2 3\n", "6\n"), ("1\n-4\n", "-4\n")]
RISES = [("[1, 2, 2]\n1", "[1, 2]"), ("[]\n0", "[0, 0]")]


def packed(tests: Sequence[Mapping[str, str]], protocol: int = 4) -> str:
    """Returns private tests as the publisher packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests), protocol))).decode()


def lcb_tests(tests: Tests, kind: str = "stdin") -> list[dict[str, str]]:
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in tests]


def lcb_row(
    task_id: str = "abc300_a",
    tests: Tests = SUM,
    *,
    private: Tests = (),
    function: str | None = None,
    day: str = "2025-02-08",
) -> dict[str, Any]:
    """Returns one task as the raw files have it; with a function it is of LeetCode's kind."""
    kind = "functional" if function else "stdin"
    starter = f"class Solution:\n    def {function}(self, nums, k):\n        " if function else ""
    return {
        "question_title": "Sum",
        "question_content": "Print the sum.",
        "platform": "leetcode" if function else "atcoder",
        "question_id": task_id,
        "contest_id": "abc300",
        "contest_date": f"{day}T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(lcb_tests(tests, kind)),
        "private_test_cases": packed(lcb_tests(private, kind)),
        "metadata": json.dumps({"func_name": function} if function else {}),
    }


def write_lcb(folder: Path, *rows: Mapping[str, Any], number: int = 6) -> Path:
    """Writes one raw file, testN.jsonl, and returns its folder."""
    folder.mkdir(exist_ok=True)
    write_lines(folder / ("test.jsonl" if number == 1 else f"test{number}.jsonl"), rows)
    return folder
