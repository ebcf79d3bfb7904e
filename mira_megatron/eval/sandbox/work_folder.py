"""A job's /work as a folder of the host, for sandboxes that cannot make one in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mira_megatron.eval.sandbox.launch import launching_user


@contextmanager
def work_folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yields a folder that holds the files and that the job may write to; it goes away after."""
    with tempfile.TemporaryDirectory(prefix="mira-job-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for place, content in files.items():
            file = folder / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        user = launching_user()
        if user is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, user)
        yield folder
