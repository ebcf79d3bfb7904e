"""Logs of container runs -> verdicts, by the official grader; no engine is needed.

Runs of another engine, or with and without a network, are never mixed in one grading.
An instance without a patch is unresolved, as on the official table. One whose run is missing is
`infra`: it says nothing about the patch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mira_megatron import __version__
from mira_megatron.eval.controls import Control, Controls
from mira_megatron.eval.swe import official
from mira_megatron.eval.swe.container_runs import PatchRun
from mira_megatron.eval.swe.engines import SETTINGS
from mira_megatron.eval.swe.instances import Instance
from mira_megatron.eval.verdicts import Status, Verdict, digest

BENCHMARK = "swe_multilingual"
# Containers have namespaces of their own, and by default a network and root inside.
CONTAINER_LEVEL = 2


def patch_run(instance: Instance, patch: str, setting: str) -> PatchRun:
    """Returns the run of a patch. Raises ValueError for an instance that cannot be run here."""
    return PatchRun(
        instance_id=instance.instance_id,
        image=instance.image,
        evaluation=official.evaluation_script(instance),
        patch=patch,
        setting=setting,
    )


def setting_of(
    instances: Mapping[str, Instance], patches: Mapping[str, str], logs: Path
) -> str | None:
    """Returns the setting that the patches were run in; None where no run is there.

    Raises ValueError where they were run in several.
    """
    runs = [
        patch_run(instance, patches[name], SETTINGS[0])
        for name, instance in instances.items()
        if patches.get(name, "").strip()
    ]
    found = [
        setting
        for setting in SETTINGS
        if any(replace(run, setting=setting).end_path(logs).exists() for run in runs)
    ]
    if len(found) > 1:
        raise ValueError(
            f"{logs}: these patches were run in {' and in '.join(found)}, whose verdicts do not "
            "mix; name one of them with --setting"
        )
    return found[0] if found else None


def graded(
    instances: Mapping[str, Instance], patches: Mapping[str, str], logs: Path, setting: str
) -> list[Verdict]:
    """Returns one verdict per instance, in the order of the dataset, on runs of one setting."""
    grader = official.grader()
    verdicts = []
    for instance_id, instance in instances.items():
        patch = patches.get(instance_id, "")
        status, detail = _status_of(instance, patch, logs, setting)
        if instance_id not in patches:
            detail = "no prediction"
        verdicts.append(
            Verdict(
                benchmark=BENCHMARK,
                task_id=instance_id,
                sample=0,
                status=status,
                detail=detail,
                code_digest=digest(patch) if patch.strip() else "",
                grader=grader,
                isolation=CONTAINER_LEVEL,
                task_digest=digest(setting) if patch.strip() else "",
            )
        )
    return verdicts


def gold_controls(instances: Mapping[str, Instance], logs: Path, setting: str) -> Controls | None:
    """Returns what the dataset's own patches came to here; None where none of them was run."""
    gold = {name: each.gold_patch for name, each in instances.items()}
    verdicts = graded(instances, gold, logs, setting)
    if all(verdict.status in (Status.INFRA, Status.NO_CODE) for verdict in verdicts):
        return None
    return Controls(
        grader=official.grader(),
        isolation=CONTAINER_LEVEL,
        versions={"mira_megatron": __version__},
        num_tasks=len(instances),
        num_gold=sum(verdict.status is not Status.INFRA for verdict in verdicts),
        num_bad=0,
        failing=tuple(
            Control(
                benchmark=BENCHMARK,
                task_id=verdict.task_id,
                status=verdict.status,
                detail=verdict.detail,
            )
            for verdict in verdicts
            if not verdict.is_pass
        ),
        passing_bad=(),
    )


def _status_of(instance: Instance, patch: str, logs: Path, setting: str) -> tuple[Status, str]:
    if not patch.strip():
        return Status.NO_CODE, "empty patch"
    run = patch_run(instance, patch, setting)
    path = run.end_path(logs)
    if not path.exists():
        return Status.INFRA, "not run: mira swe run"
    try:
        end = json.loads(path.read_bytes())
        is_refused, is_timed_out = bool(end["is_patch_refused"]), bool(end["is_timed_out"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error!r}; remove it, and `mira swe run` again") from error
    if is_refused:
        return Status.ERROR, "the patch does not apply"
    if is_timed_out:
        return Status.TIMEOUT, str(end.get("why", ""))
    report = official.report(instance, patch, run.log_path(logs))
    if report.is_resolved:
        return Status.PASS, report.detail
    return (Status.FAIL if report.has_results else Status.ERROR), report.detail
