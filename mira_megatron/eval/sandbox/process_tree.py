"""What a process and all that it started use, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """Of processes that live; `cpu_seconds` also of their children that have ended."""

    cpu_seconds: float
    resident_bytes: dict[int, int]  # of each process; pages that two share are in both

    def exceeds(self, num_bytes: int) -> bool:
        """True = all together hold more, each shared page counted once."""
        if sum(self.resident_bytes.values()) <= num_bytes:
            return False
        shares = [_share_bytes(pid, most) for pid, most in self.resident_bytes.items()]
        return sum(shares) > num_bytes


def tree_usage(root: int) -> TreeUsage:
    """Returns what the process `root` and its descendants use; nothing where there is none."""
    cpu_ticks = 0
    resident_bytes: dict[int, int] = {}
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
        resident_bytes[pid] = int(fields[21]) * _PAGE_BYTES
    return TreeUsage(cpu_ticks / _TICKS_PER_SECOND, resident_bytes)


def _share_bytes(pid: int, most: int) -> int:
    """Returns the process's own pages and its part of shared ones; `most` where that is hidden."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except (ProcessLookupError, FileNotFoundError):
        return 0  # it has ended
    except PermissionError:
        return most
    sizes = [line.split()[1] for line in lines if line.startswith(b"Pss:")]
    return int(sizes[0]) * 1024 if sizes else most
