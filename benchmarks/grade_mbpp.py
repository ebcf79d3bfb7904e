"""MBPP+ graded: our sandbox beside evalplus.evaluate, which has none.

The same published samples (Qwen2.5-Coder-1.5B, base), two workers, gold values kept on both sides,
the same least seconds per call; the slowest sample (Mbpp/599, which alone takes a third of the
time) answers None on both sides. EvalPlus wants a sample of every task. Verdicts are compared
first: they must agree on every task that passes with the peer.

Prints one JSON line (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.peers import peer_python

from mira_megatron.eval.grading import grade
from mira_megatron.eval.mbpp import MIN_CALL_SECONDS, Mbpp
from mira_megatron.eval.predictions import read_predictions
from mira_megatron.eval.sandbox.best import best_sandbox

DATA = Path(os.environ.get("MIRA_EVAL_DATA", "../shared/data/eval"))
TASKS = DATA / "mbpp_plus/MbppPlus-v0.1.0.jsonl"
SAMPLES = DATA / "published_outputs/qwen2.5-coder-1.5b-base/mbpp/generated.jsonl"
SLOWEST = "Mbpp/599"
WORKERS = 2
REPEATS = 3
BAR = 1.0
_PEER = Path(__file__).parent / "harness" / "evalplus_grade.py"


def main() -> int:
    """Returns the exit code."""
    if not SAMPLES.exists():
        print(f"{SAMPLES} is not there; MIRA_EVAL_DATA names the folder", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        ours, peers = [], []
        for number in range(REPEATS):  # in turns, so that a busy machine slows both
            seconds, verdicts = _ours(Path(folder), number)
            ours.append(seconds)
            seconds, statuses = _peer(Path(folder), number)
            peers.append(seconds)
            different = sorted(task for task, each in statuses.items() if each > verdicts[task])
            if different:
                print(f"verdicts differ: {', '.join(different)}", file=sys.stderr)
                return 1
    figure = {
        "name": "grade MBPP+ (398 samples, 2 workers)",
        "ours": round(min(ours), 1),
        "peer": round(min(peers), 1),
        "unit": "s",
        "ratio": round(min(peers) / min(ours), 2),
        "bar": BAR,
        "all": {"ours": [round(each, 1) for each in ours], "peer": [round(x, 1) for x in peers]},
    }
    print(json.dumps(figure))
    return int(min(peers) < BAR * min(ours))


def _ours(folder: Path, number: int) -> tuple[float, dict[str, tuple[bool, bool]]]:
    """Returns the seconds, and per task whether base and base and plus passed."""
    benchmark = Mbpp(TASKS, folder / "cache")
    samples = read_predictions(_samples(folder), benchmark.task_ids)
    sandbox = best_sandbox()
    if number == 0:  # gold values, and nothing else, are kept from here
        for task in benchmark.tasks.values():
            benchmark.gold_values(sandbox, task)
    output = folder / f"ours-{number}"
    started = time.perf_counter()
    graded = grade(benchmark, samples, sandbox, output, output / "cache", workers=WORKERS)
    seconds = time.perf_counter() - started
    passed = {(each.task_id, each.benchmark): each.is_pass for each in graded.verdicts}
    return seconds, {
        task: (passed[task, "mbpp"], passed[task, "mbpp_plus"]) for task in benchmark.task_ids
    }


def _peer(folder: Path, number: int) -> tuple[float, dict[str, tuple[bool, bool]]]:
    samples = _samples(folder)
    results = samples.with_name(f"{samples.stem}_eval_results.json")
    results.unlink(missing_ok=True)
    words = [str(samples), str(TASKS), str(WORKERS), str(MIN_CALL_SECONDS)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(peer_python("evalplus")), str(_PEER), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**environ, "XDG_CACHE_HOME": str(folder / "peer")},
    )
    statuses = {}
    for task, (entry,) in json.loads(results.read_bytes())["eval"].items():
        base = entry["base_status"] == "pass"
        statuses[task] = (base, base and entry["plus_status"] == "pass")
    return json.loads(done.stdout.splitlines()[-1])["seconds"], statuses


def _samples(folder: Path) -> Path:
    """Returns the published samples as whole programs, without the slowest one's."""
    path = folder / "samples.jsonl"
    prompts = {
        task["task_id"]: task["prompt"] for task in map(json.loads, TASKS.read_bytes().splitlines())
    }
    lines = []
    for sample in map(json.loads, SAMPLES.read_bytes().splitlines()):
        task_id = sample["task_id"]
        solution = prompts[task_id] + sample["completion"]
        if task_id == SLOWEST:
            solution = "def sum_average(number):\n    return None\n"
        lines.append(json.dumps({"task_id": task_id, "solution": solution}))
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
