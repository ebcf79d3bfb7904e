"""Loads a program with its unittest tests, in one module as BigCodeBench does, and runs the tests.

Everything here is within reach of the program. What it may not change unseen are unittest's own
classes and what its modules name: they are compared with what they were before the program was
loaded, after every test. The exception by which unittest itself ends a test at its first failure,
which would count as a pass, is taken away: `except ()` catches nothing.

Writes to the descriptor of its one argument a JSON line per event: {"loaded": null, or what was
raised}, {"test", "outcome", "said"} with an outcome passed, failed, error, skipped, expected or
unexpected, {"changed": name} for a changed class of unittest, and {"done": true} at the end; each
with the "token" that came with the request.
"""

import builtins
import json
import os
import sys
import types
import unittest
from collections.abc import Callable
from typing import Any

_SAID_CHARS = 200
_MODULES = (unittest.case, unittest.suite, unittest.loader, unittest.result)
_WATCHED: tuple[Any, ...] = (
    *_MODULES,
    *(
        kind
        for module in _MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ),
)
_OF_WARNINGS = "__warningregistry__"  # comes by itself


class _Result(unittest.TestResult):
    def __init__(self, report: Callable[..., None], changed: Callable[[], str | None]) -> None:
        super().__init__()
        self._report = report
        self._changed = changed

    def _tell(self, test: Any, outcome: str, said: str = "") -> None:
        name = getattr(test, "_testMethodName", test.id())  # of a class that does not set up
        self._report(test=name, outcome=outcome, said=said[:_SAID_CHARS])
        if name := self._changed():
            self._report(changed=name)

    def addSuccess(self, test: Any) -> None:
        self._tell(test, "passed")

    def addFailure(self, test: Any, err: Any) -> None:
        self._tell(test, "failed", _raised(err[1]))

    def addError(self, test: Any, err: Any) -> None:
        self._tell(test, "error", _raised(err[1]))

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            outcome = "failed" if issubclass(err[0], test.failureException) else "error"
            self._tell(test, outcome, _raised(err[1]))

    def addSkip(self, test: Any, reason: str) -> None:
        self._tell(test, "skipped", str(reason))

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._tell(test, "expected")

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._tell(test, "unexpected")


def main() -> None:
    """Runs all tests of one class; ends the process, whatever threads the program has left."""
    request = json.load(sys.stdin)
    report = _reporter(int(sys.argv[1]), request.pop("token"))
    unittest.case._ShouldStop = ()  # type: ignore[attr-defined]
    changed = _watch()
    void = os.open(os.devnull, os.O_RDWR)
    os.dup2(void, 0)
    module = types.ModuleType(request["module"])
    module.__dict__.update(
        {
            "__builtins__": builtins,
            "__file__": f"{request['module']}.py",
            "__package__": None,
            "sys": sys,
            "os": os,
            "environ": os.environ,
        }
    )
    end = os._exit
    try:
        exec(compile(request["source"], f"{request['module']}.py", "exec"), module.__dict__)
        sys.modules[request["module"]] = module
        suite = unittest.TestLoader().loadTestsFromTestCase(getattr(module, request["class"]))
    except BaseException as error:
        report(loaded=_raised(error))
        end(1)
    report(loaded=None)
    if name := changed():
        report(changed=name)
    suite.run(_Result(report, changed))
    report(done=True)
    end(0)


def _reporter(descriptor: int, token: str) -> Callable[..., None]:
    write, dumps = os.write, json.dumps  # programs patch modules, tests do too

    def report(**event: Any) -> None:
        left = memoryview(dumps({**event, "token": token}).encode() + b"\n")
        while left:
            left = left[write(descriptor, left) :]

    return report


def _watch() -> Callable[[], str | None]:
    """Returns what tells the first changed name of unittest's modules and classes."""
    before = [(kind, dict(vars(kind))) for kind in _WATCHED]

    def changed() -> str | None:
        for kind, attributes in before:
            found = dict(vars(kind))
            for name in {*found, *attributes} - {_OF_WARNINGS}:
                if found.get(name) is not attributes.get(name):
                    return f"{kind.__name__}.{name}"
        return None

    return changed


def _raised(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_SAID_CHARS]
    except Exception:  # an exception of the program's own making
        return type(error).__name__


if __name__ == "__main__":
    main()
