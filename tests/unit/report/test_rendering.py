from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from mira_megatron.report.rendering import visible
from mira_megatron.written_numbers import decimal, grouped, percent, size


def test_visible_keeps_line_breaks_tabs_and_joined_characters() -> None:
    text = "a\tb\n👩\u200d💻 é\u0301 شكر"
    assert visible(text) == text


@given(st.text())
def test_visible_text_has_no_control_or_direction_character(text: str) -> None:
    shown = visible(text)
    assert isinstance(shown, str)
    assert not set(shown) & {"\x00", "\r", "\x1b", "\x7f", "\x9b", "\u202e", "\u2067", "\ufeff"}


def test_visible_leaves_the_templates_own_markup_alone() -> None:
    assert visible(Markup("<b>")) == Markup("<b>")
    assert visible(3) == 3


def test_numbers_are_grouped_aligned_and_never_invented() -> None:
    assert (grouped(1234567), grouped(None)) == ("1,234,567", "n/a")
    assert (decimal(2.5), decimal(1234.5, 1), decimal(None)) == ("2.50", "1,234.5", "n/a")
    assert (percent(1, 3), percent(0, 0), percent(None, 3)) == ("33.3%", "n/a", "n/a")
    assert (size(999), size(1500), size(2_000_000_000)) == ("999 bytes", "1.5 kB", "2.0 GB")
