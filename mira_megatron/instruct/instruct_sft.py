"""Tune every arm's mid-trained model on the same instructions, straight on megatron-core.

Reads   checkpoints/<arm>/, instruct_data/every_arm/, tokenizer/
Writes  instruct/<arm>/trainer_state.json: loss and validation loss by step, without times
        instruct/<arm>/hf/: the model as transformers and vLLM load it, ChatML as its template
        instruct/<arm>/weights/: the same as a megatron.core.dist_checkpointing checkpoint

Arms differ in the weights they start from and in nothing else: the manifest's inputs hold one
digest of the instructions, which is equal in all of them.

With trainer=bridge, recipes/instruct_sft.py has tuned the arm on a cluster, and this stage takes
over its export: instruct/<arm>/hf/ and training.json in place of all of these (bridge_instruct.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.instruct.cluster_instruct import TunedArm, tuned_arms, weights_of
from mira_megatron.instruct.instruct_config import (
    SECTION,
    InstructConfig,
    instruct_config,
    instruct_training,
)
from mira_megatron.stage import Unit
from mira_megatron.training.arm_folders import trained_as
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.schedule import TrainSettings

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructSftSettings:
    """What one arm's unit needs."""

    arm: str
    config: InstructConfig
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; none without the section. Raises ValueError for a wrong setting."""
    if trainer_of(recipe, SECTION) == BRIDGE:
        return [_cluster_unit(recipe.run_folder, arm) for arm in tuned_arms(recipe)]
    config = instruct_config(recipe)
    if config is None:
        return []
    training = instruct_training(recipe, config)
    return [_unit(config, training, arm) for arm in recipe.mapping("arms")]


def _unit(config: InstructConfig, training: TrainSettings, arm: str) -> Unit:
    return Unit(
        stage="instruct-sft",
        name=arm,
        folder=layout.instruct(arm),
        version=VERSION,
        config={
            "trainer": config.trainer,
            "training": fingerprinted(training),
            "num_epochs": config.num_epochs,
        },
        upstream=(layout.checkpoints(arm), layout.INSTRUCT_DATA, layout.TOKENIZER),
        work="mira_megatron.instruct.run_instruct_sft:instruct_sft",
        settings=InstructSftSettings(arm=arm, config=config, training=training),
    )


def _cluster_unit(run_folder: Path, arm: TunedArm) -> Unit:
    return Unit(
        stage="instruct-sft",
        name=arm.arm,
        folder=layout.instruct(arm.arm),
        version=VERSION,
        config={**trained_as(arm.recipe, arm.choices), "num_epochs": arm.num_epochs},
        upstream=(layout.checkpoints(arm.arm),) if arm.is_own_base else (),
        raw_files=weights_of(run_folder, arm),
        work="mira_megatron.instruct.bridge_instruct:take_over_tuned",
        settings=arm,
    )
