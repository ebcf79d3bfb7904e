"""LiveCodeBench and BigCodeBench from question to score, over a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bigcodebench_files import CODE_PROMPT, SOLUTION, SYSTEM_PYTHON, TASK, bcb_row, write_bcb
from eval_endpoint import MODEL, EvalEndpoint, serving
from livecodebench_files import RISES, lcb_row, write_lcb

from mira_megatron.cli import main
from mira_megatron.eval.sandbox.contract import Sandbox

SUITE = f"""
name: python
sampling:
  greedy: {{temperature: 0}}
  drawn: {{temperature: 0.6, top_p: 0.95, num_samples: 2}}
benchmarks:
  bigcodebench:
    kind: bigcodebench
    category: code_generation
    file: full.parquet
    protocol: p
    sampling: greedy
    options: {{split: SPLIT, hard: hard.parquet, python: {SYSTEM_PYTHON}}}
  livecodebench:
    kind: livecodebench
    category: code_generation
    file: lcb
    protocol: p
    sampling: drawn
    options: {{release: v6, from: 2025-02-01}}
"""
SUM = "input()\nprint(sum(map(int, input().split())))\n"
CLASS = "class Solution:\n    def rises(self, nums, k):\n        return [0, 0]\n"


def body_of(asked: str) -> str:
    """Returns the right program for what a chat is asked."""
    if "JSON" in asked:
        return f"{CODE_PROMPT}\n{SOLUTION}"
    return CLASS if "class Solution" in asked else SUM


def answered(asked: str) -> str:
    return f"### Solution\n```python\n{body_of(asked)}```\nThis is it."


def continued(asked: str) -> str:
    return SOLUTION if "JSON" in asked else body_of(asked.rpartition("### Question")[2])


def scores(folder: Path, name: str) -> dict[str, tuple[float, int]]:
    results: dict[str, Any] = json.loads((folder / "out" / name / "results.json").read_bytes())
    return {
        each: (score["pass@1"], score["num_tasks"]) for each, score in results["scores"].items()
    }


@pytest.mark.parametrize(
    ("style", "split", "answer"),
    [("chat", "instruct", answered), ("completion", "complete", continued)],
)
def test_right_answers_score_full_marks_in_all_three(
    sandbox: Sandbox, tmp_path: Path, style: str, split: str, answer: Any
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace("SPLIT", split))
    write_bcb(tmp_path / "full.parquet", bcb_row(), bcb_row("BigCodeBench/8"))
    write_bcb(tmp_path / "hard.parquet", {"task_id": TASK})
    write_lcb(tmp_path / "lcb", lcb_row(), lcb_row("b", RISES[1:], function="rises"))
    with serving(EvalEndpoint(answer_of=answer)) as endpoint:
        words = ["evaluate", str(tmp_path / "suite.yaml"), "--data-folder", str(tmp_path)]
        words += ["--endpoint", endpoint.url, "--model", MODEL, "--style", style]
        assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert scores(tmp_path, "bigcodebench") == {
        "bigcodebench_full": (100.0, 2),
        "bigcodebench_hard": (100.0, 1),
    }
    assert scores(tmp_path, "livecodebench") == {"livecodebench": (100.0, 2)}
    assert len(endpoint.bodies) == 2 + 2 * 2
