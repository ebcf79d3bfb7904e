"""The models trained on a cluster, and the two bases that a scorer is made from, without a hub.

A recipe of Megatron-Bridge asks the Hugging Face hub for a model's config; ours carries it, so that
it builds without a network. Free of torch: the memory arithmetic and the preflight read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    def num_expert_parameters(self) -> int:
        """Returns the parameters of the routed experts: what expert parallelism divides."""
        config = self.hf_config
        if "num_experts" not in config:
            return 0
        matrices = 3 * config["hidden_size"] * config["moe_intermediate_size"]  # gate, up, down
        return int(config["num_hidden_layers"] * config["num_experts"] * matrices)

    @property
    def num_other_parameters(self) -> int:
        """Returns all other parameters, which every expert parallel rank holds."""
        config = self.hf_config
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        num_embeddings = 1 if config["tie_word_embeddings"] else 2  # input and output
        embeddings = num_embeddings * config["vocab_size"] * hidden
        router = hidden * config.get("num_experts", 0)
        norms = 2 * hidden
        width = 0 if "num_experts" in config else config["intermediate_size"]
        dense = 3 * hidden * width  # gate, up, down
        shared = _shared_expert_parameters(config)
        attention = _mixer_parameters(config)
        return int(embeddings + layers * (router + norms + dense + shared) + attention + hidden)

    @property
    def num_parameters(self) -> int:
        """Returns all parameters."""
        return self.num_expert_parameters + self.num_other_parameters


def _shared_expert_parameters(config: Mapping[str, Any]) -> int:
    """Returns the parameters of a layer's shared expert with its gate; 0 where there is none."""
    width = config.get("shared_expert_intermediate_size", 0)
    return int(3 * config["hidden_size"] * width + config["hidden_size"]) if width else 0


def _mixer_parameters(config: Mapping[str, Any]) -> int:
    """Returns the parameters of all layers' attention, full and linear."""
    layers = config["num_hidden_layers"]
    num_full = layers // config.get("full_attention_interval", 1)
    return int(num_full * _full_attention(config) + (layers - num_full) * _gated_delta_net(config))


def _full_attention(config: Mapping[str, Any]) -> int:
    """Returns the parameters of one layer's softmax attention: q (gated: twice), k, v, out.

    Qwen2 has a bias on q, k and v; those after it have norms on the heads of q and k instead.
    """
    hidden, head = config["hidden_size"], config["head_dim"]
    queries = config["num_attention_heads"] * head
    gated = 2 if config.get("attn_output_gate") else 1
    keys_values = 2 * config["num_key_value_heads"] * head
    is_qwen2 = config["architectures"] == ["Qwen2ForCausalLM"]
    biases_or_norms = queries + keys_values if is_qwen2 else 2 * head
    return int(hidden * (gated * queries + keys_values) + queries * hidden + biases_or_norms)


def _gated_delta_net(config: Mapping[str, Any]) -> int:
    """Returns the parameters of one layer's linear attention; 0 where the model has none."""
    if "linear_num_key_heads" not in config:
        return 0
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    heads = config["linear_num_value_heads"]
    values = heads * config["linear_value_head_dim"]
    projections = config["hidden_size"] * (2 * keys + 2 * values + 2 * heads)  # qkv, z, b and a
    convolution = (2 * keys + values) * config["linear_conv_kernel_dim"]
    rest = 2 * heads + config["linear_value_head_dim"]  # A_log, dt_bias, norm
    return int(projections + convolution + rest + values * config["hidden_size"])


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
