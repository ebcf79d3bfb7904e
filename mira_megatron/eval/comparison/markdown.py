"""A comparison as Markdown, for a model card or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.eval.comparison.comparison import UNPAIRED, Beside, Comparison, Published
from mira_megatron.eval.comparison.differences import Difference
from mira_megatron.eval.comparison.pairs import Pair
from mira_megatron.eval.comparison.scores import Score, num_lost
from mira_megatron.eval.comparison.table import BENCHMARKS, MACRO, SUMMARY, title_of
from mira_megatron.eval.comparison.written import (
    p_text,
    percent_text,
    points_interval_text,
    points_text,
    score_text,
    verdict_text,
)
from mira_megatron.written_numbers import MISSING, decimal
from mira_megatron.written_tables import markdown_table, markdown_text

_UNLIKE_MARK, _PARTIAL_MARK = "†", "‡"


def comparison_markdown(comparison: Comparison) -> str:
    """Returns the document."""
    lines = ["# Comparison", ""]
    if comparison.arms:
        lines += [
            "Percent right, with 95 % intervals. Tasks, or clusters of them, are what was drawn.",
            "",
            *_scores(comparison, SUMMARY),
            "",
            "## Benchmarks",
            "",
            *_scores(comparison, BENCHMARKS),
            "",
            *_resolution(comparison),
            *_missing(comparison),
            *_losses(comparison),
            *_subscores(comparison),
        ]
    for pair in comparison.pairs:
        lines += _pair(pair)
    if comparison.published is not None:
        lines += _published(comparison.published)
    lines += [*_partial(comparison), *_unlike(comparison)]
    return "\n".join(lines).rstrip() + "\n"


def _scores(comparison: Comparison, names: Sequence[str]) -> list[str]:
    rows = [
        [
            markdown_text(each.arm.label),
            *(
                score_text(each.scores[name]) + _mark(comparison, each.scores[name])
                for name in names
            ),
        ]
        for each in comparison.arms
    ]
    return markdown_table(["arm", *map(title_of, names)], rows)


def _mark(comparison: Comparison, score: Score) -> str:
    if score.value is None:
        return ""
    unlike = _UNLIKE_MARK if score.name in comparison.unlike else ""
    return unlike + (_PARTIAL_MARK if score.is_partial else "")


def _resolution(comparison: Comparison) -> list[str]:
    lines = [
        f"* {markdown_text(each.arm.label)}: this suite resolves macro differences of about "
        f"{decimal(macro.resolves, 1)} points between two runs that are not paired "
        "(80 % power at the 5 % level)."
        for each in comparison.arms
        if (macro := each.scores[MACRO]).resolves is not None
    ]
    return [*lines, ""] if lines else []


def _missing(comparison: Comparison) -> list[str]:
    lines = [
        f"* {markdown_text(label)}, {title}: {markdown_text(reason)}"
        for label, title, reason in comparison.missing()
    ]
    return ["## Missing", "", *lines, ""] if lines else []


def _losses(comparison: Comparison) -> list[str]:
    rows = [
        [
            markdown_text(each.arm.label),
            markdown_text(score.title),
            ", ".join(f"{name} {count:,}" for name, count in graded.statuses.items()),
            percent_text(score.value),
            percent_text(graded.bounds.highest),
        ]
        for each in comparison.arms
        for score in each.scores.values()
        if (graded := score.graded) is not None and num_lost(graded.statuses)
    ]
    if not rows:
        return []
    headings = ["arm", "benchmark", "samples", "all lost ones wrong", "all lost ones right"]
    return ["## Lost answers", "", *markdown_table(headings, rows), ""]


def _subscores(comparison: Comparison) -> list[str]:
    rows = [
        [
            markdown_text(each.arm.label),
            markdown_text(sub.title),
            sub.subset,
            MISSING if sub.num_tasks is None else f"{sub.num_tasks:,}",
            percent_text(sub.value),
            percent_text(each.scores[sub.name].value),
            markdown_text(sub.reason or ""),
        ]
        for each in comparison.arms
        for sub in each.subscores
    ]
    if not rows:
        return []
    headings = ["arm", "", "subset", "tasks", "score", "score of all tasks", ""]
    return ["## Subsets of the tasks", "", *markdown_table(headings, rows), ""]


def _pair(pair: Pair) -> list[str]:
    rows = [
        [
            each.title + (_UNLIKE_MARK if each.is_unlike else ""),
            points_text(each.value) if each.value is not None else MISSING,
            points_interval_text(each.interval),
            p_text(each.p),
            p_text(each.p_holm),
            "" if each.num_gained is None else f"{each.num_gained:,} / {each.num_lost:,}",
            "" if each.resolves is None else decimal(each.resolves, 1),
            verdict_text(each),
        ]
        for each in _shown(pair)
    ]
    headings = [
        "",
        "difference",
        "95 % interval",
        "p",
        "p (Holm)",
        "tasks gained / lost",
        "resolves",
        "",
    ]
    names = f"{markdown_text(pair.other)} minus {markdown_text(pair.baseline)}"
    return [
        f"## {names}",
        "",
        "Points; paired on the same tasks.",
        "",
        *markdown_table(headings, rows),
        "",
    ]


def _shown(pair: Pair) -> list[Difference]:
    return [
        pair.differences[name]
        for name in dict.fromkeys((MACRO, *SUMMARY, *BENCHMARKS))
        if name in pair.differences
    ]


def _published(published: Published) -> list[str]:
    names = [name for name in SUMMARY if name != "micro9"]
    rows = [
        [markdown_text(row.label), *(str(row.stated.get(name, MISSING)) for name in names)]
        for row in published.table.rows
    ]
    lines = [
        f"## Published: {markdown_text(published.table.name)}",
        "",
        markdown_text(published.table.source),
        "",
        *markdown_table(["row", *map(title_of, names)], rows),
        "",
        "Audit:",
        "",
        *(
            f"* {markdown_text(finding)}"
            for finding in published.audit.findings or ["nothing found"]
        ),
        "",
    ]
    for arm in dict.fromkeys(each.arm for each in published.beside):
        lines += [
            f"{markdown_text(arm)} minus published ({UNPAIRED}); = where the published number lies "
            "in our interval. A macro average is compared with the recomputed one.",
            "",
            *markdown_table(
                ["row", *map(title_of, names)],
                [
                    [markdown_text(row), *(_beside(numbers.get(name)) for name in names)]
                    for row, numbers in published.beside_of(arm)
                ],
            ),
            "",
        ]
    return lines


def _beside(number: Beside | None) -> str:
    if number is None:
        return MISSING
    return points_text(number.difference) + (" =" if number.is_within else "")


def _partial(comparison: Comparison) -> list[str]:
    lines = [
        f"* {markdown_text(each.arm.label)}, {markdown_text(score.title)}: "
        f"{score.graded.num_tasks:,} tasks"
        for each in comparison.arms
        for score in each.scores.values()
        if score.is_partial and score.graded is not None
    ]
    title = f"## {_PARTIAL_MARK} Of some of the tasks alone"
    return [title, "", *lines, ""] if lines else []


def _unlike(comparison: Comparison) -> list[str]:
    lines = [
        f"* {markdown_text(str(field))}"
        for fields in comparison.unlike.values()
        for field in fields
    ]
    title = f"## {_UNLIKE_MARK} Not of one protocol"
    return [title, "", *lines, ""] if lines else []
