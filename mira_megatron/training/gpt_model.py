"""Megatron-core GPT models: how they are built, and their weights on disk.

Shape letters: S sequence, B batch, N attention heads, G query groups, D channels per head.
"""

from __future__ import annotations

import errno
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.validation import StrictHandling
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.nn import functional

from mira_megatron.atomic_files import write_bytes
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import current_device

VOCAB_MULTIPLE = 128  # Megatron-LM's default of --make-vocab-size-divisible-by
_CHECKPOINT_INDEX = "metadata.json"  # dist_checkpointing writes it last


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


def build_model(shape: ModelShape, vocab_size: int) -> GPTModel:
    """Returns a float32 model with random weights, on this process's device.

    The vocabulary is padded (`padded_vocab_size`); training teaches the model never to predict the
    rows past `vocab_size`, and an export cuts them off. Weights are drawn on the CPU from torch's
    seed, so that they are the same on every device. Needs `megatron_process_group`.
    """
    model = GPTModel(
        config=_transformer_config(shape),
        transformer_layer_spec=_layer_spec(),
        vocab_size=padded_vocab_size(vocab_size),
        max_sequence_length=shape.max_sequence_length,
        position_embedding_type="rope",
        rotary_base=shape.rotary_base,
        share_embeddings_and_output_weights=shape.tie_embeddings,
    )
    return model.to(current_device())


def save_checkpoint(model: GPTModel, folder: Path) -> None:
    """Writes the weights in Megatron's distributed format; `metadata.json` appears last.

    The writer spawns a helper process, so the caller's script needs a main guard. Raises ValueError
    where `folder` already holds a checkpoint, OSError (ENOSPC) where the disk is full.
    """
    if (folder / _CHECKPOINT_INDEX).exists():
        raise ValueError(f"{folder}: already holds a checkpoint. Delete it or name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        dist_checkpointing.save(model.sharded_state_dict(), str(folder))
    except CheckpointException as error:
        # Torch reports a full disk as a broken file, so the disk itself is asked.
        size_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        if shutil.disk_usage(folder).free >= size_bytes:
            raise
        raise OSError(
            errno.ENOSPC,
            f"{folder}: no space left while writing a checkpoint of {size_bytes:,} bytes. Make "
            "room and run the same command again",
        ) from error
    if distributed.get_rank() == 0:
        _forget_where_and_when(folder)


def _forget_where_and_when(folder: Path) -> None:
    """Makes torch's `.metadata` depend on the weights alone.

    Torch puts a random id and the path into it, and lists what its writer threads wrote in the
    order in which they happened to finish.
    """
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())  # written by torch a moment ago
    listed = sorted(metadata.storage_data.items(), key=lambda item: repr(item[0]))
    plain = replace(metadata, storage_meta=StorageMeta(), storage_data=dict(listed))
    write_bytes(path, pickle.dumps(plain))


def load_checkpoint(model: GPTModel, folder: Path) -> None:
    """Replaces the model's weights by the ones in `folder`, bit for bit.

    Raises FileNotFoundError where there is no finished checkpoint, ValueError where it does not fit
    the model.
    """
    if not (folder / _CHECKPOINT_INDEX).is_file():
        raise FileNotFoundError(
            f"{folder}: no {_CHECKPOINT_INDEX}, so no finished checkpoint is here. "
            "Name the folder that `mira midtrain` wrote."
        )
    try:
        weights = dist_checkpointing.load(
            model.sharded_state_dict(),
            str(folder),
            strict=StrictHandling.RAISE_ALL,  # by default, weights the model lacks are ignored
        )
    except (CheckpointingException, CheckpointException) as error:
        raise ValueError(
            f"{folder}: this checkpoint does not fit the model ({_reason(error)}). "
            "Give the shape and the vocabulary it was trained with."
        ) from error
    model.load_state_dict(weights)


def _reason(error: BaseException) -> BaseException:
    """Returns Megatron's own error: torch wraps it together with the text of its traceback."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error


def _transformer_config(shape: ModelShape) -> TransformerConfig:
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        normalization="RMSNorm",
        layernorm_epsilon=shape.layernorm_epsilon,
        gated_linear_unit=True,
        activation_func=functional.silu,
        add_bias_linear=False,
        add_qkv_bias=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=True,
    )


def _layer_spec() -> ModuleSpec:
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.self_attention.submodules.core_attention = SdpaAttention
    return spec
