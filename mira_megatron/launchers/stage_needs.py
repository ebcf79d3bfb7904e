"""What one stage of a recipe needs of a cluster: how it is run, on how many nodes and GPUs.

The recipe decides (who trains, which engine answers, how a model is spread over GPUs); a cluster's
`stages` section may give a stage more or less where the recipe leaves it open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mira_megatron.config import Recipe
from mira_megatron.launchers.cluster import Cluster, StageResources
from mira_megatron.launchers.job_file import Server
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.training_commands import STAGES as TRAINING
from mira_megatron.training.training_commands import training_commands

_TAUGHT = ("discover", "label")
_SCORED = ("reliability", "score")
# Engines that load the model where the stage runs.
_SPREAD_ENGINE, _LOCAL_ENGINE = "vllm", "transformers"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageNeeds:
    """How a job of a stage is run, and with what."""

    kind: str  # of a job (see job_file.py)
    nodes: int
    gpus: int  # per node
    cpus: int  # per node
    time: str
    partition: str
    server: Server | None = None


def stage_needs(
    recipe: Recipe, cluster: Cluster, stage: str, only: str | None = None
) -> StageNeeds:
    """Returns the needs of a stage, or of its unit `only`.

    Raises ValueError where recipe and cluster do not fit together: another number of GPUs than a
    training is laid out for, a kind of them that it is not, or more than a node has.
    """
    own, server = cluster.resources(stage), cluster.servers.get(stage)
    if stage in TRAINING and trainer_of(recipe, stage.replace("-", "_")) == BRIDGE:
        kind = "train"
        nodes, gpus = _laid_out(recipe, cluster, stage, only)
    elif server is not None:
        kind = "serve"
        nodes, gpus = own.nodes or 1, cluster.gpus_per_node if own.gpus is None else own.gpus
    else:
        kind = "stage"
        nodes, gpus = 1, _gpus_of_stage(recipe, cluster, stage) if own.gpus is None else own.gpus
        if own.nodes not in (None, 1):
            raise ValueError(
                f"cluster {cluster.name}: stages.{stage}.nodes={own.nodes}: a process of this "
                "stage has one node. Leave it out; `elements` spreads a shared stage over more"
            )
    if gpus > cluster.gpus_per_node:
        raise ValueError(
            f"cluster {cluster.name}: {stage} needs {gpus} GPUs on a node, which has "
            f"{cluster.gpus_per_node} (gpus_per_node)"
        )
    return StageNeeds(
        kind=kind,
        nodes=nodes,
        gpus=gpus,
        cpus=_cpus(cluster, own, gpus),
        time=cluster.time_limit(stage, "gpu" if kind == "stage" and gpus else kind),
        partition=own.partition or cluster.partition,
        server=server if kind == "serve" else None,
    )


def _laid_out(recipe: Recipe, cluster: Cluster, stage: str, only: str | None) -> tuple[int, int]:
    """Returns nodes and GPUs per node that a training is laid out for."""
    provisional = replace(recipe, is_provisional=True)
    trainings = training_commands(provisional, stage, only)
    nodes = max(each.num_nodes for each in trainings)
    gpus = max(each.gpus_per_node for each in trainings)
    own = cluster.resources(stage)
    for name, given, needed in (("nodes", own.nodes, nodes), ("gpus", own.gpus, gpus)):
        if given not in (None, needed):
            raise ValueError(
                f"cluster {cluster.name}: stages.{stage}.{name}={given}, but the training is laid "
                f"out for {needed}. Leave it out, or choose another `config` in {recipe.path}"
            )
    config = _section(recipe, stage.replace("-", "_")).get("config", "")
    kinds = {gpu for gpu in ("h100", "h200") if f"_{gpu}_" in str(config)}
    if kinds and cluster.gpu not in kinds:
        raise ValueError(
            f"{recipe.path}: {stage} with config {config} is laid out for {', '.join(kinds)}, but "
            f"cluster {cluster.name} has {cluster.gpu or 'no GPUs'} (gpu)"
        )
    return nodes, gpus


def _gpus_of_stage(recipe: Recipe, cluster: Cluster, stage: str) -> int:
    """Returns the GPUs of one process: as many as the largest model it loads is spread over."""
    if stage in _TAUGHT:
        asked: list[Mapping[str, Any]] = [
            {**_section(recipe, "teacher"), **_section(recipe, stage)}
        ]
    elif stage in _SCORED:
        # Not by source group: which there are may not be known yet.
        own = _section(recipe, "score")
        entries = recipe.mapping("scorers").values()
        asked = [own, *({**own, **entry} for entry in entries if isinstance(entry, Mapping))]
    elif stage == "eval":
        asked = [_section(recipe, "eval")]
    elif stage == "baseline":
        entries = recipe.mapping("baselines").values()
        asked = [_as_it_runs(entry) for entry in entries if isinstance(entry, Mapping)]
    elif stage == "held-out" and trainer_of(recipe, "midtrain") == BRIDGE:
        return min(1, cluster.gpus_per_node)  # of a model that was trained on GPUs
    else:
        return 0
    return max((_gpus_of_engine(section, cluster) for section in asked), default=0)


def _as_it_runs(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a baseline's settings with the engine that a perplexity has unless it is told."""
    if entry.get("method") == "perplexity":
        return {"engine": _LOCAL_ENGINE, **entry}
    return entry


def _gpus_of_engine(section: Mapping[str, Any], cluster: Cluster) -> int:
    match section.get("engine"):
        case engine if engine == _SPREAD_ENGINE:
            return int(section.get("tensor_parallel_size") or 1)
        case engine if engine == _LOCAL_ENGINE:
            return min(1, cluster.gpus_per_node)  # it also runs on CPUs
        case _:
            return 0


def _cpus(cluster: Cluster, own: StageResources, gpus: int) -> int:
    """Returns CPUs of a node: those that go with its GPUs, all of them without any."""
    if own.cpus is not None:
        return own.cpus
    if not gpus:
        return cluster.cpus_per_node
    return max(1, cluster.cpus_per_node * gpus // cluster.gpus_per_node)


def _section(recipe: Recipe, name: str) -> Mapping[str, Any]:
    values = recipe.values.get(name)
    return values if isinstance(values, Mapping) else {}
