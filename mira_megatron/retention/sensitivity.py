"""How much a keep set hangs on reliability decisions that the held-back labels leave open.

Reads   what `select` reads, its keep/<arm>/, ratings/<rubric>/<source>/part-*.parquet of sources
        with an undecided cell
Writes  sensitivity/<arm>/flips.parquet (flips.FLIP_SCHEMA): a row per undecided cell of a ranked
        source, what the keep set would be were that cell decided the other way, and a row for all
        of them at once. No undecided cell: no row

Arms that this one goes without are taken as they stand. In memory are, beside what `select` holds,
a column of scores per undecided cell of one source, and one more per source.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.manifest import Counts
from mira_megatron.reliability.aggregate import AggregateConfig
from mira_megatron.reliability.decisions import UNDECIDED
from mira_megatron.reliability.mask import DecidedCell, masked_scoring, read_mask
from mira_megatron.retention.candidates import SourceDocuments
from mira_megatron.retention.choosing import Choice, EarlierChoice, budget_of
from mira_megatron.retention.documents import kept_by_arm
from mira_megatron.retention.flipped_scores import Mask, Scoring, flipped_scores, with_scores
from mira_megatron.retention.flips import Flip, changes, flips_table
from mira_megatron.retention.select_settings import (
    SelectSettings,
    arm_choice,
    candidates,
    choice_inputs,
    select_settings,
)
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SensitivitySettings:
    """What one arm's unit needs."""

    select: SelectSettings
    scoring: Scoring


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm that ranks by scores of which reliability masks decided."""
    scoring = masked_scoring(recipe)
    if scoring is None or not recipe.mapping("arms"):
        return []
    settings = select_settings(recipe)
    return [_unit(recipe, each) for each in settings if each.config.score == scoring]


def _unit(recipe: Recipe, select: SelectSettings) -> Unit:
    inputs = choice_inputs(recipe, select)
    config = recipe.section("aggregate", AggregateConfig)
    scoring = Scoring(
        rubric=recipe.rubric, trim_fraction=config.trim_fraction, min_slots=config.min_slots
    )
    return Unit(
        stage="sensitivity",
        name=select.arm,
        folder=layout.sensitivity(select.arm),
        version=VERSION,
        config={
            "arm": inputs.config,
            "rubric": scoring.rubric,
            "trim_fraction": scoring.trim_fraction,
            "min_slots": scoring.min_slots,
        },
        upstream=(
            *inputs.upstream,
            *(layout.reliability_mask(select.config.score, source) for source in select.masked),
            *(layout.ratings(recipe.rubric, source) for source in select.masked),
            layout.keep(select.arm),
        ),
        raw_inputs=inputs.raw_inputs,
        raw_files=inputs.raw_files,
        work="mira_megatron.retention.sensitivity:sensitivity",
        settings=SensitivitySettings(select=select, scoring=scoring),
    )


def sensitivity(workspace: Workspace, settings: SensitivitySettings) -> WorkResult:
    """Writes what the keep set of one arm would be with undecided cells the other way round."""
    masks = {source: _mask(workspace, settings, source) for source in settings.select.masked}
    flips = []
    if any(_undecided(mask) for mask in masks.values()):
        flips = list(_flips(workspace, settings, masks))
    write_parquet(workspace.folder / layout.FLIPS, flips_table(flips))
    _log(settings.select.arm, flips)
    return WorkResult(
        counts=Counts(
            num_in=sum(len(mask) for mask in masks.values()),
            num_out=sum(flip.cell is not None for flip in flips),
            totals=_totals(flips),
        ),
        rows={layout.FLIPS: len(flips)},
    )


def _mask(workspace: Workspace, settings: SensitivitySettings, source: str) -> list[DecidedCell]:
    return read_mask(workspace, layout.reliability_mask(settings.select.config.score, source))


def _undecided(mask: Sequence[DecidedCell]) -> list[int]:
    """Returns the slots of a source's undecided cells."""
    return [slot for slot, each in enumerate(mask) if each.decision.decision == UNDECIDED]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chooser:
    """An arm's choice, and what it is with other scores of some sources."""

    settings: SelectSettings
    documents: Sequence[SourceDocuments]
    budget_tokens: int
    choice: Choice

    def flip(self, cell: DecidedCell | None, rescored: Mapping[str, pa.ChunkedArray]) -> Flip:
        """Returns the row of a cell, or of all, given the scores of the sources it decides of."""
        documents = [
            with_scores(entry, rescored[entry.source]) if entry.source in rescored else entry
            for entry in self.documents
        ]
        earlier = EarlierChoice(choice=self.choice, rescored=rescored.keys())
        try:
            flipped = arm_choice(documents, self.settings, self.budget_tokens, earlier)
        except ValueError as error:  # more can be kept then, and floors are more than the budget
            return Flip(cell=cell, by_source=None, reason=str(error))
        return Flip(cell=cell, by_source=changes(documents, self.choice, flipped))


def _flips(
    workspace: Workspace,
    settings: SensitivitySettings,
    masks: Mapping[str, Sequence[DecidedCell]],
) -> Iterator[Flip]:
    """Yields the rows: cell by cell, then all of them; at least one cell is undecided."""
    chooser = _chooser(workspace, settings.select)
    all_flipped: dict[str, pa.ChunkedArray] = {}
    for entry in chooser.documents:
        mask = masks.get(entry.source, ())
        slots = _undecided(mask)
        if not slots:
            continue
        flipped = [_flipped(mask, [slot]) for slot in slots]
        if len(slots) > 1:
            flipped.append(_flipped(mask, slots))
        scores = flipped_scores(workspace, entry, flipped, settings.scoring)
        all_flipped[entry.source] = scores[-1]
        for slot, scores_of_cell in zip(slots, scores, strict=False):  # the last is of all
            yield chooser.flip(mask[slot], {entry.source: scores_of_cell})
    yield chooser.flip(None, all_flipped)


def _flipped(mask: Sequence[DecidedCell], slots: Sequence[int]) -> Mask:
    return tuple(each.decision.is_masked ^ (slot in slots) for slot, each in enumerate(mask))


def _chooser(workspace: Workspace, settings: SelectSettings) -> _Chooser:
    documents = candidates(workspace, settings)
    budget = budget_of(documents, settings.config)
    choice = arm_choice(documents, settings, budget)
    for entry in documents:
        is_kept_D = kept_by_arm(workspace, settings.arm, entry.source)
        assert np.array_equal(is_kept_D, choice.sources[entry.source].times_D > 0), entry.source
    return _Chooser(
        # What a row quotes is the same wherever the recipe lies.
        settings=replace(settings, where=f"arms.{settings.arm}"),
        documents=documents,
        budget_tokens=budget,
        choice=choice,
    )


def _totals(flips: Sequence[Flip]) -> dict[str, float]:
    """Returns the largest share that one cell changes, and that of all; none where not known."""
    totals: dict[str, float] = {}
    for flip in flips:
        fraction = _changed_fraction(flip)
        if fraction is not None:
            name = "joint_changed_fraction" if flip.cell is None else "max_changed_fraction"
            totals[name] = max(fraction, totals.get(name, 0.0))
    return totals


def _changed_fraction(flip: Flip) -> float | None:
    return None if flip.change is None else flip.change.changed_fraction


def _log(arm: str, flips: Sequence[Flip]) -> None:
    if not flips:
        logger.info("sensitivity %s: no undecided cell, nothing to flip", arm)
    for flip in flips:
        cell = flip.cell
        named = "all undecided cells"
        if cell is not None:
            how = "masked" if cell.decision.is_masked else "counted"
            named = f"{cell.cell.source} {cell.cell.anchor_id} {cell.cell.anchor_name} ({how})"
        if flip.change is None:
            logger.warning("sensitivity %s: %s flipped: %s", arm, named, flip.reason)
            continue
        fraction = flip.change.changed_fraction
        logger.info(
            "sensitivity %s: %s flipped: %s records (%s tokens) enter, %s (%s) leave, %s of the "
            "kept tokens",
            arm,
            named,
            f"{flip.change.num_entering:,}",
            f"{flip.change.tokens_entering:,}",
            f"{flip.change.num_leaving:,}",
            f"{flip.change.tokens_leaving:,}",
            "none" if fraction is None else f"{fraction:.1%}",
        )
