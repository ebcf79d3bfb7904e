"""A training as a Megatron-Bridge ConfigContainer, and a scorer's: full-parameter SFT, bfloat16.

Needs Megatron-Bridge (`requirements/bridge.txt`): 0.3.1 for Qwen3-30B-A3B, 0.5 for Qwen3.5-35B-A3B.
`scorer_sft_config` is pure: no network, environment or clock.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import transformers
from megatron.bridge import AutoBridge, __version__
from megatron.bridge.data.datasets.packed_sequence import PackedSequenceSpecs
from megatron.bridge.training import config as bridge
from megatron.bridge.training.mixed_precision import MixedPrecisionConfig, bf16_mixed
from megatron.bridge.training.tokenizers.config import TokenizerConfig

from mira_megatron.distill.chatml import END
from mira_megatron.distill.sft_files import BRIDGE_DATASET_KWARGS
from mira_megatron.training.bridge_layouts import ClusterLayout, require_room
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_packed import PackedSamples
from mira_megatron.training.bridge_settings import (
    ScorerSftPaths,
    ScorerSftSettings,
    TrainingChoices,
)
from mira_megatron.training.bridge_versions import require_bridge

# Equal shapes, which context parallelism can cut; the rest makes our ids and our loss mask.
DATASET_SETTINGS = {**BRIDGE_DATASET_KWARGS, "pad_to_max_length": True}


def scorer_sft_config(
    model: ClusterModel,
    layout: ClusterLayout,
    settings: ScorerSftSettings,
    paths: ScorerSftPaths,
) -> Any:
    """Returns the ConfigContainer of a scorer's training.

    Raises ValueError where the installed Megatron-Bridge is too old for the model, a sample cannot
    be cut evenly, or a step would not fit into a GPU.
    """
    require_bridge(model, __version__)
    check_cut(layout, settings.sequence_length)
    require_room(model, layout, settings.sequence_length)
    return container(
        layout,
        settings,
        model=model_provider(model, layout, settings),
        dataset=dataset_config(layout, settings, paths),
        tokenizer=tokenizer_config(paths.tokenizer),
        checkpoint=checkpoint_config(settings, paths.checkpoints, paths.base),
        tensorboard=paths.tensorboard,
    )


def container(
    layout: ClusterLayout,
    settings: TrainingChoices,
    *,
    model: Any,
    dataset: Any,
    tokenizer: TokenizerConfig,
    checkpoint: Any,
    tensorboard: str,
) -> Any:
    """Returns the ConfigContainer of a training in bfloat16 with Adam and a cosine schedule."""
    evaluation = {
        "eval_interval": settings.validate_every_steps,
        "eval_iters": settings.num_validation_steps,
    }
    sections: dict[str, Any] = {}
    if _has_validation_section():  # Bridge 0.4 moved these two out of the section `train`
        sections["validation"] = bridge.ValidationConfig(**evaluation)
        evaluation = {}
    return bridge.ConfigContainer(
        model=model,
        train=_train(layout, settings, evaluation),
        optimizer=_optimizer(layout, settings),
        scheduler=_scheduler(settings),
        ddp=_ddp(layout),
        dataset=dataset,
        logger=bridge.LoggerConfig(log_interval=1, tensorboard_dir=tensorboard),
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        rng=bridge.RNGConfig(seed=settings.seed),
        mixed_precision=_precision(layout),
        **sections,
    )


def model_provider(model: ClusterModel, layout: ClusterLayout, settings: ScorerSftSettings) -> Any:
    """Returns Bridge's model provider of a mixture of experts."""
    provider = plain_provider(model, layout, settings.sequence_length)
    provider.moe_grouped_gemm = True
    provider.moe_token_dispatcher_type = "alltoall"
    provider.moe_flex_dispatcher_backend = None
    provider.moe_router_dtype = "fp32"
    provider.moe_aux_loss_coeff = settings.moe_aux_loss_coeff
    return provider


def plain_provider(model: ClusterModel, layout: ClusterLayout, sequence_length: int) -> Any:
    """Returns Bridge's model provider, made from the architecture that we carry."""
    hf_config = getattr(transformers, model.hf_config_class)(**model.hf_config)
    provider = AutoBridge.from_hf_config(hf_config).to_megatron_provider(load_weights=False)
    provider.tensor_model_parallel_size = layout.tensor_parallel
    provider.pipeline_model_parallel_size = layout.pipeline_parallel
    provider.context_parallel_size = layout.context_parallel
    provider.expert_model_parallel_size = layout.expert_parallel
    provider.expert_tensor_parallel_size = 1
    provider.sequence_parallel = layout.tensor_parallel > 1
    provider.seq_length = sequence_length
    provider.calculate_per_token_loss = True  # ranks that hold no answer token must not weigh in
    provider.transformer_impl = "transformer_engine"
    provider.cross_entropy_loss_fusion = True
    provider.cross_entropy_fusion_impl = "te"  # in place: 65,536 rows of logits are large
    provider.recompute_granularity = "full"
    provider.recompute_method = "uniform"
    provider.recompute_num_layers = 1
    return provider


def tokenizer_config(folder: str) -> TokenizerConfig:
    """Returns the real tokenizer, its end of text being what an answer ends with.

    Bridge pads packed samples with the end of text and takes the loss from wherever it is read: a
    base model's own <|endoftext|> there would train one token more than the answer.
    """
    return TokenizerConfig(
        tokenizer_type="HuggingFaceTokenizer",
        tokenizer_model=folder,
        hf_tokenizer_kwargs={"use_fast": True, "eos_token": END},
    )


def dataset_config(layout: ClusterLayout, settings: TrainingChoices, paths: ScorerSftPaths) -> Any:
    """Returns the input/output data, packed, with loss on the outputs only."""
    return PackedSamples(
        dataset_root=Path(paths.data),
        seq_length=settings.sequence_length,
        seed=settings.seed,
        packed_sequence_specs=PackedSequenceSpecs(
            packed_sequence_size=settings.sequence_length,
            pad_seq_to_mult=_cut(layout),
        ),
        max_train_samples=settings.num_steps * layout.global_batch_size,
        dataset_kwargs=dict(DATASET_SETTINGS),
        do_validation=True,
        do_test=False,
        dataloader_type="batch",
        num_workers=2,
    )


def _train(layout: ClusterLayout, settings: TrainingChoices, evaluation: dict[str, int]) -> Any:
    return bridge.TrainingConfig(
        train_iters=settings.num_steps,
        global_batch_size=layout.global_batch_size,
        micro_batch_size=1,  # one packed sample; Bridge refuses more
        manual_gc=True,  # collected at the same step on every rank
        manual_gc_interval=100,
        exit_signal_handler=True,  # SIGTERM: save, then end
        **evaluation,
    )


def _optimizer(layout: ClusterLayout, settings: TrainingChoices) -> Any:
    moments = torch.float32 if layout.full_precision_state else torch.bfloat16
    return bridge.OptimizerConfig(
        optimizer="adam",
        lr=settings.learning_rate,
        min_lr=settings.min_learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=0.9,
        adam_beta2=settings.adam_beta2,
        adam_eps=1e-8,
        clip_grad=settings.clip_grad,
        bf16=True,
        use_distributed_optimizer=True,
        use_precision_aware_optimizer=not layout.full_precision_state,
        main_grads_dtype=moments,
        main_params_dtype=torch.float32,
        exp_avg_dtype=moments,
        exp_avg_sq_dtype=moments,
    )


def _scheduler(settings: TrainingChoices) -> Any:
    return bridge.SchedulerConfig(
        lr_decay_style="cosine",
        lr_warmup_iters=round(settings.num_steps * settings.warmup_fraction),
        lr_decay_iters=settings.num_steps,
        start_weight_decay=settings.weight_decay,
        end_weight_decay=settings.weight_decay,
        weight_decay_incr_style="constant",
    )


def _ddp(layout: ClusterLayout) -> Any:
    return bridge.DistributedDataParallelConfig(
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=layout.full_precision_state,
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        average_in_collective=False,  # the loss is per token
        check_for_nan_in_grad=True,
    )


def _precision(layout: ClusterLayout) -> MixedPrecisionConfig:
    precision = bf16_mixed()
    precision.grad_reduce_in_fp32 = layout.full_precision_state
    return precision


def checkpoint_config(settings: TrainingChoices, checkpoints: str, base: str) -> Any:
    """Returns where a training starts, from imported weights or its own newest, and saves."""
    return bridge.CheckpointConfig(
        save=checkpoints,
        load=checkpoints,  # where there is one, training goes on from it
        pretrained_checkpoint=base,
        save_interval=settings.save_every_steps,
        most_recent_k=settings.keep_checkpoints,
        ckpt_format="torch_dist",
        fully_parallel_save=True,
    )


def _cut(layout: ClusterLayout) -> int:
    """Returns what a sample's length is padded to: two pieces for every context parallel rank."""
    return 2 * layout.context_parallel if layout.context_parallel > 1 else 1


def check_cut(layout: ClusterLayout, sequence_length: int) -> None:
    """Raises ValueError for a length that context parallelism cannot cut evenly."""
    if sequence_length % _cut(layout):
        raise ValueError(
            f"sequence_length={sequence_length} must be a multiple of {_cut(layout)}: context "
            f"parallel size {layout.context_parallel} cuts every sample into that many pieces"
        )


def _has_validation_section() -> bool:
    return any(field.name == "validation" for field in fields(bridge.ConfigContainer))
