"""Take over an arm that recipes/instruct_sft.py tuned on a cluster.

Writes  instruct/<arm>/hf/: weights as hard links, config.json, tokenizer
        instruct/<arm>/training.json: what decided the weights, and how many steps they took
"""

from __future__ import annotations

import logging

from mira_megatron.instruct.cluster_instruct import SCRIPT, TunedArm, exported_arm
from mira_megatron.manifest import Counts
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.training.instruct_data import instruct_steps
from mira_megatron.training.instruct_rows import read_instruct_rows
from mira_megatron.training.taken_over import take_over_export

logger = logging.getLogger(__name__)


def take_over_tuned(workspace: Workspace, settings: TunedArm) -> WorkResult:
    """Links an arm's exported weights into its folder.

    Raises FileNotFoundError where they or their samples are not there, ValueError where they are of
    another training, or stopped before the last step.
    """
    folders = exported_arm(workspace.run.folder, settings)
    num_steps = instruct_steps(settings.choices, folders, settings.num_epochs).num_steps
    rows = read_instruct_rows(folders.data)
    assert rows is not None, "instruct_steps counted them"
    num_tokens = settings.num_epochs * rows.training_tokens
    num_files = take_over_export(
        folders, workspace.folder, num_steps=num_steps, num_tokens=num_tokens, script=SCRIPT
    )
    logger.info(
        "instruct-sft %s: %d files of weights, tuned for %s steps, taken over from %s",
        settings.arm,
        num_files,
        f"{num_steps:,}",
        folders.export,
    )
    num_samples = settings.num_epochs * rows.num_training
    return WorkResult(
        counts=Counts(
            num_in=num_samples,
            num_out=num_samples,
            totals={"steps": num_steps, "tokens": num_tokens},
        )
    )
