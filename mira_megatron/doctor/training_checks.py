"""Checks of every training of a recipe: cut, memory, lengths, and the base it starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

from mira_megatron.distill.distill_config import distill_config
from mira_megatron.doctor.checks import check_facts, check_sizes
from mira_megatron.doctor.config_facts import with_versions
from mira_megatron.doctor.file_facts import most_tokens, with_base
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.doctor.layout_checks import check_enough_data
from mira_megatron.doctor.planned_trainings import (
    PlannedTraining,
    base_sizes,
    planned_trainings,
)
from mira_megatron.doctor.stage_environments import stage_versions
from mira_megatron.doctor.subject import Subject
from mira_megatron.launchers.stage_needs import stage_needs
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.memory import GPU_GB, RESERVED_GB, estimate_memory
from mira_megatron.training.model_sizes import ModelSizes
from mira_megatron.training.rank_parameters import gpu_problems, model_problems

_BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def check_trainings(subject: Subject) -> list[Finding]:
    """Returns what is found of the trainings that are still to be run."""
    findings = [*_check_needs(subject), *_check_by_hand(subject)]
    for training in planned_trainings(subject.recipe):
        if subject.is_done(training.stage):
            continue
        findings += _check_facts(subject, training)
        findings += _check_samples(subject, training)
        findings += _check_nodes(subject, training)
        findings += _check_base(subject, training)
        findings += _check_cut(subject, training)
        findings += _check_memory(subject, training)
        findings += _check_lengths(subject, training)
        findings += _check_attention(subject, training)
    return findings


def _check_by_hand(subject: Subject) -> Iterator[Finding]:
    recipe = subject.recipe
    if trainer_of(recipe, "distill") != BRIDGE or subject.is_done("distill"):
        return
    if distill_config(recipe).config is None:
        yield Finding(
            level=UNKNOWN,
            what="no recipe of recipes/scorer_sft.py is named: neither layout nor memory is known",
            where=subject.where("distill.config"),
            way_out="name one, or look at each group with `mira doctor --config NAME …`",
        )


def _check_facts(subject: Subject, training: PlannedTraining) -> list[Finding]:
    """Runs the checks that a single training's preflight has; those of files where they are."""
    if training.config is None:
        return []
    facts = training.facts
    versions = stage_versions(subject.cluster, training.stage)
    if versions is not None:
        facts = with_versions(facts, versions)
    base = training.base
    if base is not None and all((base / name).is_file() for name in _BASE_FILES):
        facts = with_base(facts, base)
    found = check_facts(facts) if training.stage == "distill" else check_sizes(facts)
    return [replace(each, where=f"{_named(subject, training)}, {each.where}") for each in found]


def _check_samples(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Finds source groups whose samples, where they are made, do not fill one batch."""
    if training.stage != "distill" or training.config is None:
        return
    for unit in subject.units:
        if unit.stage == "sft-data" and subject.is_done("sft-data", unit.name):
            folder = subject.recipe.run_folder / unit.folder
            facts = replace(training.facts, num_training_tokens=most_tokens(folder))
            for finding in check_enough_data(facts):
                yield replace(finding, where=f"{folder}, {finding.where}")


def _check_needs(subject: Subject) -> Iterator[Finding]:
    """Finds stages that want of a node what it does not have, as `mira submit` refuses them."""
    cluster = subject.cluster
    if cluster is None:
        return
    for stage in subject.stages:
        if subject.is_done(stage):
            continue
        try:
            stage_needs(subject.recipe, cluster, stage)
        except (ValueError, FileNotFoundError) as error:
            yield Finding(
                level=ERROR,
                what=f"stage {stage} cannot be submitted: {error}",
                where=f"cluster {cluster.name}",
            )


def _check_nodes(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Finds a layout whose layers wait for the network between nodes."""
    cluster, split = subject.cluster, training.split
    if cluster is None or not cluster.gpus_per_node:
        return
    widest = max(split.tensor * split.context, split.expert)
    if widest > cluster.gpus_per_node:
        yield Finding(
            level=WARNING,
            what=f"{training.config} cuts tensors, samples or experts over {widest} GPUs, and "
            f"nodes have {cluster.gpus_per_node}: every layer waits for the network between them",
            where=f"cluster {cluster.name}: gpus_per_node",
            way_out="choose a recipe that stays within a node",
        )


def _check_base(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Finds a base model of other sizes than the training's recipe."""
    if training.base is None or training.model is None:
        return
    found = base_sizes(training.base)
    if found is None:
        return  # path_checks says that it is not there
    planned = training.model.sizes
    for name in (each.name for each in fields(ModelSizes) if each.name != "max_positions"):
        ours, theirs = getattr(planned, name), getattr(found, name)
        if ours != theirs:
            yield Finding(
                level=ERROR,
                what=f"{name}={theirs}, and {training.config} is for {training.model.name} with "
                f"{ours}",
                where=str(training.base / "config.json"),
                way_out=f"give the base that the recipe is for, {training.model.hf_model}",
            )


def _check_cut(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    if training.sizes is None:
        return
    for problem in model_problems(training.sizes, training.split):
        way_out = "choose another recipe"
        yield Finding(level=ERROR, what=problem, where=_named(subject, training), way_out=way_out)


def _check_memory(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Says what a step takes of a GPU, and finds one that does not fit."""
    cluster, where = subject.cluster, _named(subject, training)
    gpu = (cluster.gpu if cluster is not None else "") or training.gpu
    if training.sizes is None:
        what = "memory is not known before the model's vocabulary is: before tokenize"
        yield Finding(level=UNKNOWN, what=what, where=where, way_out="run doctor again then")
        return
    if gpu_problems(training.split) or model_problems(training.sizes, training.split):
        return  # nothing can be estimated of what cannot be cut
    memory = estimate_memory(training.sizes, training.split, training.step)
    takes = memory.in_words()
    if not gpu:
        yield Finding(level=INFO, what=f"{takes}; no cluster says what it has", where=where)
    elif memory.fits(gpu):
        room = GPU_GB[gpu] - RESERVED_GB
        yield Finding(level=INFO, what=f"{takes}; an {gpu} has {room:.0f}", where=where)
    else:
        yield Finding(
            level=ERROR,
            what=f"{takes}; an {gpu} has {GPU_GB[gpu] - RESERVED_GB:.0f}",
            where=where,
            way_out="use more GPUs, a larger kind, or a shorter sequence",
        )


def _check_lengths(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    """Finds samples that are longer than what they are made for or the model knows."""
    values, length = subject.recipe.values, training.step.sequence_length
    if training.stage == "distill":
        made = distill_config(subject.recipe).sequence_length
        if made > length:
            yield Finding(
                level=ERROR,
                what=f"samples of up to {made:,} tokens are made, and {training.config} takes "
                f"{length:,}: longer ones would be left out",
                where=subject.where("distill.sequence_length"),
                way_out=f"lower it to {length:,}",
            )
        length = min(made, length)
    made_for = (values.get("blend") or {}).get("sequence_length")
    if training.stage == "midtrain" and made_for not in (None, length):
        yield Finding(
            level=ERROR,
            what=f"the blend is made for samples of {made_for:,} tokens, and {training.config} "
            f"reads {length:,}: steps and coverage would be others",
            where=subject.where("blend.sequence_length"),
            way_out=f"set it to {length}, or choose a recipe of {made_for:,} tokens",
        )
    yield from _check_positions(subject, training, length)


def _check_positions(subject: Subject, training: PlannedTraining, length: int) -> Iterator[Finding]:
    known, where = training.sizes, _named(subject, training)
    is_stretched = training.model is not None and "rope_scaling" in training.model.hf_config
    if training.base is not None and not is_stretched:
        found = base_sizes(training.base)
        if found is not None:
            known, where = found, str(training.base / "config.json")
    if known is not None and known.max_positions < length:
        yield Finding(
            level=ERROR,
            what=f"the model knows {known.max_positions:,} positions, samples have {length:,}",
            where=where,
            way_out="take shorter samples, or a base that knows more",
        )


def _check_attention(subject: Subject, training: PlannedTraining) -> Iterator[Finding]:
    if training.stage == "midtrain" and training.config is not None:
        yield Finding(
            level=INFO,
            what="attention goes across the documents of a sample: the installed trainers drop "
            "reset_attention_mask without a word, so it stays off (docs/midtraining.md)",
            where=_named(subject, training),
        )


def _named(subject: Subject, training: PlannedTraining) -> str:
    config = "" if training.config is None else f".config={training.config}"
    return subject.where(f"{training.section}{config}")
