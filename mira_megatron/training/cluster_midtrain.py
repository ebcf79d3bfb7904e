"""An arm that is mid-trained on a cluster, as the stage `midtrain` sees it. No torch, no Bridge."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.config import Recipe
from mira_megatron.corpus.raw_digests import exported_weights_digest
from mira_megatron.training.arm_folders import ArmFolders, midtrain_folders
from mira_megatron.training.bridge_settings import MidtrainChoices, with_learning_rate
from mira_megatron.training.cluster_training import cluster_midtrain
from mira_megatron.training.dense_layouts import DenseRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterArm:
    """What taking over one arm needs."""

    arm: str
    recipe: DenseRecipe
    base: Path  # a Hugging Face folder
    choices: MidtrainChoices
    learning_rate: float | None  # as the recipe says; None: the recipe of the training's own


def cluster_arms(recipe: Recipe) -> list[ClusterArm]:
    """Returns every arm of a recipe whose midtrain.trainer is bridge; ValueError as its section."""
    config = cluster_midtrain(recipe)
    choices = with_learning_rate(
        MidtrainChoices(sequence_length=config.recipe.sequence_length, seed=recipe.seed),
        config.learning_rate,
    )
    base = recipe.path_of(config.base)
    return [
        ClusterArm(
            arm=arm,
            recipe=config.recipe,
            base=base,
            choices=choices,
            learning_rate=config.learning_rate,
        )
        for arm in recipe.mapping("arms")
    ]


def arm_folders(run_folder: Path, arm: ClusterArm) -> ArmFolders:
    """Returns the folders of an arm's training; FileNotFoundError without its blend or base."""
    return midtrain_folders(run_folder, arm.arm, arm.recipe, arm.base, arm.choices)


def exported_arm(run_folder: Path, arm: ClusterArm) -> ArmFolders:
    """Returns the folders of an arm that was trained on its blend as it is, and exported.

    Raises FileNotFoundError, saying how it is trained, where it is not there.
    """
    folders = arm_folders(run_folder, arm)
    if not (folders.export / "config.json").is_file():
        words = ["--config", arm.recipe.name, "--run-folder", str(run_folder), "--arm", arm.arm]
        words += ["--base", str(arm.base), "--seed", str(arm.choices.seed)]
        if arm.learning_rate is not None:
            words += ["--learning-rate", repr(arm.learning_rate)]
        raise FileNotFoundError(
            f"{folders.export}: arm {arm.arm} has not been trained on this blend. On the cluster "
            f"run recipes/midtrain.py import, train and export, each with {shlex.join(words)} "
            "(docs/midtraining.md); then run this command again"
        )
    return folders


def weights_of(run_folder: Path, arm: ClusterArm) -> Callable[[], dict[str, str]]:
    """Returns what digests an arm's exported weights when its unit is to be run."""

    def digest() -> dict[str, str]:
        cache = run_folder / ".raw_digests" / f"midtrain-{arm.arm}.json"
        return {"weights": exported_weights_digest(exported_arm(run_folder, arm).export, cache)}

    return digest
