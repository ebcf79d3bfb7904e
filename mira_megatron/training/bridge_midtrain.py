"""Take over an arm that recipes/midtrain.py trained on a cluster.

Writes  checkpoints/<arm>/hf/: weights as hard links, config.json, tokenizer
        checkpoints/<arm>/training.json: what decided the weights, and how many steps they took
"""

from __future__ import annotations

import logging

from mira_megatron import layout
from mira_megatron.manifest import Counts
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.blend_files import read_blend
from mira_megatron.training.cluster_midtrain import ClusterArm, exported_arm
from mira_megatron.training.midtrain_blend import check_blend, num_steps
from mira_megatron.training.taken_over import take_over_export

logger = logging.getLogger(__name__)

SCRIPT = "recipes/midtrain.py"


def take_over_arm(workspace: Workspace, settings: ClusterArm) -> WorkResult:
    """Links an arm's exported weights into its folder.

    Raises FileNotFoundError where they are not there, ValueError where they are of another
    training, or stopped before the last step of one pass over the blend.
    """
    blend = read_blend(workspace.run.folder / layout.blend(settings.arm))
    check_blend(blend, settings.recipe, settings.base)
    wanted = num_steps(blend, settings.recipe)
    folders = exported_arm(workspace.run.folder, settings)
    num_trained = wanted * settings.recipe.layout.global_batch_size
    num_tokens = num_trained * settings.recipe.sequence_length
    num_files = take_over_export(
        folders, workspace.folder, num_steps=wanted, num_tokens=num_tokens, script=SCRIPT
    )
    logger.info(
        "midtrain %s: %d files of weights, trained for %s steps, taken over from %s",
        settings.name,
        num_files,
        f"{wanted:,}",
        folders.export,
    )
    num_left_out = blend["num_train_samples"] - num_trained
    return WorkResult(
        counts=Counts(
            num_in=blend["num_train_samples"],
            num_out=num_trained,
            dropped={"beyond_last_step": num_left_out} if num_left_out else {},
            totals={"steps": wanted, "tokens": num_tokens},
        )
    )
