"""How much of what is planted is found, and how much is found where nothing was planted.

Every task of MBPP is planted between the halves of a module of the standard library: as it is, its
prompt or its solution alone, inside of JSON, formatted otherwise, with a comment behind every line,
with other names of variables. Solutions of fewer than 10 n-grams are not looked for, and are left
out where the solution stands alone. Then the standard library and the real data of ../shared,
which nothing was planted in, are looked through for the tasks of MBPP and MultiPL-E.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar): percent of the planted tasks
found, and records told although nothing was planted. No bar: docs/contamination.md says what the
figures mean.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD, Kind
from mira_megatron.eval.contamination.needles import Needles, build_needles
from mira_megatron.eval.contamination.published_files import read_items
from mira_megatron.eval.contamination.scan import batch_hits

SHARED = Path(os.environ.get("MIRA_SHARED_DATA", "../shared/data"))
MBPP = SHARED / "eval/mbpp_plus/MbppPlus-v0.1.0.jsonl"
MULTIPL_E = SHARED / "eval/multipl_e"
CLEAN = (
    SHARED / "corpus/gsm8k/train.jsonl",
    SHARED / "corpus/gsm8k_model_solutions/solutions.jsonl",
    SHARED / "corpus/taubench/gpt-4o-airline.json",
)
MAX_ITEMS = 10
Task = tuple[str, str]  # prompt, solution


def main() -> int:
    """Returns the exit code."""
    if not MBPP.exists():
        print(f"{MBPP} is not there; MIRA_SHARED_DATA names the folder", file=sys.stderr)
        return 1
    items = read_items("mbpp", "mbpp", MBPP)
    needles = build_needles(items, MAX_ITEMS)
    modules = _modules()
    measured = {
        name.task_id for name in needles.surfaces if name.kind == Kind.SOLUTION and name.is_measured
    }
    for name, (planted, is_solution_alone) in PLANTED.items():
        tasks = {
            item.task_id: planted((item.surfaces[0].text, item.surfaces[1].text))
            for item in items
            if not is_solution_alone or item.task_id in measured
        }
        found = _found(needles, tasks, modules)
        share = round(100 * len(found) / len(tasks), 1)
        _print(f"contamination found: {name} (of {len(tasks)})", share, "%")
    for path in sorted(MULTIPL_E.glob("humaneval-*.jsonl")):
        items += read_items("multipl_e", path.stem, path)
    everything = build_needles(items, MAX_ITEMS)
    texts = [*modules, *(line for path in CLEAN for line in _rows(path))]
    told = {
        str(hit["record_id"]) for hit in _hits(everything, list(map(str, range(len(texts)))), texts)
    }
    num_bytes = sum(len(text.encode()) for text in texts)
    of = f"{len(texts):,} records, {num_bytes / 1e6:.0f} MB"
    _print(f"contamination told where none is planted ({of})", len(told), "records")
    return 0


def _renamed(code: str) -> str:
    """Returns code with other names for its parameters and variables."""
    tree = ast.parse(code)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            names.setdefault(node.arg, f"value_{len(names)}")
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"value_{len(names)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.arg = names[node.arg]
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.unparse(tree)


def _commented(code: str) -> str:
    return "".join(f"{line}  # and then what follows\n" for line in code.splitlines())


# What is planted of a task, and whether the prompt is not.
PLANTED: Mapping[str, tuple[Callable[[Task], str], bool]] = {
    "prompt and solution": ("".join, False),
    "prompt": (lambda task: task[0], False),
    "solution": (lambda task: task[1], True),
    "solution inside of JSON": (lambda task: json.dumps({"content": task[1]}), True),
    "solution, formatted otherwise": (lambda task: ast.unparse(ast.parse(task[1])), True),
    "solution, a comment on every line": (lambda task: _commented(task[1]), True),
    "solution, other variables": (lambda task: _renamed(task[1]), True),
    "prompt, and solution with other variables": (lambda task: task[0] + _renamed(task[1]), False),
}


def _found(needles: Needles, tasks: Mapping[str, str], modules: Sequence[str]) -> set[str]:
    """Returns the tasks that are found where they were planted."""
    texts = []
    for number, planted in enumerate(tasks.values()):
        module = modules[number % len(modules)]
        half = len(module) // 2
        texts.append(f"{module[:half]}\n{planted}\n{module[half:]}")
    hits = _hits(needles, list(tasks), texts)
    return {str(hit["task_id"]) for hit in hits if hit["task_id"] == hit["record_id"]}


def _hits(needles: Needles, ids: list[str], texts: list[str]) -> list[dict[str, object]]:
    found = []
    for start in range(0, len(texts), 1000):
        rows = slice(start, start + 1000)
        columns = [pa.array(ids[rows]), pa.array(texts[rows], type=pa.large_string())]
        batch = pa.RecordBatch.from_arrays(columns, ["record_id", "text"])
        found += [
            hit
            for hit in batch_hits(batch, needles)
            if float(str(hit["score"])) >= DEFAULT_THRESHOLD
        ]
    return found


def _modules() -> list[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def _rows(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return list(map(json.dumps, json.loads(text))) if path.suffix == ".json" else text.splitlines()


def _print(name: str, value: float, unit: str) -> None:
    figure = {"name": name, "ours": value, "peer": None, "unit": unit, "ratio": None, "bar": None}
    print(json.dumps(figure))


if __name__ == "__main__":
    sys.exit(main())
