"""The Python that runs inside sandboxes."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.eval.sandbox.started import SEARCH_PATH


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and the folders of the host that it needs to see beside /usr."""

    path: str
    read_only: tuple[Path, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """The words that start it alone: without the folder it is in, or the user's own modules."""
        return (self.path, "-I", "-B")


def system_interpreter() -> Interpreter:
    """Returns the system's python3, or the one that this runs on where there is none."""
    found = shutil.which("python3", path=SEARCH_PATH)
    if found is not None:
        return Interpreter(found)
    return Interpreter(os.path.realpath(sys.executable), (Path(sys.base_prefix),))
