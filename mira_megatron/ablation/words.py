"""How the table's numbers are written for people."""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.ablation.benchmarks import Benchmarks
from mira_megatron.ablation.contaminated import ArmHits, Hits
from mira_megatron.ablation.degraded import DegradedRow
from mira_megatron.ablation.estimates import Estimate, Gap
from mira_megatron.ablation.table import DIGITS, POINT_DIGITS, AblationTable
from mira_megatron.eval.comparison.table import title_of
from mira_megatron.eval.comparison.written import points_text
from mira_megatron.eval.contamination.items import DEFAULT_THRESHOLD
from mira_megatron.report.arm_overlap import MAX_LANGUAGE_RECORDS
from mira_megatron.written_numbers import MISSING, decimal, grouped, percent

NO_LANGUAGES = "None named: no sampled record's meta names a language (language, lang, "
NO_LANGUAGES += "programming_language). The shares by source say what there is."

DEGRADED_BASIS = "Tokens kept of copies spoiled on purpose, and of the real records of the same "
DEGRADED_BASIS += "sources. Such defects are easier to see than natural ones."
_REAL = "real records"


def bits_text(estimate: Estimate) -> str:
    """Returns 1.2345 [1.2001, 1.2689]."""
    return _with_interval(estimate, DIGITS)


def score_text(estimate: Estimate | None) -> str:
    """Returns 53.91 [50.12, 57.70]; n/a where there is none."""
    return MISSING if estimate is None else _with_interval(estimate, POINT_DIGITS)


def gap_text(gap: Gap, digits: int = DIGITS) -> str:
    """Returns a difference with its sign."""
    return points_text(gap.value, digits)


def gap_interval_text(gap: Gap, digits: int = DIGITS) -> str:
    """Returns a difference's interval with signs; nothing where there is none."""
    if gap.interval is None:
        return ""
    ends = (points_text(end, digits) for end in (gap.interval.low, gap.interval.high))
    return f"[{', '.join(ends)}]"


def interval_text(estimate: Estimate, digits: int) -> str:
    """Returns [1.2001, 1.2689]; nothing where there is none."""
    interval = estimate.interval
    if interval is None:
        return ""
    return f"[{decimal(interval.low, digits)}, {decimal(interval.high, digits)}]"


def share_text(share: float) -> str:
    """Returns 12.3%."""
    return f"{100 * share:.1f}%"


def change_text(of_candidates: float, of_kept: float) -> str:
    """Returns by how many points a share changed."""
    return points_text(100 * (of_kept - of_candidates), 1)


def basis_text(table: AblationTable) -> str:
    """Returns what the numbers stand on, in a sentence or two."""
    num = len(table.seeds)
    seeds = f"mean over {num} seeds" if num > 1 else "one seed"
    drawn = "documents and seeds" if num > 1 else "documents"
    return (
        f"Held-out loss in bits per byte, lower is better; {seeds}. 95 % intervals from "
        f"{table.resamples:,} resamples of {drawn}."
    )


def benchmarks_basis_text(table: AblationTable) -> str:
    """Returns what the scores stand on."""
    num = len(table.seeds)
    drawn = "tasks and seeds" if num > 1 else "tasks"
    return (
        f"pass@1 in percent, higher is better; {'mean over seeds' if num > 1 else 'one seed'}. "
        f"95 % intervals from {table.resamples:,} joint resamples of clusters of {drawn}."
    )


def tasks_text(benchmarks: Benchmarks, name: str) -> str:
    """Returns how many tasks a number is of, and how many were left out; nothing of an average."""
    if name not in benchmarks.num_tasks:
        return ""
    left_out = benchmarks.num_left_out[name]
    tasks = grouped(benchmarks.num_tasks[name])
    return f"{tasks} (+ {left_out:,} left out)" if left_out else tasks


def benchmark_notes(table: AblationTable) -> list[str]:
    """Returns in sentences what is missing of the scores, and why."""
    benchmarks = table.benchmarks
    if benchmarks is None:
        return []
    notes = [f"{title_of(name)}: {reason}." for name, reason in benchmarks.missing.items()]
    if any(benchmarks.num_left_out.values()):
        notes.append(
            "Tasks left out: in some model their verdict says nothing about the program, so they "
            "count for none. Run mira eval again for them."
        )
    without = [row.arm for row in table.arms if not row.scores]
    if without and benchmarks.headline is not None:
        notes.append(f"Not evaluated: {', '.join(without)}.")
    return notes


def contamination_basis_text() -> str:
    """Returns what the counts of contaminated documents are."""
    return (
        "Kept documents that share n-grams or SQL queries with items of the suite's benchmarks: "
        "any, and over the threshold at which mira decontaminate leaves a record out (score "
        f"{DEFAULT_THRESHOLD}). Each document once."
    )


def contamination_notes(hits: ArmHits) -> str:
    """Returns why counts are missing or not of all that an arm keeps; nothing where they are."""
    if hits.reason is not None:
        return hits.reason
    if not hits.not_scanned:
        return ""
    return (
        f"not of {', '.join(hits.not_scanned)}: tokens without records "
        f"({grouped(hits.tokens_not_scanned)} kept)"
    )


def documents_text(hits: Hits | None) -> str:
    """Returns 12 (3 over): documents that have anything, and those over the threshold."""
    return MISSING if hits is None else f"{grouped(hits.num_documents)} ({hits.num_over:,} over)"


def tokens_text(hits: Hits | None, of: int) -> str:
    """Returns the tokens of contaminated documents, with their share."""
    if hits is None:
        return MISSING
    return f"{grouped(hits.tokens)} ({percent(hits.tokens, of)})"


def degraded_titles(rows: Sequence[DegradedRow]) -> list[str]:
    """Returns what the shares kept are of: real records, then each way of degrading."""
    return list(dict.fromkeys((row.way or _REAL).replace("_", "-") for row in rows))


def degraded_texts(rows: Sequence[DegradedRow]) -> dict[str, list[str]]:
    """Returns by arm what it keeps of each, in the order of the titles: 1,200 (48.0%)."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row.arm, []).append(_kept_text(row))
    return texts


def _kept_text(row: DegradedRow) -> str:
    return f"{grouped(row.tokens_kept)} ({percent(row.tokens_kept, row.tokens_candidates)})"


def languages_basis_text() -> str:
    """Returns how languages are known."""
    return (
        f"Shares of tokens, each document once; estimated from up to {MAX_LANGUAGE_RECORDS:,} "
        "records whose meta is looked up."
    )


def _with_interval(estimate: Estimate, digits: int) -> str:
    shown = (decimal(estimate.value, digits), interval_text(estimate, digits))
    return " ".join(filter(None, shown))
