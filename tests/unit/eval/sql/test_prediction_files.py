from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sql_files import write_json_file

from mira_megatron.eval.sql.prediction_files import bird_predictions, spider_predictions
from mira_megatron.eval.sql.tasks import SqlTask
from mira_megatron.eval.verdicts import Form

DATABASES = ("concerts", "concerts", "flights")


def tasks(benchmark: str, first: int) -> Mapping[str, SqlTask]:
    made = [
        SqlTask(
            task_id=f"{benchmark}/{first + number}",
            database=database,
            question="Which?",
            evidence="",
            gold="SELECT 1",
            difficulty="",
        )
        for number, database in enumerate(DATABASES)
    ]
    return {task.task_id: task for task in made}


SPIDER, BIRD = tasks("spider", 0), tasks("bird", 100)


def texts_of_spider(folder: Path, content: str) -> dict[str, str]:
    path = folder / "predictions.sql"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    return {sample.task_id: sample.text for sample in spider_predictions(path, SPIDER)}


def test_line_of_spider_is_the_task_at_its_place(tmp_path: Path) -> None:
    found = texts_of_spider(tmp_path, "SELECT 1\n\nSELECT\t3\tflights\n")
    assert found == {"spider/0": "SELECT 1", "spider/1": "", "spider/2": "SELECT\t3"}


def test_empty_lines_behind_the_last_task_are_no_predictions(tmp_path: Path) -> None:
    found = texts_of_spider(tmp_path, "SELECT 1\nSELECT 2\nSELECT 3\n\n \n")
    assert list(found.values()) == ["SELECT 1", "SELECT 2", "SELECT 3"]


def test_tab_of_spider_within_a_statement_is_kept(tmp_path: Path) -> None:
    assert texts_of_spider(tmp_path, "SELECT\t'a'")["spider/0"] == "SELECT\t'a'"


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\t", exclude_categories=["Cs"])),
        min_size=3,
        max_size=3,
    )
)
def test_line_of_spider_ends_at_a_newline_alone(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    content = "".join(f"{line}\t{name}\n" for line, name in zip(lines, DATABASES, strict=True))
    found = texts_of_spider(folder, content)
    assert [text.strip() for text in found.values()] == [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "0 lines for 3 tasks"),
        ("SELECT 1\n" * 4, "4 lines for 3 tasks"),
        ("SELECT 1\tflights\n", r"sql:1: a statement for 'flights', but spider/0"),
    ],
)
def test_lines_of_spider_that_do_not_fit_are_named(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        texts_of_spider(tmp_path, content)


def texts_of_bird(folder: Path, content: object) -> dict[str, str]:
    path = write_json_file(folder / "predict_dev.json", content)
    return {sample.task_id: sample.text for sample in bird_predictions(path, BIRD)}


def bird(statement: str, database: str = "concerts") -> str:
    return f"{statement}\t----- bird -----\t{database}"


def test_key_of_bird_is_a_place_or_a_question(tmp_path: Path) -> None:
    by_place = {"0": bird("SELECT\t1"), "1": 0, "2": bird("SELECT 3", "flights")}
    expected = {"bird/100": "SELECT\t1", "bird/101": "", "bird/102": "SELECT 3"}
    assert texts_of_bird(tmp_path, by_place) == expected
    by_question = {"102": bird("SELECT 3", "flights"), "100": bird("SELECT 1")}
    assert texts_of_bird(tmp_path, by_question) == {"bird/102": "SELECT 3", "bird/100": "SELECT 1"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "expected"),
        ([], "expected"),
        ({"7": bird("SELECT 1")}, "no place and no question_id"),
        ({"0": "SELECT 1"}, "between statement and database"),
        ({"0": bird("SELECT 1", "flights")}, "for 'flights', but bird/100"),
        (
            {str(place): bird("SELECT 1", name) for place, name in enumerate([*DATABASES, "x"])},
            "'3': no place",
        ),
    ],
)
def test_entries_of_bird_that_do_not_fit_are_named(
    tmp_path: Path, content: object, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        texts_of_bird(tmp_path, content)


def test_lines_of_json_are_read_as_for_every_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(
        '{"task_id": "spider/1", "solution": "SELECT 1"}\n'
        '{"task_id": "spider/1", "completion": " 2"}\n'
    )
    samples = spider_predictions(path, SPIDER)
    assert [(sample.number, sample.form) for sample in samples] == [
        (0, Form.PROGRAM),
        (1, Form.COMPLETION),
    ]
    with pytest.raises(ValueError, match="'spider/1' is none of"):
        bird_predictions(path, BIRD)
