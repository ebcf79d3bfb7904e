"""Processes found by a variable that they inherited: what a server started and left to itself."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def kill_marked(name: str, value: object) -> None:
    """Kills every process of this user whose environment has this variable with this value."""
    marked = f"{name}={value}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if marked in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
