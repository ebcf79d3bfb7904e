"""The table as a page: self-contained, nothing fetched, no script at all."""

from __future__ import annotations

from pathlib import Path

from mira_megatron.ablation import words
from mira_megatron.ablation.bits import MEAN
from mira_megatron.ablation.table import DIGITS, POINT_DIGITS, AblationTable, findings
from mira_megatron.eval.comparison.written import p_text
from mira_megatron.report.rendering import render
from mira_megatron.written_numbers import MISSING

_FOLDER = Path(__file__).parent


def page_html(table: AblationTable) -> str:
    """Returns the page."""
    context = {
        "table": table,
        "findings": findings(table),
        "words": words,
        "mean": MEAN,
        "missing": MISSING,
        "p_text": p_text,
        "bits_digits": DIGITS,
        "point_digits": POINT_DIGITS,
    }
    return render("page.html.j2", context, _FOLDER)
