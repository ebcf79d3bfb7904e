"""Runs `mira` and ends it as kill -9 does, at one of its calls of os.replace.

os.replace is where a finished file gets its name, so these are the moments between two states of
the disk. What is patched belongs to the standard library; `mira` itself is left as it is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
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


def main_killed(words: Sequence[str]) -> int:
    """Runs `mira` with all words but two: before|after|never, and the number of the call.

    The last line of its output is the number of calls, if it came to its end.
    """
    replace = KillingReplace(words[0], int(words[1]))
    with mock.patch.object(os, "replace", replace):
        exit_code = main(words[2:])
    sys.stdout.write(f"\n{replace.num_calls}\n")
    return exit_code
