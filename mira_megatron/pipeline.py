"""The stages of a recipe in the order the data flows, and running them.

Each stage's module offers `units(recipe) -> list[Unit]`; units meet only in files. Modules listed
here are light: what needs torch, megatron or a template engine is named by a unit and imported when
that unit is run.

Which source groups there are is known only when they have been found, so the units of a stage are
asked for when it is that stage's turn. What can be checked before is checked on a provisional plan.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from mira_megatron.config import Recipe, nearest
from mira_megatron.file_lock import LockHeldError
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.launchers.sharing import HeldByOthers
from mira_megatron.manifest import read_manifest
from mira_megatron.stage import (
    Resources,
    Run,
    Unit,
    check_unit,
    read_inputs,
    reparse_unit,
    run_unit,
    unit_state,
)

logger = logging.getLogger(__name__)

STAGES = {
    "ingest": "mira_megatron.corpus.ingest",
    "group": "mira_megatron.grouping.group",
    "discover": "mira_megatron.rubric.discover",
    "anchor": "mira_megatron.rubric.anchor",
    "label": "mira_megatron.rubric.label",
    "sft-data": "mira_megatron.distill.sft_data",
    "distill": "mira_megatron.distill.distill",
    "reliability": "mira_megatron.reliability.reliability",
    "score": "mira_megatron.scoring.score",
    "aggregate": "mira_megatron.reliability.aggregate",
    "baseline": "mira_megatron.baselines.baseline",
    "tokenize": "mira_megatron.tokenization.tokenize",
    "adopt": "mira_megatron.tokenization.adopt",
    "select": "mira_megatron.retention.selection",
    "sensitivity": "mira_megatron.retention.sensitivity",
    "contamination": "mira_megatron.eval.contamination.source_hits",
    "blend": "mira_megatron.tokenization.blend",
    "midtrain": "mira_megatron.training.midtrain",
    "held-out": "mira_megatron.training.held_out",
    "instruct-data": "mira_megatron.instruct.instruct_data",
    "instruct-sft": "mira_megatron.instruct.instruct_sft",
    "eval": "mira_megatron.eval.evaluation",
    "report": "mira_megatron.report.report",
    "ablation": "mira_megatron.ablation.ablation",
}
# A recipe may end early, with a rubric or a blend: a stage is left out where it has none of these.
_NEEDED_SECTIONS = {
    "ingest": {"sources"},
    "sft-data": {"distill"},
    "distill": {"distill"},
    "reliability": {"score"},
    "score": {"score"},
    "aggregate": {"aggregate"},
    "baseline": {"baselines"},
    "tokenize": {"tokenize"},
    "adopt": {"adopt"},
    "select": {"select", "arms"},
    "sensitivity": {"reliability"},
    "contamination": {"eval"},
    "blend": {"blend"},
    "midtrain": {"midtrain"},
    "held-out": {"ablation"},
    "instruct-data": {"instruct_sft"},
    "instruct-sft": {"instruct_sft"},
    "eval": {"eval"},
    "report": {"select", "arms"},
    "ablation": {"ablation"},
}

# What a recipe may be told to read although none of its sections makes it.
_MADE_BY = {
    "judgments": "discover",
    "anchors": "anchor",
    "teacher_ratings": "label",
    "sft": "distill",
    "scorers": "distill",
    "ratings": "score",
    "record_scores": "aggregate",
    "tokens": "tokenize",
    "checkpoints": "midtrain",
}

RunAhead = Callable[[str, Sequence[Unit], Run], None]


def recipe_units(recipe: Recipe) -> list[Unit]:
    """Returns every unit of the recipe in running order; ValueError for a setting that is wrong.

    Where source groups are not known yet, units stand in for them that must not be run.
    """
    provisional = replace(recipe, is_provisional=True)
    return [unit for name in STAGES for unit in stage_units(provisional, name)]


def stage_units(recipe: Recipe, stage: str, only: str | None = None) -> list[Unit]:
    """Returns the units of one stage, none where the recipe ends before it; with `only` its own.

    Raises NotYetKnown where they depend on groups not yet found, ValueError where `only` is the
    name of none.
    """
    sections = _NEEDED_SECTIONS.get(stage)
    units: list[Unit] = []
    if not sections or sections & set(recipe.values):
        units = cast("list[Unit]", importlib.import_module(STAGES[stage]).units(recipe))
    return units if only is None else _named(units, recipe, stage, only)


def _named(units: Sequence[Unit], recipe: Recipe, stage: str, name: str) -> list[Unit]:
    """Returns the units of a name; several may have it, such as a group and a source."""
    found = [unit for unit in units if unit.name == name]
    if not found:
        tail = nearest(name, [unit.name for unit in units])
        raise ValueError(f"{recipe.path}: {stage} has no unit {name!r}.{tail}")
    return found


def run_stages(
    recipe: Recipe,
    stages: Sequence[str],
    resources: Resources,
    *,
    reparses: bool = False,
    only: str | None = None,
    run_one: Callable[[Unit, Run, Resources], object] = run_unit,
    run_ahead: RunAhead | None = None,
) -> None:
    """Runs every unit of the stages named, or of these only those of one name; skips what is done.

    With `reparses` those that are made of kept answers are made again, and nobody is asked. Units
    of earlier stages are not run, but they must be done with this recipe's settings. One that
    others still work on is left to them, with a line that says so. `run_one` is what runs a unit;
    `run_ahead` is given each stage with its units before, and may have some made. The failure of
    one that fails alone is told at the end, and so is, of those who share, that of one model.
    """
    # Workers are forked from a server; what it has imported they need not import, each pool anew.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", *STAGES.values()])
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    units = recipe_units(recipe)
    wanted = [unit for unit in units if unit.stage in stages and only in (None, unit.name)]
    _check_upstream(wanted, units, run)
    if len(stages) == 1 and only is None and not wanted:
        logger.warning("%s", _nothing_to_do(recipe, stages[0]))
    failures: list[str] = []
    for stage in STAGES:
        if stage in stages:
            if stage == "anchor":  # the first that reads them; which groups there are is known
                _warn_of_unused_scorers(recipe)
            of_stage = stage_units(recipe, stage, only)
            if run_ahead is not None:
                run_ahead(stage, of_stage, run)
            for unit in of_stage:
                if reparses:
                    if unit.can_be_reparsed:
                        reparse_unit(unit, run, resources)
                    continue
                if resources.is_shared and not _has_all(unit.waits_for, run):
                    logger.info("%s: left to whoever ends the last unit before it", unit.label)
                    continue
                try:
                    run_one(unit, run, resources)
                except HeldByOthers as held:
                    logger.info("%s", held)
                except LockHeldError:
                    if not (resources.is_shared and unit.can_be_left):
                        raise
                    logger.info("%s: left to the one who works on it", unit.label)
                except (ValueError, FileNotFoundError) as error:
                    if not (unit.fails_alone or (resources.is_shared and unit.can_be_left)):
                        if failures:
                            raise ValueError("; ".join([*failures, str(error)])) from error
                        raise
                    logger.warning("%s failed; going on with the rest: %s", unit.label, error)
                    failures.append(str(error))
    if failures:
        raise ValueError("; ".join(failures))


def _nothing_to_do(recipe: Recipe, stage: str) -> str:
    """Returns why a stage that was asked for by name has no units; most need a section."""
    sections = sorted(_NEEDED_SECTIONS.get(stage, {stage}))
    is_there = any(recipe.values.get(name) for name in sections)
    why = "" if is_there else f" without a section {' or '.join(f'`{name}`' for name in sections)}"
    return f"{recipe.path}: {stage} has nothing to do{why}"


def _has_all(folders: Sequence[str], run: Run) -> bool:
    return all(read_manifest(run.folder / folder) is not None for folder in folders)


def unit_states(
    recipe: Recipe, stages: Sequence[str], only: str | None = None
) -> list[tuple[Unit, str]]:
    """Returns every unit of the stages named with its state, without running anything.

    With `only` those of one name; ValueError where a stage has none of it.
    """
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    units = [unit for unit in recipe_units(recipe) if unit.stage in stages]
    if only is not None:
        units = _named(units, recipe, ", ".join(stages), only)
    return [(unit, unit_state(unit, run)) for unit in units]


def check_inputs(recipe: Recipe, stage: str, only: str | None = None) -> None:
    """Raises ValueError unless all that a stage's units read is finished, whole and of this recipe.

    For who is about to spend GPU hours before the stage itself is run, which looks at this as well.
    """
    run = Run(folder=recipe.run_folder, reuse=recipe.reuse)
    wanted = stage_units(recipe, stage, only)
    units = recipe_units(recipe)
    _check_upstream(wanted, units, run)
    made_here = {unit.folder for unit in units if unit.stage == stage}
    for unit in wanted:
        before = tuple(folder for folder in unit.upstream if folder not in made_here)
        read_inputs(replace(unit, upstream=before), run)


def _warn_of_unused_scorers(recipe: Recipe) -> None:
    groups = source_groups(recipe)
    for name in recipe.mapping("scorers"):
        if name not in groups:
            tail = nearest(name, groups)
            logger.warning("scorers.%s: no source is in a group of that name.%s", name, tail)


def _check_upstream(wanted: Sequence[Unit], units: Sequence[Unit], run: Run) -> None:
    """Raises ValueError for needed units that lost a part or were made for other settings.

    Looked at in running order, so that what is named is where the trouble begins.
    """
    by_folder = {unit.folder: unit for unit in units}
    for unit in _ancestors(wanted, by_folder, run):
        check_unit(unit, run)


def _ancestors(wanted: Sequence[Unit], by_folder: Mapping[str, Unit], run: Run) -> list[Unit]:
    """Returns the units that the wanted ones read, directly or not, in running order.

    Source groups count among them: they decide which units there are.
    """
    found = {unit.folder for unit in by_folder.values() if unit.stage == "group"}
    to_visit = list(wanted)
    while to_visit:
        unit = to_visit.pop()
        for folder in unit.upstream:
            if folder not in by_folder and read_manifest(run.folder / folder) is not None:
                continue  # made by a recipe with more sources: a rubric outlives its founders
            if folder not in by_folder:
                raise ValueError(
                    f"{run.folder / folder}: {unit.label} reads this folder, but no stage of this "
                    f"recipe makes it. {_way_out(folder, run)}"
                )
            if folder not in found:
                found.add(folder)
                to_visit.append(by_folder[folder])
    made_now = {unit.folder for unit in wanted}
    return [unit for folder, unit in by_folder.items() if folder in found - made_now]


def _way_out(folder: str, run: Run) -> str:
    kind, _, name = folder.partition("/")
    maker = _MADE_BY.get(kind)
    section = f"Add a section `{maker}`, or correct" if maker else "Correct"
    if maker == "discover":
        # Of a source that founded a group and has left the recipe before it was judged.
        return f"{section} the sources: it founded the group. Or found new groups: rubric=NAME."
    if kind == "record_scores":
        # Other recipes may have made some here.
        made = {each.parent.name for each in run.folder.glob(f"{kind}/*/*") if read_manifest(each)}
        tail = f" Made here: {', '.join(sorted(made))}." if made else ""
        return (
            f"{section} the name {name.partition('/')[0]!r}, or list the recipe that makes it in "
            f"this run folder under `before`.{tail}"
        )
    return f"{section} the name in the recipe."
