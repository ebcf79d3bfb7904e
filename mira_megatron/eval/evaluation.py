"""Every trained model answers a suite of benchmarks, and what it wrote is run and graded.

Reads   instruct/<model>/hf/, or without instruct_sft checkpoints/<model>/hf/; for a base arm that
        is not tuned midtrain.base; the suite and its benchmarks' data
Writes  eval/<model>/suite.json: of which model, how it was asked
        eval/<model>/<benchmark>/: generations.jsonl, verdicts.jsonl, tasks.jsonl, controls.json and
        results.json, as `mira evaluate` writes them, but for what tells one run from another of the
        same answers (settled_files.py); `mira compare` reads the folder

A model is an arm with a seed (training/trained_arms.py). With instruct_sft each is tuned, the base
with every seed; without it the base, which no seed changes, is asked once. What models write is run
in a sandbox alone. Answers are kept as they come, so a killed unit goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.eval_config import (
    SECTION,
    EvalConfig,
    asked_config,
    data_folder,
    eval_config,
    read_suite,
)
from mira_megatron.eval.generation.planned import planned_answers
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.suite import Entry, Suite, data_files, open_benchmark
from mira_megatron.instruct.instruct_sft import units as instruct_units
from mira_megatron.manifest import read_manifest
from mira_megatron.stage import Unit
from mira_megatron.training.held_out import held_out_models
from mira_megatron.training.midtrain import base_digest, midtrain_base

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """What one model's unit needs."""

    model: str  # its name in suite.json, and at endpoints
    export: Path  # a Hugging Face folder
    suite: Path
    suite_name: str
    data_folder: Path | None
    benchmarks: tuple[str, ...]
    config: EvalConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedModel:
    """One model that a recipe trains, or starts from."""

    name: str
    folder: str | None  # of the unit that exports it; None: the base as it is
    export: Path


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per model.

    Raises ValueError or FileNotFoundError for a setting, suite or data file that is wrong: a
    provisional plan reads the data, so that nothing is trained for a suite that cannot be asked.
    """
    config = eval_config(recipe)
    suite, entries = read_suite(recipe, config)
    models = evaluated_models(recipe)
    if recipe.is_provisional and not _are_done(recipe, models):
        for entry in entries:
            if entry.name not in recipe.without_data:
                error = _refused(recipe, config, suite, entry)
                if error is not None:
                    raise error
    asked = asked_config(config, suite, entries)
    data = _data_digests(recipe, entries)
    return [
        Unit(
            stage="eval",
            name=model.name,
            folder=layout.evaluation(model.name),
            version=VERSION,
            config=asked,
            upstream=() if model.folder is None else (model.folder,),
            raw_files=_raw_files(recipe, model, data),
            work="mira_megatron.eval.run_evaluation:evaluate_model",
            can_be_left=True,
            fails_alone=True,  # a model without verdicts leaves the others theirs
            settings=EvalSettings(
                model=model.name,
                export=model.export,
                suite=suite.path,
                suite_name=suite.name,
                data_folder=data_folder(recipe, config),
                benchmarks=tuple(entry.name for entry in entries),
                config=config,
            ),
        )
        for model in models
    ]


def evaluated_models(recipe: Recipe) -> list[EvaluatedModel]:
    """Returns the models that are asked: the tuned ones, where they are tuned.

    Raises ValueError for a recipe that trains none.
    """
    if "instruct_sft" in recipe.values:
        trained = [(unit.name, unit.folder) for unit in instruct_units(recipe)]
        return [_exported(recipe, name, folder) for name, folder in trained]
    if "midtrain" not in recipe.values:
        raise ValueError(
            f"{recipe.path}: {SECTION}: needs a section midtrain or instruct_sft, whose models "
            "answer; `mira evaluate` asks any other model"
        )
    found = []
    for model in held_out_models(recipe):
        if model.has_midtraining:
            found.append(_exported(recipe, model.name, layout.checkpoints(model.name)))
            continue
        base = midtrain_base(recipe)
        assert base is not None, "ablation_config"
        found.append(EvaluatedModel(name=model.name, folder=None, export=base))
    return found


def _exported(recipe: Recipe, name: str, folder: str) -> EvaluatedModel:
    export = recipe.run_folder / folder / layout.HF_EXPORT
    return EvaluatedModel(name=name, folder=folder, export=export)


def missing_data(recipe: Recipe) -> dict[str, str]:
    """Returns the benchmarks whose data are not all on this machine, each with what to do.

    None without a section `eval`, and once every model is evaluated. Data that are there and wrong
    are left to units(), and so is all else that is wrong: it raises the same.
    """
    if SECTION not in recipe.values:
        return {}
    config = eval_config(recipe)
    suite, entries = read_suite(recipe, config)
    if _are_done(recipe, evaluated_models(recipe)):
        return {}
    return {
        entry.name: str(error)
        for entry in entries
        if isinstance(error := _refused(recipe, config, suite, entry), FileNotFoundError)
    }


def check_sandbox(recipe: Recipe) -> None:
    """Raises ValueError where models are still to be evaluated and no sandbox here is safe enough.

    For who is about to train them on this machine.
    """
    if SECTION not in recipe.values or _are_done(recipe, evaluated_models(recipe)):
        return
    try:
        best_sandbox(eval_config(recipe).min_isolation)
    except ValueError as error:
        raise ValueError(
            f"{recipe.path}: {SECTION}: what models write is run here at the end, and there is "
            f"{error}"
        ) from error


def _are_done(recipe: Recipe, models: list[EvaluatedModel]) -> bool:
    folders = (recipe.run_folder / layout.evaluation(model.name) for model in models)
    return all(read_manifest(folder) is not None for folder in folders)


def _refused(
    recipe: Recipe, config: EvalConfig, suite: Suite, entry: Entry
) -> ValueError | FileNotFoundError | None:
    """Returns why a benchmark's data cannot be asked, naming the setting; None where they can."""
    try:
        benchmark = open_benchmark(entry, layout.eval_cache(recipe.run_folder))
        planned = planned_answers(
            benchmark, suite.sampling_of(entry), Style(config.style), limit=config.limit
        )
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return None  # this stage may have an environment of its own on a cluster
        where = f"{recipe.path}: {SECTION}"
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        return kind(
            f"{error} ({where}: suite {suite.path}). In a recipe the folder is "
            f"{SECTION}.data_folder; {SECTION}.benchmarks leaves a benchmark out"
        )
    if not planned:
        return ValueError(
            f"{entry.file}: no tasks, so benchmark {entry.name} has nothing to ask. Copy the "
            f"file anew, or leave the benchmark out of {SECTION}.benchmarks"
        )
    return None


def _raw_files(
    recipe: Recipe, model: EvaluatedModel, data: Callable[[], dict[str, str]]
) -> Callable[[], dict[str, str]]:
    """Returns what digests the data, and names the graders, when the unit is to be run."""
    # What was trained here has the base in its own fingerprint.
    base = None if model.folder is not None else base_digest(recipe, model.export)
    return lambda: {**({} if base is None else base()), **data()}


def _data_digests(recipe: Recipe, entries: list[Entry]) -> Callable[[], dict[str, str]]:
    """Returns what digests every benchmark; opened, which takes long, it is once for all models."""
    graders: dict[str, str] = {}

    def digests() -> dict[str, str]:
        found = {}
        for entry in entries:
            if entry.name not in graders:
                # Before its files are read, since it says what is missing and the way out.
                cache = layout.eval_cache(recipe.run_folder)
                graders[entry.name] = open_benchmark(entry, cache).grader
            files = [SourceFile(path=path, name=path.name) for path in data_files(entry)]
            noted = recipe.run_folder / ".raw_digests" / f"eval-{entry.name}.json"
            found[f"data of {entry.name}"] = raw_files_digest(files, noted)
            found[f"grader of {entry.name}"] = graders[entry.name]
        return found

    return digests
