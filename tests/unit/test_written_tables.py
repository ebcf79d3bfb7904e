from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.written_tables import markdown_table, markdown_text, printed_markdown

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"))).filter(str.strip)


def test_printed_table_is_aligned_and_as_it_was_before_it_was_escaped() -> None:
    rows = [["dsir", "1"], [markdown_text("mira_group"), markdown_text("<b>|2")]]
    document = [f"# {markdown_text('a_b')}", "", *markdown_table(["arm", "steps"], rows), "", "end"]
    assert printed_markdown("\n".join(document)).splitlines() == [
        "# a_b",
        "",
        "arm         steps",
        "──────────  ─────",
        "dsir        1",
        "mira_group  <b>|2",
        "",
        "end",
    ]


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1))
def test_printed_cells_are_what_was_written(rows: list[tuple[str, str]]) -> None:
    headed = [("first", "second"), *rows]
    document = markdown_table(["first", "second"], [list(map(markdown_text, row)) for row in rows])
    printed = printed_markdown("\n".join(document)).splitlines()
    del printed[1]
    width = max(len(left) for left, _ in headed)
    assert printed == [f"{left.ljust(width)}  {right}" for left, right in headed]
