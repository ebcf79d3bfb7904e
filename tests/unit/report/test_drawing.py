from __future__ import annotations

import altair as alt
import pytest
from markupsafe import Markup

from mira_megatron.report.drawing import drawn

HOSTILE = "</title></svg><script>alert(1)</script>\"'&"
CONFIG = alt.Config(view=alt.ViewConfig(stroke=None))
X = alt.X("x:Q", axis=None)


def one_row(text: str = "") -> alt.Chart:
    return alt.Chart(alt.InlineData(values=[{"x": 1, "text": text}]))


def shapes(chart: alt.Chart) -> Markup:
    sides = ("left", "right", "top", "bottom")
    return drawn([chart], width=10, height=10, padding=dict.fromkeys(sides, 0), config=CONFIG)


def test_drawn_bar_is_its_shape_and_its_tooltip() -> None:
    bar = one_row("one").mark_bar(color="var(--ink)").encode(x=X, description="text:N")
    assert shapes(bar) == (
        '<g fill="none"><path d="M0,0.5h10v9h-10Z" fill="var(--ink)"><title>one</title></path></g>'
    )


@pytest.mark.parametrize("color", ["red", "#123456", 'var(--ink)"/><script>', "url(#other)"])
def test_drawn_colour_that_is_none_of_the_page_is_refused(color: str) -> None:
    with pytest.raises(ValueError, match="none of the report's colours"):
        shapes(one_row().mark_bar(color=color).encode(x=X))


def test_drawn_defaults_of_vega_are_no_colours_of_the_page() -> None:
    with pytest.raises(ValueError, match=r"stroke=#ddd.*none of the report's colours"):
        shapes(one_row().mark_bar(color="var(--ink)").encode(x="x:Q"))


def test_drawn_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"<image>.*requirements/main\.txt"):
        shapes(one_row().mark_image(url="data:,").encode(x=X))


def test_drawn_shape_with_an_id_is_refused() -> None:
    with pytest.raises(ValueError, match="<defs>"):
        shapes(one_row().mark_bar(color="var(--ink)", clip=True).encode(x=X))


def test_drawn_shape_that_is_not_seen_is_left_out() -> None:
    bar = one_row().mark_bar(color="var(--ink)")
    assert shapes(bar.encode(x=X, opacity=alt.value(0))) == ""
    assert 'opacity="0.5"' in shapes(bar.encode(x=X, opacity=alt.value(0.5)))


def test_drawn_data_are_never_fetched() -> None:
    rows = "http://127.0.0.1:9/rows.csv"  # the port of discard: a request would be refused there
    bar = alt.Chart(rows).mark_bar(color="var(--ink)").encode(x=X)
    with pytest.raises(ValueError, match="External data url not allowed"):
        shapes(bar)


def test_drawn_text_is_escaped() -> None:
    words = one_row(HOSTILE).mark_text(color="var(--ink)").encode(x=X, text="text:N")
    tooltip = one_row(HOSTILE).mark_bar(color="var(--ink)").encode(x=X, description="text:N")
    for drawing in (shapes(words), shapes(tooltip)):
        assert "&lt;/title&gt;&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in drawing
        assert "<script" not in drawing
        assert drawing.count("&") == drawing.count("&lt;") + drawing.count("&gt;") + 1
