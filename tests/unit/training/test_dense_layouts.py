"""The dense recipes: sizes, names, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mira_megatron.training.bridge_layouts import memory_per_gpu, require_room
from mira_megatron.training.dense_layouts import (
    INSTRUCT_SFT,
    MIDTRAIN,
    RECIPES,
    find_dense_recipe,
)
from mira_megatron.training.dense_models import (
    QWEN25_CODER_1P5B,
    QWEN25_CODER_14B,
    at_length,
)
from mira_megatron.training.memory import GPU_GB, RESERVED_GB


def test_parameters_are_those_that_transformers_counts() -> None:
    # sum(p.numel()) of Qwen2ForCausalLM of these configs; the cards say 14.7B and 1.54B.
    counts = [model.num_parameters for model in (QWEN25_CODER_14B, QWEN25_CODER_1P5B)]
    assert counts == [14_770_033_664, 1_543_714_304]
    assert QWEN25_CODER_14B.num_expert_parameters == 0


def test_recipes_are_named_as_bridge_names_its_own() -> None:
    assert "qwen25_coder_14b_midtrain_64gpu_h200_bf16_config" in RECIPES
    lengths = {"_128k_" in name: recipe.sequence_length for name, recipe in RECIPES.items()}
    assert lengths == {False: 32768, True: 131072}
    assert len([name for name in RECIPES if "_midtrain_" in name]) == 10
    assert all(recipe.name == name for name, recipe in RECIPES.items())


def test_tokens_of_a_step_are_the_same_on_any_gpus() -> None:
    tokens = {
        (recipe.task, recipe.model.name, recipe.sequence_length * recipe.layout.global_batch_size)
        for recipe in RECIPES.values()
    }
    assert tokens == {
        (MIDTRAIN, "qwen25_coder_14b", 4_194_304),
        (MIDTRAIN, "qwen25_coder_1p5b", 1_048_576),
        (INSTRUCT_SFT, "qwen25_coder_14b", 1_048_576),
        (INSTRUCT_SFT, "qwen25_coder_1p5b", 1_048_576),
    }


def test_memory_is_divided_as_megatron_divides_it() -> None:
    recipe = RECIPES["qwen25_coder_14b_midtrain_64gpu_h200_bf16_config"]  # TP 2, CP 4
    memory = memory_per_gpu(recipe.model, recipe.layout, 32768)
    norms = (2 * 48 + 1) * 5120  # which every GPU holds whole
    half = (14_770_033_664 + norms) / 2
    assert memory.weights == pytest.approx(2 * half / 1e9)
    assert memory.gradients == pytest.approx(4 * half / 1e9)
    assert memory.optimizer == pytest.approx(12 * half / 32 / 1e9)
    assert memory.logits == pytest.approx(6 * 4096 * 152_064 / 1e9)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_has_room_and_its_heads_can_be_cut(name: str) -> None:
    recipe = RECIPES[name]
    memory = memory_per_gpu(recipe.model, recipe.layout, recipe.sequence_length)
    assert memory.total <= GPU_GB[recipe.layout.gpu] - RESERVED_GB
    values, tensor = recipe.model.hf_config, recipe.layout.tensor_parallel
    for size in ("num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size"):
        assert values[size] % tensor == 0
    assert recipe.sequence_length % (2 * recipe.layout.context_parallel) == 0


def test_step_without_room_is_refused() -> None:
    recipe = RECIPES["qwen25_coder_14b_midtrain_8gpu_h100_bf16_config"]
    layout = replace(recipe.layout, tensor_parallel=2, context_parallel=4)
    with pytest.raises(ValueError, match="takes about 73 GB of a GPU's 72 usable GB"):
        require_room(recipe.model, layout, 32768)


def test_recipe_of_another_task_is_not_found() -> None:
    name = "qwen25_coder_14b_midtrain_8gpu_h100_bf16_config"
    assert find_dense_recipe(name, MIDTRAIN).num_nodes == 1
    with pytest.raises(ValueError, match=f"there is no instruct_sft recipe '{name}'"):
        find_dense_recipe(name, INSTRUCT_SFT)


def test_model_beyond_its_own_context_has_the_card_s_yarn() -> None:
    assert at_length(QWEN25_CODER_14B, 32768) is QWEN25_CODER_14B
    long = at_length(QWEN25_CODER_14B, 65536).hf_config
    assert long["max_position_embeddings"] == 131072
    scaling = long["rope_scaling"]
    assert (scaling["factor"], scaling["original_max_position_embeddings"]) == (4.0, 32768)
    with pytest.raises(ValueError, match="reaches 131,072 tokens"):
        at_length(QWEN25_CODER_14B, 262144)
