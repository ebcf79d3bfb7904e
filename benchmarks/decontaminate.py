"""Looking for benchmark items in a corpus: our scan beside datatrove's n-grams, one process each.

The corpus is the standard library's modules, with every tenth task of MBPP planted in one of them;
the tasks are those of MBPP. Both sides must tell every module with a planted task. Ours tells also
how much of which task lies where, in two forms of text; the peer, that an n-gram matches.

Prints one JSON line (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from harness.peers import peer_python

from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD, Item
from mira_megatron.eval.contamination.needles import build_needles
from mira_megatron.eval.contamination.published_files import read_items
from mira_megatron.eval.contamination.scan import batch_hits

DATA = Path(os.environ.get("MIRA_EVAL_DATA", "../shared/data/eval"))
TASKS = DATA / "mbpp_plus/MbppPlus-v0.1.0.jsonl"
MAX_ITEMS = 10
REPEATS = 3
BAR = 5.0
_PEER = Path(__file__).parent / "harness" / "datatrove_ngrams.py"


def main() -> int:
    """Returns the exit code."""
    if not TASKS.exists():
        print(f"{TASKS} is not there; MIRA_EVAL_DATA names the folder", file=sys.stderr)
        return 1
    items = read_items("mbpp", "mbpp", TASKS)
    texts = _modules()
    planted = {}
    for number, item in enumerate(items[::10]):
        row = 7 * number
        texts[row] += "".join(surface.text for surface in item.surfaces[:2])
        planted[str(row)] = item.task_id
    num_bytes = sum(len(text.encode()) for text in texts)
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):  # in turns, so that a busy machine slows both
            seconds, found = _ours(items, texts)
            ours.append(num_bytes / 1e6 / seconds)
            missing = [row for row, task in planted.items() if task not in found.get(row, ())]
            seconds, told = _peer(Path(folder), items, texts)
            peer.append(num_bytes / 1e6 / seconds)
            missing += sorted(planted.keys() - told)
            if missing:
                print(f"planted and not found: {', '.join(missing)}", file=sys.stderr)
                return 1
    figure = {
        "name": f"decontaminate ({num_bytes / 1e6:.0f} MB of code, {len(items)} tasks)",
        "ours": round(max(ours), 1),
        "peer": round(max(peer), 1),
        "unit": "MB/s",
        "ratio": round(max(ours) / max(peer), 1),
        "bar": BAR,
        "all": {"ours": [round(x, 1) for x in ours], "peer": [round(x, 1) for x in peer]},
    }
    print(json.dumps(figure))
    return int(max(ours) < BAR * max(peer))


def _modules() -> list[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def _ours(items: list[Item], texts: list[str]) -> tuple[float, dict[str, set[str]]]:
    needles = build_needles(items, MAX_ITEMS)
    columns = [
        pa.array([str(number) for number in range(len(texts))]),
        pa.array(texts, type=pa.large_string()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, ["record_id", "text"])
    started = time.perf_counter()
    hits = list(batch_hits(batch, needles))
    seconds = time.perf_counter() - started
    found: dict[str, set[str]] = {}
    for hit in hits:
        if float(str(hit["score"])) >= DEFAULT_THRESHOLD:
            found.setdefault(str(hit["record_id"]), set()).add(str(hit["task_id"]))
    return seconds, found


def _peer(folder: Path, items: list[Item], texts: list[str]) -> tuple[float, set[str]]:
    records, tasks = folder / "records.jsonl", folder / "tasks.jsonl"
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    records.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    own = [{"text": surface.text} for item in items for surface in item.surfaces]
    tasks.write_text("".join(f"{json.dumps(row)}\n" for row in own))
    command = [str(peer_python()), str(_PEER), "--records", str(records), "--tasks", str(tasks)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environ)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], set(result["found"])


if __name__ == "__main__":
    sys.exit(main())
