from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from evaluations import bits, compared, write_entry, write_nine

from mira_megatron.eval.comparison.comparison import Comparison
from mira_megatron.eval.comparison.latex import comparison_latex, latex_text
from mira_megatron.eval.comparison.machine_files import (
    comparison_json,
    differences_csv,
    flips_csv,
    scores_csv,
)
from mira_megatron.eval.comparison.markdown import comparison_markdown
from mira_megatron.eval.comparison.page import comparison_page
from mira_megatron.eval.comparison.written import p_text, points_text
from mira_megatron.eval.verdicts import Status

PUBLISHED = Path(__file__).parents[4] / "eval/published/mira_paper.yaml"
ATTACK = "</style></table><script>window.attacked=1</script><img src=x onerror=alert(1)>|`[a](b)"
BACKWARDS = "\u202egnp.exe"


@pytest.fixture
def whole(tmp_path: Path) -> Comparison:
    lost = [Status.INFRA, Status.TRUNCATED]
    return compared(
        write_nine(tmp_path / "a", lost=lost),
        write_nine(tmp_path / "b_1", share=0.6, seed=1, without=["bird"]),
        against=PUBLISHED,
    )


@pytest.fixture
def attacked(tmp_path: Path) -> Comparison:
    entries = {"a": "1100110", "b": "1010011"}
    for name, right in entries.items():
        tasks = bits(right, prefix=ATTACK)
        write_entry(
            tmp_path / name, "x", {ATTACK: tasks}, clusters={task: task for task in tasks},
            protocol=f"{ATTACK} {name} {BACKWARDS}",
        )  # fmt: skip
    published = tmp_path / "table.yaml"
    quoted = json.dumps(ATTACK)
    published.write_text(
        f"name: {quoted}\nsource: {quoted}\nnotes: [{quoted}]\n"
        f"rows: {{{quoted}: {{code_generation: 1.0, multipl_e: 2.0, sql: 3.0, swe: 4.0, "
        "macro: 5.0}}\n"
    )
    labelled = [(f"{ATTACK} {name}", tmp_path / name) for name in entries]
    return compared(labelled=labelled, against=published, allows_unlike=True)


def test_json_has_numbers_with_reasons_and_no_nan(whole: Comparison) -> None:
    text = json.dumps(comparison_json(whole), allow_nan=False)
    content = json.loads(text)
    a, b = content["arms"]
    assert a["scores"]["macro"]["interval"]["low"] < a["scores"]["macro"]["value"]
    assert b["scores"]["bird"]["value"] is None
    assert b["scores"]["bird"]["reason"].startswith("not graded")
    assert len(a["protocols"]["mbpp"]["fingerprint"]) == 12
    assert content["pairs"][0]["differences"]["mbpp"]["method"] == "mcnemar"
    assert content["published"]["kind"] == "unpaired, published point estimate"
    assert content["published"]["rows"]["base_sft"]["macro"] == "48.60"  # as printed
    assert content["published"]["audit"]["rows"][2]["is_consistent"] is False


def test_csv_tables_have_a_row_per_number_pair_and_changed_task(whole: Comparison) -> None:
    scores = list(csv.DictReader(io.StringIO(scores_csv(whole))))
    by_place = {(row["arm"], row["name"]): row for row in scores}
    assert float(by_place["a", "mbpp"]["value"]) == pytest.approx(
        whole.arms[0].scores["mbpp"].value, rel=1e-5
    )
    assert by_place["a", "mbpp"]["num_tasks"] == "60"
    assert by_place["b_1", "bird"]["value"] == ""
    assert by_place["b_1", "bird"]["reason"].startswith("not graded")
    differences = list(csv.DictReader(io.StringIO(differences_csv(whole))))
    (pair,) = whole.pairs
    assert len(differences) == len(pair.differences)
    flips = list(csv.DictReader(io.StringIO(flips_csv(whole))))
    assert len(flips) == len(pair.flips) > 10
    mbpp = pair.differences["mbpp"]
    assert sum(row["benchmark"] == "mbpp" for row in flips) == (mbpp.num_gained or 0) + (
        mbpp.num_lost or 0
    )


def test_markdown_shows_scores_losses_differences_and_the_audit(whole: Comparison) -> None:
    text = comparison_markdown(whole)
    assert "| b\\_1 |" in text
    assert "## Lost answers" in text
    assert "## b\\_1 minus a" in text
    assert "* b\\_1, BIRD: not graded" in text
    assert "this suite resolves macro differences of about" in text
    assert "macro is stated as 63.23" in text
    assert "unpaired, published point estimate" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    blocks = re.split(r"\n\n", text)
    for block in (each for each in blocks if each.startswith("|")):
        assert len({line.count("|") - line.count("\\|") for line in block.splitlines()}) == 1
    assert len(rows) > 40


def test_latex_has_every_arm_and_the_published_rows(whole: Comparison) -> None:
    text = comparison_latex(whole)
    assert r"{b\_1} & " in text
    assert r"{random\_25b}$^{\ast}$ & 52.71 & 71.44 & 91.03 & 35.00 & 63.23 & --" in text
    assert text.count("{") == text.count("}") or "\\{" in text
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {line.count("&") for line in rows} == {6}


def test_latex_of_what_a_stranger_wrote_is_text() -> None:
    assert latex_text(r"\input{x} $a_b^c$ #1 ~ 50%") == (
        r"\textbackslash{}input\{x\} \$a\_b\textasciicircum{}c\$ \#1 \textasciitilde{} 50\%"
    )
    assert latex_text("a\x07b\u202ec--d") == "abc{-}{-}d"


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_page_is_self_contained_and_runs_nothing(whole: Comparison) -> None:
    page = comparison_page(whole)
    tags = parsed(page)
    assert "script" not in tags.names
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert {value for name, value in tags.attributes if name == "src"} == set()
    ids = [value for name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert anchor in ids


def test_page_says_what_the_numbers_are(whole: Comparison) -> None:
    text = " ".join(parsed(comparison_page(whole)).text.split())
    assert "b_1 minus a" in text
    assert "b_1, BIRD: not graded" in text
    assert "63.23" in text
    assert "62.55" in text
    assert "unpaired, published point estimate" in text
    assert "infra" in text


def test_attacks_stay_text_in_every_file(attacked: Comparison) -> None:
    page = comparison_page(attacked)
    tags = parsed(page)
    assert not {"script", "img"} & set(tags.names)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "window.attacked=1" in tags.text
    assert "\u202e" not in page
    markdown = comparison_markdown(attacked)
    assert "<script" not in markdown
    assert "[a](b)" not in markdown
    assert "<" not in comparison_latex(attacked).replace(r"\textless", "")
    json.dumps(comparison_json(attacked), allow_nan=False)


def test_files_are_the_same_twice(whole: Comparison) -> None:
    assert comparison_page(whole) == comparison_page(whole)
    assert comparison_markdown(whole) == comparison_markdown(whole)


def test_a_page_of_one_arm_and_of_no_arm_are_pages(tmp_path: Path) -> None:
    one = compared(write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("10")}))
    assert "Differences" not in parsed(comparison_page(one)).text
    none = compared(against=PUBLISHED)
    assert "random_25b" in comparison_page(none)
    assert "random\\_25b" in comparison_markdown(none)
    assert r"random\_25b" in comparison_latex(none)


@pytest.mark.parametrize(
    ("value", "text"), [(1.204, "+1.20"), (-0.35, "−0.35"), (-0.001, "0.00"), (0.004, "0.00")]
)
def test_points_carry_their_sign_unless_they_are_none(value: float, text: str) -> None:
    assert points_text(value) == text


def test_small_p_values_are_not_written_as_zero() -> None:
    assert (p_text(0.00003), p_text(0.0132), p_text(None)) == ("< 0.0001", "0.0132", "")
