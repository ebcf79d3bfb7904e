"""Where an arm's training with Megatron-Bridge keeps its files. Free of Bridge itself.

<run folder>/bridge/
  base.<digest>/                a base model's weights, imported; shared by all arms
  midtrain.<arm>/
    index_cache-<digest>/       Megatron's indices of the blend
    checkpoints-<digest>/       torch_dist checkpoints
    tensorboard-<digest>/
    hf-<digest>/                what was trained, for transformers and vLLM
  instruct-sft.<arm>/
    data-<digest>/              training.jsonl and validation.jsonl, and Bridge's packed copies
    checkpoints-<digest>/, tensorboard-<digest>/, hf-<digest>/

The digest is that of what decides the weights (`TrainingIdentity`): the data, the base, the model,
learning rate, seed, batch. So no training goes on from a checkpoint of another selection, and no
export of one is taken for another. On how many GPUs is no part of it: a training that is continued
elsewhere goes on from the same checkpoints, if its model is cut as before (checkpoint_cut.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.manifest import read_manifest
from mira_megatron.shards import json_digest
from mira_megatron.training.base_weights import weights_digest
from mira_megatron.training.bridge_settings import TrainingChoices
from mira_megatron.training.cluster_training import BRIDGE
from mira_megatron.training.dense_layouts import DenseRecipe

DIGEST_CHARS = 12  # in a folder's name


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingIdentity:
    """What decides a training's weights."""

    task: str
    data: str  # digest
    base: str  # digest
    model: str
    sequence_length: int
    global_batch_size: int
    choices: Mapping[str, Any]  # learning rates, decay, seed, passes

    @property
    def digest(self) -> str:
        """Returns what folders are named after."""
        return json_digest(asdict(self))[:DIGEST_CHARS]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmFolders:
    """One training of one arm in a run folder."""

    run_folder: Path
    arm: str
    identity: TrainingIdentity

    @property
    def work(self) -> Path:
        """Returns the folder of everything that Bridge writes for this arm and task."""
        # A dot is in no rubric's name, so this is no folder of a scorer (bridge_group.py).
        task = self.identity.task.replace("_", "-")
        return self.run_folder / "bridge" / f"{task}.{self.arm}"

    @property
    def base(self) -> Path:
        """Returns the folder of the imported base weights."""
        return self.run_folder / "bridge" / f"base.{self.identity.base[:DIGEST_CHARS]}"

    @property
    def index_cache(self) -> Path:
        """Returns the folder of Megatron's indices."""
        return self._of_training("index_cache")

    @property
    def data(self) -> Path:
        """Returns the folder of an instruction tuning's samples."""
        return self._of_training("data")

    @property
    def checkpoints(self) -> Path:
        """Returns the folder of the training's checkpoints."""
        return self._of_training("checkpoints")

    @property
    def tensorboard(self) -> Path:
        """Returns the folder of the training's curves."""
        return self._of_training("tensorboard")

    @property
    def export(self) -> Path:
        """Returns the folder of the trained model in Hugging Face's form."""
        return self._of_training("hf")

    def _of_training(self, name: str) -> Path:
        return self.work / f"{name}-{self.identity.digest}"


def midtrain_folders(
    run_folder: Path,
    arm: str,
    recipe: DenseRecipe,
    base_folder: Path,
    choices: TrainingChoices,
) -> ArmFolders:
    """Returns the folders of an arm's mid-training on its blend as it is.

    Raises FileNotFoundError where the blend is unfinished or the base has no weights.
    """
    folder = run_folder / layout.blend(arm)
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(
            f"{folder}: no finished blend of arm {arm} is here. Make it with `mira blend`."
        )
    # The views' own files hold no tokens; what lies behind them is among the blend's inputs.
    data = json_digest([manifest.output_digest, dict(manifest.inputs)])
    return ArmFolders(
        run_folder=run_folder,
        arm=arm,
        identity=identity_of(recipe, data, weights_digest(base_folder), choices),
    )


def identity_of(
    recipe: DenseRecipe,
    data: str,
    base: str,
    choices: TrainingChoices,
    more: Mapping[str, Any] | None = None,
) -> TrainingIdentity:
    """Returns what decides a training's weights; `more` are choices of the task's own."""
    return TrainingIdentity(
        task=recipe.task,
        data=data,
        base=base,
        model=recipe.model.name,
        sequence_length=recipe.sequence_length,
        global_batch_size=recipe.layout.global_batch_size,
        choices={**deciding(choices), **(more or {})},
    )


def trained_as(recipe: DenseRecipe, choices: TrainingChoices) -> dict[str, Any]:
    """Returns the config of a unit that Megatron-Bridge trains: what of it decides weights."""
    return {
        "trainer": BRIDGE,
        "model": recipe.model.name,
        "sequence_length": recipe.sequence_length,
        "global_batch_size": recipe.layout.global_batch_size,
        "training": deciding(choices),
    }


def deciding(choices: TrainingChoices) -> dict[str, Any]:
    """Returns those choices that decide weights: not how often is saved or evaluated."""
    return {
        name: getattr(choices, name)
        for name in (
            "learning_rate",
            "min_learning_rate",
            "warmup_fraction",
            "weight_decay",
            "adam_beta2",
            "clip_grad",
            "seed",
        )
    }
