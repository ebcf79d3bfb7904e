"""How far a training with Megatron-Bridge has come, and what its export says of it. No Bridge.

Bridge ends with exit code 0 after it saved on a signal, and an interrupted save leaves a folder of
a later iteration behind. So neither tells: only the number that Bridge writes last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_json
from mira_megatron.training.arm_folders import TrainingIdentity

# What Megatron writes into a checkpoint folder last.
LATEST = "latest_checkpointed_iteration.txt"
# What we write into an export last.
TRAINED = "trained.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What an export is of."""

    identity: Mapping[str, Any]  # a TrainingIdentity as JSON
    num_steps: int
    recipe: str  # its name: on which GPUs the last part was trained
    bridge: str  # the version that exported

    def save(self, export_folder: Path) -> None:
        """Writes it beside the weights, which must all be there."""
        write_json(export_folder / TRAINED, asdict(self))

    def is_of(self, identity: TrainingIdentity, num_steps: int) -> bool:
        """Returns whether it is of this training, to its end."""
        return dict(self.identity) == json_of(identity) and self.num_steps == num_steps


def json_of(identity: TrainingIdentity) -> dict[str, Any]:
    """Returns an identity as it is read back from JSON."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(identity)))
    return content


def read_trained(export_folder: Path) -> Trained | None:
    """Returns what an export is of; None where there is none, or one that was interrupted."""
    try:
        return Trained(**json.loads((export_folder / TRAINED).read_bytes()))
    except FileNotFoundError:
        return None


def reached_step(checkpoints: Path) -> int:
    """Returns the step of the newest whole checkpoint, 0 where there is none.

    Raises ValueError where Megatron's file holds no number.
    """
    path = checkpoints / LATEST
    try:
        content = path.read_text().strip()
    except FileNotFoundError:
        return 0
    if not content.isascii() or not content.isdigit():
        raise ValueError(
            f"{path}: {content[:40]!r} is no number of steps. Delete the folder {checkpoints} to "
            "train anew."
        )
    return int(content)


def is_trained(checkpoints: Path, num_steps: int) -> bool:
    """Returns whether a training has a checkpoint of its last step.

    Raises ValueError where it has one beyond it, which no training of these steps writes.
    """
    reached = reached_step(checkpoints)
    if reached > num_steps:
        raise ValueError(
            f"{checkpoints}: has a checkpoint of step {reached:,}, but the training has "
            f"{num_steps:,} steps. Delete the folder to train anew."
        )
    return reached == num_steps


def iteration_folder(checkpoints: Path, num_steps: int) -> Path:
    """Returns the folder of one checkpoint; FileNotFoundError where it is gone."""
    folder = checkpoints / f"iter_{num_steps:07d}"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such checkpoint. Train first.")
    return folder
