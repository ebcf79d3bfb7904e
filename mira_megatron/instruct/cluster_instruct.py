"""An arm that is instruction-tuned on a cluster, as the stage sees it. No torch, no Bridge."""

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

SCRIPT = "recipes/instruct_sft.py"


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedArm:
    """What taking over one arm needs."""

    arm: str
    recipe: DenseRecipe
    base: Path  # a Hugging Face folder
    is_own_base: bool  # what this arm's midtrain left, and no other arm starts from
    choices: InstructSftChoices
    data: tuple[Path, ...]
    num_epochs: int
    learning_rate: float | None  # as the recipe says; None: the recipe of the training's own


def tuned_arms(recipe: Recipe) -> list[TunedArm]:
    """Returns every arm of a recipe whose instruct_sft.trainer is bridge.

    Raises ValueError for a wrong setting of the section.
    """
    config = cluster_instruct_sft(recipe)
    choices = with_learning_rate(
        InstructSftChoices(sequence_length=config.recipe.sequence_length, seed=recipe.seed),
        config.learning_rate,
    )
    return [
        TunedArm(
            arm=arm,
            recipe=config.recipe,
            base=instruct_base(recipe, config, arm),
            is_own_base=config.base is None,
            choices=choices,
            data=tuple(recipe.path_of(path) for path in config.data),
            num_epochs=config.num_epochs,
            learning_rate=config.learning_rate,
        )
        for arm in recipe.mapping("arms")
    ]


def exported_arm(run_folder: Path, arm: TunedArm) -> ArmFolders:
    """Returns the folders of an arm that was tuned from its base on these files, and exported.

    Raises FileNotFoundError, saying how it is tuned, where it is not there.
    """
    folders = instruct_folders(
        run_folder, arm.arm, arm.recipe, arm.base, arm.choices, arm.data, arm.num_epochs
    )
    if not (folders.export / "config.json").is_file():
        words = ["--config", arm.recipe.name, "--run-folder", str(run_folder), "--arm", arm.arm]
        words += ["--base", str(arm.base), "--seed", str(arm.choices.seed)]
        if arm.learning_rate is not None:
            words += ["--learning-rate", repr(arm.learning_rate)]
        words += ["--num-epochs", str(arm.num_epochs)]
        words += [word for path in arm.data for word in ("--data", str(path))]
        raise FileNotFoundError(
            f"{folders.export}: arm {arm.arm} has not been tuned on these instructions. On the "
            f"cluster run {SCRIPT} data, import, train and export, each with {shlex.join(words)} "
            "(docs/midtraining.md); then run this command again"
        )
    return folders


def weights_of(run_folder: Path, arm: TunedArm) -> Callable[[], dict[str, str]]:
    """Returns what digests an arm's exported weights when its unit is to be run."""

    def digest() -> dict[str, str]:
        cache = run_folder / ".raw_digests" / f"instruct-sft-{arm.arm}.json"
        return {"weights": exported_weights_digest(exported_arm(run_folder, arm).export, cache)}

    return digest
