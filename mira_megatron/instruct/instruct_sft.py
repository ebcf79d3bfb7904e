"""Tune every arm's mid-trained model on the same instructions, straight on megatron-core.

Reads   checkpoints/<arm>/, instruct_data/every_arm/, tokenizer/; midtrain.base, where there is one
Writes  instruct/<arm>/trainer_state.json: loss and validation loss by step, without times
        instruct/<arm>/hf/: the model as transformers and vLLM load it, ChatML as its template
        instruct/<arm>/weights/: the same as a megatron.core.dist_checkpointing checkpoint

Arms differ in the weights they start from and in nothing else: the manifest's inputs hold one
digest of the instructions, which is equal in all of them. One that is trained with several seeds is
tuned with each, and the base may be an arm of its own (training/trained_arms.py).

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
from mira_megatron.training.midtrain import base_digest, midtrain_base
from mira_megatron.training.schedule import TrainSettings
from mira_megatron.training.trained_arms import TrainedArm, trained_arms

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructSftSettings:
    """What one arm's unit needs."""

    arm: str
    checkpoint: str | None  # folder of what was mid-trained; None: the base as it is
    base: Path | None  # what was mid-trained came of; None: random weights
    config: InstructConfig
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; none without the section. Raises ValueError for a wrong setting."""
    if trainer_of(recipe, SECTION) == BRIDGE:
        return [_cluster_unit(recipe.run_folder, arm) for arm in tuned_arms(recipe)]
    config = instruct_config(recipe)
    if config is None:
        return []
    return [_unit(recipe, config, arm) for arm in trained_arms(recipe)]


def _unit(recipe: Recipe, config: InstructConfig, arm: TrainedArm) -> Unit:
    training = instruct_training(recipe, config, arm.seed)
    checkpoint = layout.checkpoints(arm.name) if arm.has_midtraining else None
    base = midtrain_base(recipe)
    return Unit(
        stage="instruct-sft",
        name=arm.name,
        folder=layout.instruct(arm.name),
        version=VERSION,
        config={
            "trainer": config.trainer,
            "training": fingerprinted(training),
            "num_epochs": config.num_epochs,
        },
        upstream=(
            *([checkpoint] if checkpoint else []),
            layout.INSTRUCT_DATA,
            layout.TOKENIZER,
        ),
        # What was mid-trained has the base in its own fingerprint.
        raw_files=None if checkpoint else base_digest(recipe, base),
        can_be_left=True,
        work="mira_megatron.instruct.run_instruct_sft:instruct_sft",
        settings=InstructSftSettings(
            arm=arm.name, checkpoint=checkpoint, base=base, config=config, training=training
        ),
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
