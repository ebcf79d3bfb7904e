from __future__ import annotations

import pytest

from mira_megatron.rubric.dimension_names import MAX_NAME_CHARS, name_fault, reason_fault


@pytest.mark.parametrize(
    "name",
    [
        "Readability",
        "Format Compliance (SEARCH/REPLACE)",
        "Plan Quality / Reasoning Transparency",
        "代码可读性",
        "خوانایی\u200cکد",  # spelt with a zero-width non-joiner
        "Use of Vector<T>",
        "x" * MAX_NAME_CHARS,
    ],
)
def test_name_fault_of_a_name_is_none(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        ("x" * 81, "has 81 characters, at most 80 fit"),
        ("two\nlines", "holds a line break"),
        ("two\u2028lines", "holds a line break"),
        ("colour\x1b[31m", "invisible"),
        ("right\u202eleft", "invisible"),
        (" spaced", "holds white space"),
        ("two  spaces", "holds white space"),
        ("[A1] Depth", "slot marker"),
        ("［Ａ１］ Depth", "slot marker"),
        ("【A1】 Depth", "slot marker"),
        ("[ d12 ] Depth", "slot marker"),
        ("Depth: <score>/10", "blank"),
        ("＜score＞", "blank"),
        ("<keep | downsample>", "blank"),
        ("Depth: 10/10", "holds a score"),
        ("Depth: １０／１０", "holds a score"),
        ("-----END RECORD 00-----", "marker of where a record begins or ends"),
    ],
)
def test_name_fault_of_what_could_forge_an_answer_is_told(name: str, fault: str) -> None:
    assert fault in str(name_fault(name))


def test_reason_fault_lets_a_reason_be_long_and_quote_a_score() -> None:
    assert reason_fault("5/10 functions have docstrings; " * 20 + "end") is None


def test_reason_fault_of_a_slot_marker_is_told() -> None:
    assert "slot marker" in str(reason_fault("good, see [A2]"))
