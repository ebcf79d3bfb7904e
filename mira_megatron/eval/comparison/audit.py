"""Does a published table add up? Averages recomputed, and each share checked to be one of n tasks.

Exact arithmetic on the numbers as printed. A printed number stands for all that round to it, so an
average is off only where no values behind its parts could have given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

from mira_megatron.eval.comparison.published import PublishedRow, PublishedTable
from mira_megatron.eval.comparison.table import CATEGORIES, MACRO


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Whether a printed percentage is k of n."""

    row: str  # "" where the row is not known
    name: str
    stated: Decimal
    counts: Mapping[int, int | None]  # n -> the k that rounds to it, None where there is none

    @property
    def is_attainable(self) -> bool:
        """Returns whether some n that the benchmark may have had gives the number."""
        return any(count is not None for count in self.counts.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedRow:
    """One row: its macro as stated and as its categories give it."""

    label: str
    stated: Decimal | None
    recomputed: Decimal | None  # rounded as stated; None: a category is not there
    gap: Decimal | None  # stated - recomputed
    is_consistent: bool | None  # None: nothing to compare
    repairs: Mapping[str, Decimal]  # what one category alone would have to be, within 0 to 100
    stated_rank: int | None
    recomputed_rank: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What came out, and in words."""

    rows: tuple[AuditedRow, ...]
    shares: tuple[Share, ...]
    findings: tuple[str, ...]


def audit(table: PublishedTable) -> Audit:
    """Returns what a table's own numbers say about each other."""
    recomputed = {row.label: _exact_macro(row) for row in table.rows}
    stated_ranks = _ranks({row.label: row.stated.get(MACRO) for row in table.rows})
    # Ranked as printed: what differs behind the last decimal is no difference in the table.
    recomputed_ranks = _ranks(
        {row.label: _as_printed(recomputed[row.label], row) for row in table.rows}
    )
    rows = tuple(
        _audited(row, recomputed[row.label], stated_ranks[row.label], recomputed_ranks[row.label])
        for row in table.rows
    )
    shares = tuple(_shares(table))
    return Audit(rows=rows, shares=shares, findings=tuple(_findings(table, rows, shares)))


def share_of(stated: Decimal, num_tasks: int) -> int | None:
    """Returns the k of which 100 k / n rounds to a printed number; None where there is none.

    Any way of rounding a half is allowed. Of several, the nearest.
    """
    half = _half_unit(stated)
    low = ((stated - half) * num_tasks / 100).to_integral_value(ROUND_CEILING)
    high = ((stated + half) * num_tasks / 100).to_integral_value(ROUND_FLOOR)
    counts = [k for k in range(int(low), int(high) + 1) if 0 <= k <= num_tasks]
    return min(counts, key=lambda k: abs(Decimal(100 * k) - stated * num_tasks), default=None)


def _half_unit(number: Decimal) -> Decimal:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "a number as printed is finite"
    return Decimal(5).scaleb(exponent - 1)


def _exact_macro(row: PublishedRow) -> Decimal | None:
    if any(name not in row.stated for name in CATEGORIES):
        return None
    return sum((row.stated[name] for name in CATEGORIES), Decimal(0)) / len(CATEGORIES)


def _as_printed(macro: Decimal | None, row: PublishedRow) -> Decimal | None:
    if macro is None:
        return None
    example = row.stated.get(MACRO, Decimal("0.01"))
    return macro.quantize(example, ROUND_HALF_UP)


def _audited(
    row: PublishedRow, exact: Decimal | None, stated_rank: int | None, recomputed_rank: int | None
) -> AuditedRow:
    stated, printed = row.stated.get(MACRO), _as_printed(exact, row)
    is_consistent, gap, repairs = None, None, {}
    if stated is not None and exact is not None and printed is not None:
        parts = [row.stated[name] for name in CATEGORIES]
        slack = _half_unit(stated) + sum(map(_half_unit, parts), Decimal(0)) / len(parts)
        is_consistent, gap = abs(stated - exact) <= slack, stated - printed
        if not is_consistent:
            repairs = _repairs(row, stated)
    return AuditedRow(
        label=row.label,
        stated=stated,
        recomputed=printed,
        gap=gap,
        is_consistent=is_consistent,
        repairs=repairs,
        stated_rank=stated_rank,
        recomputed_rank=recomputed_rank,
    )


def _repairs(row: PublishedRow, stated: Decimal) -> dict[str, Decimal]:
    total = sum((row.stated[name] for name in CATEGORIES), Decimal(0))
    wanted = {name: row.stated[name] + len(CATEGORIES) * stated - total for name in CATEGORIES}
    return {name: value for name, value in wanted.items() if 0 <= value <= 100}


def _shares(table: PublishedTable) -> list[Share]:
    """Returns the numbers that are a share of one benchmark's tasks, not a mean of several."""
    stated = [("", name, number) for name, number in table.best.items()]
    for row in table.rows:
        for category, members in CATEGORIES.items():
            if len(members) == 1 and members[0] in table.sizes and category in row.stated:
                stated.append((row.label, members[0], row.stated[category]))
    return [
        Share(
            row=label,
            name=name,
            stated=number,
            counts={count: share_of(number, count) for count in table.sizes[name].counts},
        )
        for label, name, number in stated
        if name in table.sizes
    ]


def _unless_attainable(table: PublishedTable, category: str, value: Decimal) -> str:
    members = CATEGORIES[category]
    if len(members) > 1 or members[0] not in table.sizes:
        return ""
    counts = table.sizes[members[0]].counts
    is_share = any(share_of(value, count) is not None for count in counts)
    return "" if is_share else f" (no share of {' or '.join(f'{n:,}' for n in counts)} tasks)"


def _ranks(macros: Mapping[str, Decimal | None]) -> dict[str, int | None]:
    known = [macro for macro in macros.values() if macro is not None]
    return {
        label: None if macro is None else 1 + sum(other > macro for other in known)
        for label, macro in macros.items()
    }


def _findings(
    table: PublishedTable, rows: tuple[AuditedRow, ...], shares: tuple[Share, ...]
) -> list[str]:
    found = []
    for row in rows:
        if row.is_consistent is False:
            repairs = ", ".join(
                f"{name} {value}{_unless_attainable(table, name, value)}"
                for name, value in row.repairs.items()
            )
            found.append(
                f"{row.label}: macro is stated as {row.stated}, its categories give "
                f"{row.recomputed} (stated - recomputed {row.gap:+}). One of these alone would "
                f"repair it: {repairs or 'none'}"
            )
    for row in rows:
        if row.stated_rank is not None and row.recomputed_rank not in (None, row.stated_rank):
            found.append(
                f"{row.label}: rank {row.stated_rank} of {len(rows)} as stated, "
                f"{row.recomputed_rank} as recomputed"
            )
    for share in shares:
        where = f"{share.row}: " if share.row else ""
        fitting = [n for n, k in share.counts.items() if k is not None]
        if not fitting:
            tried = " or ".join(f"{n:,}" for n in share.counts)
            found.append(f"{where}{share.name} {share.stated} is no share of {tried} tasks")
        elif len(fitting) < len(share.counts):
            found.append(
                f"{where}{share.name} {share.stated} is {share.counts[fitting[0]]:,} of "
                f"{fitting[0]:,}, and no share of "
                + " or ".join(f"{n:,}" for n in share.counts if n not in fitting)
            )
    return found
