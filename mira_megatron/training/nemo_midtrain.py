"""Mid-training on a blend as a NeMo 2.7 pre-train recipe: for those who still run NeMo.

NeMo 2.7.3 knows Qwen2.5-14B and 1.5B, which Qwen2.5-Coder are too; it has no YaRN, so samples are
at most 32,768 tokens. As with Megatron-Bridge attention goes across the documents of a sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nemo_run as run
from megatron.core.distributed import DistributedDataParallelConfig
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.recipes import qwen25_1p5b, qwen25_14b
from nemo.lightning import AutoResume, RestoreConfig

from mira_megatron.training.bridge_layouts import require_room
from mira_megatron.training.bridge_settings import MidtrainChoices, MidtrainPaths
from mira_megatron.training.dense_layouts import GPUS_PER_NODE, DenseRecipe
from mira_megatron.training.dense_models import (
    END_OF_DOCUMENT,
    OWN_CONTEXT,
    QWEN25_CODER_1P5B,
    QWEN25_CODER_14B,
)
from mira_megatron.training.nemo_blend import blend_data

_NEMO_RECIPES = {
    QWEN25_CODER_14B.name: qwen25_14b.pretrain_recipe,
    QWEN25_CODER_1P5B.name: qwen25_1p5b.pretrain_recipe,
}


def nemo_midtrain(
    recipe: DenseRecipe, choices: MidtrainChoices, paths: MidtrainPaths, num_steps: int
) -> run.Partial:
    """Returns NeMo's own pre-train recipe of Qwen2.5 with a blend's data and a base's weights.

    Raises ValueError for samples longer than the model's own context, and where a step would not
    fit into a GPU.
    """
    if recipe.sequence_length > OWN_CONTEXT:
        raise ValueError(
            f"{recipe.name}: NeMo 2.7 has no YaRN, and Qwen2.5-Coder knows {OWN_CONTEXT:,} tokens "
            "without. Use recipes/midtrain.py with Megatron-Bridge."
        )
    require_room(recipe.model, recipe.layout, recipe.sequence_length)
    made = _NEMO_RECIPES[recipe.model.name](
        dir=paths.checkpoints,
        name="midtrain",
        num_nodes=recipe.num_nodes,
        num_gpus_per_node=GPUS_PER_NODE,
        tensor_parallelism=recipe.layout.tensor_parallel,
        context_parallelism=recipe.layout.context_parallel,
        sequence_parallelism=recipe.layout.tensor_parallel > 1,
        max_steps=num_steps,
        gradient_clip_val=choices.clip_grad,
        limit_val_batches=choices.num_validation_steps,
        val_check_interval=min(choices.validate_every_steps, num_steps),
        warmup_steps=round(num_steps * choices.warmup_fraction),
        max_lr=choices.learning_rate,
        min_lr=choices.min_learning_rate,
    )
    made.data = blend_data(
        Path(paths.blend),
        tokenizer=run.Config(
            AutoTokenizer,
            pretrained_model_name=paths.tokenizer,
            eos_token=END_OF_DOCUMENT,
            use_fast=True,
        ),
        micro_batch_size=1,
        global_batch_size=recipe.layout.global_batch_size,
        seed=choices.seed,
        cache_folder=Path(paths.index_cache),
    )
    made.resume = run.Config(
        AutoResume,
        restore_config=run.Config(RestoreConfig, path=paths.base),
        resume_if_exists=True,
        resume_ignore_no_checkpoint=True,
    )
    _set_model(made.model.config, recipe)
    _set_trainer(made, choices)
    return made


def _set_model(config: Any, recipe: DenseRecipe) -> None:
    values = recipe.model.hf_config
    config.seq_length = recipe.sequence_length
    config.rotary_base = values["rope_theta"]
    config.layernorm_epsilon = values["rms_norm_eps"]
    config.share_embeddings_and_output_weights = values["tie_word_embeddings"]
    config.vocab_size = values["vocab_size"]
    config.recompute_granularity = "full"
    config.recompute_method = "uniform"
    config.recompute_num_layers = 1


def _set_trainer(made: Any, choices: MidtrainChoices) -> None:
    made.trainer.strategy.ddp = run.Config(
        DistributedDataParallelConfig,
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        average_in_collective=True,  # every token of every sample counts, on every rank
        check_for_nan_in_grad=True,
    )
    config = made.optim.config
    config.weight_decay = choices.weight_decay
    config.adam_beta2 = choices.adam_beta2
    config.adam_eps = 1e-8
    made.log.ckpt.every_n_train_steps = choices.save_every_steps
    made.log.ckpt.save_top_k = choices.keep_checkpoints
