"""The summary as a LaTeX table with booktabs: our arms, then the published rows."""

from __future__ import annotations

from collections.abc import Sequence

from mira_megatron.eval.comparison.comparison import UNPAIRED, Comparison
from mira_megatron.eval.comparison.scores import Score
from mira_megatron.eval.comparison.table import MICRO, SUMMARY, title_of
from mira_megatron.eval.comparison.written import interval_text, percent_text

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "-": "{-}",  # no ligature: -- would become a dash
}
_NONE = "--"


def latex_text(text: str) -> str:
    """Returns text on one line that LaTeX sets as it is; control characters are left out."""
    shown = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return "".join(_ESCAPES.get(character, character) for character in shown)


def comparison_latex(comparison: Comparison) -> str:
    """Returns a table environment; needs the package booktabs."""
    lines = [
        "% Percent right with 95 % intervals, by mira compare. Needs \\usepackage{booktabs}.",
        rf"\begin{{tabular}}{{l{'r' * len(SUMMARY)}}}",
        r"\toprule",
        _row(["", *(latex_text(title_of(name)) for name in SUMMARY)]),
        r"\midrule",
        *(
            _row([_label(each.arm.label), *(_cell(each.scores[name]) for name in SUMMARY)])
            for each in comparison.arms
        ),
    ]
    if comparison.published is not None:
        table = comparison.published.table
        wrong = {row.label for row in comparison.published.audit.rows if row.is_consistent is False}
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(SUMMARY) + 1}}}{{l}}"
            rf"{{\emph{{{latex_text(table.name)}: {latex_text(UNPAIRED)}}}}} \\",
            *(
                _row(
                    [
                        _label(row.label) + (r"$^{\ast}$" if row.label in wrong else ""),
                        *(str(row.stated.get(name, _NONE)) for name in SUMMARY if name != MICRO),
                        _NONE,
                    ]
                )
                for row in table.rows
            ),
        ]
        if wrong:
            lines.append("% * the stated macro average is not the mean of the stated categories")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(score: Score) -> str:
    if score.value is None:
        return _NONE
    interval = interval_text(score.interval)
    return percent_text(score.value) + (rf" {{\scriptsize {interval}}}" if interval else "")


def _label(text: str) -> str:
    # In braces: a bracket behind \\ would be read as its argument.
    return f"{{{latex_text(text)}}}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
