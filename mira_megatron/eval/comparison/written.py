"""How a comparison's numbers are written for people: percent, points, intervals, p values."""

from __future__ import annotations

from mira_megatron.eval.comparison.differences import Difference
from mira_megatron.eval.comparison.scores import Score
from mira_megatron.eval.statistics.intervals import Interval
from mira_megatron.written_numbers import MISSING, decimal

LEAST_P = 0.0001
MINUS = "−"


def percent_text(value: float | None) -> str:
    """Returns 53.91, the decimals that published tables have."""
    return MISSING if value is None else decimal(value, 2)


def interval_text(interval: Interval | None) -> str:
    """Returns [50.1, 57.7]; nothing where there is none."""
    return "" if interval is None else f"[{decimal(interval.low, 1)}, {decimal(interval.high, 1)}]"


def score_text(score: Score) -> str:
    """Returns a score with its interval."""
    return " ".join(filter(None, (percent_text(score.value), interval_text(score.interval))))


def points_text(value: float | None, digits: int = 2) -> str:
    """Returns +1.20 or −0.35, points with their sign."""
    if value is None:
        return MISSING
    text = f"{value:+z.{digits}f}".replace("-", MINUS)
    return text[1:] if float(f"{abs(value):.{digits}f}") == 0 else text


def points_interval_text(interval: Interval | None) -> str:
    """Returns [−0.3, +2.7]; nothing where there is none."""
    if interval is None:
        return ""
    return f"[{points_text(interval.low, 1)}, {points_text(interval.high, 1)}]"


def p_text(p: float | None) -> str:
    """Returns 0.0132, < 0.0001; nothing where nothing was tested."""
    if p is None:
        return ""
    return f"< {LEAST_P}" if p < LEAST_P else f"{p:.4f}"


def verdict_text(difference: Difference) -> str:
    """Returns in a word what a difference comes to at the level of 5 %, after correction."""
    if difference.p_holm is None:
        return ""
    if difference.p_holm >= 0.05:
        return "within noise"
    return "better" if (difference.value or 0.0) > 0 else "worse"
