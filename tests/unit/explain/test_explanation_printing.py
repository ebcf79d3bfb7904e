"""What `explain` says in a terminal: nothing is missing, and strangers' words stay words."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from explained_runs import write_explained_run
from rich.console import Console
from small_run import HELD_OUT, SmallRecord, record_id

from mira_megatron.config import Recipe
from mira_megatron.explain.explanation import explain
from mira_megatron.explain.explanation_printing import (
    explanation_json,
    print_explanation,
    visible,
)

ATTACK = (
    "\x1b[2J\x1b]0;title\x07 [red]markup[/red] [link=file:///etc/passwd]x[/link] \u202eevil\r\n"
)
RECORDS = [
    SmallRecord(text="best", score=9.0),
    SmallRecord(text="worst", score=1.0, origin=ATTACK, rationale=ATTACK, meta=ATTACK),
    SmallRecord(text="none", score=None, reason="failed", status_reason=ATTACK),
    HELD_OUT,
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("run")
    recipe = write_explained_run(folder, {"wiki": RECORDS}, budget_tokens=15)
    return [in_terminal(recipe, record_id("wiki", number)) for number in range(len(RECORDS))]


def in_terminal(recipe: Recipe, name: str, *, width: int = 100) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, no_color=True)
    print_explanation(console, explain(recipe, name))
    return file.getvalue()


def test_kept_and_dropped_records_say_why(printed: list[str]) -> None:
    best, worst, none, held_out = printed
    assert "kept: not below the cutoff" in best
    assert "dropped: below the cutoff" in worst
    assert "cutoff 9.000; the record is 8.000 below" in worst
    assert "dropped: it has no score: failed" in none
    assert "dropped: held out for validation" in held_out
    assert "Rank 2 of 2" in worst
    assert "0 records are dropped ahead of it; with its own they hold 10 tokens" in worst


def test_place_in_the_bin_is_told(printed: list[str]) -> None:
    assert "document 1 of wiki, from byte 40: 10 tokens, 40 bytes" in printed[1]


def test_words_of_strangers_neither_steer_the_terminal_nor_count_as_markup(
    printed: list[str],
) -> None:
    for text in printed[1:3]:
        # What rich itself writes are styles: CSI … m.
        assert "\x1b[2J" not in text
        assert "\x1b]" not in text
        assert not {"\x07", "\u202e", "\r"} & set(text)
        assert "\\x1b[2J" in text
        assert "[red]markup[/red]" in text


def test_ids_and_paths_are_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": RECORDS}, budget_tokens=15)
    lines = in_terminal(recipe, "wiki-0000", width=40).splitlines()
    assert any(line.endswith(f"{recipe.run_folder}/tokens/wiki/wiki.bin") for line in lines)


def test_json_is_the_same_each_time_and_escapes_control_characters(tmp_path: Path) -> None:
    recipe = write_explained_run(tmp_path, {"wiki": RECORDS}, budget_tokens=15)
    once = explanation_json(explain(recipe, "wiki-0001"))
    assert explanation_json(explain(recipe, "wiki-0001")) == once
    assert once.isascii()
    assert "\x1b" not in once
    content = json.loads(once)
    assert content["record"]["origin"] == ATTACK
    assert content["arms"][0]["decided"]["is_kept"] is False
    assert content["rating"]["slots"][0]["part"] == "counted"


def test_visible_shows_what_does_not_print() -> None:
    assert visible("naïve 日本 [b]") == "naïve 日本 [b]"
    assert visible("a\nb\x9b\u200b") == "a\\nb\\x9b\\u200b"
