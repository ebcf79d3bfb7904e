"""One more arm over ten million scored records: the stage `select` beside polars.

21 sources, ids of 32 hex digits, scores in a table of their own, a budget per source. Timed is the
whole unit: parts read and checked, ids compared, held-out texts and copies of them left out, masks,
decisions and certificate written. Polars reads the same files, joins them by id and keeps the same
documents (checked) by a window; it leaves out no copies and checks no digests. Both in processes of
their own with one thread; CPU seconds, which waiting for the disk is no part of.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))

from harness.peers import peer_python

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import load_recipe
from mira_megatron.manifest import Counts, Manifest, list_parts, output_digest, write_manifest
from mira_megatron.records import DOCUMENT_SCHEMA, RECORD_SCORE_SCHEMA
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.retention.selection import units
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization.token_dataset import TokenDataset, TokenPrefix, write_token_dataset

NUM_RECORDS = 10_000_000
NUM_SOURCES = 21
REPEATS = 3
MAX_SECONDS = 5.0
SHARE = 0.5
ARMS = ("first", "second")
_PEER = Path(__file__).parent / "harness" / "rethreshold_peer.py"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--select", type=Path, help=argparse.SUPPRESS)  # what a child process does
    words = parser.parse_args()
    if words.select is not None:
        print(json.dumps(_select(words.select)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = _write_run(folder)
        ours = [_child([sys.executable, __file__, "--select", name]) for _ in range(REPEATS)]
        peers = [_child([str(peer_python()), str(_PEER), name]) for _ in range(REPEATS)]
        _check(folder, sources)
    seconds = {arm: min(run[arm] for run in ours) for arm in ARMS}
    peer = min(run["seconds"] for run in peers)
    figures = [
        _figure("rethreshold_10m_seconds", seconds["first"], MAX_SECONDS, "CPU seconds; peer: bar"),
        _figure("rethreshold_10m_polars", seconds["first"], peer, "CPU seconds on one core"),
        _figure("rethreshold_10m_further_arm", seconds["second"], peer, "CPU seconds on one core"),
    ]
    for figure in figures:
        print(json.dumps(figure))
    return int(any(figure["ratio"] < figure["bar"] for figure in figures))


def _figure(name: str, ours: float, peer: float, unit: str) -> dict[str, Any]:
    return {
        "name": name,
        "ours": round(ours, 2),
        "peer": round(peer, 2),
        "unit": unit,
        "ratio": round(peer / ours, 2),
        "bar": 1.0,
    }


def _child(command: list[str]) -> dict[str, float]:
    environ = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if command[0] != sys.executable:
        environ.pop("PYTHONPATH", None)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _select(folder: Path) -> dict[str, float]:
    """Returns the CPU seconds of two arms over one score table."""
    pa.set_cpu_count(1)
    recipe = load_recipe(folder / "recipe.yaml")
    run = Run(folder=recipe.run_folder)
    seconds = {}
    for unit in units(recipe):
        for path in sorted((run.folder / unit.folder).glob("*")):
            path.unlink()
        started = time.process_time()
        run_unit(unit, run, Resources())
        seconds[unit.name] = time.process_time() - started
    return seconds


def _check(folder: Path, sources: list[str]) -> None:
    for source in sources:
        ours = read_keep_mask(folder / "run/keep/first" / f"{source}.keep.npy").is_kept
        if not np.array_equal(ours, np.load(folder / "peer" / f"{source}.npy")):
            sys.exit(f"the two sides keep other documents of {source}: no speed is worth anything")


def _write_run(folder: Path) -> list[str]:
    """Writes tokens and scores of every source, and a recipe of two arms; returns the sources."""
    generator = np.random.default_rng(0)
    weights = 1.0 / np.arange(1, NUM_SOURCES + 1)
    nums = np.floor(NUM_RECORDS * weights / weights.sum()).astype(int)
    nums[0] += NUM_RECORDS - nums.sum()
    sources = [f"source_{number:02d}" for number in range(NUM_SOURCES)]
    (folder / "peer").mkdir()
    for source, num in zip(sources, nums.tolist(), strict=True):
        _write_source(folder / "run", source, generator, num)
    arm = {"score": "given", "scope": "source", "budget_fraction": SHARE}
    recipe = {
        "run_folder": str(folder / "run"),
        "sources": {
            source: {"format": "text_tree", "family": "text", "group": "text-all", "paths": ["*"]}
            for source in sources
        },
        "arms": {name: {**arm, "budget_fraction": SHARE / n} for n, name in enumerate(ARMS, 1)},
    }
    write_json(folder / "recipe.yaml", recipe)  # JSON is YAML
    return sources


def _write_source(run: Path, source: str, generator: np.random.Generator, num: int) -> None:
    ids = _hex_ids(generator.integers(0, 256, (num, 16), dtype=np.uint8))
    tokens = generator.integers(20, 4_000, num)
    is_held_out = np.zeros(num, dtype=np.bool_)
    is_held_out[: max(1, num // 1_000)] = True
    hashes = pa.Array.from_buffers(
        pa.binary(16), num, [None, pa.py_buffer(generator.bytes(16 * num))]
    )
    # No two scores of a source are equal: the peer has no tie rule.
    scores = (generator.permutation(num) * np.float32(2**-20)).astype(np.float32)
    folder = run / layout.tokens(source)
    documents = folder / f"{source}.records.parquet"
    columns = [ids, pa.array(tokens), pa.array(is_held_out), hashes]
    write_parquet(documents, pa.Table.from_arrays(columns, schema=DOCUMENT_SCHEMA))
    prefix = TokenPrefix(
        name=source,
        source=source,
        path_prefix=folder / source,
        documents=documents,
        idx_fingerprint=source,
        num_documents=num,
        num_tokens=int(tokens.sum()),
        num_bytes=4 * int(tokens.sum()),
    )
    dataset = TokenDataset(source=source, eod_id=0, vocab_size=2, prefixes=(prefix,))
    write_token_dataset(folder, dataset, {})
    _finish(folder, "tokenize", source)
    folder = run / layout.record_scores("given", source)
    columns = [ids, pa.array(scores), pa.nulls(num, pa.string())]
    write_parquet(
        folder / "part-00000.parquet", pa.Table.from_arrays(columns, schema=RECORD_SCORE_SCHEMA)
    )
    _finish(folder, "aggregate", source)


def _hex_ids(digests_D16: npt.NDArray[np.uint8]) -> pa.Array:
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.empty((len(digests_D16), 32), dtype=np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[digests_D16 >> 4], digits[digests_D16 & 15]
    ends = np.arange(0, 32 * len(text) + 1, 32, dtype=np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(text), buffers)


def _finish(folder: Path, stage: str, source: str) -> None:
    parts = list_parts(folder, {})
    manifest = Manifest(
        stage=stage,
        unit=source,
        stage_version=1,
        config={},
        inputs={},
        fingerprint="made for a benchmark",
        output_digest=output_digest(parts),
        parts=parts,
        counts=Counts(num_in=0, num_out=0),
        seconds=0.0,
        code={},
        packages={},
    )
    write_manifest(folder, manifest)


if __name__ == "__main__":
    sys.exit(main())
