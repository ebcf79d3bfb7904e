"""Facts of a training, read from a Megatron-Bridge config or from one of our recipes' names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mira_megatron.distill.chatml import END
from mira_megatron.distill.sft_files import BRIDGE_DATASET_KWARGS
from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.training.bridge_layouts import ClusterLayout, find_recipe
from mira_megatron.training.bridge_models import ClusterModel


def config_facts(config: Any, num_gpus: int) -> TrainingFacts:
    """Returns what a ConfigContainer, or anything with its fields, says.

    Bridge's own defaults stand for settings that its dataset is not given.
    """
    model, data, tokenizer = config.model, config.dataset, config.tokenizer
    packing = getattr(data, "packed_sequence_specs", None)
    kwargs = getattr(data, "dataset_kwargs", None) or {}
    tokenizer_kwargs = getattr(tokenizer, "hf_tokenizer_kwargs", None) or {}
    is_padded = getattr(model, "should_pad_vocab", False)
    return TrainingFacts(
        attention_variant=getattr(model, "experimental_attention_variant", None),
        is_packed=packing is not None and packing.packed_sequence_size > 0,
        context_parallel=model.context_parallel_size,
        tensor_parallel=model.tensor_model_parallel_size,
        pipeline_parallel=model.pipeline_model_parallel_size,
        expert_parallel=model.expert_model_parallel_size,
        num_gpus=num_gpus,
        global_batch_size=config.train.global_batch_size,
        micro_batch_size=config.train.micro_batch_size,
        sequence_length=model.seq_length,
        tokenizer_type=tokenizer.tokenizer_type,
        tokenizer_folder=_text(tokenizer.tokenizer_model),
        eos_token=tokenizer_kwargs.get("eos_token"),
        answer_only_loss=kwargs.get("answer_only_loss", True),
        is_chat=kwargs.get("chat", False),
        adds_eos=kwargs.get("add_eos", True),
        prompt_template=kwargs.get("prompt_template", "{input} {output}"),
        model_vocab_size=None if is_padded else getattr(model, "vocab_size", None),
        vocab_divisor=getattr(model, "make_vocab_size_divisible_by", None),
    )


def layout_facts(model: ClusterModel, layout: ClusterLayout, sequence_length: int) -> TrainingFacts:
    """Returns what a model and its layout on a cluster say, whatever it is trained on."""
    return TrainingFacts(
        model=model.name,
        hf_architecture=model.hf_config["architectures"][0],
        context_parallel=layout.context_parallel,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        expert_parallel=layout.expert_parallel,
        num_gpus=layout.num_gpus,
        global_batch_size=layout.global_batch_size,
        micro_batch_size=1,
        sequence_length=sequence_length,
        model_vocab_size=model.hf_config["vocab_size"],
    )


def recipe_facts(name: str, base_folder: str) -> TrainingFacts:
    """Returns what one of our recipes of scorers says, without Megatron-Bridge installed.

    Raises ValueError for a name that none has.
    """
    model, layout = find_recipe(name)
    return replace(
        layout_facts(model, layout, 65536),
        attention_variant="gated_delta_net" if model.packs_gated_delta_net else None,
        is_packed=True,
        tokenizer_type="HuggingFaceTokenizer",
        tokenizer_folder=base_folder,
        eos_token=END,
        answer_only_loss=bool(BRIDGE_DATASET_KWARGS["answer_only_loss"]),
        is_chat=bool(BRIDGE_DATASET_KWARGS["chat"]),
        adds_eos=bool(BRIDGE_DATASET_KWARGS["add_eos"]),
        prompt_template=str(BRIDGE_DATASET_KWARGS["prompt_template"]),
    )


def with_versions(facts: TrainingFacts, versions: dict[str, str | None]) -> TrainingFacts:
    """Returns the facts with the installed releases."""
    return replace(
        facts,
        bridge_version=versions["megatron-bridge"],
        mcore_version=versions["megatron-core"],
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
