"""Our verdicts beside published ones, task by task: Qwen2.5-Coder-1.5B (base).

Grades the published completions of MBPP, MBPP+ and MultiPL-E in seven languages and prints one JSON
line per benchmark: our score and the published one, on which share of tasks the verdicts agree, and
each disagreement with its explanation (docs/eval-parity.md). Takes some 15 minutes on two cores;
with --output DIR it goes on where it was stopped, and --only NAME grades one benchmark.

Exits 1 where a disagreement has no explanation, where a benchmark agrees on less than 98.5 % of its
tasks once the published grader's two known bugs are applied to our outcomes, or all together do as
they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron.eval.grading import grade
from mira_megatron.eval.predictions import read_predictions
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.suite import load_suite, open_benchmark
from mira_megatron.eval.verdicts import Verdict

DATA = Path(os.environ.get("MIRA_EVAL_DATA", "../shared/data/eval"))
PUBLISHED = DATA / "published_outputs/qwen2.5-coder-1.5b-base"
# The verdicts were published on these 399 tasks; the suite's own file has 378.
MBPP = DATA / "mbpp_plus/MbppPlus-v0.1.0.jsonl"
SUITE = Path(__file__).parents[1] / "eval/suites/mira9.yaml"
LANGUAGES = ("cpp", "cs", "java", "js", "php", "sh", "ts")
BAR = 0.985  # of the tasks
_UNIT = "% pass@1; ratio: tasks with one verdict"

_ANY_ORDER = "published: the order of the values counted; EvalPlus 0.3.1 compares them as sets"
_ONE_SECOND = "published: the limit of one second on input 9999, where ours is four CPU seconds"
_CS_CRASH = "published: a crash in C# counts as passed, only Debug.Assert is looked for"
_NO_BC = "published: bc was not installed there"
_PHP = "published: PHP before 8.2, where str_split('') is [''] and not []"
EXPLANATIONS: dict[str, dict[str, str]] = {
    "mbpp": {
        **dict.fromkeys(("Mbpp/2", "Mbpp/232", "Mbpp/249"), _ANY_ORDER),
        "Mbpp/123": _ONE_SECOND,
    },
    "mbpp_plus": dict.fromkeys(("Mbpp/2", "Mbpp/579"), _ANY_ORDER),
    "multipl_e_cs": dict.fromkeys(
        (
            "HumanEval_148_bf",
            "HumanEval_18_how_many_times",
            "HumanEval_20_find_closest_elements",
            "HumanEval_19_sort_numbers",
            "HumanEval_12_longest",
            "HumanEval_67_fruit_distribution",
            "HumanEval_116_sort_array",
            "HumanEval_162_string_to_md5",
        ),
        _CS_CRASH,
    ),
    "multipl_e_php": {"HumanEval_16_count_distinct_characters": _PHP},
    "multipl_e_sh": dict.fromkeys(("HumanEval_92_any_int", "HumanEval_47_median"), _NO_BC),
}


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, help="keeps verdicts and gold values")
    parser.add_argument("--only", help="a benchmark of the suite")
    arguments = parser.parse_args()
    names = ["mbpp", *(f"multipl_e_{language}" for language in LANGUAGES)]
    if arguments.only:
        names = [arguments.only]
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            figure for name in names for figure in _figures(name, arguments.output or Path(folder))
        ]
    num_tasks = sum(figure["num_tasks"] for figure in figures)
    agreeing = sum(figure["num_agreeing"] for figure in figures) / num_tasks
    passed = {
        who: round(sum(figure[who] * figure["num_tasks"] for figure in figures) / num_tasks, 2)
        for who in ("ours", "peer")
    }
    total = {"name": "parity: all verdicts", **passed, "unit": _UNIT}
    print(json.dumps({**total, "ratio": round(agreeing, 4), "bar": BAR}))
    return int(agreeing < BAR or not all(figure["is_explained"] for figure in figures))


def _figures(name: str, folder: Path) -> list[dict[str, Any]]:
    """Grades one benchmark; prints and returns a figure per verdict that a sample gets."""
    entry = load_suite(SUITE, DATA).entry(name)
    if entry.kind == "mbpp":
        entry = replace(entry, file=MBPP)
    benchmark = open_benchmark(entry, folder / "cache")
    samples = read_predictions(_predictions(name), benchmark.task_ids)
    sandbox = best_sandbox()
    graded = grade(benchmark, samples, sandbox, folder / name, folder / "cache", workers=2)
    published = _published(name)
    figures = []
    for verdict_name in benchmark.verdict_names:
        verdicts = [each for each in graded.verdicts if each.benchmark == verdict_name]
        figures.append(_figure(verdict_name, verdicts, published[verdict_name]))
        print(json.dumps(figures[-1]), flush=True)
    return figures


def _figure(name: str, verdicts: list[Verdict], published: dict[str, bool]) -> dict[str, Any]:
    explanations = EXPLANATIONS.get(name, {})
    different = [each for each in verdicts if each.is_pass != published[each.task_id]]
    unexplained = [each for each in different if each.task_id not in explanations]
    bugs = sum(explanations.get(each.task_id) in (_CS_CRASH, _ANY_ORDER) for each in different)
    num_tasks = len(verdicts)
    num_agreeing = num_tasks - len(different)
    with_bugs = (num_agreeing + bugs) / num_tasks
    return {
        "name": f"parity: {name}",
        "ours": round(100 * sum(each.is_pass for each in verdicts) / num_tasks, 2),
        "peer": round(100 * sum(published.values()) / num_tasks, 2),
        "unit": f"{_UNIT} ({with_bugs:.4f} with the published grader's known bugs)",
        "ratio": round(num_agreeing / num_tasks, 4),
        "bar": BAR,
        "num_tasks": num_tasks,
        "num_agreeing": num_agreeing,
        "is_explained": not unexplained and with_bugs >= BAR,
        "disagreements": {
            each.task_id: explanations.get(each.task_id, f"? ours: {each.status} {each.detail}")
            for each in different
        },
    }


def _predictions(name: str) -> Path:
    if name == "mbpp":
        return PUBLISHED / "mbpp/generated.jsonl"
    return PUBLISHED / f"multipl_e/pred_{name.removeprefix('multipl_e_')}_output.jsonl"


def _published(name: str) -> dict[str, dict[str, bool]]:
    """Returns per benchmark and task whether the published verdict is a pass."""
    if name == "mbpp":
        entries = json.loads((PUBLISHED / "mbpp/generated_eval_results.json").read_bytes())["eval"]
        base = {task: each[0]["base_status"] == "pass" for task, each in entries.items()}
        plus = {task: each[0]["plus_status"] == "pass" for task, each in entries.items()}
        return {"mbpp": base, "mbpp_plus": {task: base[task] and plus[task] for task in base}}
    language = name.removeprefix("multipl_e_")
    details = json.loads((PUBLISHED / f"multipl_e/humaneval-{language}-details.json").read_bytes())
    return {name: {task: each[0][1]["passed"] for task, each in details.items()}}


if __name__ == "__main__":
    sys.exit(main())
