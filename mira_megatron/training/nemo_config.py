"""A scorer's training as a NeMo 2.7 fine-tune recipe: the adapter for those who still run NeMo.

NeMo 2.7.3 is the last release with `nemo.collections.llm` and knows Qwen3-30B-A3B, not Qwen3.5. Its
packing cannot pad a sample to what context parallelism cuts, so samples are not packed here:
Megatron-Bridge (bridge_config.py) is the better way where there is a choice.
"""

from __future__ import annotations

from typing import Any

import nemo_run as run
from megatron.core.distributed import DistributedDataParallelConfig
from nemo.collections import llm
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.recipes import qwen3_30b_a3b

from mira_megatron.distill.chatml import END
from mira_megatron.distill.sft_files import BRIDGE_DATASET_KWARGS
from mira_megatron.training.bridge_layouts import ClusterLayout, require_room
from mira_megatron.training.bridge_models import QWEN3_30B_A3B
from mira_megatron.training.bridge_settings import ScorerSftPaths, ScorerSftSettings

_GPUS_PER_NODE = 8


def nemo_scorer_sft(
    layout: ClusterLayout, settings: ScorerSftSettings, paths: ScorerSftPaths
) -> run.Partial:
    """Returns NeMo's own fine-tune recipe of Qwen3-30B-A3B with a source group's data.

    Raises ValueError where a step would not fit into a GPU, or the layout keeps its optimizer state
    in bfloat16, which NeMo's recipe does not do.
    """
    require_room(QWEN3_30B_A3B, layout, settings.sequence_length)
    if not layout.full_precision_state:
        raise ValueError(f"{layout.name}: with NeMo use a layout with full_precision_state=True")
    recipe = qwen3_30b_a3b.finetune_recipe(
        dir=paths.checkpoints,
        name="scorer_sft",
        num_nodes=layout.num_gpus // _GPUS_PER_NODE,
        num_gpus_per_node=_GPUS_PER_NODE,
        peft_scheme=None,  # every parameter
    )
    recipe.data = data_module(layout, settings, paths)
    recipe.tokenizer = "data"
    recipe.resume.restore_config.path = paths.base
    _set_model(recipe, settings)
    _set_trainer(recipe, layout, settings)
    _set_optimizer(recipe, settings)
    return recipe


def data_module(
    layout: ClusterLayout, settings: ScorerSftSettings, paths: ScorerSftPaths
) -> run.Config:
    """Returns the input/output data, with loss on the outputs only."""
    return run.Config(
        llm.FineTuningDataModule,
        dataset_root=paths.data,
        seq_length=settings.sequence_length,
        tokenizer=run.Config(
            AutoTokenizer, pretrained_model_name=paths.tokenizer, eos_token=END, use_fast=True
        ),
        micro_batch_size=1,
        global_batch_size=layout.global_batch_size,
        seed=settings.seed,
        dataset_kwargs={
            **BRIDGE_DATASET_KWARGS,
            "pad_seq_length_to_mult": 2 * layout.context_parallel,
        },
    )


def _set_model(recipe: Any, settings: ScorerSftSettings) -> None:
    config = recipe.model.config
    config.seq_length = settings.sequence_length
    config.rotary_base = QWEN3_30B_A3B.hf_config["rope_theta"]
    config.calculate_per_token_loss = True
    config.recompute_granularity = "full"
    config.recompute_method = "uniform"
    config.recompute_num_layers = 1
    config.moe_grouped_gemm = True
    config.moe_token_dispatcher_type = "alltoall"
    config.moe_router_dtype = "fp32"
    config.moe_aux_loss_coeff = settings.moe_aux_loss_coeff


def _set_trainer(recipe: Any, layout: ClusterLayout, settings: ScorerSftSettings) -> None:
    strategy = recipe.trainer.strategy
    strategy.tensor_model_parallel_size = layout.tensor_parallel
    strategy.pipeline_model_parallel_size = layout.pipeline_parallel
    strategy.context_parallel_size = layout.context_parallel
    strategy.expert_model_parallel_size = layout.expert_parallel
    strategy.expert_tensor_parallel_size = 1
    strategy.sequence_parallel = layout.tensor_parallel > 1
    strategy.ddp = run.Config(
        DistributedDataParallelConfig,
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        average_in_collective=False,
        check_for_nan_in_grad=True,
    )
    recipe.trainer.max_steps = settings.num_steps
    recipe.trainer.val_check_interval = settings.validate_every_steps
    recipe.trainer.limit_val_batches = settings.num_validation_steps


def _set_optimizer(recipe: Any, settings: ScorerSftSettings) -> None:
    config = recipe.optim.config
    config.lr = settings.learning_rate
    config.weight_decay = settings.weight_decay
    config.adam_beta2 = settings.adam_beta2
    config.adam_eps = 1e-8
    config.clip_grad = settings.clip_grad
    schedule = recipe.optim.lr_scheduler
    schedule.warmup_steps = round(settings.num_steps * settings.warmup_fraction)
    schedule.min_lr = settings.min_learning_rate
    recipe.log.ckpt.every_n_train_steps = settings.save_every_steps
    recipe.log.ckpt.save_top_k = settings.keep_checkpoints
