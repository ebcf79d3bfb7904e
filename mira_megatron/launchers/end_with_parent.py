"""A child process that does not outlive the one that started it, kill -9 included (Linux)."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def _have_it_told() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


# For `preexec_fn`: the child is told to end (SIGTERM) when its parent is gone. None where that is
# not to be had.
end_with_parent: Callable[[], None] | None = None if _LIBC is None else _have_it_told
