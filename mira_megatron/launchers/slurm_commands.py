"""SLURM's commands, called with what we say and not with what a shell has set for them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence

# SQUEUE_STATES would hide jobs that wait, SBATCH_EXPORT hand on every variable, and inside a job
# SLURM_ARRAY_TASK_ID make an element of whatever is sent from there. Where SLURM is stays.
_DEFAULTS_OF_COMMANDS = ("SBATCH_", "SCANCEL_", "SLURM_", "SQUEUE_")
_WHERE_SLURM_IS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment without the variables that change what SLURM's commands do."""
    return {
        name: value
        for name, value in environment.items()
        if name in _WHERE_SLURM_IS or not name.startswith(_DEFAULTS_OF_COMMANDS)
    }


def told_by(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Returns what a command of SLURM's wrote; ValueError with what it said when it failed."""
    try:
        result = subprocess.run(
            words,
            env=slurm_environment(environment),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise ValueError(
            f"{words[0]}: no such command. Submit where SLURM is installed, or look at the jobs "
            "with --dry-run"
        ) from error
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise ValueError(f"`{shlex.join(words)}` ended with {result.returncode}: {said}")
    return result.stdout
