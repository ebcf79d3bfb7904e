"""docs/pipeline.md and the stages that there are."""

from __future__ import annotations

import re
from pathlib import Path

from mira_megatron.pipeline import STAGES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "pipeline.md").read_text()
# Stages in the table; a cell is what lies between two bars.
ROWS = {
    cells[1].strip(" `"): [cell.strip() for cell in cells[1:-1]]
    for line in PAGE.splitlines()
    if (cells := line.split("|"))[0] == "" and len(cells) > 2
}


def test_every_stage_has_its_row_in_the_pipeline_page() -> None:
    assert set(STAGES) <= set(ROWS)


def test_rows_of_the_pipeline_page_are_whole() -> None:
    for name in STAGES:
        assert len(ROWS[name]) == 6, name
        assert all(ROWS[name][:4]), name
        assert any(ROWS[name][4:]), name


def test_every_stage_is_in_the_figure_of_the_pipeline_page() -> None:
    figure = PAGE.split("```")[1]
    missing = [name for name in STAGES if not re.search(rf"(?<![\w-]){name}(?![\w-])", figure)]
    assert not missing


def test_pages_of_the_documentation_link_to_files_that_are_there() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in sorted(DOCS.rglob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not missing
