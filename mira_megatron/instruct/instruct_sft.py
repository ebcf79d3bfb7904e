"""Tune every arm's mid-trained model on the same instructions, straight on megatron-core.

Reads   checkpoints/<arm>/, instruct_data/every_arm/, tokenizer/
Writes  instruct/<arm>/trainer_state.json: loss and validation loss by step, without times
        instruct/<arm>/hf/: the model as transformers and vLLM load it, ChatML as its template
        instruct/<arm>/weights/: the same as a megatron.core.dist_checkpointing checkpoint

Arms differ in the weights they start from and in nothing else: the manifest's inputs hold one
digest of the instructions, which is equal in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.instruct.instruct_config import (
    SECTION,
    InstructConfig,
    instruct_config,
    instruct_training,
)
from mira_megatron.stage import Unit
from mira_megatron.training.cluster_training import BRIDGE, MEGATRON_CORE, trainer_of
from mira_megatron.training.schedule import TrainSettings

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructSftSettings:
    """What one arm's unit needs."""

    arm: str
    config: InstructConfig
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; ValueError for a trainer that leaves nothing to take over here."""
    match trainer_of(recipe, SECTION):
        case trainer if trainer == MEGATRON_CORE:
            config = instruct_config(recipe)
            assert config is not None, trainer
            training = instruct_training(recipe, config)
            return [_unit(config, training, arm) for arm in recipe.mapping("arms")]
        case trainer if trainer == BRIDGE:
            instruct_config(recipe)
            raise ValueError(
                f"{recipe.path}: {SECTION}.trainer=bridge: a model tuned on a cluster is not taken "
                "over yet. Tune it with recipes/instruct_sft.py, and leave the section out here"
            )
        case _:
            return []


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
