"""A file far larger than the memory it may take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from mira_megatron.manifest import read_manifest

FILE_BYTES = 2_000_000_000
MEMORY_BYTES = 500_000_000

RECIPE = """
sources:
  large: {{format: jsonl, family: text, paths: [{path}], fields: {{text: text}}}}
ingest: {{records_per_part: 10000, max_bad_fraction: 0}}
run_folder: {run}
"""
MEASURED_INGEST = Path(__file__).parents[1] / "measured_ingest.py"


@pytest.mark.integration
def test_file_of_two_gigabytes_is_ingested_in_half_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    num_rows = write_rows(path)
    recipe = tmp_path / "large.yaml"
    recipe.write_text(RECIPE.format(path=path, run=tmp_path / "run"))
    command = [sys.executable, str(MEASURED_INGEST), str(recipe)]
    peak_kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    path.unlink()
    manifest = read_manifest(tmp_path / "run/records/large")
    assert manifest is not None
    assert manifest.counts.num_in == manifest.counts.num_out == num_rows
    assert peak_kib * 1024 < MEMORY_BYTES, f"{peak_kib * 1024:,} bytes"


def write_rows(path: Path) -> int:
    """Writes FILE_BYTES of documents of 100 to 9,000 words, every one different."""
    num_rows = size_bytes = 0
    with path.open("wb") as file:
        while size_bytes < FILE_BYTES:
            words = (num_rows * 7919) % 8900 + 100
            text = f"{num_rows} " + "lorem ipsum " * (words // 2)
            size_bytes += file.write(orjson.dumps({"text": text}) + b"\n")
            num_rows += 1
    return num_rows
