"""On how many threads torch computes; apart from cpu.py, which imports megatron-core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Has torch compute on that many threads of the CPU until the block ends; None changes nothing.

    Sums of floats depend on how many there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
