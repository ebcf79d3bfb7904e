"""The recipes that are to be run to their end before another one, which names them in `before`.

What a recipe reads in their run folders need not be there when it is loaded: `mira run` and `mira
ablate` make it first. Every other command says what is missing, and runs nothing of it. Several
recipes may have one run folder, as rubrics of the same records do, so long as no unit is made twice
over, each time of something else.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mira_megatron.config import Recipe
from mira_megatron.pipeline import STAGES, RunAhead, run_stages, stage_units, unit_states
from mira_megatron.stage import Resources, Unit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unfinished:
    """A recipe that is not at its end."""

    recipe: Recipe
    why: str  # what is not done of it

    def __str__(self) -> str:
        """Returns the line that says so."""
        return f"{self.recipe.path} in {self.recipe.run_folder}: {self.why}"


def all_before(recipe: Recipe) -> list[Recipe]:
    """Returns every recipe that comes before this one, directly or not, in running order."""
    found: list[Recipe] = []
    for each in recipe.before:
        found += [one for one in (*all_before(each), each) if one not in found]
    return found


def unfinished_before(recipe: Recipe) -> list[Unfinished]:
    """Returns which of those recipes are not at their end; nothing is run."""
    left = [Unfinished(recipe=each, why=_left_of(each)) for each in all_before(recipe)]
    return [each for each in left if each.why]


def command_for(recipe: Recipe, *words: str) -> str:
    """Returns a shell's line that tells `mira` these words about a recipe with its overrides."""
    command, *options = words
    return shlex.join(["mira", command, str(recipe.path), *recipe.overrides, *options])


def warn_of_unfinished(recipe: Recipe) -> None:
    """Logs a line for each recipe before this one that is not at its end."""
    for each in unfinished_before(recipe):
        logger.warning(
            "before %s comes %s. `%s` does it, and so does `mira run` of this recipe",
            recipe.path.name,
            each,
            command_for(each.recipe, "run"),
        )


def refuse_unfinished(recipe: Recipe, *words: str) -> None:
    """Raises ValueError, with the command for each, where one before this is not at its end."""
    left = unfinished_before(recipe)
    if left:
        commands = "; ".join(f"`{command_for(each.recipe, *words)}`" for each in left)
        raise ValueError(
            f"{recipe.path}: before it comes {'; '.join(map(str, left))}. First {commands}, and "
            "this once that has ended"
        )


def run_before(
    recipe: Recipe,
    resources: Resources,
    run_ahead: Callable[[Recipe], RunAhead | None] = lambda recipe: None,
) -> None:
    """Runs all recipes before this one to their end, and skips what is done.

    `run_ahead` returns what run_stages is given as such for a recipe. First plans this one and all
    of them, so that what is wrong with one is said before hours are spent. Raises ValueError for
    that, for two that would make one folder of different things, and for what run_stages raises.
    """
    earlier = all_before(recipe)
    if earlier:
        _check_folders([*earlier, recipe])
    for each in earlier:
        logger.info("before %s: %s in %s", recipe.path.name, each.path, each.run_folder)
        run_stages(each, list(STAGES), resources, run_ahead=run_ahead(each))


def stages_left(recipe: Recipe, stages: Sequence[str]) -> set[str]:
    """Returns which of the stages have a unit that is not done.

    All of them, where the recipe cannot be planned before those that come before it are run.
    """
    try:
        return {unit.stage for unit, state in unit_states(recipe, stages) if state != "done"}
    except (ValueError, FileNotFoundError):
        if not unfinished_before(recipe):
            raise
        return set(stages)


def _left_of(recipe: Recipe) -> str:
    """Returns what is not done of a recipe, in words; empty when it is at its end."""
    try:
        states = [state for _, state in unit_states(recipe, list(STAGES))]
    except (ValueError, FileNotFoundError) as error:
        return f"not to be planned yet: {error}"
    num_left = sum(state != "done" for state in states)
    return f"{num_left:,} of {len(states):,} units are not done" if num_left else ""


def _planned(recipe: Recipe) -> list[Unit]:
    """Returns the units of a recipe, but for stages that lack what those before it make."""
    folders = [str(each.run_folder) for each in all_before(recipe)]
    provisional = replace(recipe, is_provisional=True)
    units: list[Unit] = []
    for stage in STAGES:
        try:
            units += stage_units(provisional, stage)
        except (ValueError, FileNotFoundError) as error:
            if not any(folder in str(error) for folder in folders):
                raise
    return units


def _check_folders(recipes: list[Recipe]) -> None:
    """Raises ValueError where two recipes would make the same folder of different things."""
    made_by: dict[tuple[str, str], tuple[Recipe, Unit]] = {}
    for recipe in recipes:
        for unit in _planned(recipe):
            at = (str(recipe.run_folder), unit.folder)
            other, same = made_by.setdefault(at, (recipe, unit))
            if _made_of(unit) != _made_of(same):
                raise ValueError(
                    f"{recipe.path} and {other.path} both make {unit.folder} in "
                    f"{recipe.run_folder}, each of something else ({unit.label}). Give them the "
                    "same settings for it, another name (rubric, aggregate.scoring, an arm's), or "
                    "a run_folder each"
                )


def _made_of(unit: Unit) -> object:
    """Returns what two recipes must agree in, so that neither makes the other's unit anew."""
    upstream = set(unit.upstream) - set(unit.outlives)
    inputs = {} if unit.outlives else dict(unit.raw_inputs)
    return unit.stage, unit.name, unit.version, dict(unit.config), upstream, inputs
