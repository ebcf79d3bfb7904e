"""Small MBPP and MultiPL-E files, and predictions for them, written by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ADD = {
    "task_id": "Mbpp/1001",
    "prompt": '"""\nAdd two numbers.\nassert add(1, 2) == 3\n"""\n',
    "entry_point": "add",
    "canonical_solution": "\ndef add(a, b):\n    return a + b\n",
    "base_input": [[1, 2], [0, 0]],
    "plus_input": [[-5, 5], [2, 2]],
    "atol": 0,
}
HALF = {
    **ADD,
    "task_id": "Mbpp/1002",
    "prompt": '"""\nHalf of a number.\n"""\n',
    "entry_point": "half",
    "canonical_solution": "\ndef half(a):\n    return a / 2\n",
    "base_input": [[1]],
    "plus_input": [[3], [7]],
}


def write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def write_mbpp(path: Path, *tasks: Mapping[str, Any]) -> Path:
    return write_lines(path, tasks or (ADD, HALF))


# The same task in every language: prompt, a right and a wrong completion, tests as MultiPL-E ends
# them. What closes the function is in the tests where its stop token is the closing brace.
MULTIPL_E: Mapping[str, tuple[str, str, str, str]] = {
    "cpp": (
        "#include<assert.h>\n#include<bits/stdc++.h>\nlong add(long x, long y) {\n",
        "    return x + y;",
        "    return x - y;",
        "}\nint main() {\n    auto candidate = add;\n    assert(candidate((2), (3)) == (5));\n}\n",
    ),
    "cs": (
        "using System;\nusing System.Diagnostics;\nclass Problem {\n"
        "    public static long Add(long x, long y) {\n",
        "        return x + y;",
        "        return x - y;",
        "    }\n    public static void Main(string[] args) {\n"
        "    Debug.Assert(Add((2L), (3L)) == (5L));\n    }\n\n}\n",
    ),
    "java": (
        "import org.javatuples.*;\nclass Problem {\n    public static long add(long x, long y) {\n",
        "        return Pair.with(x, y).getValue0() + y;",
        "        return x - y;",
        "    }\n    public static void main(String[] args) {\n"
        "    assert(add((2l), (3l)) == (5l));\n    }\n\n}\n",
    ),
    "js": (
        "function add(x, y){\n",
        "  return x + y;\n}",
        "  return x - y;\n}",
        "const assert = require('node:assert');\n\n\nfunction test() {\n  let candidate = add;\n"
        "  assert.deepEqual(candidate(2, 3),5);\n}\n\ntest();",
    ),
    "php": (
        "<?php\nfunction add($x, $y) {\n",
        "    return $x + $y;\n}",
        "    return $x - $y;\n}",
        "function candidate(...$args) {\n    return add(...$args);\n}\n\nfunction test(): void {\n"
        '    if (candidate(2, 3) !== 5) { throw new Exception("Test failed!"); }\n}\n\ntest();',
    ),
    "py": (
        "def add(x: int, y: int) -> int:\n",
        "    return x + y",
        "    return x - y",
        "def check(candidate):\n    assert candidate(2, 3) == 5\n\ndef test_check():\n"
        "    check(add)\n\ntest_check()\n",
    ),
    "sh": (
        "#!/bin/bash\nadd() {\n",
        "    echo $(($1 + $2))",
        "    echo $(($1 - $2))",
        '}\n\ncandidate() {\n    add "$@"\n}\n\nset -e\nrun_test() {\n'
        '    [[ $(candidate "2" "3") = "5" ]]\n}\n\nrun_test',
    ),
    "ts": (
        "function add(x: number, y: number): number {\n",
        "  return x + y;\n}",
        "  return x - y;\n}",
        "declare var require: any;\nconst assert = require('node:assert');\n\n\n"
        "function test() {\n  let candidate = add;\n  assert.deepEqual(candidate(2, 3),5);\n}\n\n"
        "test();",
    ),
}
MULTIPL_E_TASK = "HumanEval_53_add"


def write_multipl_e(path: Path, language: str) -> Path:
    prompt, _, _, tests = MULTIPL_E[language]
    entry = {"name": MULTIPL_E_TASK, "language": language, "prompt": prompt, "tests": tests}
    return write_lines(path, [entry])
