"""Take over an arm that recipes/midtrain.py trained on a cluster.

Writes  checkpoints/<arm>/hf/: weights as hard links, config.json, tokenizer
        checkpoints/<arm>/training.json: what decided the weights, and how many steps they took
"""

from __future__ import annotations

import logging
import shutil

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import Counts
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.blend_files import read_blend
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.cluster_midtrain import ClusterArm, exported_arm
from mira_megatron.training.hf_weight_files import link_or_copy, weight_files
from mira_megatron.training.midtrain_blend import check_blend, num_steps
from mira_megatron.training.trained_files import TRAINED, Trained, read_trained

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
    trained = _checked(folders, wanted)
    source = folders.export
    weights = weight_files(source, script=SCRIPT)
    folder = workspace.folder / layout.HF_EXPORT
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != TRAINED:
            link_or_copy(path, folder / path.name)
    batch = settings.recipe.layout.global_batch_size
    num_trained = wanted * batch
    num_tokens = num_trained * settings.recipe.sequence_length
    write_json(
        workspace.folder / layout.TRAINING,
        {
            "identity": dict(trained.identity),
            "num_steps": wanted,
            "num_train_tokens": num_tokens,
            "recipe": trained.recipe,
            "bridge": trained.bridge,
        },
    )
    logger.info(
        "midtrain %s: %d files of weights, trained for %s steps, taken over from %s",
        settings.arm,
        len(weights),
        f"{wanted:,}",
        source,
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


def _checked(folders: ArmFolders, wanted: int) -> Trained:
    trained = read_trained(folders.export)
    if trained is None:
        raise FileNotFoundError(
            f"{folders.export / TRAINED}: the export was interrupted. Run {SCRIPT} export again."
        )
    if not trained.is_of(folders.identity, wanted):
        raise ValueError(
            f"{folders.export}: is of step {trained.num_steps:,} of another training, but one pass "
            f"over this blend takes {wanted:,} steps. Delete the folder, and run {SCRIPT} train "
            "and export again."
        )
    return trained
