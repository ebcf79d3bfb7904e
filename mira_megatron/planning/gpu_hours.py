"""GPU-hours of jobs before they run.

Labelling and scoring are as `mira plan` prices them where records and anchors are there, and before
that by the sizes that the section `plan` declares (stage_hours.py). Discovery and the comparison
with held-back labels, which are not sampled, are told by those sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import NotYetKnown
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.planning.baseline_hours import baseline_hours
from mira_megatron.planning.corpus_sizes import CorpusSizes, corpus_sizes
from mira_megatron.planning.jobs import missing_inputs, planned_jobs
from mira_megatron.planning.operations import GpuHours
from mira_megatron.planning.plan import make_plan
from mira_megatron.planning.plan_config import PlanConfig, rate_names
from mira_megatron.planning.stage_hours import (
    ANSWERERS,
    asked_hours,
    distill_hours,
    eval_hours,
    held_out_hours,
    instruct_hours,
    midtrain_hours,
)
from mira_megatron.training.trained_arms import trained_arms


def gpu_hours(jobs: Sequence[PlannedJob], recipe: Recipe, gpu: str) -> dict[str, GpuHours]:
    """Returns the GPU-hours of every job that holds GPUs, by name, those of an array with it."""
    config = recipe.section("plan", PlanConfig)
    sizes = corpus_sizes(recipe, config)
    arrays = {job.stage for job in jobs if job.elements}
    return {
        job.name: _of_job(job, recipe, config, gpu, sizes)
        for job in jobs
        if job.num_gpus and not (job.is_rest and job.stage in arrays)
    }


def _of_job(
    job: PlannedJob, recipe: Recipe, config: PlanConfig, gpu: str, sizes: CorpusSizes
) -> GpuHours:
    match job.stage:
        case "distill" if job.needs.kind == "train":
            return distill_hours(recipe, config, gpu)
        case "midtrain" if job.needs.kind == "train":
            (arm,) = [each.arm for each in trained_arms(recipe) if each.name == job.only]
            return midtrain_hours(recipe, config, gpu, arm, sizes)
        case "instruct-sft" if job.needs.kind == "train":
            return instruct_hours(recipe, config, gpu)
        case "held-out":
            return held_out_hours(recipe, config, gpu, sizes)
        case "eval":
            return eval_hours(config)
        case "baseline":
            return _baselines(recipe, config, gpu, sizes)
    if job.stage in ("label", "score") and _can_be_priced(recipe, job.stage):
        return _priced(job, recipe, config)
    if job.stage in ANSWERERS:
        return asked_hours(recipe, config, job.stage, job.num_units)
    return GpuHours(value=None, basis="not estimated")


def _baselines(recipe: Recipe, config: PlanConfig, gpu: str, sizes: CorpusSizes) -> GpuHours:
    """Returns all baselines together, which one job makes; not known where one is not."""
    found = {
        name: baseline_hours(recipe, config, gpu, name, sizes)
        for name in recipe.mapping("baselines")
    }
    basis = "; ".join(f"{name} {each.basis}" for name, each in found.items())
    known = [each.value for each in found.values() if each.value is not None]
    return GpuHours(value=sum(known) if len(known) == len(found) else None, basis=basis)


def _priced(job: PlannedJob, recipe: Recipe, config: PlanConfig) -> GpuHours:
    totals = {total.stage: total for total in make_plan(recipe, workers=1).totals}
    priced = totals[job.stage].gpu_hours
    if priced is None:
        lacking = config.lacking(*rate_names(ANSWERERS[job.stage]))
        return GpuHours(value=None, basis=f"not known: {lacking}")
    return GpuHours(value=priced.value, basis="as `mira plan` has it")


def _can_be_priced(recipe: Recipe, stage: str) -> bool:
    try:
        jobs = [job for job in planned_jobs(recipe) if job.stage == stage]
    except NotYetKnown:
        return False
    return bool(jobs) and not any(missing_inputs(recipe, job) for job in jobs)
