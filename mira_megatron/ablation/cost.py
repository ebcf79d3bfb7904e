"""What the arms of a recipe took: seconds, answers, tokens and GPU-hours, by what they were for.

Reads   manifest.json of every unit; the token counts in the answers of those that asked somebody;
        jobs/<name>/script.sh, where `mira submit` wrote one
Writes  cost/cost.json, cost/cost.md

An arm's own: its selection, training and measurements. What its score took is told once for all
arms of that score, and once more what all arms stand on. Times are no function of the inputs: the
folder is no unit's, and is written anew at the end of each `mira ablate`.

A unit's seconds are those of the attempt that ended it, by the worker that ended it: killed
attempts and other workers are not in it. What was trained on a cluster has its time in SLURM's
accounting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.ablation.ablation import (
    AblationSettings,
    ComparedArm,
    ablation_settings,
    arm_folders,
    evaluation_folders,
)
from mira_megatron.config import Recipe
from mira_megatron.launchers.job_file import SCRIPT, job_folder
from mira_megatron.launchers.job_graph import REST, job_name
from mira_megatron.manifest import Manifest, read_manifest
from mira_megatron.pipeline import recipe_units
from mira_megatron.report.training_course import read_course
from mira_megatron.stage import Unit

OWN = ("select", "sensitivity", "blend", "midtrain", "held-out", "instruct-sft", "eval")
SCORE = (
    *("discover", "anchor", "label", "sft-data", "distill"),
    *("reliability", "score", "aggregate", "baseline"),
)
_TRAININGS = ("distill", "midtrain", "instruct-sft")
_ASKING = ("discover", "label", "reliability", "score", "baseline")
_TOKENS = ("num_prompt_tokens", "num_output_tokens")
_OPTION = re.compile(r"^#SBATCH --(nodes|gpus-per-node|array)=(\S+)$", re.MULTILINE)
ON_CLUSTER = "trained on a cluster: its time is in SLURM's accounting"
NOT_FINISHED = "not finished"


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitCost:
    """One unit; None with `reasons` where it is not known, or where nobody was asked."""

    seconds: float | None
    num_answers: int | None
    prompt_tokens: int | None  # None: not counted, as by the rule judge
    output_tokens: int | None
    gpu_hours: float | None  # None: no job of it says how many GPUs it held
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCost:
    """The units of one stage together; a sum is None where a part of it is."""

    stage: str
    num_units: int
    seconds: float | None
    num_answers: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    gpu_hours: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmCost:
    """What was made for one arm alone."""

    arm: str
    score: str | None  # None: the base
    stages: tuple[StageCost, ...]

    @property
    def seconds(self) -> float | None:
        """Returns the sum over stages; None where one is not known."""
        return _sum([each.seconds for each in self.stages])


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCost:
    """What making a score took, once for all arms that rank by it."""

    score: str
    arms: tuple[str, ...]
    stages: tuple[StageCost, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a recipe's arms took."""

    recipe_name: str
    arms: tuple[ArmCost, ...]
    scores: tuple[ScoreCost, ...]
    of_all: tuple[StageCost, ...]


def recipe_cost(recipe: Recipe) -> Cost:
    """Returns what the finished units took; those that are not finished are named as such."""
    return cost_of(recipe, recipe_units(recipe))


def cost_of(recipe: Recipe, of_recipe: Sequence[Unit]) -> Cost:
    """Returns what a recipe's units took, which are in running order."""
    settings = ablation_settings(recipe)
    units = {unit.folder: unit for unit in of_recipe}
    made_for = {arm.name: _made_for(recipe, arm, units) for arm in settings.arms}
    known = {unit.folder: _unit_cost(recipe, unit) for unit in units.values()}
    own = {arm.name: _own(arm, made_for[arm.name]) for arm in settings.arms}
    scores = _scores(settings, made_for)
    told = {folder for found in (*own.values(), *scores.values()) for folder in found}
    every = {folder for of_arm in made_for.values() for folder in of_arm}
    every |= {layout.contamination(source) for source in settings.scanned or ()}
    of_all = {folder: unit for folder, unit in units.items() if folder in every - told}
    return Cost(
        recipe_name=settings.recipe_name,
        arms=tuple(
            ArmCost(arm=arm.name, score=arm.score, stages=_stages(own[arm.name], known))
            for arm in settings.arms
        ),
        scores=tuple(
            ScoreCost(
                score=score,
                arms=tuple(arm.name for arm in settings.arms if arm.score == score),
                stages=_stages(found, known),
            )
            for score, found in scores.items()
        ),
        of_all=_stages(of_all, known),
    )


def _made_for(recipe: Recipe, arm: ComparedArm, units: Mapping[str, Unit]) -> dict[str, Unit]:
    """Returns all units that an arm's row is made of, directly or not, in running order."""
    to_visit = [*arm_folders(recipe, arm), *evaluation_folders(arm)]
    found: set[str] = set()
    while to_visit:
        folder = to_visit.pop()
        if folder in units and folder not in found:
            found.add(folder)
            to_visit += units[folder].upstream
    return {folder: unit for folder, unit in units.items() if folder in found}


def _own(arm: ComparedArm, made_for: Mapping[str, Unit]) -> dict[str, Unit]:
    names = {arm.name, *arm.models.values(), *arm.evaluated.values()}
    return {
        folder: unit
        for folder, unit in made_for.items()
        if unit.stage in OWN and unit.name in names
    }


def _scores(
    settings: AblationSettings, made_for: Mapping[str, Mapping[str, Unit]]
) -> dict[str, dict[str, Unit]]:
    """Returns by score what only making it took; an arm's rows without others' scores."""
    found: dict[str, dict[str, Unit]] = {}
    for arm in settings.arms:
        if arm.score is not None:
            units = {f: unit for f, unit in made_for[arm.name].items() if unit.stage in SCORE}
            found.setdefault(arm.score, {}).update(units)
    return dict(sorted(found.items()))


def _unit_cost(recipe: Recipe, unit: Unit) -> UnitCost:
    folder = recipe.run_folder / unit.folder
    manifest = read_manifest(folder)
    if manifest is None:
        return _nothing(NOT_FINISHED)
    if unit.stage in _TRAININGS and read_course(folder) is None:
        return _nothing(ON_CLUSTER)
    num_answers, tokens = _answers(recipe, unit, manifest)
    num_gpus = _num_gpus(recipe, unit)
    return UnitCost(
        seconds=manifest.seconds,
        num_answers=num_answers,
        prompt_tokens=tokens[0],
        output_tokens=tokens[1],
        gpu_hours=None if num_gpus is None else num_gpus * manifest.seconds / 3600,
    )


def _nothing(reason: str) -> UnitCost:
    return UnitCost(
        seconds=None,
        num_answers=None,
        prompt_tokens=None,
        output_tokens=None,
        gpu_hours=None,
        reasons=(reason,),
    )


def _answers(
    recipe: Recipe, unit: Unit, manifest: Manifest
) -> tuple[int | None, tuple[int | None, int | None]]:
    """Returns how many answers a unit holds and their tokens; None where nobody was asked."""
    if unit.stage not in _ASKING:
        return None, (None, None)
    paths = [recipe.run_folder / unit.folder / part.path for part in manifest.parts]
    paths = [path for path in paths if path.suffix == ".parquet"]
    counted = [path for path in paths if set(_TOKENS) <= set(pq.read_schema(path).names)]
    if not counted:
        return None, (None, None)
    tables = [pq.read_table(path, columns=list(_TOKENS)) for path in counted]
    sums = [[pc.sum(table[name]).as_py() for table in tables] for name in _TOKENS]
    prompt, output = (sum(filter(None, each)) if any(each) else None for each in sums)
    return sum(table.num_rows for table in tables), (prompt, output)


def _num_gpus(recipe: Recipe, unit: Unit) -> int | None:
    """Returns the GPUs that a unit's job holds; None where no script of one says."""
    names = [job_name(unit.stage, unit.name), job_name(unit.stage, None)]
    for name in (each + tail for each in names for tail in ("", REST)):
        path = job_folder(recipe.run_folder, name) / SCRIPT
        if not path.is_file():
            continue
        options = dict(_OPTION.findall(path.read_text()))
        if "array" in options:
            return None  # its elements shared the unit
        gpus, nodes = options.get("gpus-per-node", ""), options.get("nodes", "1")
        return int(gpus) * int(nodes) if gpus.isdecimal() and nodes.isdecimal() else None
    return None


def _stages(units: Mapping[str, Unit], known: Mapping[str, UnitCost]) -> tuple[StageCost, ...]:
    """Returns what units took by stage, in the order given."""
    by_stage: dict[str, list[UnitCost]] = {}
    for folder, unit in units.items():
        by_stage.setdefault(unit.stage, []).append(known[folder])
    return tuple(_stage(name, costs) for name, costs in by_stage.items())


def _stage(stage: str, costs: Sequence[UnitCost]) -> StageCost:
    answers = [each for each in costs if each.num_answers is not None]
    return StageCost(
        stage=stage,
        num_units=len(costs),
        seconds=_sum([each.seconds for each in costs]),
        num_answers=sum(each.num_answers or 0 for each in answers) if answers else None,
        prompt_tokens=_tokens([each.prompt_tokens for each in answers]),
        output_tokens=_tokens([each.output_tokens for each in answers]),
        gpu_hours=_sum([each.gpu_hours for each in costs]),
        reasons=tuple(sorted({reason for each in costs for reason in each.reasons})),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) and known else None


def _tokens(values: Sequence[int | None]) -> int | None:
    found = _sum(values)
    return None if found is None else int(found)
