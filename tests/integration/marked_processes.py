"""A folder for servers of a test, and the end of everything that was started with its mark.

What a server starts is found by a variable that it inherited, so that nothing outlives the test,
also where the server itself was killed. What tests left that were killed is ended by the next.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "MIRA_TEST_FOLDER"  # to be set to the folder in the environment of what is started


@contextmanager
def marked_folder(kind: str) -> Iterator[Path]:
    """Yields a new folder; after the block it is removed and what has its mark is killed.

    It is not in pytest's own folder: the path of a socket has at most 107 characters.
    """
    prefix = f"mira-{kind}-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            _clear(left)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    try:
        yield folder
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    marked = f"{MARK}={folder}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if marked in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
