"""The table as a Markdown document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mira_megatron.ablation.estimates import Gap
from mira_megatron.ablation.table import DIGITS, POINT_DIGITS, AblationTable, findings
from mira_megatron.ablation.words import (
    DEGRADED_BASIS,
    NO_LANGUAGES,
    basis_text,
    benchmark_notes,
    benchmarks_basis_text,
    bits_text,
    change_text,
    contamination_basis_text,
    contamination_notes,
    degraded_texts,
    degraded_titles,
    documents_text,
    gap_interval_text,
    gap_text,
    languages_basis_text,
    score_text,
    share_text,
    tasks_text,
    tokens_text,
)
from mira_megatron.eval.comparison.written import p_text
from mira_megatron.written_numbers import decimal, grouped
from mira_megatron.written_tables import markdown_table, markdown_text

_HOW_TESTED = "Student's t over seeds; Holm over all arms, "


def table_markdown(table: AblationTable) -> str:
    """Returns the document."""
    lines = [
        f"# Ablation: {markdown_text(table.recipe_name)}",
        "",
        basis_text(table),
        "",
        *(f"* {markdown_text(each)}" for each in findings(table)),
        "",
        *_arms(table),
        "",
        *_differences(table),
        *_benchmarks(table),
        *_degraded(table),
        *_overlaps(table),
        *_lengths(table),
        *_shares(table, "languages"),
        *_shares(table, "sources"),
        *_contamination(table),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _arms(table: AblationTable) -> list[str]:
    rows = [
        [
            markdown_text(row.arm),
            grouped(row.tokens_kept),
            grouped(row.num_steps),
            *(bits_text(row.bits[name]) for name in table.names),
        ]
        for row in table.arms
    ]
    return markdown_table(
        ["arm", "tokens kept", "steps", *(markdown_text(name) for name in table.names)], rows
    )


def _differences(table: AblationTable) -> list[str]:
    if table.reference is None:
        return []
    return [
        f"## Minus {markdown_text(table.reference)}",
        "",
        f"Paired by document and seed; {_HOW_TESTED}the mean and the groups each for themselves.",
        "",
        *_gap_rows(table.gaps, table.gap_titles, DIGITS),
        "",
    ]


def _gap_rows(
    arms: Sequence[tuple[str, Mapping[str, Gap]]], titles: Mapping[str, str], digits: int
) -> list[str]:
    rows = [
        [
            markdown_text(arm),
            markdown_text(title),
            gap_text(gap := gaps[name], digits),
            gap_interval_text(gap, digits),
            p_text(gap.p),
            p_text(gap.p_holm),
            gap.verdict,
        ]
        for name, title in titles.items()
        for arm, gaps in arms
    ]
    return markdown_table(
        ["arm", "on", "difference", "95 % interval", "p", "p (Holm)", ""],
        rows,
    )


def _benchmarks(table: AblationTable) -> list[str]:
    benchmarks = table.benchmarks
    if benchmarks is None:
        return []
    lines = ["## Benchmarks", "", benchmarks_basis_text(table), ""]
    if notes := benchmark_notes(table):
        lines += [*(f"* {markdown_text(each)}" for each in notes), ""]
    if benchmarks.headline is None:
        return lines
    rows = [
        [
            markdown_text(title),
            tasks_text(benchmarks, name),
            *(score_text(row.scores.get(name)) for row in table.arms),
        ]
        for name, title in benchmarks.titles.items()
    ]
    arms = [markdown_text(row.arm) for row in table.arms]
    lines += [*markdown_table(["benchmark", "tasks", *arms], rows), ""]
    if table.reference is None or not table.score_gaps:
        return lines
    return [
        *lines,
        f"## Benchmarks, minus {markdown_text(table.reference)}",
        "",
        f"Percent points, paired by task and seed; {_HOW_TESTED}the first number and its parts "
        "each for themselves.",
        "",
        *_gap_rows(table.score_gaps, benchmarks.titles, POINT_DIGITS),
        "",
    ]


def _degraded(table: AblationTable) -> list[str]:
    if not table.degraded:
        return []
    rows = [[markdown_text(arm), *texts] for arm, texts in degraded_texts(table.degraded).items()]
    headings = ["arm", *degraded_titles(table.degraded)]
    return ["## Degraded copies kept", "", DEGRADED_BASIS, "", *markdown_table(headings, rows), ""]


def _overlaps(table: AblationTable) -> list[str]:
    rows = [
        [
            markdown_text(pair.arm),
            markdown_text(pair.other),
            grouped(pair.tokens_in_both),
            decimal(pair.jaccard, 3),
        ]
        for pair in table.overlaps
    ]
    headings = ["arm", "other arm", "tokens in both", "Jaccard"]
    return ["## Kept tokens in common", "", *markdown_table(headings, rows), ""]


def _lengths(table: AblationTable) -> list[str]:
    rows = [
        [
            markdown_text(row.arm),
            decimal(row.mean_length_of_candidates, 1),
            decimal(row.mean_length, 1),
        ]
        for row in table.arms
        if row.tokens_kept is not None
    ]
    headings = ["arm", "candidates", "kept"]
    title = "## Mean length of documents, in tokens"
    return [title, "", *markdown_table(headings, rows), ""]


def _shares(table: AblationTable, what: str) -> list[str]:
    """Returns what of candidates and of what is kept is of each language, or each source."""
    rows = [
        [
            markdown_text(drift.arm),
            markdown_text(name),
            share_text(of_candidates),
            share_text(of_kept),
            change_text(of_candidates, of_kept),
        ]
        for drift in table.drifts
        for name, of_candidates, of_kept in getattr(drift, what)
    ]
    lines = [f"## Kept tokens by {what.removesuffix('s')}", ""]
    if what == "languages":
        lines += [languages_basis_text() if rows else markdown_text(NO_LANGUAGES), ""]
    if not rows:
        return lines
    headings = ["arm", what.removesuffix("s"), "of candidates", "of kept", "change, points"]
    return [*lines, *markdown_table(headings, rows), ""]


def _contamination(table: AblationTable) -> list[str]:
    if table.contamination is None:
        return []
    rows = [
        [
            markdown_text(each.arm),
            documents_text(each.candidates),
            documents_text(each.kept),
            tokens_text(each.kept, each.tokens_scanned),
            ", ".join(
                f"{markdown_text(name)} {documents_text(hits)}"
                for name, hits in each.benchmarks.items()
                if hits.num_documents
            ),
            markdown_text(contamination_notes(each)),
        ]
        for each in table.contamination
    ]
    headings = ["arm", "candidates", "kept", "tokens kept", "kept, by benchmark", ""]
    return [
        "## Benchmark items in what arms keep",
        "",
        contamination_basis_text(),
        "",
        *markdown_table(headings, rows),
        "",
    ]
