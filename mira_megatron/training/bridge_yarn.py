"""A dense model's provider that keeps YaRN, from config to checkpoint to export.

Needs Megatron-Bridge. In 0.3.1 YaRN gets lost of a Qwen2 twice, without a word: the bridge of Qwen2
sets plain rotary positions after YaRN was read from `rope_scaling`
(models/qwen/qwen2_bridge.py), and a checkpoint's run_config.yaml holds a provider's fields, of
which YaRN's values are none (training/utils/config_utils.py), so that an export could not build the
model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from megatron.bridge.models.gpt_provider import GPTModelProvider


@dataclass
class YarnModelProvider(GPTModelProvider):  # type: ignore[misc]  # megatron is untyped
    """A GPT with YaRN's values as fields, named as megatron-core's GPTModel looks for them."""

    position_embedding_type: Literal["learned_absolute", "rope", "yarn"] = "yarn"
    yarn_rotary_scaling_factor: float = 1.0
    yarn_original_max_position_embeddings: int = 4096
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_correction_range_round_to_int: bool = True
    # None twice: 0.1 ln(factor) + 1 on cosines and sines, as transformers has it.
    yarn_mscale: float | None = None
    yarn_mscale_all_dim: float | None = None


def with_yarn(provider: Any, scaling: Mapping[str, Any]) -> YarnModelProvider:
    """Returns the same provider with the YaRN of a config.json's `rope_scaling`.

    Raises ValueError for another kind of scaling.
    """
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind != "yarn":
        raise ValueError(f"rope_scaling={dict(scaling)!r}: only yarn can be trained, not {kind!r}")
    given = {
        field.name: getattr(provider, field.name)
        for field in fields(provider)
        if field.init and field.name != "position_embedding_type"
    }
    return YarnModelProvider(
        **given,
        yarn_rotary_scaling_factor=scaling["factor"],
        yarn_original_max_position_embeddings=scaling["original_max_position_embeddings"],
        yarn_beta_fast=scaling["beta_fast"],
        yarn_beta_slow=scaling["beta_slow"],
        yarn_correction_range_round_to_int=scaling["truncate"],
    )
