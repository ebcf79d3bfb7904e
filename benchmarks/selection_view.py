"""An index view of ten million documents, half of them kept, and how its cost grows.

Timed is all that lies between a mask on disk and a view on disk: mask and `.idx` read and checked,
fingerprints compared, the view's `.idx` written and flushed. The peer does nothing but move as many
bytes: it reads mask and `.idx`, and writes and flushes half of it. Megatron has no views to compare
with. Every run is a process of its own, so that its memory is known.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below a bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mira_megatron.retention.keep_masks import read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import write_index_view
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    index_fingerprint,
    one_sequence_per_document,
    read_index,
    write_index,
)

NUM_DOCUMENTS = 10_000_000
GROWTH = (1_000_000, 4_000_000, 16_000_000)
REPEATS = 3
MAX_SECONDS = 1.0
# Time and memory against documents, a straight line through both logarithms: 1 is linear.
MAX_EXPONENT = 1.25
# The index (20), the view of half of it (10), what lies between them (12), mask and pieces.
MAX_BYTES_PER_DOCUMENT = 64.0


def main() -> int:
    """Returns the exit code."""
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        for size in sorted({NUM_DOCUMENTS, *GROWTH}):
            prefix = Path(name) / f"documents{size}"
            _write_inputs(prefix, size)
            # The peer first: what is checked afterwards is ours.
            runs = [(_measured(prefix, "peer"), _measured(prefix, "ours")) for _ in range(REPEATS)]
            _check(prefix)
            measured[size] = {
                "seconds": min(ours["seconds"] for _, ours in runs),
                "bytes": max(ours["bytes"] for _, ours in runs),
                "peer_seconds": min(peer["seconds"] for peer, _ in runs),
            }
            for path in Path(name).iterdir():
                path.unlink()
    figures = [_speed(measured[NUM_DOCUMENTS]), *_growth(measured)]
    for figure, _ in figures:
        print(json.dumps(figure))
    return 0 if all(is_met for _, is_met in figures) else 1


def _speed(measured: dict[str, float]) -> tuple[dict[str, object], bool]:
    seconds, peer = measured["seconds"], measured["peer_seconds"]
    return {
        "name": "view_of_10m_documents",
        "ours": round(seconds, 3),
        "peer": round(peer, 3),
        "unit": "s, best of 3; peer: the same bytes read, written and flushed, nothing checked",
        "ratio": round(peer / seconds, 2),
        "bar": f"ours at most {MAX_SECONDS:g} s",
    }, seconds <= MAX_SECONDS


def _growth(measured: dict[int, dict[str, float]]) -> list[tuple[dict[str, object], bool]]:
    found = []
    sizes = np.log(GROWTH)
    for what in ("seconds", "bytes"):
        exponent = float(np.polyfit(sizes, np.log([measured[n][what] for n in GROWTH]), 1)[0])
        figure = {
            "name": f"view_growth_of_{what}",
            "ours": round(exponent, 3),
            "peer": 1.0,
            "unit": "exponent over 1, 4 and 16 million documents; peer: linear",
            "ratio": round(1 / exponent, 2),
            "bar": f"ours at most {MAX_EXPONENT:g}",
        }
        found.append((figure, exponent <= MAX_EXPONENT))
    per_document = measured[GROWTH[-1]]["bytes"] / GROWTH[-1]
    figure = {
        "name": "view_memory_per_document",
        "ours": round(per_document, 1),
        "peer": 20.0,
        "unit": "bytes of peak memory above an idle process; peer: the .idx itself",
        "ratio": round(20 / per_document, 2),
        "bar": f"ours at most {MAX_BYTES_PER_DOCUMENT:g}",
    }
    return [*found, (figure, per_document <= MAX_BYTES_PER_DOCUMENT)]


def _write_inputs(prefix: Path, size: int) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 2500, size, dtype=np.int32)
    index = one_sequence_per_document(lengths, np.dtype(np.int32))
    write_index(idx_path(prefix), index)
    bin_path(prefix).touch()
    os.truncate(bin_path(prefix), index.num_bytes)  # sparse: a view reads none of it
    write_keep_mask(
        _mask_path(prefix),
        random.random(size) < 0.5,
        index.document_tokens(),
        idx_fingerprint=index_fingerprint(prefix),
        scores_fingerprint="",
    )


def _check(prefix: Path) -> None:
    """Stops everything unless the view is what numpy alone makes of the mask."""
    index, is_kept = read_index(prefix), np.load(_mask_path(prefix))
    view = read_index(_view_prefix(prefix))
    assert np.array_equal(view.lengths_S, index.lengths_S[is_kept])
    assert np.array_equal(view.pointers_S, index.pointers_S[is_kept])
    assert np.array_equal(view.document_indices_D, np.arange(is_kept.sum() + 1))


def _measured(prefix: Path, side: str) -> dict[str, float]:
    idx_path(_view_prefix(prefix)).unlink(missing_ok=True)
    command = [sys.executable, __file__, side, str(prefix)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _run(side: str, prefix: Path) -> None:
    """Prints what one side took, as a process of its own."""
    idle = _peak_kib()
    started = time.perf_counter()
    if side == "ours":
        write_index_view(prefix, read_keep_mask(_mask_path(prefix)), _view_prefix(prefix))
    else:
        content = idx_path(prefix).read_bytes()
        _mask_path(prefix).read_bytes()
        with idx_path(_view_prefix(prefix)).open("wb") as file:
            file.write(memoryview(content)[: len(content) // 2])
            file.flush()
            os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "bytes": (_peak_kib() - idle) * 1024}))


def _peak_kib() -> int:
    # Not getrusage: a process starts there with the peak of the one that started it.
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


def _mask_path(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.keep.npy")


def _view_prefix(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}-view")


if __name__ == "__main__":
    if sys.argv[1:]:
        _run(sys.argv[1], Path(sys.argv[2]))
        sys.exit(0)
    sys.exit(main())
