"""An MBPP file of tasks to double a number, and answers of which every other one is wrong."""

from __future__ import annotations

import json
from pathlib import Path


def write_doubling(folder: Path, num_tasks: int) -> None:
    """Writes the file as the shipped suite names it, and samples.jsonl."""
    tasks, samples = [], []
    for number in range(num_tasks):
        task_id = f"Mbpp/{number + 2000}"
        tasks.append(
            {
                "task_id": task_id,
                "prompt": f'"""\nTask {number}.\n"""\n',
                "entry_point": "double",
                "canonical_solution": "def double(a):\n    return 2 * a\n",
                "base_input": [[number + 1]],
                "plus_input": [[0], [-3]],
                "atol": 0,
            }
        )
        body = "2 * a" if number % 2 else "a"
        samples.append({"task_id": task_id, "solution": f"def double(a):\n    return {body}\n"})
    path = folder / "mbpp_plus/MbppPlus-v0.2.0.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    (folder / "samples.jsonl").write_text("".join(json.dumps(each) + "\n" for each in samples))
