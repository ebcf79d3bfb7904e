"""Megatron's index building: the memory that `mira tokens doctor` foretells, beside what it takes.

Also prints the seconds per million documents and the memory of a replay of the same data; both are
measured, not gated. Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1
below the bar.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mira_megatron.provenance.replay import DataRequest, PrefixBlend, replaying
from mira_megatron.provenance.tokens_doctor import index_cost
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    write_index,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer

SIZES = (1_000_000, 2_000_000, 4_000_000)
SEQUENCE_LENGTH = 4096
MEAN_TOKENS = 1250  # per document: 25 billion tokens in 20 million documents
# What is foretold may be above what is taken (memory is freed and used again), not far below.
BAR = 0.8


def main() -> int:
    """Returns the exit code."""
    if len(sys.argv) > 1:
        print(json.dumps(_measure(int(sys.argv[1]))))
        return 0
    measured = [_in_a_process_of_its_own(size) for size in SIZES]
    is_good = True
    for size, one in zip(SIZES, measured, strict=True):
        ratio = one["foretold_bytes"] / one["build_bytes"]
        is_good &= ratio >= BAR
        figure = {
            "name": f"index_memory_{size // 1_000_000}m_documents",
            "ours": one["foretold_bytes"],
            "peer": one["build_bytes"],
            "unit": "bytes at the peak, foretold; peer: taken by megatron-core 0.16.1",
            "ratio": round(ratio, 2),
            "bar": BAR,
        }
        print(json.dumps(figure))
    slope = float(np.polyfit(SIZES, [one["replay_bytes"] for one in measured], 1)[0])
    seconds = float(np.polyfit(SIZES, [one["build_seconds"] for one in measured], 1)[0]) * 1e6
    for name, value, unit in (
        ("index_building_seconds", seconds, "seconds per million documents, megatron-core alone"),
        ("replay_memory", slope, "bytes per document, megatron-core's building included"),
        ("replay_seconds", measured[-1]["replay_seconds"] / 4, "seconds per million documents"),
    ):
        one = {"name": name, "ours": round(value, 2), "peer": None, "unit": unit}
        print(json.dumps({**one, "ratio": None, "bar": None}))
    return 0 if is_good else 1


def _in_a_process_of_its_own(num_documents: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, str(num_documents)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _measure(num_documents: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 2 * MEAN_TOKENS, num_documents).astype(np.int32)
    index = one_sequence_per_document(lengths, np.dtype(np.int32))
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder, "a")
        with bin_path(prefix).open("wb") as file:
            file.truncate(4 * index.num_tokens)  # a sparse file: its tokens are never read
        write_index(idx_path(prefix), index)
        foretold = index_cost(num_documents, index.num_tokens, SEQUENCE_LENGTH).peak_bytes
        del index, lengths
        request = DataRequest(
            blends=(PrefixBlend(prefixes=(str(prefix),)), None, None),
            sequence_length=SEQUENCE_LENGTH,
            seed=1,
            tokenizer=BlendTokenizer(vocab_size=100_000, eod=0),
        )
        before = _reset_peak()
        started = time.process_time()
        with replaying(request) as splits:
            built, peak = time.process_time(), _peak()
            coverages = list(splits["train"].coverages())
            read = time.process_time()
        assert coverages[0].tail_tokens < SEQUENCE_LENGTH
    return {
        "foretold_bytes": foretold,
        "build_bytes": peak - before,
        "build_seconds": built - started,
        "replay_bytes": _peak() - before,
        "replay_seconds": read - started,
    }


def _reset_peak() -> int:
    """Returns the memory in use after making the kernel forget the peak until here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """Returns the greatest resident memory in bytes, of Linux's VmHWM."""
    status = Path("/proc/self/status").read_text()
    if "VmHWM" not in status:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
