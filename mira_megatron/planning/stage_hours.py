"""What a stage takes before it runs, as far as it is known: GPU-hours, requests and tokens.

Trainings and predictions are counted in operations (operations.py). Who asks a model is told by
what the section `plan` declares: records, tokens of a question and its answer, and the speed that
was measured. What is not known is None with a reason, and nothing is invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.grouping.source_groups import NotYetKnown, source_groups
from mira_megatron.manifest import read_manifest
from mira_megatron.planning.corpus_sizes import CorpusSizes
from mira_megatron.planning.operations import SECONDS_PER_HOUR, GpuHours, predicted, trained
from mira_megatron.planning.plan_config import PlanConfig, rate_names
from mira_megatron.retention.arms import arm_configs
from mira_megatron.training.bridge_layouts import find_recipe
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.cluster_training import (
    BRIDGE,
    cluster_instruct_sft,
    cluster_midtrain,
    trainer_of,
)
from mira_megatron.written_numbers import short

# Whose speed counts in a stage that asks: the teacher's or the scorer's.
ANSWERERS = {"discover": "label", "label": "label", "reliability": "score", "score": "score"}
_NOT_ESTIMATED = "not estimated"


def distill_hours(recipe: Recipe, config: PlanConfig, gpu: str) -> GpuHours:
    """Returns what the training of all scorers takes."""
    settings = distill_config(recipe)
    if settings.trainer != BRIDGE:
        return GpuHours(value=None, basis=_NOT_ESTIMATED)
    if settings.config is None or settings.num_steps is None:
        return GpuHours(value=None, basis="not known: distill.config and num_steps are not given")
    model, cluster_layout = find_recipe(settings.config)
    groups = source_groups(replace(recipe, is_provisional=True))
    per_group = settings.num_steps * cluster_layout.global_batch_size * settings.sequence_length
    of = f"{len(groups)} groups x {settings.num_steps:,} steps"
    if not _groups_are_known(recipe):
        of += "; which groups there are is not known yet"
    mfu = config.mixture_of_experts_mfu
    return trained(_active(model), per_group * len(groups), gpu, mfu, of)


def midtrain_hours(
    recipe: Recipe, config: PlanConfig, gpu: str, arm: str, sizes: CorpusSizes
) -> GpuHours:
    """Returns what one pass over an arm's tokens takes: those it kept, else those of its budget."""
    if trainer_of(recipe, "midtrain") != BRIDGE:
        return GpuHours(value=None, basis=_NOT_ESTIMATED)
    parameters = cluster_midtrain(recipe).recipe.model.num_parameters
    folder = recipe.run_folder / layout.keep(arm)
    if read_manifest(folder) is not None:
        certificate = orjson.loads((folder / layout.CERTIFICATE).read_bytes())
        kept = float(certificate["tokens_kept"])
        return trained(parameters, kept, gpu, config.mfu, "kept by the selection")
    own = arm_configs(recipe)[arm]
    is_its_own = any(key.startswith("budget_") for key in recipe.mapping("arms")[arm])
    where = f"arms.{arm}" if is_its_own else "select"
    if own.budget_tokens is not None:
        tokens = float(own.budget_tokens)
        return trained(parameters, tokens, gpu, config.mfu, f"{where}.budget_tokens")
    assert own.budget_fraction is not None, "arm_configs refuses an arm without a budget"
    if sizes.num_tokens is None:
        lacking = config.lacking("num_records", "tokens_per_record")
        return GpuHours(value=None, basis=f"not known before tokenize: {lacking}")
    of = f"{where}.budget_fraction={own.budget_fraction:g} of {short(sizes.num_tokens)}"
    return trained(parameters, own.budget_fraction * sizes.num_tokens, gpu, config.mfu, of)


def held_out_hours(recipe: Recipe, config: PlanConfig, gpu: str, sizes: CorpusSizes) -> GpuHours:
    """Returns what the loss of one model on all held-out documents takes, at most.

    Windows overlap by half, so a token is read at most twice.
    """
    if trainer_of(recipe, "midtrain") != BRIDGE:
        return GpuHours(value=None, basis=_NOT_ESTIMATED)
    if sizes.held_out_tokens is None:
        lacking = config.lacking("num_records", "tokens_per_record")
        return GpuHours(value=None, basis=f"not known before tokenize: {lacking}")
    parameters = cluster_midtrain(recipe).recipe.model.num_parameters
    of = "at most: held-out documents, read twice"
    return predicted(parameters, 2 * sizes.held_out_tokens, gpu, config.mfu, of)


def instruct_hours(recipe: Recipe, config: PlanConfig, gpu: str) -> GpuHours:
    """Returns what the instruction tuning of one model takes."""
    if trainer_of(recipe, "instruct_sft") != BRIDGE:
        return GpuHours(value=None, basis=_NOT_ESTIMATED)
    if config.instruct_sft_tokens is None:
        return GpuHours(value=None, basis="not known: plan.instruct_sft_tokens is not given")
    settings = cluster_instruct_sft(recipe)
    tokens = config.instruct_sft_tokens * settings.num_epochs
    of = f"plan.instruct_sft_tokens x {settings.num_epochs} epochs"
    return trained(settings.recipe.model.num_parameters, tokens, gpu, config.mfu, of)


def eval_hours(config: PlanConfig) -> GpuHours:
    """Returns what the answers of one model to all questions of the suite take.

    They are graded on CPUs.
    """
    prompt, output, rates = config.eval_prompt_tokens, config.eval_output_tokens, "eval"
    speeds = config.rates(rates)
    if prompt is None or output is None or speeds is None:
        names = ("eval_prompt_tokens", "eval_output_tokens", *rate_names(rates))
        return GpuHours(value=None, basis=f"not known: {config.lacking(*names)}")
    seconds = prompt / speeds.prompt_tokens_per_second + output / speeds.output_tokens_per_second
    return GpuHours(
        value=seconds / SECONDS_PER_HOUR,
        basis=f"declared: {short(prompt)} tokens in, {short(output)} out",
        prompt_tokens=prompt,
        output_tokens=output,
    )


def asked_hours(recipe: Recipe, config: PlanConfig, stage: str, num_units: int) -> GpuHours:
    """Returns what a stage that asks teacher or scorer takes, by what is declared.

    `num_units` is of how many sources it asks: at most so many records as it draws of each.
    """
    if asked_section(recipe, stage).get("engine") == "rule_judge":
        return GpuHours(value=0.0, basis="the rule judge: no model is asked")
    prompt, output = config.prompt_tokens_per_record, config.output_tokens_per_record
    num_records = _declared_records(recipe, config, stage, num_units)
    rates = config.rates(ANSWERERS[stage])
    asked = None
    if prompt is not None and output is not None and num_records is not None:
        asked = GpuHours(
            value=None,
            basis="",
            requests=num_records,
            prompt_tokens=num_records * prompt,
            output_tokens=num_records * output,
        )
    if asked is None or rates is None:
        names = (*rate_names(ANSWERERS[stage]), "prompt_tokens_per_record")
        names += ("output_tokens_per_record", *(("num_records",) if stage == "score" else ()))
        when = "not known before ingest" if stage in ("label", "score") else "not known"
        basis = f"{when}: {config.lacking(*names)}"
        return GpuHours(value=None, basis=basis) if asked is None else replace(asked, basis=basis)
    assert num_records is not None
    assert prompt is not None
    assert output is not None
    seconds = num_records * (
        prompt / rates.prompt_tokens_per_second + output / rates.output_tokens_per_second
    )
    basis = f"declared: {short(num_records)} records x {short(prompt)} tokens in, "
    return replace(asked, value=seconds / SECONDS_PER_HOUR, basis=f"{basis}{short(output)} out")


def asked_section(recipe: Recipe, stage: str) -> Mapping[str, Any]:
    """Returns the settings of who is asked in a stage: the teacher's or the scorer's."""
    if ANSWERERS[stage] == "score":
        return recipe.values.get("score") or {}
    return {**(recipe.values.get("teacher") or {}), **(recipe.values.get(stage) or {})}


def _declared_records(
    recipe: Recipe, config: PlanConfig, stage: str, num_units: int
) -> float | None:
    """Returns how many records are asked about, at most: a source may hold fewer."""
    if stage == "score":
        return config.num_records
    section = recipe.values.get("discover" if stage == "discover" else "label") or {}
    drawn, held_back = section.get("records_per_source"), section.get("reliability_fraction")
    if drawn is None:
        return None
    num_records = float(drawn) * num_units
    if stage == "reliability":
        return None if held_back is None else num_records * float(held_back)
    return num_records


def _active(model: ClusterModel) -> float:
    """Returns the parameters that a token meets: of the experts those it is sent to."""
    config = model.hf_config
    share = float(config["num_experts_per_tok"]) / float(config["num_experts"])
    return model.num_other_parameters + model.num_expert_parameters * share


def _groups_are_known(recipe: Recipe) -> bool:
    try:
        source_groups(recipe)
    except NotYetKnown:
        return False
    return True
