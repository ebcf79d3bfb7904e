from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mira_megatron.training.bridge_layouts import (
    H100_8,
    H200_8,
    H200_64,
    LAYOUTS,
    MODELS,
    find_recipe,
    memory_per_gpu,
    recipe_name,
    require_room,
)
from mira_megatron.training.bridge_models import QWEN3_30B_A3B, QWEN35_35B_A3B
from mira_megatron.training.bridge_versions import release, require_bridge


def test_weights_are_an_eighth_of_the_experts_and_all_of_the_rest() -> None:
    memory = memory_per_gpu(QWEN3_30B_A3B, H200_8, 65_536)
    experts, others = 28_991_029_248 / 8, 1_541_093_376
    assert memory.weights == pytest.approx(2 * (experts + others) / 1e9)
    assert memory.gradients == pytest.approx(4 * (experts + others) / 1e9)
    assert memory.optimizer == pytest.approx(12 * (experts + others / 8) / 1e9)


def test_optimizer_state_of_experts_is_sharded_over_their_copies() -> None:
    memory = memory_per_gpu(QWEN3_30B_A3B, H200_64, 65_536)
    experts, others = 28_991_029_248 / 8, 1_541_093_376
    assert memory.optimizer == pytest.approx(12 * (experts / 8 + others / 64) / 1e9)


def test_larger_model_has_no_room_on_one_node_of_h100() -> None:
    with pytest.raises(ValueError, match="takes about 78 GB of a GPU's 72 usable GB"):
        require_room(QWEN35_35B_A3B, H100_8, 65_536)


def test_every_other_recipe_has_room_for_65536_tokens() -> None:
    fitting = [
        recipe_name(model, layout)
        for model in MODELS
        for layout in LAYOUTS
        if memory_per_gpu(model, layout, 65_536).fits(layout.gpu)
    ]
    assert len(fitting) == 7
    assert find_recipe("qwen3_30b_a3b_scorer_sft_8gpu_h100_bf16_config") == (QWEN3_30B_A3B, H100_8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_gpus": 12}, "num_gpus=12 must be a multiple of tensor x pipeline x context"),
        ({"expert_parallel": 16}, "num_gpus=8 must be a multiple of expert x pipeline"),
        ({"gpu": "a100"}, "gpu='a100' must be one of h200, h100"),
    ],
)
def test_layout_that_cannot_be_says_which_sizes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(H200_8, **change)


def test_layout_whose_batch_cannot_be_shared_out_says_so() -> None:
    with pytest.raises(ValueError, match="global_batch_size=12 must be a multiple of the data"):
        replace(H200_64, global_batch_size=12)


def test_release_numbers_are_read_up_to_the_first_letter() -> None:
    assert release("0.18.0rc2") == (0, 18, 0)
    with pytest.raises(ValueError, match="does not begin with a number"):
        release("main")


def test_bridge_that_is_too_old_says_how_to_get_another() -> None:
    with pytest.raises(ValueError, match=r"PyPI ends at 0\.3\.1.*tag v0\.5\.0"):
        require_bridge(QWEN35_35B_A3B, "0.3.1")
    require_bridge(QWEN35_35B_A3B, "0.5.1")
