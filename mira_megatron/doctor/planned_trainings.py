"""The trainings of a recipe, as far as they are known before they begin.

Those of Megatron-Bridge (scorers, midtrain, instruct-sft) are named recipes whose layout is known;
those of the trainer on megatron-core run on one GPU. Arms share one training's figures, and so do
source groups: there is one entry per section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mira_megatron.config import Recipe
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.doctor.config_facts import layout_facts, recipe_facts
from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.json_objects import read_json_object
from mira_megatron.training.bridge_layouts import ClusterLayout, find_recipe
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.cluster_training import (
    BRIDGE,
    cluster_instruct_sft,
    cluster_midtrain,
    trainer_of,
)
from mira_megatron.training.dense_layouts import DenseRecipe
from mira_megatron.training.dense_models import at_length
from mira_megatron.training.memory import StepSettings
from mira_megatron.training.model_sizes import ModelSizes, model_sizes
from mira_megatron.training.rank_parameters import ParallelSplit

_ONE_GPU_VOCAB_MULTIPLE = 128  # training/gpt_model.py pads to it


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTraining:
    """One section's training; None is "not known yet"."""

    stage: str
    section: str  # of the recipe, in which it is set
    config: str | None = None  # a recipe of Megatron-Bridge; None: the trainer on one machine
    model: ClusterModel | None = None  # of that recipe, at the length it is trained at
    layout: ClusterLayout | None = None
    base: Path | None = None  # Hugging Face folder; None: random weights, or what a stage will make
    sizes: ModelSizes | None = None
    split: ParallelSplit
    step: StepSettings
    facts: TrainingFacts

    @property
    def gpu(self) -> str:
        """Returns the kind of GPU that it was laid out for, "" for any."""
        return "" if self.layout is None else self.layout.gpu


def planned_trainings(recipe: Recipe) -> list[PlannedTraining]:
    """Returns what the recipe trains, in running order; ValueError for a wrong setting."""
    made = [_scorers(recipe), _midtrain(recipe), _instruct_sft(recipe)]
    return [training for training in made if training is not None]


def base_sizes(base: Path) -> ModelSizes | None:
    """Returns the sizes of a base model's config.json, None where there is none.

    Raises ValueError where it cannot be read or is of an unknown model.
    """
    config = read_json_object(base / "config.json")
    return None if config is None else model_sizes(config, where=str(base / "config.json"))


def _scorers(recipe: Recipe) -> PlannedTraining | None:
    section = recipe.values.get("distill")
    if section is None:
        return None
    config = distill_config(recipe)
    base = None if config.base is None else recipe.path_of(config.base)
    if config.trainer != BRIDGE:
        return _on_one_gpu(
            "distill", "distill", section, config.sequence_length, config.train_vocab_size, base
        )
    if config.config is None:
        return None  # trained by hand; training_checks says so
    model, layout = find_recipe(config.config)
    facts = recipe_facts(config.config, str(base))
    assert facts.sequence_length is not None, "recipe_facts always says it"
    return PlannedTraining(
        stage="distill",
        section="distill",
        config=config.config,
        model=model,
        layout=layout,
        base=base,
        sizes=model.sizes,
        split=layout.split,
        step=layout.step(facts.sequence_length),
        facts=facts,
    )


def _midtrain(recipe: Recipe) -> PlannedTraining | None:
    match trainer_of(recipe, "midtrain"):
        case None:
            return None
        case "bridge":
            config = cluster_midtrain(recipe)
            return _dense(
                "midtrain", "midtrain", config.recipe, config.config, recipe.path_of(config.base)
            )
    length = (recipe.values.get("blend") or {}).get("sequence_length")
    section = recipe.values["midtrain"]
    vocab = (recipe.values.get("tokenize") or {}).get("train_vocab_size")
    return _on_one_gpu("midtrain", "midtrain", section, length, vocab, None)


def _instruct_sft(recipe: Recipe) -> PlannedTraining | None:
    if trainer_of(recipe, "instruct_sft") != BRIDGE:
        return None  # on one machine it is midtrain's model once more
    config = cluster_instruct_sft(recipe)
    base = None if config.base is None else recipe.path_of(config.base)
    return _dense("instruct-sft", "instruct_sft", config.recipe, config.config, base)


def _dense(
    stage: str, section: str, recipe: DenseRecipe, config: str, base: Path | None
) -> PlannedTraining:
    model, layout = at_length(recipe.model, recipe.sequence_length), recipe.layout
    return PlannedTraining(
        stage=stage,
        section=section,
        config=config,
        model=model,
        layout=layout,
        base=base,
        sizes=model.sizes,
        split=layout.split,
        step=layout.step(recipe.sequence_length),
        facts=layout_facts(model, layout, recipe.sequence_length),
    )


def _on_one_gpu(
    stage: str,
    section_name: str,
    section: Mapping[str, Any],
    sequence_length: int | None,
    vocab_size: int | None,
    base: Path | None,
) -> PlannedTraining | None:
    """Returns a training on megatron-core, which keeps all activations and the whole optimizer.

    None where its sections are not there to be read; the stage itself refuses that by name.
    """
    training = section.get("training")
    if not isinstance(training, Mapping) or not isinstance(sequence_length, int):
        return None
    value_bytes = 2 if training.get("precision") == "bfloat16" else 4
    step = StepSettings(
        sequence_length=sequence_length,
        micro_batch_size=training.get("micro_batch_size", 1),
        recompute="none",
        value_bytes=value_bytes,
        gradient_bytes=value_bytes,
        is_optimizer_sharded=False,
    )
    sizes = None
    if base is not None:
        sizes = base_sizes(base)
    elif isinstance(section.get("model"), Mapping) and vocab_size is not None:
        sizes = _shape_sizes(section["model"], vocab_size, sequence_length)
    return PlannedTraining(
        stage=stage,
        section=section_name,
        base=base,
        sizes=sizes,
        split=ParallelSplit(num_gpus=1, vocab_multiple=_ONE_GPU_VOCAB_MULTIPLE),
        step=step,
        facts=TrainingFacts(
            num_gpus=1, sequence_length=sequence_length, micro_batch_size=step.micro_batch_size
        ),
    )


def _shape_sizes(model: Mapping[str, Any], vocab_size: int, positions: int) -> ModelSizes:
    """Returns the sizes of a section `model`, whose words are Megatron's (training/model_shape)."""
    names = {
        "num_hidden_layers": "num_layers",
        "hidden_size": "hidden_size",
        "intermediate_size": "ffn_hidden_size",
        "num_attention_heads": "num_attention_heads",
        "num_key_value_heads": "num_query_groups",
        "head_dim": "kv_channels",
        "num_experts": "num_moe_experts",
        "num_experts_per_tok": "moe_router_topk",
        "moe_intermediate_size": "moe_ffn_hidden_size",
    }
    config = {theirs: model.get(ours) for theirs, ours in names.items()}
    is_moe = config["num_experts"] is not None
    sizes = model_sizes(
        {
            **config,
            "architectures": ["Qwen3MoeForCausalLM" if is_moe else "Qwen2ForCausalLM"],
            "max_position_embeddings": model.get("max_sequence_length", positions),
            "vocab_size": vocab_size,
        },
        where="model",
    )
    return replace(sizes, tie_embeddings=bool(model.get("tie_embeddings")))
