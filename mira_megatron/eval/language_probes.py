"""One task in every language, with a right and a wrong program: whether a language works in here.

MultiPL-E's translations come without solutions, so these are its controls. Written for this
package, in the form of its prompts and tests: what closes the function stands in the tests where
the closing brace is a stop word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A task, `add` of two numbers, and two ways to go on."""

    prompt: str
    right: str
    wrong: str
    tests: str


PROBES: Mapping[str, Probe] = {
    "cpp": Probe(
        prompt="#include<assert.h>\n#include<bits/stdc++.h>\nlong add(long x, long y) {\n",
        right="    return x + y;",
        wrong="    return x - y;",
        tests=(
            "}\nint main() {\n    auto candidate = add;\n"
            "    assert(candidate((2), (3)) == (5));\n}\n"
        ),
    ),
    "cs": Probe(
        prompt=(
            "using System;\nusing System.Diagnostics;\nclass Problem {\n"
            "    public static long Add(long x, long y) {\n"
        ),
        right="        return x + y;",
        wrong="        return x - y;",
        tests=(
            "    }\n    public static void Main(string[] args) {\n"
            "    Debug.Assert(Add((2L), (3L)) == (5L));\n    }\n\n}\n"
        ),
    ),
    "java": Probe(
        prompt=(
            "import org.javatuples.*;\nclass Problem {\n"
            "    public static long add(long x, long y) {\n"
        ),
        right="        return Pair.with(x, y).getValue0() + y;",
        wrong="        return x - y;",
        tests=(
            "    }\n    public static void main(String[] args) {\n"
            "    assert(add((2l), (3l)) == (5l));\n    }\n\n}\n"
        ),
    ),
    "js": Probe(
        prompt="function add(x, y){\n",
        right="  return x + y;\n}",
        wrong="  return x - y;\n}",
        tests=(
            "const assert = require('node:assert');\n\n\nfunction test() {\n"
            "  let candidate = add;\n  assert.deepEqual(candidate(2, 3),5);\n}\n\ntest();"
        ),
    ),
    "php": Probe(
        prompt="<?php\nfunction add($x, $y) {\n",
        right="    return $x + $y;\n}",
        wrong="    return $x - $y;\n}",
        tests=(
            "function candidate(...$args) {\n    return add(...$args);\n}\n\n"
            "function test(): void {\n"
            '    if (candidate(2, 3) !== 5) { throw new Exception("Test failed!"); }\n}\n\ntest();'
        ),
    ),
    "py": Probe(
        prompt="def add(x: int, y: int) -> int:\n",
        right="    return x + y",
        wrong="    return x - y",
        tests=(
            "def check(candidate):\n    assert candidate(2, 3) == 5\n\ndef test_check():\n"
            "    check(add)\n\ntest_check()\n"
        ),
    ),
    "sh": Probe(
        prompt="#!/bin/bash\nadd() {\n",
        right="    echo $(($1 + $2))",
        wrong="    echo $(($1 - $2))",
        tests=(
            '}\n\ncandidate() {\n    add "$@"\n}\n\nset -e\nrun_test() {\n'
            '    [[ $(candidate "2" "3") = "5" ]]\n}\n\nrun_test'
        ),
    ),
    "ts": Probe(
        prompt="function add(x: number, y: number): number {\n",
        right="  return x + y;\n}",
        wrong="  return x - y;\n}",
        tests=(
            "declare var require: any;\nconst assert = require('node:assert');\n\n\n"
            "function test() {\n  let candidate = add;\n"
            "  assert.deepEqual(candidate(2, 3),5);\n}\n\ntest();"
        ),
    ),
}
