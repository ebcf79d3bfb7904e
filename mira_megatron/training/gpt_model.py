"""Megatron-core GPT models.

Shape letters: S sequence, B batch, N attention heads, G query groups, D channels per head.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.moe.moe_utils import get_moe_layer_wise_logging_tracker
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn import functional

from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import current_device

VOCAB_MULTIPLE = 128  # Megatron-LM's default of --make-vocab-size-divisible-by


class SdpaAttention(DotProductAttention):  # type: ignore[misc]  # megatron-core ships no types
    """Megatron's core attention computed by torch's fused kernel: less memory, and no CUDA needed.

    The stock forward pass builds a missing causal mask on a device it names "cuda".
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: object | None = None,
    ) -> Tensor:
        """Returns the context, [S, B, N*D], of a query [S, B, N, D] and key and value [S, B, G, D].

        A mask is Megatron's, True = hidden, and is then the whole truth (it also separates
        documents where reset_attention_mask is on). None means causal.
        """
        assert attention_bias is None, "no model built here has one"
        assert packed_seq_params is None, "no model built here has one"
        context_BNSD = functional.scaled_dot_product_attention(
            query.permute(1, 2, 0, 3),
            key.permute(1, 2, 0, 3),
            value.permute(1, 2, 0, 3),
            attn_mask=None if attention_mask is None else ~attention_mask,
            is_causal=attention_mask is None,
            scale=self.softmax_scale,
            enable_gqa=True,
        )
        return context_BNSD.permute(2, 0, 1, 3).flatten(2)


def padded_vocab_size(vocab_size: int) -> int:
    """Returns the rows of the embedding: `vocab_size` rounded up to a multiple of 128."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def build_model(
    shape: ModelShape, vocab_size: int, *, dtype: torch.dtype = torch.float32
) -> GPTModel:
    """Returns a model with random weights of type `dtype`, on this process's device.

    The vocabulary is padded (`padded_vocab_size`); training teaches the model never to predict the
    rows past `vocab_size`, and an export cuts them off. Weights are drawn on the CPU from torch's
    seed, so that they are the same on every device (but for Transformer Engine's experts, which are
    drawn on the GPU). Needs `megatron_process_group`.
    """
    # Megatron sums each layer's balancing loss in one list per process, as long as its first model.
    get_moe_layer_wise_logging_tracker().clear()
    with_transformer_engine = has_transformer_engine()
    model = GPTModel(
        config=transformer_config(
            shape, dtype=dtype, with_transformer_engine=with_transformer_engine
        ),
        transformer_layer_spec=layer_spec(shape, with_transformer_engine=with_transformer_engine),
        vocab_size=padded_vocab_size(vocab_size),
        max_sequence_length=shape.max_sequence_length,
        position_embedding_type="rope",
        rotary_base=shape.rotary_base,
        share_embeddings_and_output_weights=shape.tie_embeddings,
    )
    return model.to(current_device(), dtype)  # torch's norms know nothing of params_dtype


def has_transformer_engine() -> bool:
    """Returns whether Transformer Engine's layers can be used: it is installed and CUDA is here."""
    return bool(gpt_layer_specs.HAVE_TE) and torch.cuda.is_available()


def layer_spec(shape: ModelShape, *, with_transformer_engine: bool) -> ModuleSpec:
    """Returns what a layer is made of; attention is torch's in either case.

    Transformer Engine's attention takes a causal mask type at its word and ignores the mask that
    separates documents.
    """
    if with_transformer_engine:
        spec = gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec(
            num_experts=shape.num_moe_experts,
            moe_grouped_gemm=shape.is_moe,
            qk_layernorm=shape.is_moe,
        )
    else:
        spec = gpt_layer_specs.get_gpt_layer_local_spec(
            num_experts=shape.num_moe_experts,
            qk_layernorm=shape.is_moe,
            normalization="RMSNorm",
        )
    spec.submodules.self_attention.submodules.core_attention = SdpaAttention
    return spec


def transformer_config(
    shape: ModelShape, *, dtype: torch.dtype, with_transformer_engine: bool
) -> TransformerConfig:
    """Returns Megatron's settings of a Qwen2 or Qwen3-MoE of this shape."""
    experts = _expert_settings(shape, with_transformer_engine) if shape.is_moe else {}
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.kv_channels,
        normalization="RMSNorm",
        layernorm_epsilon=shape.layernorm_epsilon,
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        add_qkv_bias=not shape.is_moe,
        qk_layernorm=shape.is_moe,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=True,
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        **experts,
    )


def _expert_settings(shape: ModelShape, with_transformer_engine: bool) -> dict[str, Any]:
    return {
        "num_moe_experts": shape.num_moe_experts,
        "moe_router_topk": shape.moe_router_topk,
        "moe_ffn_hidden_size": shape.moe_ffn_hidden_size,
        "moe_aux_loss_coeff": shape.moe_aux_loss_coeff,
        "moe_router_load_balancing_type": "aux_loss",
        # Softmax over the chosen experts only: Hugging Face's norm_topk_prob.
        "moe_router_pre_softmax": False,
        "moe_router_dtype": "fp32",  # bfloat16 cannot tell close experts apart
        "moe_token_dispatcher_type": "allgather",
        "moe_grouped_gemm": with_transformer_engine,
    }
