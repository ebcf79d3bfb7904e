"""GPU-hours from operations: parameters, tokens, and how much of a GPU's peak is used.

A token takes 2 operations per parameter on the way forward and 4 on the way back (Kaplan et al.
2020, arXiv 2001.08361, section 2.1): 6 to train on it, 2 to be predicted. What is recomputed and
attention's own part are left to the utilisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron.written_numbers import short

# Dense BF16 operations a second of one GPU: NVIDIA's data sheets of H100 SXM and H200 SXM say
# 1,979 teraFLOPS with sparsity, which is twice as many.
PEAK_FLOPS = {"h100": 989e12, "h200": 989e12}
SECONDS_PER_HOUR = 3600
_TRAINING, _FORWARD = 6, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuHours:
    """Hours of one GPU; None where they are not known, with what they rest on or lack.

    Of a model that is asked also how much: None where it is not known, or where none is asked.
    """

    value: float | None
    basis: str
    requests: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None


def training_gpu_hours(parameters: float, tokens: float, gpu: str, mfu: float) -> float:
    """Returns the hours of one GPU that a training over so many tokens takes."""
    return _TRAINING * parameters * tokens / (PEAK_FLOPS[gpu] * mfu) / SECONDS_PER_HOUR


def trained(parameters: float, tokens: float, gpu: str, mfu: float, of: str) -> GpuHours:
    """Returns a training's hours; `of` says in words which tokens they are."""
    return GpuHours(
        value=training_gpu_hours(parameters, tokens, gpu, mfu),
        basis=_basis(_TRAINING, parameters, tokens, gpu, mfu, of),
    )


def predicted(parameters: float, tokens: float, gpu: str, mfu: float, of: str) -> GpuHours:
    """Returns the hours of predicting tokens, of which nothing is learnt."""
    seconds = _FORWARD * parameters * tokens / (PEAK_FLOPS[gpu] * mfu)
    return GpuHours(
        value=seconds / SECONDS_PER_HOUR,
        basis=_basis(_FORWARD, parameters, tokens, gpu, mfu, of),
        prompt_tokens=tokens,
    )


def _basis(operations: int, parameters: float, tokens: float, gpu: str, mfu: float, of: str) -> str:
    return (
        f"{operations} x {short(parameters)} parameters x {short(tokens)} tokens ({of}) at "
        f"{PEAK_FLOPS[gpu] / 1e12:.0f} TFLOP/s x {mfu:g}"
    )
