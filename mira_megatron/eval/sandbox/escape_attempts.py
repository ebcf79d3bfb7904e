"""Runs inside a sandbox and tries to get out; measured by sandbox/escapes.py.

Uses nothing but the standard library of any Python 3, and says by name what it could do. An attempt
that the parent can see for itself, such as a file written, is not asked about here.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import subprocess
import sys
from typing import Any

LONG = "import time; time.sleep(300)"


def main() -> None:
    """Tries everything that the plan names and writes what came of it as JSON."""
    plan = json.load(sys.stdin)
    done = {
        "network": _can_connect(plan) or [name for _, name in socket.if_nameindex()] != ["lo"],
        "read": _can_read(plan["secret"]),
        "write": any(_can_write(path) for path in plan["targets"]),
        "privileges": _privileges(),
        "process_namespace": os.readlink("/proc/self/ns/pid"),
        "memory": _can_allocate(plan["memory_bytes"]),
        "file_size": _can_fill("/work", plan["file_bytes"]) or _can_fill(".", plan["file_bytes"]),
    }
    _leave_daemon(plan["token"])
    done["num_forks"] = _num_forks(plan["num_forks"])
    os.write(int(os.environ["MIRA_RESULTS_FD"]), json.dumps(done).encode())


def _can_connect(plan: dict[str, Any]) -> bool:
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", plan["port"])),
        (socket.AF_UNIX, "\0" + plan["token"]),
    ):
        with contextlib.suppress(OSError), socket.socket(family) as connection:
            connection.settimeout(2)
            connection.connect(address)
            return True
    return False


def _can_read(path: str) -> bool:
    with contextlib.suppress(OSError), open(path) as file:
        return bool(file.read())
    return False


def _can_write(path: str) -> bool:
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write("escaped")
        return True
    return False


def _privileges() -> str:
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return "{} {}".format(fields["CapEff"].strip(), fields["NoNewPrivs"].strip())


def _can_allocate(num_bytes: int) -> bool:
    # Not touched: what is held of all processes together is looked at from outside.
    with contextlib.suppress(OSError, MemoryError), mmap.mmap(-1, num_bytes):
        return True
    return False


def _can_fill(folder: str, num_bytes: int) -> bool:
    path = os.path.join(folder, "filled")
    try:
        with open(path, "wb") as file:
            return file.write(bytes(num_bytes)) == num_bytes
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _leave_daemon(token: str) -> None:
    subprocess.Popen(
        [sys.executable, "-c", LONG, token],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _num_forks(most: int) -> int:
    ready, hold = os.pipe()
    for num_forks in range(most):
        try:
            if os.fork() == 0:
                os.close(hold)
                os.read(ready, 1)  # until the parent has ended
                os._exit(0)
        except OSError:
            return num_forks
    return most


if __name__ == "__main__":
    main()
