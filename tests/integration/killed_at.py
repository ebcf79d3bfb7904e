"""Runs `mira` and ends it as kill -9 does, at one of its calls of os.replace.

    python killed_at.py before|after K WORDS...    kills just before or after the K-th call
    python killed_at.py never 0 WORDS...           its last line of output is the number of calls

os.replace is where a finished file gets its name, so these are the moments between two states of
the disk. What is patched belongs to the standard library; `mira` itself is left as it is.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from unittest import mock

from mira_megatron.cli import main


class KillingReplace:
    """os.replace that counts its calls and kills the process at one of them."""

    def __init__(self, moment: str, kill_at: int) -> None:
        self._replace = os.replace
        self._moment = moment
        self._kill_at = kill_at
        self.num_calls = 0

    def __call__(self, source: Path, target: Path) -> None:
        self.num_calls += 1
        is_last = self.num_calls == self._kill_at
        if is_last and self._moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self._replace(source, target)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    replace = KillingReplace(sys.argv[1], int(sys.argv[2]))
    with mock.patch.object(os, "replace", replace):
        exit_code = main(sys.argv[3:])
    sys.stdout.write(f"\n{replace.num_calls}\n")
    sys.exit(exit_code)
