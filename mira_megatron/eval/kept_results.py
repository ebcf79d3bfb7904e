"""Small JSON files that several processes may write at the same time, all with the same content."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

# What reading a file raises that is not as `keep_json` wrote it.
DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def keep_json(path: Path, content: object) -> None:
    """Writes a file that appears whole, whoever else writes it in the same moment.

    Not flushed: whoever reads it takes a damaged one for a missing one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(
        prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
    )
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, sort_keys=True, allow_nan=False)
        os.chmod(temporary, 0o644)  # a shared cache is read by others of the group
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
