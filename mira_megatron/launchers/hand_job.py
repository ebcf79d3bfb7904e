"""A stage as a job of its own, without a cluster's file: `mira job RECIPE --stage STAGE`.

What scripts of launchers/slurm/ start on every node. Such a job ends, goes on and fails as one that
`mira submit` sends does. Its files lie beside those of the others in RUN_FOLDER/jobs, so that
`mira status` shows it, under a name that none of them has. Its recipe is what it is when it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mira_megatron.config import Recipe
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_graph import job_name
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.pipeline import stage_units
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.training_commands import STAGES as TRAINING
from mira_megatron.training.training_commands import training_commands

_BY_HAND = "hand-"  # no stage's name begins so


def hand_job(
    recipe: Recipe,
    overrides: Sequence[str],
    stage: str,
    place: JobPlace,
    *,
    only: str | None,
    workers: int,
    max_failures: int,
) -> JobFile:
    """Returns the job of a stage, or of its unit `only`, once it is written down.

    Every node's process writes the same. Raises ValueError for a unit that the stage does not have,
    and where a stage that runs on one node was given several.
    """
    stage_units(recipe, stage, only)  # a name that none has is refused before anything is written
    trains = stage in TRAINING and trainer_of(recipe, stage.replace("-", "_")) == BRIDGE
    if not trains and place.num_nodes > 1:
        raise ValueError(
            f"{recipe.path}: {stage} runs on one node, and this job has {place.num_nodes}. Send it "
            "with --nodes=1, or name `trainer: bridge` in the recipe for a training on several"
        )
    num_ranks = 1
    if trains:
        planned = training_commands(replace(recipe, is_provisional=True), stage, only)
        num_ranks = max(each.gpus_per_node for each in planned)
    job = JobFile(
        name=f"{_BY_HAND}{job_name(stage, only)}",
        stage=stage,
        only=only,
        kind="train" if trains else "stage",
        recipe=recipe.path,
        overrides=tuple(overrides),
        recipe_digest=recipe_digest(recipe),
        run_folder=recipe.run_folder,
        workers=workers,
        nproc_per_node=num_ranks,
        max_failures=max_failures,
    )
    job.write()
    return job
