"""Megatron-core's own GPTModel of one rank of a large world, on the meta device: sizes, no memory.

The world is torch's fake one: a process group of any size in one process that moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from mira_megatron.training.cpu import patch_megatron_for_cpu
from mira_megatron.training.gpt_model import layer_spec, transformer_config
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.rank_parameters import ParallelSplit


@contextmanager
def fake_world(
    split: ParallelSplit, *, rank: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Sets up Megatron's process groups as rank `rank` of a split's world sees them."""
    patch_megatron_for_cpu()
    # Buffers are made on the current device; tied embeddings are sent to the GPU to be summed.
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.device("meta"))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=split.num_gpus)
    try:
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=split.tensor,
            pipeline_model_parallel_size=split.pipeline,
            context_parallel_size=split.context,
            expert_model_parallel_size=split.expert,
            expert_tensor_parallel_size=1,
            create_gloo_process_groups=False,
        )
        yield
    finally:
        parallel_state.destroy_model_parallel()
        distributed.destroy_process_group()


def build_rank(shape: ModelShape, vocab_size: int, split: ParallelSplit) -> GPTModel:
    """Returns the part of a model that this rank of the fake world holds, without its values.

    Its config says nothing of context and sequence parallelism, which torch's attention and norms
    refuse: neither changes which parameters there are, and the process groups know the former.
    """
    config = replace(
        transformer_config(shape, dtype=torch.bfloat16, with_transformer_engine=False),
        tensor_model_parallel_size=split.tensor,
        pipeline_model_parallel_size=split.pipeline,
        pipeline_dtype=torch.bfloat16,
        expert_model_parallel_size=split.expert,
        expert_tensor_parallel_size=1,
        perform_initialization=False,
    )
    multiple = split.vocab_multiple * split.tensor
    with torch.device("meta"):
        return GPTModel(
            config=config,
            transformer_layer_spec=layer_spec(shape, with_transformer_engine=False),
            vocab_size=-(-vocab_size // multiple) * multiple,
            max_sequence_length=shape.max_sequence_length,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            position_embedding_type="rope",
            rotary_base=shape.rotary_base,
            share_embeddings_and_output_weights=shape.tie_embeddings,
        )


def state_bytes(model: GPTModel) -> tuple[int, int]:
    """Returns the bytes of gradients, and those of Adam's float32 state of this rank's shard.

    Taken from the buffers that Megatron's own DistributedDataParallel makes for its distributed
    optimizer: 12 bytes for each gradient of the shard.
    """
    ddp = DistributedDataParallel(
        config=model.config,
        ddp_config=DistributedDataParallelConfig(
            use_distributed_optimizer=True, grad_reduce_in_fp32=True, overlap_grad_reduce=False
        ),
        module=model,
    )
    buffers = [*ddp.buffers, *ddp.expert_parallel_buffers]
    gradients = sum(buffer.grad_data.nbytes for buffer in buffers)
    shards = sum(buffer.grad_data.numel() // buffer.data_parallel_world_size for buffer in buffers)
    return gradients, 12 * shards
