"""The best sandbox of this machine, by what was measured in it."""

from __future__ import annotations

from mira_megatron.eval.sandbox.bubblewrap import BubblewrapSandbox, missing_bubblewrap
from mira_megatron.eval.sandbox.contract import DEFAULT_MIN_LEVEL, Sandbox


def best_sandbox(min_level: int = DEFAULT_MIN_LEVEL) -> Sandbox:
    """Returns the sandbox with the highest measured level.

    Raises ValueError where none reaches `min_level`; it says what was tried, what failed, and the
    way out.
    """
    missing = missing_bubblewrap()
    if missing is not None or min_level > 3:
        raise ValueError(f"no sandbox of level {min_level} here: {missing}")
    return BubblewrapSandbox(3)
