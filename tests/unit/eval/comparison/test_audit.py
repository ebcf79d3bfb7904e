from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.comparison.audit import audit, share_of
from mira_megatron.eval.comparison.published import (
    PublishedRow,
    PublishedTable,
    Size,
    load_published,
)
from mira_megatron.eval.comparison.table import CATEGORIES, MACRO

SHIPPED = Path(__file__).parents[4] / "eval/published/mira_paper.yaml"


def table(*rows: PublishedRow, sizes: dict[str, Size] | None = None) -> PublishedTable:
    return PublishedTable(
        name="t", path=Path("t"), source="", rows=rows, best={}, sizes=sizes or {}, notes=()
    )


def test_the_published_table_has_one_row_that_does_not_add_up() -> None:
    found = audit(load_published(SHIPPED))
    rows = {row.label: row for row in found.rows}
    assert [row.label for row in found.rows if not row.is_consistent] == ["random_25b"]
    random = rows["random_25b"]
    assert (random.stated, random.recomputed) == (Decimal("63.23"), Decimal("62.55"))
    assert random.repairs["sql"] == Decimal("93.77")
    assert random.repairs["multipl_e"] == Decimal("74.18")
    assert (random.stated_rank, random.recomputed_rank) == (3, 5)
    assert (rows["dataman_25b"].stated_rank, rows["dataman_25b"].recomputed_rank) == (4, 3)
    assert any("random_25b: macro is stated as 63.23" in said for said in found.findings)
    assert any("swe 37.74 (no share of 300 tasks)" in said for said in found.findings)


def test_the_published_shares_are_of_the_sizes_that_they_fit() -> None:
    shares = {(each.row, each.name): each for each in audit(load_published(SHIPPED)).shares}
    swe = [each.counts[300] for (_, name), each in shares.items() if name == "swe_multilingual"]
    assert swe == [11, 120, 105, 99, 81, 60, 96, 109, 91]
    assert shares["", "mbpp"].counts == {378: 336, 399: None}
    assert shares["", "spider"].counts == {1034: 1016, 2147: None}


PARTS = st.lists(st.integers(0, 10**6), min_size=4, max_size=4)


@given(PARTS)
def test_a_table_printed_from_true_values_is_never_flagged(parts: list[int]) -> None:
    exact = [Decimal(part) / 10_000 for part in parts]  # percent with four decimals
    cents = Decimal("0.01")
    stated = {
        name: value.quantize(cents, ROUND_HALF_EVEN)
        for name, value in zip(CATEGORIES, exact, strict=True)
    }
    stated[MACRO] = (sum(exact, Decimal(0)) / 4).quantize(cents, ROUND_HALF_EVEN)
    (row,) = audit(table(PublishedRow(label="r", stated=stated))).rows
    assert row.is_consistent


@given(PARTS, st.integers(3, 500), st.booleans())
def test_a_macro_that_is_off_by_more_than_rounding_is_flagged(
    parts: list[int], cents: int, is_above: bool
) -> None:
    stated = {
        name: Decimal(part // 100).scaleb(-2) for name, part in zip(CATEGORIES, parts, strict=True)
    }
    mean = (sum(stated.values(), Decimal(0)) / 4).quantize(Decimal("0.01"))
    stated[MACRO] = mean + (cents if is_above else -cents) * Decimal("0.01")
    (row,) = audit(table(PublishedRow(label="r", stated=stated))).rows
    assert row.is_consistent is False
    for name, value in row.repairs.items():
        repaired = {**stated, name: value}
        assert audit(table(PublishedRow(label="r", stated=repaired))).rows[0].is_consistent


@given(st.integers(1, 400), st.integers(0, 3), st.integers(0, 100_000))
def test_a_share_is_found_exactly_where_some_k_rounds_to_it(
    num_tasks: int, digits: int, thousandths: int
) -> None:
    unit = Decimal(1).scaleb(-digits)
    stated = (Decimal(thousandths) / 1000).quantize(unit)
    fitting = [
        k for k in range(num_tasks + 1) if abs(Decimal(100 * k) / num_tasks - stated) <= unit / 2
    ]
    found = share_of(stated, num_tasks)
    assert (found is None) == (not fitting)
    assert found is None or found in fitting


def test_a_row_without_all_categories_has_no_recomputed_macro() -> None:
    row = PublishedRow(label="r", stated={"sql": Decimal("50.0"), MACRO: Decimal("60.0")})
    (found,) = audit(table(row)).rows
    assert (found.recomputed, found.is_consistent, found.recomputed_rank) == (None, None, None)


def test_a_number_that_is_no_share_is_found() -> None:
    row = PublishedRow(label="r", stated={"swe": Decimal("36.40")})
    sizes = {"swe_multilingual": Size(counts=(300,), source="")}
    assert audit(table(row, sizes=sizes)).findings == (
        "r: swe_multilingual 36.40 is no share of 300 tasks",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("swe: 3.67", "swe: 367", r"rows.base_sft.swe='367', expected percent"),
        ("swe: 3.67", "swe: .nan", r"rows.base_sft.swe='.nan'"),
        ("swe: 3.67", "sew: 3.67", r"rows.base_sft: unknown name 'sew'"),
        ("best:", "worst:", r"unknown keys \['worst'\]"),
        ("counts: [300]", "counts: 300", r"sizes.swe_multilingual.counts='300'"),
        ("counts: [300]", "counts: [0]", r"sizes.swe_multilingual.counts"),
        ("rows:", "rows: [", "not YAML"),
        ("name: mira_paper", "- a", "not YAML|expected a mapping"),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "table.yaml"
    text = SHIPPED.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        load_published(path)


def test_a_table_that_is_not_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="eval/published has the tables"):
        load_published(tmp_path / "none.yaml")
