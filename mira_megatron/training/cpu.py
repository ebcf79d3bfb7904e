"""What megatron-core 0.16.1 takes for granted about CUDA, supplied where there is none."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from megatron.core.tensor_parallel import random as megatron_random
from megatron.core.transformer.moe import moe_utils


def patch_megatron_for_cpu() -> None:
    """Makes megatron-core's local modules run on the CPU; does nothing where CUDA is available.

    Changes torch.cuda and megatron.core for the whole process. Calling it again changes nothing.
    """
    if torch.cuda.is_available():
        return
    replacements = (
        # Rotary embeddings and buffers are moved to the "current device", which must then exist.
        (torch.cuda, "current_device", _cpu_device),
        # Saving a checkpoint waits for copies from the GPU to end.
        (torch.cuda, "synchronize", _no_wait),
        # DotProductAttention draws its dropout under the CUDA generator's state.
        (megatron_random, "_CUDA_RNG_STATE_TRACKER", _CpuRngTracker()),
        (megatron_random, "_CUDA_RNG_STATE_TRACKER_INITIALIZED", True),
        # The MoE router asks whether this is None, but it is only bound with Transformer Engine.
        (moe_utils, "te_general_gemm", getattr(moe_utils, "te_general_gemm", None)),
    )
    for module, name, value in replacements:
        setattr(module, name, value)


class _CpuRngTracker:
    """Stands in for CudaRNGStatesTracker: the CPU has one generator, so nothing is switched."""

    def fork(self, name: str = "") -> AbstractContextManager[None]:
        return nullcontext()


def _cpu_device() -> torch.device:
    return torch.device("cpu")


def _no_wait(device: object = None) -> None:
    """Nothing runs asynchronously on the CPU."""
