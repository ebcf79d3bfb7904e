"""What a stage takes over of a training on a cluster: the export, seen to be whole and the last."""

from __future__ import annotations

import shutil
from pathlib import Path

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.hf_weight_files import link_or_copy, weight_files
from mira_megatron.training.trained_files import TRAINED, Trained, read_trained


def take_over_export(
    folders: ArmFolders, folder: Path, *, num_steps: int, num_tokens: int, script: str
) -> int:
    """Links an export into `folder`/hf/, writes `folder`/training.json; returns files of weights.

    Raises FileNotFoundError where the export is not whole, ValueError where it is of another
    training, or of another step than `num_steps`, its last.
    """
    trained = _checked(folders, num_steps, script)
    weights = weight_files(folders.export, script=script)
    target = folder / layout.HF_EXPORT
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(folders.export.iterdir()):
        if path.is_file() and path.name != TRAINED:
            link_or_copy(path, target / path.name)
    write_json(
        folder / layout.TRAINING,
        {
            "identity": dict(trained.identity),
            "num_steps": num_steps,
            "num_train_tokens": num_tokens,
            "recipe": trained.recipe,
            "bridge": trained.bridge,
        },
    )
    return len(weights)


def _checked(folders: ArmFolders, num_steps: int, script: str) -> Trained:
    trained = read_trained(folders.export)
    if trained is None:
        raise FileNotFoundError(
            f"{folders.export / TRAINED}: the export was interrupted. Run {script} export again."
        )
    if not trained.is_of(folders.identity, num_steps):
        raise ValueError(
            f"{folders.export}: is of step {trained.num_steps:,} of another training, but this one "
            f"takes {num_steps:,} steps. Delete the folder, and run {script} train and export "
            "again."
        )
    return trained
