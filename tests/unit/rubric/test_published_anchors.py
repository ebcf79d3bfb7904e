from __future__ import annotations

import pytest

from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.given_anchors import PUBLISHED, GivenAnchors, published_names, read_given


def test_published_names_are_the_three_tables_of_the_cards() -> None:
    assert published_names() == ("agent-group2", "text-group1", "text-group3")


@pytest.mark.parametrize(
    ("name", "num_judgments", "first", "last"),
    [
        ("text-group3", 735_597, "Practical Actionability", "Output Format Adherence"),
        ("agent-group2", 354_990, "Safety & Scope", "Tool Argument Correctness"),
        ("text-group1", 129_555, "Chinese Description Quality", "Accessibility Compliance"),
    ],
)
def test_published_anchors_are_as_on_their_card(
    name: str, num_judgments: int, first: str, last: str
) -> None:
    anchors = read_anchors(PUBLISHED / f"{name}.jsonl")
    sizes = [anchor.cluster_size or 0 for anchor in anchors]
    assert sum(sizes) == num_judgments
    assert sizes == sorted(sizes, reverse=True)
    assert (anchors[0].name, anchors[-1].name) == (first, last)
    assert anchors[0].rubric_version.startswith(f"{name}-")
    assert not any(anchor.references or anchor.medoid for anchor in anchors)


def test_published_names_repeat_as_they_do_on_the_card() -> None:
    names = [anchor.name for anchor in read_anchors(PUBLISHED / "text-group3.jsonl")]
    assert names.count("Practical Actionability") == 3
    assert "Format Compliance (SEARCH/REPLACE)" in names


def test_published_anchors_have_a_source_in_the_readme() -> None:
    readme = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.jsonl` | `whw06/MIRA-" in readme for name in published_names())


def test_published_anchors_of_another_family_are_refused() -> None:
    table = GivenAnchors(path=PUBLISHED / "agent-group2.jsonl", family="agent")
    assert len(read_given(table, name="x", family="agent")) == 15
    with pytest.raises(ValueError, match="of family agent, but the group's family is text"):
        read_given(table, name="x", family="text")
