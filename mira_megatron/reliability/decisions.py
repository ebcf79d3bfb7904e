"""Which anchors of a source count: a cell's agreement, with its uncertainty, beside thresholds."""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron.config import Recipe
from mira_megatron.reliability.cells import MIN_PAIRS, ONE_SCORE, Cell
from mira_megatron.reliability.intervals import Resampling

KEEP, MASKED, UNDECIDED, TOO_FEW = DECISIONS = ("keep", "masked", "undecided", "too_few")
COMBINATIONS = ("both", "either", "mae", "rho")
BY_ESTIMATE = "by_estimate"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityConfig:
    """When a scorer is trusted on an anchor of a source: a recipe's section `reliability`.

    The paper masks by mean absolute error and Spearman's and tells neither its thresholds nor how
    they combine, so what stands here is our choice unless it says otherwise.
    """

    max_mae: float = 1.0  # at most, of 0-10; the example of a third party's summary of the paper
    min_rho: float = 0.4  # at least; what our logs count as followed
    combine: str = "both"  # what a cell that is kept must hold: one of COMBINATIONS
    min_records: int = 30  # that teacher and scorer both scored; with fewer nothing is decided
    confidence: float = 0.95  # of the intervals
    resamples: int = 1000  # of each cell's bootstrap
    undecided: str = BY_ESTIMATE  # keep | mask | by_estimate, which is a threshold without interval
    too_few: str = "keep"  # keep | mask: nothing is known against it

    def __post_init__(self) -> None:
        if not 0 <= self.max_mae <= 10:
            raise ValueError(f"max_mae={self.max_mae} must be in [0, 10]")
        if not -1 <= self.min_rho <= 1:
            raise ValueError(f"min_rho={self.min_rho} must be in [-1, 1]")
        _check_choice("combine", self.combine, COMBINATIONS)
        _check_choice("undecided", self.undecided, ("keep", "mask", BY_ESTIMATE))
        _check_choice("too_few", self.too_few, ("keep", "mask"))
        if self.min_records < MIN_PAIRS:
            raise ValueError(
                f"min_records={self.min_records} must be at least {MIN_PAIRS}: fewer have no rank "
                "correlation to speak of"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must be in (0, 1)")
        if self.resamples < 1:
            raise ValueError(f"resamples={self.resamples} must be at least 1")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of one anchor of one source."""

    decision: str  # one of DECISIONS
    is_masked: bool  # whether its scores are left out of the record scores


def reliability_config(recipe: Recipe) -> ReliabilityConfig:
    """Returns the recipe's section `reliability`, its defaults where there is none."""
    return recipe.section("reliability", ReliabilityConfig)


def resampling(recipe: Recipe) -> Resampling:
    """Returns how the recipe's intervals are made."""
    config = reliability_config(recipe)
    return Resampling(confidence=config.confidence, resamples=config.resamples, seed=recipe.seed)


def decide(cell: Cell, config: ReliabilityConfig) -> Decision:
    """Returns the decision on a cell.

    Mean absolute error *holds* where its interval ends at `max_mae` or below, and *fails* where it
    begins above; rho holds where its interval begins at `min_rho` or above, and fails where it ends
    below; it fails, too, where the scorer gave one score to all records and the teacher did not.
    Else either is open. `combine: both` holds where both hold and fails where one fails,
    `either` holds where one holds and fails where both fail; `mae` and `rho` are that one alone.

    too_few: fewer than `min_records` records, or neither intervals nor estimates can tell, as rho
    is missing (the cell's reason says why). keep and masked: the combination holds, or fails.
    undecided: it is open, and the estimates alone would tell.
    """
    if cell.n < config.min_records:
        return Decision(decision=TOO_FEW, is_masked=config.too_few == "mask")
    holds = _verdict(
        cell, config, mae=(cell.mae_low, cell.mae_high), rho=(cell.rho_low, cell.rho_high)
    )
    if holds is not None:
        return Decision(decision=KEEP if holds else MASKED, is_masked=not holds)
    estimate = _verdict(cell, config, mae=(cell.mae, cell.mae), rho=(cell.rho, cell.rho))
    if estimate is None:
        return Decision(decision=TOO_FEW, is_masked=config.too_few == "mask")
    is_masked = not estimate if config.undecided == BY_ESTIMATE else config.undecided == "mask"
    return Decision(decision=UNDECIDED, is_masked=is_masked)


def _verdict(
    cell: Cell,
    config: ReliabilityConfig,
    *,
    mae: tuple[float | None, float | None],
    rho: tuple[float | None, float | None],
) -> bool | None:
    """Returns whether the combination holds of a cell, by intervals from low to high."""
    low, high = map(_negative, rho)
    rho_holds = False if cell.reason == ONE_SCORE else _holds(high, low, at_most=-config.min_rho)
    return _combined(_holds(*mae, at_most=config.max_mae), rho_holds, config.combine)


def _holds(low: float | None, high: float | None, *, at_most: float) -> bool | None:
    """Returns whether an interval lies wholly at or below a limit; None where it is open."""
    if low is None or high is None:
        return None
    if high <= at_most:
        return True
    return False if low > at_most else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _combined(mae_holds: bool | None, rho_holds: bool | None, combine: str) -> bool | None:
    """Returns whether a combination holds; None where what is open decides."""
    both = (mae_holds, rho_holds)
    match combine:
        case "mae":
            return mae_holds
        case "rho":
            return rho_holds
        case "both":
            return False if False in both else None if None in both else True
        case _:
            return True if True in both else None if None in both else False
