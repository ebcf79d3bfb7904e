"""The smoke recipe on a small cluster, for tests of its jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.launchers.cluster import Cluster, load_cluster
from mira_megatron.launchers.job_graph import PlannedJob, job_graph

ROOT = Path(__file__).parents[3]
SMOKE = ROOT / "recipes" / "smoke.yaml"
CLUSTERS = ROOT / "launchers" / "clusters"


def one_machine(**changes: Any) -> Cluster:
    return replace(load_cluster(CLUSTERS / "one_machine.yaml"), **changes)


def smoke(run_folder: Path, *words: str) -> Recipe:
    return load_recipe(SMOKE, [f"run_folder={run_folder}", *words])


def jobs_by_name(recipe: Recipe, cluster: Cluster | None = None) -> dict[str, PlannedJob]:
    return {job.name: job for job in job_graph(recipe, cluster or one_machine())}
