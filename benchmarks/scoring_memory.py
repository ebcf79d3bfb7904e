"""A million records rated through an endpoint that answers at once: the most memory it takes.

Records of 300 bytes in a hundred parts, answers of 2.5 KB. Nothing that is kept in memory may grow
with the corpus: the figure beside it is that of a hundred thousand records.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 above the bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from servers import instant_server

SCRIPT = Path(__file__).parent / "harness" / "score_records.py"
NUMS_RECORDS = (100_000, 1_000_000)
RECORD_BYTES = 300
RECORDS_PER_PART = 10_000
MOST_BYTES = 500_000_000


def main() -> int:
    """Returns the exit code."""
    with instant_server() as url:
        few, many = (_peak_bytes(url, num_records) for num_records in NUMS_RECORDS)
    figure = {
        "name": "scoring_memory_1m_records",
        "ours": many,
        "peer": few,
        "unit": "bytes resident at the most; peer: ours with 100,000 records",
        "ratio": round(many / few, 2),
        "bar": "ours at most 500 MB",
    }
    print(json.dumps(figure))
    return int(many > MOST_BYTES)


def _peak_bytes(url: str, num_records: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), "--url", url, "--folder", folder]
        sizes = {
            "records": num_records,
            "record-bytes": RECORD_BYTES,
            "records-per-part": RECORDS_PER_PART,
        }
        command += [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    run: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not run["ok"] == run["rows"] == num_records:
        sys.exit(f"not every record was rated: {run}")
    return int(run["peak_bytes"])


if __name__ == "__main__":
    sys.exit(main())
