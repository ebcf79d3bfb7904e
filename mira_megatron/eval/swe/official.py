"""What the official package says of an instance: its evaluation script, and a log's report.

The only module that imports swebench (the extra `swe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from swebench.harness.grading import get_eval_report
from swebench.harness.utils import make_test_spec

from mira_megatron.eval.swe.instances import Instance


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the official grader makes of one log."""

    is_resolved: bool
    has_results: bool  # False: no results of tests were found in the log
    detail: str


def grader() -> str:
    """Returns the grader's name and version: versions grade differently."""
    return f"swebench/{metadata.version('swebench')}"


def evaluation_script(instance: Instance) -> str:
    """Returns the script that runs the tests, with the marks that the grader looks for.

    Raises ValueError for an instance whose tests need files that a patch cannot carry.
    """
    specification = make_test_spec(dict(instance.row))
    if specification.image_assets:
        raise ValueError(
            f"{instance.instance_id}: has image_assets; instances of SWE-bench Multimodal are run "
            "by `swebench eval`"
        )
    script: str = specification.eval_script
    return script


def report(instance: Instance, patch: str, log: Path) -> Report:
    """Returns what the official grader says of a patch's log."""
    prediction = {
        "instance_id": instance.instance_id,
        "model_name_or_path": "",
        "model_patch": patch,
    }
    specification = make_test_spec(dict(instance.row))
    said = get_eval_report(specification, prediction, str(log), True)[instance.instance_id]
    if not said["patch_successfully_applied"]:
        reason = said.get("infra_failure_reason", "")
        return Report(
            is_resolved=False,
            has_results=False,
            detail="no results of tests" + (f": {reason}" if reason else ""),
        )
    counts = []
    for name, results in said["tests_status"].items():
        total = len(results["success"]) + len(results["failure"])
        if total:
            counts.append(f"{name} {len(results['success'])}/{total}")
    return Report(is_resolved=bool(said["resolved"]), has_results=True, detail=", ".join(counts))
