"""The texts that a run's sources hold out of every training, for instructions that repeat them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.manifest import read_manifest
from mira_megatron.shards import json_digest

_RECORDS = ".records.parquet"


def held_out_digest(run_folder: Path) -> str:
    """Returns a digest of all finished token datasets of a run, by which its held-out texts go."""
    return json_digest([[folder.name, digest] for folder, digest in _finished(run_folder)])


def held_out_texts(run_folder: Path) -> set[bytes]:
    """Returns the hashes of all texts that a source of the run holds out; empty where none is."""
    hashes: set[bytes] = set()
    for folder, _ in _finished(run_folder):
        for path in sorted(folder.glob(f"*{_RECORDS}")):
            table = pq.read_table(path, columns=["text_hash", "is_validation"])
            hashes.update(table.filter(pc.field("is_validation"))["text_hash"].to_pylist())
    return hashes


def _finished(run_folder: Path) -> list[tuple[Path, str]]:
    """Returns the folders of all sources' tokens, by name, with their digests."""
    folders = sorted((run_folder / layout.tokens("")).glob("*"))
    manifests = [
        (folder, read_manifest(folder)) for folder in folders if ".superseded-" not in folder.name
    ]
    return [(folder, each.output_digest) for folder, each in manifests if each is not None]
