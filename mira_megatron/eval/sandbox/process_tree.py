"""What a process and all that it started use, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Of processes that live; `cpu_seconds` also of their children that have ended."""

    cpu_seconds: float
    resident_bytes: int  # pages that two of them share count twice


def tree_usage(root: int) -> TreeUsage:
    """Returns what the process `root` and its descendants use; zero where there is none."""
    cpu_ticks, num_pages = 0, 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            # The name may hold anything and ends at the last bracket; fields 3 on follow.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            for task in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{task}/children").read_bytes()
                waiting += map(int, children.split())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        cpu_ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        num_pages += int(fields[21])  # rss
    return TreeUsage(cpu_seconds=cpu_ticks / _TICKS, resident_bytes=num_pages * _PAGE_BYTES)
