"""Calls one function of a program with groups of inputs, and writes what it returns.

Started inside the sandbox with the request on stdin. It knows inputs and no right answers, so
whatever the program does to this process, it can only answer for itself. Every group has a process
of its own, in which the program is loaded afresh. A call that takes too long is ended by a signal
that kills: one that counts CPU seconds, and one for a call that only waits.

Writes to the results descriptor one JSON line per call, {"group", "call", "seconds"} with "value",
"unserialisable" or "raised", and one per group as it ends, {"group", "status"}.
"""

import json
import os
import signal
import sys
import time
from typing import Any

import values  # type: ignore[import-not-found]  # beside this file, in /work

_WAITING_FACTOR = 20  # wall seconds per CPU second allowed, for a machine that is shared


def main() -> None:
    """Runs every group in turn, up to the first that does not end well."""
    request = json.load(sys.stdin)
    results = int(os.environ["MIRA_RESULTS_FD"])
    for number in range(len(request["groups"])):
        child = os.fork()
        if child == 0:
            _run_group(request, number, results)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        _write(results, {"group": number, "status": os.waitstatus_to_exitcode(status)})
        if status != 0:
            break


def _run_group(request: dict[str, Any], number: int, results: int) -> None:
    void = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(void, descriptor)
    inputs = [values.decode(arguments) for arguments in request["groups"][number]]
    limits = request["seconds"][number]
    try:
        _limit(request["load_seconds"])
        program: dict[str, Any] = {
            "__name__": "builtins"
        }  # so that what a script would do is not done
        exec(request["program"], program)
        function = program[request["function"]]
    except BaseException as error:
        _write(results, {"group": number, "call": -1, "raised": type(error).__name__})
        os._exit(1)
    for call, arguments in enumerate(inputs):
        line: dict[str, Any] = {"group": number, "call": call}
        _limit(limits[call])
        started = time.process_time()
        try:
            value = function(*arguments)
            line["seconds"] = time.process_time() - started
            line.update(_written(value))
        except BaseException as error:
            line["raised"] = type(error).__name__
            _write(results, line)
            os._exit(1)
        _limit(0)
        _write(results, line)


def _written(value: object) -> dict[str, str]:
    try:
        return {"value": values.encode(value)}
    except values.NotAValue as error:
        return {"unserialisable": str(error)}


def _limit(cpu_seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, cpu_seconds * _WAITING_FACTOR)


def _write(results: int, line: dict[str, Any]) -> None:
    content = memoryview(json.dumps(line).encode() + b"\n")
    while content:
        content = content[os.write(results, content) :]


if __name__ == "__main__":
    main()
