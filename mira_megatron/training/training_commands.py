"""What is run on a cluster for a stage whose trainer is Megatron-Bridge. No torch, no Bridge.

For each arm or source group: what prepares its training, the script that torchrun starts on every
node, and what finishes it; after that the stage itself takes over. Every command may be run again:
what is done is left as it is, and a training goes on from its newest checkpoint. A command that
ends with NOT_FINISHED says that the training did not reach its last step: Bridge itself ends with 0
after it has saved on a signal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mira_megatron
from mira_megatron.config import Recipe, nearest
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.instruct.cluster_instruct import tuned_arms
from mira_megatron.training.bridge_layouts import find_recipe
from mira_megatron.training.cluster_midtrain import cluster_arms
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.dense_layouts import GPUS_PER_NODE

STAGES = ("distill", "midtrain", "instruct-sft")
NOT_FINISHED = 75  # EX_TEMPFAIL: run me again


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCommands:
    """One training: argument vectors, never to be joined for a shell."""

    name: str  # of the arm, with its seed if it is not the first, or of the source group
    num_nodes: int
    gpus_per_node: int
    prepare: tuple[tuple[str, ...], ...]  # on one node, in this order, before the training
    train: tuple[str, ...]  # a script and its words, for torchrun on every node
    finish: tuple[tuple[str, ...], ...]  # on one node, after the training


def training_commands(
    recipe: Recipe, stage: str, only: str | None = None
) -> list[TrainingCommands]:
    """Returns a stage's trainings on a cluster, sorted by name; [] where it trains in-process.

    With `only` the one of that name. Raises ValueError for a stage that trains nothing, for a wrong
    setting and for an unknown name, NotYetKnown where source groups have not been found, and
    FileNotFoundError where the training scripts are not beside the package.
    """
    match stage:
        case "distill":
            made = _distill(recipe)
        case "midtrain":
            made = _midtrain(recipe)
        case "instruct-sft":
            made = _instruct_sft(recipe)
        case _:
            raise ValueError(f"stage {stage!r} trains nothing: {', '.join(STAGES)} do")
    if only is None or not made:
        return made
    names = [each.name for each in made]
    if only not in names:
        raise ValueError(f"{recipe.path}: {stage} has no {only!r}.{nearest(only, names)}")
    return [each for each in made if each.name == only]


def _distill(recipe: Recipe) -> list[TrainingCommands]:
    if trainer_of(recipe, "distill") != BRIDGE:
        return []
    config = distill_config(recipe)
    where = f"{recipe.path}: distill"
    if config.config is None or config.num_steps is None or config.base is None:
        raise ValueError(
            f"{where}: needs config (a recipe of recipes/scorer_sft.py) and num_steps to be "
            "trained by a job. docs/cluster-recipes.md says how many steps one pass takes"
        )
    _, layout = find_recipe(config.config)
    made = []
    for group in sorted(source_groups(recipe)):
        words = ["--config", config.config, "--run-folder", str(recipe.run_folder)]
        words += ["--rubric", recipe.rubric, "--group", group]
        words += ["--base", str(recipe.path_of(config.base)), "--num-steps", str(config.num_steps)]
        made.append(_commands("scorer_sft.py", group, layout.num_gpus, ("import",), words))
    return made


def _midtrain(recipe: Recipe) -> list[TrainingCommands]:
    if trainer_of(recipe, "midtrain") != BRIDGE:
        return []
    return [
        _commands(
            "midtrain.py",
            arm.name,
            arm.recipe.layout.num_gpus,
            ("import",),
            arm.words(recipe.run_folder),
        )
        for arm in cluster_arms(recipe)
    ]


def _instruct_sft(recipe: Recipe) -> list[TrainingCommands]:
    if trainer_of(recipe, "instruct_sft") != BRIDGE:
        return []
    return [
        _commands(
            "instruct_sft.py",
            arm.arm,
            arm.recipe.layout.num_gpus,
            ("data", "import"),
            arm.words(recipe.run_folder),
        )
        for arm in tuned_arms(recipe)
    ]


def _commands(
    script: str, name: str, num_gpus: int, prepare: Sequence[str], words: Sequence[str]
) -> TrainingCommands:
    path = _script(script)
    return TrainingCommands(
        name=name,
        num_nodes=num_gpus // GPUS_PER_NODE,
        gpus_per_node=GPUS_PER_NODE,
        prepare=tuple((sys.executable, path, step, *words) for step in prepare),
        train=(path, "train", *words),
        finish=((sys.executable, path, "export", *words),),
    )


def _script(name: str) -> str:
    """Returns a training script, which lies in the clone beside the package."""
    path = Path(mira_megatron.__file__).resolve().parents[1] / "recipes" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Training on a cluster needs the clone of the repository: "
            "install it there with `pip install -e`."
        )
    return str(path)
