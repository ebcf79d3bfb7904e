"""`mira doctor RECIPE --cluster FILE`: what would waste GPU hours, in seconds and without GPUs.

Nothing is written, and no job is submitted. What cannot be known yet is said to be so, with the
stage that will tell; what is done already is not looked at again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import orjson
from rich.console import Console
from rich.text import Text

from mira_megatron.config import Recipe
from mira_megatron.doctor.base_checks import check_bases, check_instructions
from mira_megatron.doctor.blend_checks import check_data
from mira_megatron.doctor.cluster_checks import check_cluster
from mira_megatron.doctor.disk_checks import check_room
from mira_megatron.doctor.environment import environment_findings, gpus, installed_versions
from mira_megatron.doctor.finding import ERROR, INFO, LEVELS, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.path_checks import check_paths, source_files
from mira_megatron.doctor.stage_environments import check_environments
from mira_megatron.doctor.subject import Subject, subject_of
from mira_megatron.doctor.training_checks import check_trainings
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.recipes_before import command_for, unfinished_before

SCHEMA_VERSION = 1
_STYLES = {ERROR: "bold red", WARNING: "yellow", UNKNOWN: "cyan", INFO: "dim"}


def preflight(
    recipe: Recipe, cluster: Cluster | None, *, verify_all: bool = False
) -> list[Finding]:
    """Returns what is found of a recipe, the worst first; `cluster` None: it runs here.

    With `verify_all` blends of any size are verified, which takes minutes where they are large.
    """
    findings = environment_findings(installed_versions(), gpus())
    subject = subject_of(recipe, cluster)
    findings += _unplanned(subject)
    sources = source_files(subject)
    areas: dict[str, Callable[[], list[Finding]]] = {
        "paths": partial(check_paths, subject, sources),
        "bases": lambda: [*check_bases(subject)],
        "instructions": lambda: [*check_instructions(subject)],
        "environments": partial(check_environments, subject),
        "trainings": partial(check_trainings, subject),
        "disk": partial(check_room, subject, sources),
        "data": partial(check_data, subject, verify_all=verify_all),
    }
    if cluster is not None:
        areas["cluster"] = partial(check_cluster, subject, cluster)
    for area, check in areas.items():
        try:
            findings += check()
        except (ValueError, FileNotFoundError) as error:
            findings.append(_refused(recipe, f"{area} cannot be looked at further", str(error)))
    return _sorted(_once(_with_before(recipe, cluster, findings)))


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 2 where something has to be mended first, 0 otherwise."""
    return 2 if any(finding.level == ERROR for finding in findings) else 0


def findings_json(findings: Sequence[Finding]) -> str:
    """Returns the findings as JSON: schema_version, counts by level, findings."""
    counts = Counter(finding.level for finding in findings)
    content = {
        "schema_version": SCHEMA_VERSION,
        "counts": {level: counts[level] for level in LEVELS},
        "findings": [asdict(finding) for finding in findings],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Prints a line per finding, and how many there are of each level."""
    for finding in findings:
        way_out = f" -> {finding.way_out}" if finding.way_out else ""
        # As Text: paths and settings may hold brackets, which rich would take for markup. A
        # message of several lines stays one finding on one line.
        line = " ".join(f"{finding.where}: {finding.what}{way_out}".split())
        level = (f"{finding.level:<8}", _STYLES[finding.level])
        console.print(Text.assemble(level, line), soft_wrap=True)
    counts = Counter(finding.level for finding in findings)
    console.print(
        Text(", ".join(f"{level}: {counts[level]:,}" for level in LEVELS)), soft_wrap=True
    )


def _unplanned(subject: Subject) -> list[Finding]:
    """Returns why stages cannot be planned; stages of one reason share a finding."""
    stages: dict[str, list[str]] = {}
    for stage, reason in subject.unplanned.items():
        stages.setdefault(reason, []).append(stage)
    return [
        _refused(subject.recipe, f"{', '.join(names)} cannot be planned", reason)
        for reason, names in stages.items()
    ]


def _with_before(recipe: Recipe, cluster: Cluster | None, findings: list[Finding]) -> list[Finding]:
    """Returns the findings with one per recipe before this that is not at its end.

    It stands for the files that are missing for want of it. `mira submit` refuses until it is done.
    """
    for left in unfinished_before(recipe):
        folder = f"{left.recipe.run_folder}{os.sep}"
        if left.recipe.run_folder != recipe.run_folder:
            findings = [each for each in findings if not _is_missing(each, folder)]
        words = ("run",) if cluster is None else ("submit", "--cluster=FILE")
        findings.append(
            Finding(
                level=UNKNOWN if cluster is None else ERROR,
                what=f"before this recipe comes {left}; what it makes cannot be looked at yet",
                where=f"{recipe.path}: before",
                way_out=f"`{command_for(left.recipe, *words)}` does it",
            )
        )
    return findings


def _is_missing(finding: Finding, folder: str) -> bool:
    """Returns whether a finding is that a file under this folder is not there."""
    return folder in finding.what and "no such file" in finding.what


def _refused(recipe: Recipe, what: str, reason: str) -> Finding:
    reason = reason.removeprefix(f"{recipe.path}: ")
    return Finding(level=ERROR, what=f"{what}: {reason}", where=str(recipe.path))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
