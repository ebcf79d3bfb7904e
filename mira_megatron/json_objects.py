"""A JSON object in a file that somebody else wrote, as lies in every model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Returns what a file holds, None where there is no such file.

    Raises ValueError naming the file where that is no JSON, or no object.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}). Copy it anew.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not a JSON object. Copy it anew.")
    return value
