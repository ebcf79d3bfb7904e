"""GPU-hours of jobs before they run: arithmetic on what is known, and a plain word where it is not.

A training takes 6 x parameters x tokens floating point operations (forward and backward; what is
recomputed and attention's own part are left to the utilisation), at the GPU's peak times the model
FLOP utilisation `plan.mfu`. Labelling and scoring are as `mira plan` prices them where records and
anchors are there, and before that by the sizes that the section `plan` declares. Discovery and the
comparison with held-back labels, which `mira plan` leaves out, are told by those sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.distill_config import distill_config
from mira_megatron.grouping.source_groups import NotYetKnown, source_groups
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.manifest import read_manifest
from mira_megatron.planning.jobs import missing_inputs, planned_jobs
from mira_megatron.planning.plan import PlanConfig, make_plan
from mira_megatron.training.bridge_layouts import find_recipe
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.cluster_training import cluster_instruct_sft, cluster_midtrain
from mira_megatron.written_numbers import short

# Dense BF16 operations a second of one GPU: NVIDIA's data sheets of H100 SXM and H200 SXM say
# 1,979 teraFLOPS with sparsity, which is twice as many.
PEAK_FLOPS = {"h100": 989e12, "h200": 989e12}
_SECONDS_PER_HOUR = 3600
# Who answers in a stage, as the section `plan` has its speeds: the teacher or the scorer.
_ANSWERED_AS_IN = {"discover": "label", "label": "label", "reliability": "score", "score": "score"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuHours:
    """Hours of one GPU; None where they are not known, with what they rest on or lack."""

    value: float | None
    basis: str


def training_gpu_hours(parameters: float, tokens: float, gpu: str, mfu: float) -> float:
    """Returns the hours of one GPU that a training over so many tokens takes."""
    return 6 * parameters * tokens / (PEAK_FLOPS[gpu] * mfu) / _SECONDS_PER_HOUR


def gpu_hours(jobs: Sequence[PlannedJob], recipe: Recipe, gpu: str) -> dict[str, GpuHours]:
    """Returns the GPU-hours of every job that holds GPUs, by name, those of an array with it."""
    config = recipe.section("plan", PlanConfig)
    arrays = {job.stage for job in jobs if job.elements}
    return {
        job.name: _of_job(job, recipe, config, gpu)
        for job in jobs
        if job.num_gpus and not (job.is_rest and job.stage in arrays)
    }


def _of_job(job: PlannedJob, recipe: Recipe, config: PlanConfig, gpu: str) -> GpuHours:
    if job.needs.kind == "train":
        match job.stage:
            case "distill":
                return _distill(recipe, config, gpu)
            case "midtrain":
                return _midtrain(recipe, config, gpu, str(job.only))
            case _:
                return _instruct_sft(recipe, config, gpu)
    if job.stage in ("label", "score") and _can_be_priced(recipe, job.stage):
        return _priced(job, recipe, config)
    if job.stage in _ANSWERED_AS_IN:
        return _declared(job, recipe, config)
    return GpuHours(value=None, basis="not estimated")


def _trained(parameters: float, tokens: float, gpu: str, mfu: float, of: str) -> GpuHours:
    return GpuHours(
        value=training_gpu_hours(parameters, tokens, gpu, mfu),
        basis=(
            f"6 x {short(parameters)} parameters x {short(tokens)} tokens ({of}) at "
            f"{PEAK_FLOPS[gpu] / 1e12:.0f} TFLOP/s x {mfu:g}"
        ),
    )


def _distill(recipe: Recipe, config: PlanConfig, gpu: str) -> GpuHours:
    settings = distill_config(recipe)
    assert settings.config is not None  # else no job trains it
    assert settings.num_steps is not None
    model, cluster_layout = find_recipe(settings.config)
    groups = source_groups(replace(recipe, is_provisional=True))
    per_group = settings.num_steps * cluster_layout.global_batch_size * settings.sequence_length
    of = f"{len(groups)} groups x {settings.num_steps:,} steps"
    if not _groups_are_known(recipe):
        of += "; which groups there are is not known yet"
    mfu = config.mixture_of_experts_mfu
    return _trained(_active(model), per_group * len(groups), gpu, mfu, of)


def _midtrain(recipe: Recipe, config: PlanConfig, gpu: str, arm: str) -> GpuHours:
    folder = recipe.run_folder / layout.keep(arm)
    if read_manifest(folder) is not None:
        certificate = orjson.loads((folder / layout.CERTIFICATE).read_bytes())
        tokens, of = float(certificate["tokens_kept"]), "kept by the selection"
    else:
        budget = (recipe.values.get("select") or {}).get("budget_tokens")
        if budget is None:
            return GpuHours(value=None, basis="not known before the selection: no budget_tokens")
        tokens, of = float(budget), "select.budget_tokens"
    model = cluster_midtrain(recipe).recipe.model
    return _trained(model.num_parameters, tokens, gpu, config.mfu, of)


def _instruct_sft(recipe: Recipe, config: PlanConfig, gpu: str) -> GpuHours:
    if config.instruct_sft_tokens is None:
        return GpuHours(value=None, basis="not known: plan.instruct_sft_tokens is not given")
    settings = cluster_instruct_sft(recipe)
    tokens = config.instruct_sft_tokens * settings.num_epochs
    of = f"plan.instruct_sft_tokens x {settings.num_epochs} epochs"
    return _trained(settings.recipe.model.num_parameters, tokens, gpu, config.mfu, of)


def _active(model: ClusterModel) -> float:
    """Returns the parameters that a token meets: of the experts those it is sent to."""
    config = model.hf_config
    share = float(config["num_experts_per_tok"]) / float(config["num_experts"])
    return model.num_other_parameters + model.num_expert_parameters * share


def _priced(job: PlannedJob, recipe: Recipe, config: PlanConfig) -> GpuHours:
    totals = {total.stage: total for total in make_plan(recipe, workers=1).totals}
    priced = totals[job.stage].gpu_hours
    if priced is None:
        return GpuHours(value=None, basis=f"not known: {_lacking(config, job.stage)}")
    return GpuHours(value=priced.value, basis="as `mira plan` has it")


def _declared(job: PlannedJob, recipe: Recipe, config: PlanConfig) -> GpuHours:
    rates = config.rates(_ANSWERED_AS_IN[job.stage])
    sizes = config.asked_tokens_per_record
    num_records = _declared_records(job, recipe, config)
    if rates is None or sizes is None or num_records is None:
        lacking = _lacking(config, job.stage)
        when = "not known before ingest" if job.stage in ("label", "score") else "not known"
        return GpuHours(value=None, basis=f"{when}: {lacking}")
    prompt, output = sizes
    seconds = num_records * (
        prompt / rates.prompt_tokens_per_second + output / rates.output_tokens_per_second
    )
    return GpuHours(
        value=seconds / _SECONDS_PER_HOUR,
        basis=(
            f"declared: {short(num_records)} records x {short(prompt)} tokens in, "
            f"{short(output)} out"
        ),
    )


def _declared_records(job: PlannedJob, recipe: Recipe, config: PlanConfig) -> float | None:
    """Returns how many records are asked about, at most: a source may hold fewer."""
    if job.stage == "score":
        return config.num_records
    section = recipe.values.get("discover" if job.stage == "discover" else "label") or {}
    drawn, held_back = section.get("records_per_source"), section.get("reliability_fraction")
    if drawn is None:
        return None
    num_records = float(drawn) * job.num_units
    if job.stage == "reliability":
        return None if held_back is None else num_records * float(held_back)
    return num_records


def _lacking(config: PlanConfig, stage: str) -> str:
    """Returns the settings of the section `plan` that would make a stage's hours known."""
    whose = "teacher_" if _ANSWERED_AS_IN[stage] == "label" else ""
    wanted = [f"{whose}prompt_tokens_per_second", f"{whose}output_tokens_per_second"]
    wanted += ["prompt_tokens_per_record", "output_tokens_per_record"]
    wanted += ["num_records"] if stage == "score" else []
    missing = [f"plan.{name}" for name in wanted if getattr(config, name) is None]
    return f"{', '.join(missing)} not given" if missing else "nothing is declared"


def _can_be_priced(recipe: Recipe, stage: str) -> bool:
    try:
        jobs = [job for job in planned_jobs(recipe) if job.stage == stage]
    except NotYetKnown:
        return False
    return bool(jobs) and not any(missing_inputs(recipe, job) for job in jobs)


def _groups_are_known(recipe: Recipe) -> bool:
    try:
        source_groups(recipe)
    except NotYetKnown:
        return False
    return True
