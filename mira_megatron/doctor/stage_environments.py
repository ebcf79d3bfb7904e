"""What is installed where a stage will run, read from its environment's folder: nothing is started.

A container's inside cannot be seen from here, nor what a bare word such as `mira` is on a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mira_megatron.doctor.environment import PACKAGES, check_transformers, installed_versions
from mira_megatron.doctor.finding import ERROR, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.subject import Subject
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.training.cluster_training import BRIDGE, trainer_of

TRAINING_SECTIONS = {"distill": "distill", "midtrain": "midtrain", "instruct-sft": "instruct_sft"}


def stage_versions(cluster: Cluster | None, stage: str) -> dict[str, str | None] | None:
    """Returns the releases of what matters where a stage will run; None where that is not known."""
    if cluster is None:
        return installed_versions()
    words = cluster.command(stage)
    if cluster.image(stage) or not words[0].startswith("/"):
        return None
    folders = sorted(Path(words[0]).parent.parent.glob("lib/python3*/site-packages"))
    if not folders:
        return None
    found = {
        distribution.metadata["Name"].lower().replace("_", "-"): distribution.version
        for distribution in metadata.distributions(path=[str(folder) for folder in folders])
    }
    return {name: found.get(name) for name in PACKAGES}


def check_environments(subject: Subject) -> list[Finding]:
    """Finds stages whose program or packages are missing; says where that cannot be seen."""
    left = [stage for stage in subject.stages if not subject.is_done(stage)]
    findings = [] if subject.cluster is None else _check_programs(subject.cluster, left)
    for stage in left:
        findings += _check_packages(subject, stage)
    return findings


def needed_packages(subject: Subject, stage: str) -> tuple[str, ...]:
    """Returns what a stage imports that not every environment has, as packages are named."""
    values = subject.recipe.values
    match stage:
        case "distill" | "midtrain" | "instruct-sft":
            is_bridge = trainer_of(subject.recipe, TRAINING_SECTIONS[stage]) == BRIDGE
            return ("megatron-bridge", "megatron-core") if is_bridge else ("megatron-core",)
        case "held-out":
            return ("megatron-core",)
        case "score" | "reliability" | "eval":
            engine = (values.get("eval" if stage == "eval" else "score") or {}).get("engine")
            return (engine,) if engine in ("vllm", "transformers") else ()
    return ()


def _check_programs(cluster: Cluster, stages: Sequence[str]) -> list[Finding]:
    run_by: dict[str, list[str]] = {}
    for stage in stages:
        program = cluster.command(stage)[0]
        if not cluster.image(stage) and program.startswith("/") and not Path(program).is_file():
            run_by.setdefault(program, []).append(stage)
    return [
        Finding(
            level=ERROR,
            what=f"{program}: no such program, and it is to run {', '.join(names)}",
            where=f"cluster {cluster.name}: commands",
            way_out="make the environment on a disk that every node sees, or correct the path",
        )
        for program, names in run_by.items()
    ]


def _check_packages(subject: Subject, stage: str) -> list[Finding]:
    needed = needed_packages(subject, stage)
    if not needed:
        return []
    cluster = subject.cluster
    versions = stage_versions(cluster, stage)
    where = f"stage {stage}: environment"
    if versions is None:
        assert cluster is not None, "what is installed here is always known"
        place = cluster.image(stage) or f"`{cluster.command(stage)[0]}` of a node"
        return [
            Finding(
                level=UNKNOWN,
                what=f"releases of {', '.join(needed)} in {place} are not known before a job runs "
                "there",
                where=where,
                way_out="run `mira doctor` in it once",
            )
        ]
    findings = [
        Finding(
            level=ERROR if cluster is not None else WARNING,
            what=f"{name} is not installed there",
            where=where,
            way_out="install it, or name another environment under `commands` of the cluster file",
        )
        for name in needed
        if versions[name] is None
    ]
    if "megatron-bridge" in needed:
        findings += check_transformers(versions)
    return findings
