"""Running all stages so that an arm which fails takes nothing with it but what reads it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mira_megatron.atomic_files import NO_SPACE
from mira_megatron.config import Recipe
from mira_megatron.file_lock import LockHeldError
from mira_megatron.launchers.units_at_once import UnitsAtOnce
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import STAGES, run_stages
from mira_megatron.stage import Resources, Run, Unit, run_unit

logger = logging.getLogger(__name__)

# Of these every arm is made: without them there is nothing left to go on with.
_OF_EVERY_ARM = ("ingest", "group", "tokenize", "adopt")


@dataclass(kw_only=True, slots=True)
class SurvivingRun:
    """What became of the units of a run; called with each in turn."""

    num_made: int = 0
    num_reused: int = 0  # done before, or taken over from another run
    failed: dict[str, str] = field(default_factory=dict)  # unit -> why
    left_out: list[str] = field(default_factory=list)  # units that read one that failed
    lost: set[str] = field(default_factory=set)  # folders of both
    made_ahead: AbstractSet[str] = frozenset()  # folders of units that other processes made for it

    def __call__(self, unit: Unit, run: Run, resources: Resources) -> None:
        """Runs one unit, unless what it reads has failed.

        Raises what is wrong for every arm: a full disk, a lock that another process holds, and
        whatever happens to a unit that all arms are made of.
        """
        if not self.lost.isdisjoint((*unit.upstream, *unit.waits_for)):
            self.lost.add(unit.folder)
            self.left_out.append(unit.label)
            logger.warning("%s: left out, it reads what failed", unit.label)
            return
        before = read_manifest(run.folder / unit.folder)
        try:
            after = run_unit(unit, run, resources)
        except LockHeldError:
            raise
        except (ValueError, OSError) as error:
            is_full = isinstance(error, OSError) and error.errno in NO_SPACE
            if is_full or unit.stage in _OF_EVERY_ARM:
                raise
            self.lost.add(unit.folder)
            self.failed[unit.label] = str(error)
            logger.error("%s failed: %s", unit.label, error)
            return
        is_old = after == before and unit.folder not in self.made_ahead
        if is_old or after.reused_from is not None:
            self.num_reused += 1
        else:
            self.num_made += 1


def run_surviving(
    recipe: Recipe,
    resources: Resources,
    stages: Sequence[str] = tuple(STAGES),
    run_ahead: UnitsAtOnce | None = None,
) -> SurvivingRun:
    """Returns what became of every unit of the stages."""
    surviving = SurvivingRun()
    if run_ahead is not None:
        surviving.made_ahead = run_ahead.made
    run_stages(recipe, stages, resources, run_one=surviving, run_ahead=run_ahead)
    return surviving
