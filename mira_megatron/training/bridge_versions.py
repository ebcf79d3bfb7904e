"""Which Megatron-Bridge can train which model. Free of Bridge itself."""

from __future__ import annotations

import re

from mira_megatron.training.bridge_models import ClusterModel


def release(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version: "0.18.0rc2" -> (0, 18, 0).

    Raises ValueError where it does not begin with a number.
    """
    match = re.match(r"\d+(\.\d+)*", version)
    if match is None:
        raise ValueError(f"version {version!r} does not begin with a number")
    return tuple(int(part) for part in match.group().split("."))


def require_bridge(model: ClusterModel, installed: str) -> None:
    """Raises ValueError where the installed Megatron-Bridge cannot train the model."""
    if release(installed)[:2] < model.min_bridge:
        raise ValueError(too_old(model, installed))


def too_old(model: ClusterModel, installed: str) -> str:
    """Returns what is installed, what is needed, and how to get it."""
    needed = ".".join(str(part) for part in model.min_bridge)
    return (
        f"{model.name} needs Megatron-Bridge >= {needed}, and {installed} is installed. PyPI ends "
        "at 0.3.1: use an NGC container nvcr.io/nvidia/nemo of that release or later, or install "
        f"github.com/NVIDIA-NeMo/Megatron-Bridge at tag v{needed}.0 or later with its submodules "
        "(Python 3.12). With 0.3.1, train qwen3_30b_a3b."
    )
