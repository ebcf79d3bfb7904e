from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from rich.console import Console
from small_run import HELD_OUT, SmallRecord, record_id, write_run

from mira_megatron.cli import main
from mira_megatron.config import Recipe
from mira_megatron.report.failures import SourceOutcomes, print_outcomes, read_outcomes

pytest_plugins = ("judged_recipes",)


def lost(status: str, why: str) -> SmallRecord:
    return SmallRecord(text=f"{status} {why}", score=None, reason=status, status_reason=why)


OK = [HELD_OUT] * 4
BAD = [
    lost("failed", "http_503: overloaded"),
    lost("failed", "timeout: 600 s"),
    lost("failed", "http_503: overloaded again"),
    lost("too_long", "too_long: 40,000 tokens"),
    lost("refused", "refused: no"),
    lost("partial", "no line for A3"),
    lost("unparsed", "no line of it could be read"),
]


def printed(outcomes: list[SourceOutcomes], width: int = 80) -> str:
    file = io.StringIO()
    print_outcomes(Console(file=file, width=width), outcomes)
    return file.getvalue()


def run_of(folder: Path) -> Recipe:
    return write_run(folder, {"wiki": [*OK, *BAD], "notes": OK})


def test_every_outcome_is_counted_over_all_parts(tmp_path: Path) -> None:
    notes, wiki = read_outcomes(run_of(tmp_path))
    assert (notes.source, notes.num_records, notes.num_not_ok) == ("notes", 4, 0)
    assert (wiki.num_records, wiki.num_not_ok, wiki.is_finished) == (11, 7, True)
    assert wiki.num_by_status == {
        **{"ok": 4, "partial": 1, "unparsed": 1},
        **{"too_long": 1, "refused": 1, "failed": 3},
    }
    assert list(wiki.failed_by_kind.items()) == [("http_503", 2), ("timeout", 1)]


def test_the_example_is_the_first_record_in_order(tmp_path: Path) -> None:
    notes, wiki = read_outcomes(run_of(tmp_path))
    assert notes.first_example is None
    assert wiki.first_example is not None
    assert wiki.first_example.record_id == record_id("wiki", len(OK))
    assert wiki.first_example.reason == "http_503: overloaded"


def test_parts_of_an_unfinished_stage_count_so_far(tmp_path: Path) -> None:
    recipe = run_of(tmp_path)
    (recipe.run_folder / "ratings/rule_judge/wiki/manifest.json").unlink()
    (recipe.run_folder / "ratings/rule_judge/wiki/part-00003.parquet").unlink()
    wiki = read_outcomes(recipe)[1]
    assert (wiki.is_finished, wiki.num_records) == (False, 9)
    assert "wiki (so far)" in printed([wiki])


def test_the_table_has_a_row_per_source_and_one_for_all(tmp_path: Path) -> None:
    text = printed(read_outcomes(run_of(tmp_path)))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["notes"] == ["4", "4", "0", "0", "0", "0", "0"]
    assert rows["all"] == ["15", "8", "1", "1", "1", "1", "3"]
    assert "wiki: failed by http_503 2, timeout 1" in text
    assert f"wiki: first failed, {record_id('wiki', 4)}: http_503: overloaded\n" in text


def test_a_servers_words_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    evil = lost("failed", "http_500: \x1b[2J\x1b]0;owned\x07[red]x[/red]\n" + "long " * 100)
    text = printed(read_outcomes(write_run(tmp_path, {"wiki": [HELD_OUT, evil]})))
    assert "\x1b" not in text
    assert "[red]x[/red] long" in text
    (line,) = [line for line in text.splitlines() if "first failed" in line]
    assert line.endswith("…")
    assert len(line) < 300


def test_nothing_done_yet_is_said(tmp_path: Path) -> None:
    recipe = run_of(tmp_path)
    for part in (recipe.run_folder / "ratings").rglob("*.parquet"):
        part.unlink()
    assert read_outcomes(recipe) == []
    assert printed([]) == "Nothing is labelled or scored yet.\n"


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    recipe = run_of(tmp_path)
    (recipe.run_folder / "ratings/rule_judge/wiki/part-00001.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ValueError, match=r"part-00001.parquet: not a part of ratings"):
        read_outcomes(recipe)


def test_json_has_a_servers_words_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "http_500: :warning: [b]down[/b]\x1b[2J " + "x" * 300
    recipe = write_run(tmp_path, {"odd": [HELD_OUT, lost("failed", said)]})
    assert main(["failures", str(recipe.path), "--json"]) == 0
    (odd,) = orjson.loads(capsys.readouterr().out)
    assert odd["first_example"]["reason"] == said


def test_command_prints_json_of_every_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = run_of(tmp_path)
    assert main(["failures", str(recipe.path), "--json"]) == 0
    notes, wiki = orjson.loads(capsys.readouterr().out)
    assert (notes["stage"], notes["source"], notes["num_records"]) == ("score", "notes", 4)
    assert wiki["failed_by_kind"] == {"http_503": 2, "timeout": 1}


def test_labels_and_scores_have_a_table_each(tmp_path: Path) -> None:
    recipe = run_of(tmp_path)
    (recipe.run_folder / "teacher_ratings").mkdir()
    (recipe.run_folder / "ratings/rule_judge").rename(
        recipe.run_folder / "teacher_ratings/rule_judge"
    )
    outcomes = read_outcomes(recipe)
    assert [each.stage for each in outcomes] == ["label", "label"]
    assert "Outcomes of label" in printed(outcomes)
    assert read_outcomes(recipe, ["score"]) == []


def test_a_stage_that_asks_ends_with_its_table(
    judged_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = judged_recipe()
    assert main(["score", str(recipe.path), "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "Outcomes of score" in text
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["notes"]]
    assert row[1:3] == ["20", "20"]
