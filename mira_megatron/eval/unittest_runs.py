"""Runs an untrusted program with its unittest tests, which share its process.

The tests have passed when every test method that their source has reports that it passed, the
process went on to its end, and the nonce of the run came back. A program that leaves early, patches
unittest or has tests skipped does not pass. One that means to cheat still can: it shares a process
with what is expected of it (docs/grading.md says what is and is not held).
"""

from __future__ import annotations

import ast
import json
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron.eval import in_sandbox
from mira_megatron.eval.sandbox.contract import Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter
from mira_megatron.eval.sandbox.script_job import script_job
from mira_megatron.eval.verdicts import Status

TEST_CLASS = "TestCases"
_MODULE = "__test__"  # as published: tests patch names in it
_DRIVER, _CHILD = (
    Path(in_sandbox.__file__).parent / name for name in ("unittest_driver.py", "unittest_child.py")
)
# An outcome that is no failure counts only where the tests' own source asks for it.
_ASKED_FOR = {
    "skipped": {"skip", "skipIf", "skipUnless", "skipTest", "SkipTest"},
    "expected": {"expectedFailure"},
}
_STATUSES = {"failed": Status.FAIL, "error": Status.ERROR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What became of a program with its tests."""

    status: Status
    detail: str
    outcome: Outcome


def expected_tests(source: str) -> tuple[str, ...]:
    """Returns the test methods that a source gives its class TestCases, in their order.

    Raises ValueError where it does not parse or has none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"tests that are no Python ({error})") from error
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    names: dict[str, None] = {}
    waiting, seen = [TEST_CLASS], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in classes:
            continue
        seen.add(name)
        waiting += [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        methods = [
            node.name
            for node in classes[name].body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        names.update(dict.fromkeys(name for name in methods if name.startswith("test")))
    if not names:
        raise ValueError(f"tests without a test method in a class {TEST_CLASS}")
    return tuple(names)


def run_with_tests(
    sandbox: Sandbox,
    interpreter: Interpreter,
    program: str,
    tests: str,
    limits: Limits,
) -> Ran:
    """Returns what the tests make of the program; `limits.wall_seconds` bounds both together."""
    nonce = secrets.token_hex(16)
    request = {
        "nonce": nonce,
        "module": _MODULE,
        "class": TEST_CLASS,
        "source": f"{program}\n{tests}",
    }
    outcome = sandbox.run(script_job(interpreter, _DRIVER.name, _scripts(), request, limits))
    status, detail = _status_of(outcome, nonce, tests, limits)
    return Ran(status=status, detail=detail, outcome=outcome)


def _status_of(outcome: Outcome, nonce: str, tests: str, limits: Limits) -> tuple[Status, str]:
    if outcome.is_timed_out:
        return Status.TIMEOUT, ""
    if outcome.is_out_of_memory:
        return Status.ERROR, "out of memory"
    try:
        record = json.loads(outcome.results)
        events, exit_code = list(record["events"]), int(record["exit_code"])
        is_ours = record["nonce"] == nonce
    except (ValueError, TypeError, KeyError, RecursionError):
        is_ours = False
    if not is_ours:
        said = ascii(outcome.stderr[-80:].decode(errors="replace"))
        return Status.ERROR, f"nothing was heard of its end: {said}"
    if exit_code == -signal.SIGXCPU or (
        exit_code == -signal.SIGKILL and outcome.cpu_seconds >= limits.cpu_seconds
    ):
        return Status.TIMEOUT, ""
    return _verdict(events, exit_code, tests)


def _verdict(events: Sequence[Any], exit_code: int, tests: str) -> tuple[Status, str]:
    passed: set[str] = set()
    is_done = False
    for event in events:
        match event:
            case {"loaded": str(said)}:
                return Status.ERROR, f"does not load: {ascii(said)[1:-1]}"[:160]
            case {"changed": str(name)}:
                return Status.FAIL, f"it changed unittest: {ascii(name)[1:-1]}"[:160]
            case {"test": str(name), "outcome": str(outcome), "said": str(said)}:
                if outcome == "passed" or _is_asked_for(outcome, tests):
                    passed.add(name)
                else:
                    where = f"{name} {outcome}: {said}" if said else f"{name} {outcome}"
                    return _STATUSES.get(outcome, Status.FAIL), ascii(where)[1:-1][:160]
            case {"done": True}:
                is_done = True
            case _:
                pass
    names = expected_tests(tests)
    missing = [name for name in names if name not in passed]
    if missing:
        ended = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return Status.FAIL, f"{len(missing)} of {len(names)} tests did not run; {ended}"
    if not is_done or exit_code != 0:
        return Status.FAIL, "ended before the end of its tests"
    return Status.PASS, ""


def _is_asked_for(outcome: str, tests: str) -> bool:
    """Returns whether the tests name what leads to an outcome; `skiprows` is no such name."""
    names = _ASKED_FOR.get(outcome, set())
    return any(
        (isinstance(node, ast.Name) and node.id in names)
        or (isinstance(node, ast.Attribute) and node.attr in names)
        for node in (ast.walk(ast.parse(tests)) if names else ())
    )


@cache
def _scripts() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (_DRIVER, _CHILD)}
