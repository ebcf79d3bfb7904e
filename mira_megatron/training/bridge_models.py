"""The models trained on a cluster, and the two bases that a scorer is made from, without a hub.

A recipe of Megatron-Bridge asks the Hugging Face hub for a model's config; ours carries it, so that
it builds without a network. Free of torch: the memory arithmetic and the preflight read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mira_megatron.training.model_sizes import ModelSizes, model_sizes
from mira_megatron.training.rank_parameters import num_parameters as count_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterModel:
    """A base model: what its config.json says, and what it takes to train it."""

    name: str  # as recipes are named
    hf_model: str  # on the hub; a local copy is given by its folder
    hf_config_class: str  # in `transformers`
    min_bridge: tuple[int, int]  # the first Megatron-Bridge that can convert and train it
    packs_gated_delta_net: bool  # has linear attention, which packs from megatron-core 0.18 on
    hf_config: Mapping[str, Any]  # of the text model

    @property
    def sizes(self) -> ModelSizes:
        """Returns the sizes of its config."""
        return model_sizes(self.hf_config, where=self.name)

    @property
    def num_expert_parameters(self) -> int:
        """Returns the parameters of the routed experts: what expert parallelism divides."""
        return count_parameters(self.sizes).experts

    @property
    def num_other_parameters(self) -> int:
        """Returns all other parameters, which every expert parallel rank holds."""
        return count_parameters(self.sizes).others

    @property
    def num_parameters(self) -> int:
        """Returns all parameters."""
        return count_parameters(self.sizes).total


# Sizes: THUDM/slime scripts/models/qwen3-30B-A3B.sh. Of the 2507 releases, which know 262,144
# positions with a rotary base of 10,000,000 (the first release: 40,960 with 1,000,000, too few for
# 65,536 tokens): NVIDIA-NeMo/Megatron-Bridge tests/functional_tests/test_groups/models/qwen/
# test_qwen3_moe_conversion.py.
QWEN3_30B_A3B = ClusterModel(
    name="qwen3_30b_a3b",
    hf_model="Qwen/Qwen3-30B-A3B-Instruct-2507",
    hf_config_class="Qwen3MoeConfig",
    min_bridge=(0, 3),
    packs_gated_delta_net=False,
    hf_config={
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001,
        "tie_word_embeddings": False,
        "vocab_size": 151936,
    },
)

# alibaba/InferSim hf_configs/qwen3.5-35B-A3B_config.json, its text_config; the same sizes in
# THUDM/slime scripts/models/qwen3.5-35B-A3B.sh. The head for multi-token prediction is left out: it
# is not trained by SFT and no engine of ours uses it.
QWEN35_35B_A3B = ClusterModel(
    name="qwen35_35b_a3b",
    hf_model="Qwen/Qwen3.5-35B-A3B-Base",
    hf_config_class="Qwen3_5MoeTextConfig",
    min_bridge=(0, 5),
    packs_gated_delta_net=True,
    hf_config={
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "attention_bias": False,
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "eos_token_id": 248044,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "layer_types": [*["linear_attention"] * 3, "full_attention"] * 10,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "moe_intermediate_size": 512,
        "num_attention_heads": 16,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000000,
            "partial_rotary_factor": 0.25,
        },
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 512,
        "tie_word_embeddings": False,
        "vocab_size": 248320,
    },
)
