"""Where a job's process runs and which attempt it is, as SLURM says in the environment.

One process runs per node. Without SLURM's variables it is the only one, at its first attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PORTS = range(20_000, 30_000)  # below those that a system gives to who asks for any


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlace:
    """One process of a job; the head is the one that decides, all others help it."""

    job: str = ""  # SLURM's name of it, "7" or, of an array, "7_0"; "" outside of SLURM
    number: int = 0  # of SLURM's: one for each element of an array
    restart: int = 0  # how often SLURM has put it back into the queue
    element: str = "0"  # of an array
    node: int = 0  # of this process, from 0
    num_nodes: int = 1
    head: str = "127.0.0.1"  # host of node 0

    @property
    def is_head(self) -> bool:
        """Returns whether this process is the one that decides."""
        return self.node == 0

    @property
    def attempt(self) -> str:
        """Returns a name that all processes of this attempt share, and no other attempt has."""
        return f"{self.job}.{self.restart}"

    @property
    def port(self) -> int:
        """Returns a port on the head that all nodes know; another one for the next attempt."""
        return _PORTS[(self.number * 31 + self.restart) % len(_PORTS)]


def place_from(environment: Mapping[str, str]) -> JobPlace:
    """Returns the place that SLURM's variables tell; ValueError where they do not fit."""
    node = _number(environment, "SLURM_NODEID", 0)
    num_nodes = _number(environment, "SLURM_NNODES", 1)
    if _number(environment, "SLURM_PROCID", node) != node:
        raise ValueError(
            f"SLURM_PROCID={environment['SLURM_PROCID']} on node {node}: `mira job` runs once per "
            "node. Start it with srun --ntasks-per-node=1"
        )
    head = environment.get("MIRA_HEAD_NODE", "")
    if num_nodes > 1 and not head:
        raise ValueError(
            f"SLURM_NNODES={num_nodes}, but MIRA_HEAD_NODE does not name the host of the first "
            "node. Submit the job with `mira submit`, whose script sets it"
        )
    return JobPlace(
        job=scheduled_as(environment),
        number=_number(environment, "SLURM_JOB_ID", 0),
        restart=_number(environment, "SLURM_RESTART_COUNT", 0),
        element=str(_number(environment, "SLURM_ARRAY_TASK_ID", 0)),
        node=node,
        num_nodes=num_nodes,
        head=head if num_nodes > 1 else "127.0.0.1",
    )


def scheduled_as(environment: Mapping[str, str]) -> str:
    """Returns how SLURM calls this job, "" outside of it."""
    names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    if all(name in environment for name in names):
        return "_".join(environment[name] for name in names)
    return environment.get("SLURM_JOB_ID", "")


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isdecimal():
        raise ValueError(f"{name}={value!r} must be a whole number, as SLURM sets it")
    return int(value)
