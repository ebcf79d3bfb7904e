"""An arm that is instruction-tuned on a cluster, as the stage sees it. No torch, no Bridge.

The base without mid-training may be an arm too: it is tuned from midtrain.base as it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mira_megatron.config import Recipe
from mira_megatron.corpus.raw_digests import exported_weights_digest
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.bridge_settings import InstructSftChoices, with_learning_rate
from mira_megatron.training.cluster_training import cluster_instruct_sft, instruct_base
from mira_megatron.training.dense_layouts import DenseRecipe
from mira_megatron.training.instruct_data import instruct_folders
from mira_megatron.training.trained_arms import trained_arms

SCRIPT = "recipes/instruct_sft.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedArm:
    """What tuning one arm with one seed needs, and taking it over."""

    arm: str  # the name of its folders, as in training/trained_arms.py
    recipe: DenseRecipe
    base: Path  # a Hugging Face folder
    is_own_base: bool  # what this arm's midtrain left, and no other arm starts from
    choices: InstructSftChoices
    data: tuple[Path, ...]
    num_epochs: int
    learning_rate: float | None  # as the recipe says; None: the recipe of the training's own

    def words(self, run_folder: Path) -> list[str]:
        """Returns what the steps of recipes/instruct_sft.py are told."""
        words = ["--config", self.recipe.name, "--run-folder", str(run_folder), "--arm", self.arm]
        words += ["--base", str(self.base), "--seed", str(self.choices.seed)]
        if self.learning_rate is not None:
            words += ["--learning-rate", repr(self.learning_rate)]
        words += ["--num-epochs", str(self.num_epochs)]
        return words + [word for path in self.data for word in ("--data", str(path))]


def tuned_arms(recipe: Recipe) -> list[TunedArm]:
    """Returns what a recipe whose instruct_sft.trainer is bridge tunes: every arm, once per seed.

    Raises ValueError for a wrong setting of the section.
    """
    config = cluster_instruct_sft(recipe)
    length = config.recipe.sequence_length
    return [
        TunedArm(
            arm=model.name,
            recipe=config.recipe,
            base=instruct_base(recipe, config, model),
            is_own_base=config.base is None and model.has_midtraining,
            choices=with_learning_rate(
                InstructSftChoices(sequence_length=length, seed=model.seed), config.learning_rate
            ),
            data=tuple(recipe.path_of(path) for path in config.data),
            num_epochs=config.num_epochs,
            learning_rate=config.learning_rate,
        )
        for model in trained_arms(recipe)
    ]


def exported_arm(run_folder: Path, arm: TunedArm) -> ArmFolders:
    """Returns the folders of an arm that was tuned from its base on these files, and exported.

    Raises FileNotFoundError, saying how it is tuned, where it is not there.
    """
    folders = instruct_folders(
        run_folder, arm.arm, arm.recipe, arm.base, arm.choices, arm.data, arm.num_epochs
    )
    if not (folders.export / "config.json").is_file():
        raise FileNotFoundError(
            f"{folders.export}: arm {arm.arm} has not been tuned on these instructions. On the "
            f"cluster run {SCRIPT} data, import, train and export, each with "
            f"{shlex.join(arm.words(run_folder))} "
            "(docs/midtraining.md); then run this command again"
        )
    return folders


def weights_of(run_folder: Path, arm: TunedArm) -> Callable[[], dict[str, str]]:
    """Returns what digests an arm's exported weights when its unit is to be run."""

    def digest() -> dict[str, str]:
        cache = run_folder / ".raw_digests" / f"instruct-sft-{arm.arm}.json"
        return {"weights": exported_weights_digest(exported_arm(run_folder, arm).export, cache)}

    return digest
