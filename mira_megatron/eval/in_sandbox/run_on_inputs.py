"""Runs a program once per input, each time in a process of its own, and hands on what it prints.

Started inside the sandbox with the request on stdin. It knows inputs and no right answers, so
whatever the program does to this process, it gains nothing by it. Processes are forked from one
that has the modules of the program's header loaded, which takes a quarter of starting Python anew.

Writes to the results descriptor one JSON line per run, in order: {"status", "is_late", "seconds",
"stdout", "said"}; a run that did not end well, with exit code 0, is the last, and what it printed
stays here.
"""

import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import types
from typing import Any

_READ_BYTES = 1 << 20
_SAID_BYTES = 400  # of stderr's end


def main() -> None:
    """Runs the program on every input, up to the first on which it does not end well."""
    request = json.load(sys.stdin)
    results = int(os.environ.pop("MIRA_RESULTS_FD"))
    for name in request["modules"]:
        importlib.import_module(name)
    gc.freeze()  # else a child's first collection would copy all pages
    for text in request["inputs"]:
        streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        _write(streams[0], text.encode("utf-8", "surrogatepass"))
        os.lseek(streams[0], 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            os.close(results)
            _become(streams, request)
            # From here on the process ends as Python ends any program: threads are waited for,
            # buffers written, and what was not caught is printed, with exit code 1.
            _run(request["program"])
            return
        line = _ended(child, request["wait_seconds"])
        printed = _content(streams[1], request["output_bytes"]) if line["status"] == 0 else b""
        line["stdout"] = printed.decode(errors="replace")
        said = _content(streams[2], request["output_bytes"])[-_SAID_BYTES:]
        line["said"] = said.decode(errors="replace")
        for stream in streams:
            os.close(stream)
        _write(results, json.dumps(line).encode() + b"\n")
        if line["status"] != 0:
            break


def _become(streams: list[int], request: dict[str, Any]) -> None:
    """Gives this process its own three streams, and the limits of one run."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    cpu_seconds, output_bytes = request["cpu_seconds"], request["output_bytes"]
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes, output_bytes))
    sys.argv = ["program.py"]


def _run(program: str) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(program, "program.py", "exec"), module.__dict__)


def _ended(child: int, wait_seconds: float) -> dict[str, Any]:
    """Returns how a process ended, by itself or because it only waited."""
    descriptor = os.pidfd_open(child)
    has_ended, _, _ = select.select([descriptor], [], [], wait_seconds)
    if not has_ended:
        os.kill(child, signal.SIGKILL)
    os.close(descriptor)
    _, status, usage = os.wait4(child, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "is_late": not has_ended,
        "seconds": usage.ru_utime + usage.ru_stime,
    }


def _content(descriptor: int, most_bytes: int) -> bytes:
    parts = bytearray()
    while len(parts) < most_bytes:
        chunk = os.pread(descriptor, min(_READ_BYTES, most_bytes - len(parts)), len(parts))
        if not chunk:
            break
        parts += chunk
    return bytes(parts)


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


if __name__ == "__main__":
    main()
