"""The process group that megatron-core expects, for as long as a `with` block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from megatron.core import parallel_state
from torch import distributed

from mira_megatron.training.cpu import patch_megatron_for_cpu


@contextmanager
def megatron_process_group(
    *,
    rank: int = 0,
    world_size: int = 1,
    local_rank: int = 0,
    master_address: str | None = None,
    master_port: int | None = None,
) -> Iterator[None]:
    """Sets up torch.distributed and Megatron's data-parallel state, and removes both at the end.

    The defaults are one process, which needs neither an address nor a port. For several, pass what
    torchrun puts into the environment. Backend: nccl on `local_rank`'s GPU, gloo on the CPU.
    """
    if world_size > 1 and (master_address is None or master_port is None):
        raise ValueError(
            f"world_size={world_size} needs master_address and master_port "
            f"(got {master_address} and {master_port}); torchrun sets MASTER_ADDR and MASTER_PORT"
        )
    patch_megatron_for_cpu()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if world_size == 1:
        store = distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    else:
        address = f"tcp://{master_address}:{master_port}"
        distributed.init_process_group(backend, address, rank=rank, world_size=world_size)
    try:
        parallel_state.initialize_model_parallel()
        yield
    finally:
        parallel_state.destroy_model_parallel()
        distributed.destroy_process_group()


def process_group_of_torchrun(environ: Mapping[str, str]) -> AbstractContextManager[None]:
    """Returns the `megatron_process_group` that torchrun's variables describe.

    One process where RANK is not set. Raises ValueError for a variable that torchrun would have set
    and that is missing or no number.
    """
    if "RANK" not in environ:
        return megatron_process_group()
    return megatron_process_group(
        rank=_number(environ, "RANK"),
        world_size=_number(environ, "WORLD_SIZE"),
        local_rank=_number(environ, "LOCAL_RANK"),
        master_address=environ.get("MASTER_ADDR"),
        master_port=_number(environ, "MASTER_PORT"),
    )


def _number(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name, "")
    if not value.isdecimal():
        raise ValueError(
            f"RANK is set, so {name} must be a number, got {value!r}. Start with torchrun, which "
            "sets both, or unset RANK to run one process."
        )
    return int(value)


def current_device() -> torch.device:
    """Returns the device that tensors go to: this process's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def sum_over_processes(*values: float) -> list[float]:
    """Returns each value summed over the data-parallel processes, in float64."""
    total = torch.tensor(values, dtype=torch.float64, device=current_device())
    distributed.all_reduce(total, group=parallel_state.get_data_parallel_group())
    sums: list[float] = total.tolist()
    return sums
