"""The weights of a Hugging Face folder that a cluster exported: seen to be whole, and linked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


def weight_files(folder: Path, *, script: str) -> list[Path]:
    """Returns an export's weights and their index, seen to be whole.

    Raises FileNotFoundError or ValueError where the export by `script` was interrupted.
    """
    index = folder / INDEX
    names = {WEIGHTS}
    if index.is_file():
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    again = f"the export was interrupted. Delete the folder and run {script} export"
    for name in sorted(names):
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file: {again}.")
        try:
            with safe_open(path, framework="np"):
                pass  # it has compared the header with the length of the file
        except SafetensorError as error:
            raise ValueError(f"{path}: cut short or damaged ({error}): {again}.") from error
    return sorted([folder / name for name in names] + ([index] if index.is_file() else []))


def link_or_copy(path: Path, target: Path) -> None:
    """Hard links where both lie on one file system: weights are large."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
