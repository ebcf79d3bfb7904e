from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from anchor_material import CONFIG, anchors, every_topic, found
from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.records import Anchor
from mira_megatron.rubric.anchor_diff import differences
from mira_megatron.rubric.anchor_files import read_anchors, with_version, write_anchors
from mira_megatron.rubric.rubric_tool import diff, freeze, show
from mira_megatron.written_tables import markdown_text


def printed(work: Callable[[Console], None], width: int = 100) -> str:
    out = io.StringIO()
    work(Console(file=out, width=width))
    return out.getvalue()


def named(*changes: tuple[int, str]) -> tuple[Anchor, ...]:
    names = [f"Name {slot}" for slot in range(1, 16)]
    for slot, name in changes:
        names[slot - 1] = name
    return anchors(names)


def saved(path: Path, slots: tuple[Anchor, ...]) -> Path:
    write_anchors(path, slots)
    return path


def test_show_prints_a_line_per_slot_with_size_references_and_aliases(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.jsonl", anchors())
    text = printed(lambda console: show(console, [path]))
    assert text.startswith(f"mine  {anchors()[0].rubric_version}")
    (line,) = [line for line in text.splitlines() if line.startswith(" A15")]
    assert " ".join(line.split()) == "A15 Name 15 7 6.7% 1 9 Other name (2)"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_show_fits_the_width_and_cuts_no_name(tmp_path: Path, width: int) -> None:
    path = saved(tmp_path / "a.jsonl", named((3, "A name of quite some length, as they are")))
    text = printed(lambda console: show(console, [path]), width)
    assert max(map(len, text.splitlines())) <= width
    assert "are" in text


def test_show_prints_brackets_in_names_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", named((3, "Use of [bold]")))
    assert "Use of [bold]" in printed(lambda console: show(console, [path]))


def test_show_in_a_pipe_has_no_escape_codes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", anchors())
    assert "\x1b" not in printed(lambda console: show(console, [path]))


@pytest.mark.parametrize("depth", ["", "anchors/mira", "anchors/mira/text-1"])
def test_show_finds_the_groups_of_a_run_folder(tmp_path: Path, depth: str) -> None:
    for group in ("text-1", "text-2"):
        saved(tmp_path / "anchors/mira" / group / "anchors.jsonl", anchors())
    text = printed(lambda console: show(console, [tmp_path / depth]))
    assert "text-1  mine-" in text
    assert ("text-2  mine-" in text) == (not depth.endswith("text-1"))


def test_show_of_nothing_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder with anchors\.jsonl, no published"):
        printed(lambda console: show(console, [tmp_path]))


def test_show_of_a_published_name_needs_no_path() -> None:
    assert "Repository Tree Navigation" in printed(
        lambda console: show(console, [Path("text-group3")])
    )


def test_show_says_that_a_file_was_edited(tmp_path: Path) -> None:
    edited = replace(anchors()[0], name="Edited")
    path = saved(tmp_path / "a.jsonl", (edited, *anchors()[1:]))
    assert "edited; `mira rubric freeze`" in printed(lambda console: show(console, [path]))


def test_show_adds_stability_and_near_duplicates_of_the_clusters(tmp_path: Path) -> None:
    slots = anchors()
    path = saved(tmp_path / "anchors.jsonl", slots)
    clusters = {
        "rubric_version": slots[0].rubric_version,
        "founders": ["left", "right"],
        "num_judgments": 1200,
        "slots": [{"anchor_id": "A1", "name_share": 0.6}, {"anchor_id": "A2", "name_share": None}],
        "resamples": {"all": [{"adjusted_rand": 0.5}, {"adjusted_rand": 0.75}]},
        "near_duplicates": [
            {"anchor_ids": ["A1", "A2"], "names": ["Name 1", "Name 2"], "cosine": 0.934}
        ],
    }
    write_json(tmp_path / "clusters.json", clusters)
    text = printed(lambda console: show(console, [path]), 200)
    assert "60%" in text
    assert "Found in 1,200 judgments of left, right." in text
    assert "Near duplicates: A1 Name 1 and A2 Name 2 (cosine 0.93)" in text
    assert "one of 2 resamples" in text
    assert "0.50 to 0.75" in text
    write_json(tmp_path / "clusters.json", {**clusters, "rubric_version": "other-00000000"})
    assert "60%" not in printed(lambda console: show(console, [path]), 200)


def test_show_markdown_is_not_wrapped_and_escapes_names(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", named((3, "Use | of <b>*bold*</b> & [links](x)")))
    text = printed(lambda console: show(console, [path], markdown=True), 40)
    expected = r"Use \| of &lt;b&gt;\*bold\*&lt;/b&gt; &amp; \[links\](x)"
    assert f"| A3 | {expected} | 7 |" in text
    assert f"## A3 {expected}" in text
    assert "- low (1/10) poor" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("# a", "\\# a"), ("- a", "\\- a"), ("a - b", "a - b"), ("a\nb", "a b"), ("`a`", "\\`a\\`")],
)
def test_markdown_text_leaves_no_markup(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


def _changes(before: tuple[Anchor, ...], after: tuple[Anchor, ...]) -> dict[str, str]:
    """Slot before and after -> change; "-" is no slot."""
    found = [one for one in differences(before, after) if one.change != "same"]
    sides = [[side.anchor_id if side else "-" for side in (one.before, one.after)] for one in found]
    return {" ".join(slots): one.change for slots, one in zip(sides, found, strict=True)}


def test_differences_of_equal_rubrics_are_none() -> None:
    assert _changes(anchors(), anchors()) == {}


def test_differences_tell_renamed_from_moved() -> None:
    after = named((2, "Name 5"), (5, "Name 2"), (7, "New"))
    assert _changes(anchors(), after) == {
        "A5 A2": "moved",
        "A2 A5": "moved",
        "A7 A7": "renamed",
    }


def test_differences_of_a_name_that_left_as_another_came_elsewhere() -> None:
    # Slot 1 goes, 2 to 15 move up, a new one comes last.
    names = [*(f"Name {slot}" for slot in range(2, 16)), "New"]
    changes = _changes(anchors(), anchors(names))
    assert changes.pop("- A15") == "added"
    assert changes.pop("A1 -") == "removed"
    assert set(changes.values()) == {"moved"}
    assert len(changes) == 14


def test_differences_pair_repeated_names_in_order() -> None:
    before = named((1, "Twice"), (9, "Twice"))
    after = named((1, "Name 9"), (2, "Twice"), (9, "Twice"))
    assert _changes(before, after) == {"A1 A2": "moved", "- A1": "added", "A2 -": "removed"}


def test_differences_keep_a_repeated_name_at_its_place() -> None:
    before = named((1, "Twice"), (9, "Twice"))
    assert _changes(before, named((1, "New"), (9, "Twice"))) == {"A1 A1": "renamed"}


def test_differences_name_what_was_edited_beside_the_name() -> None:
    first = replace(anchors()[0], description="d", references=())
    after = with_version("mine", (first, *anchors()[1:]))
    assert _changes(anchors(), after) == {"A1 A1": "description, references"}


def test_diff_prints_both_versions_and_both_sizes(tmp_path: Path) -> None:
    clusters = found(every_topic(), config=replace(CONFIG, num_reference_anchors=0)).anchors
    old = saved(tmp_path / "old.jsonl", with_version("old", clusters))
    new = saved(tmp_path / "new.jsonl", named())
    text = printed(lambda console: diff(console, old, new), 120)
    assert text.startswith("old-")
    (line,) = [line for line in text.splitlines() if line.startswith(" A1 ")]
    assert " ".join(line.split()) == "A1 A1 renamed, references name 00 → Name 1 30 7"
    markdown = printed(lambda console: diff(console, old, new, markdown=True), 40)
    assert "| A1 | A1 | renamed, references | name 00 → Name 1 | 30 | 7 |" in markdown


def test_diff_of_a_folder_with_several_groups_asks_for_one(tmp_path: Path) -> None:
    for group in ("text-1", "text-2"):
        saved(tmp_path / group / "anchors.jsonl", anchors())
    with pytest.raises(ValueError, match=r"holds the anchors of text-1, text-2\. Name one"):
        printed(lambda console: diff(console, tmp_path, tmp_path))


def test_freeze_says_where_the_new_version_is(tmp_path: Path) -> None:
    edited = replace(anchors()[0], name="Edited")
    path = saved(tmp_path / "a.jsonl", (edited, *anchors()[1:]))
    text = printed(lambda console: freeze(console, path, output=tmp_path / "b.jsonl"))
    version = read_anchors(tmp_path / "b.jsonl")[0].rubric_version
    assert f"b.jsonl: {anchors()[0].rubric_version} -> {version}" in text
