"""Digests of the files a source is read from, without reading them again while they stand still.

A digest is trusted as long as the file's size and modification time are those it was taken at, as
git's index does; otherwise the file is read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from mira_megatron.atomic_files import write_json
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.shards import file_digest, json_digest


def raw_files_digest(files: Iterable[SourceFile], cache_path: Path) -> str:
    """Returns one digest of names and contents; the single ones are kept in `cache_path`."""
    cached = orjson.loads(cache_path.read_bytes()) if cache_path.is_file() else {}
    seen = {file.name: _entry(file, cached.get(file.name)) for file in files}
    if seen != cached:
        write_json(cache_path, seen)
    return json_digest({name: entry[2] for name, entry in seen.items()})


def exported_weights_digest(folder: Path, cache_path: Path) -> str:
    """Returns what `raw_files_digest` does of the config.json and weights of a Hugging Face folder.

    `cache_path` is as there.
    """
    paths = sorted([folder / "config.json", *folder.glob("*.safetensors*")])
    files = [SourceFile(path=path, name=path.name) for path in paths if path.is_file()]
    return raw_files_digest(files, cache_path)


def _entry(file: SourceFile, cached: list[int | str] | None) -> list[int | str]:
    """[size in bytes, modification time in ns, xxh3_128]"""
    status = file.path.stat()
    stamp: list[int | str] = [status.st_size, status.st_mtime_ns]
    if cached is not None and cached[:2] == stamp:
        return cached
    return [*stamp, file_digest(file.path)]
