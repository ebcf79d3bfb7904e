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
from mira_megatron.training.trained_arms import trained_arms


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterArm:
    """What training one arm with one seed needs, and taking it over."""

    name: str  # of its folders, as in trained_arms.py
    arm: str  # whose blend it is trained on
    recipe: DenseRecipe
    base: Path  # a Hugging Face folder
    choices: MidtrainChoices
    learning_rate: float | None  # as the recipe says; None: the recipe of the training's own

    def words(self, run_folder: Path) -> list[str]:
        """Returns what the steps of recipes/midtrain.py are told."""
        words = ["--config", self.recipe.name, "--run-folder", str(run_folder), "--arm", self.arm]
        words += ["--base", str(self.base), "--seed", str(self.choices.seed)]
        rate = self.learning_rate
        return words if rate is None else [*words, "--learning-rate", repr(rate)]


def cluster_arms(recipe: Recipe) -> list[ClusterArm]:
    """Returns what a recipe whose midtrain.trainer is bridge trains: every arm, once per seed.

    Raises ValueError for a wrong setting of its section.
    """
    config = cluster_midtrain(recipe)
    base, length = recipe.path_of(config.base), config.recipe.sequence_length
    return [
        ClusterArm(
            name=model.name,
            arm=model.arm,
            recipe=config.recipe,
            base=base,
            choices=with_learning_rate(
                MidtrainChoices(sequence_length=length, seed=model.seed), config.learning_rate
            ),
            learning_rate=config.learning_rate,
        )
        for model in trained_arms(recipe)
        if model.has_midtraining
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
        raise FileNotFoundError(
            f"{folders.export}: arm {arm.name} has not been trained on this blend. On the cluster "
            f"run recipes/midtrain.py import, train and export, each with "
            f"{shlex.join(arm.words(run_folder))} "
            "(docs/midtraining.md); then run this command again"
        )
    return folders


def weights_of(run_folder: Path, arm: ClusterArm) -> Callable[[], dict[str, str]]:
    """Returns what digests an arm's exported weights when its unit is to be run."""

    def digest() -> dict[str, str]:
        cache = run_folder / ".raw_digests" / f"midtrain-{arm.name}.json"
        return {"weights": exported_weights_digest(exported_arm(run_folder, arm).export, cache)}

    return digest
