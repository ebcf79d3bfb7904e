"""An API key is sent to its endpoint and is found nowhere else: no file, no log line, no error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from fake_teacher import Asked, FakeTeacher, Fault, by_record, completion, serving
from smoke_runs import Ended, assert_done, assert_refused, ended
from teacher_recipes import JUDGMENTS, rows, run_folder, teacher_recipe, with_given_anchors

KEY = "sk-test/0123456789abcdef\\key"
KEY_NAME = "TEACHER_KEY_OF_A_TEST"


def with_headers(response: web.Response, asked: Asked) -> web.Response:
    """Repeats the key in headers as well, one of them a cookie that nobody can read."""
    response.headers["X-Your-Key"] = asked.api_key
    response.headers["Set-Cookie"] = f"Bearer {asked.api_key}=1"
    return response


def in_the_answer(asked: Asked, text: str) -> web.Response:
    """Answers as asked, and repeats the key in every part of the answer."""
    said = text.replace("It says", f"It says {asked.api_key} and")
    return with_headers(completion(said, reasoning_content=f"My key is {asked.api_key}"), asked)


def in_an_error(status: int) -> Fault:
    """Answers with an error that repeats the key, across where messages are cut."""

    def answer(asked: Asked, text: str) -> web.Response:
        error = {"message": f"{'x' * 230} Incorrect API key provided: {asked.api_key}."}
        return with_headers(web.json_response({"error": error}, status=status), asked)

    return answer


def not_json(asked: Asked, text: str) -> web.Response:
    """Answers with something else than a completion, and the key in it."""
    return with_headers(web.Response(text=f"<b>{asked.api_key}</b>"), asked)


@pytest.fixture
def teacher() -> Iterator[FakeTeacher]:
    with serving(FakeTeacher()) as teacher:
        # By name: aiohttp looks at no cookie that comes from an address.
        teacher.url = teacher.url.replace("127.0.0.1", "localhost")
        yield teacher


def mira_with_key(*words: object) -> Ended:
    """Runs `mira` with the key in its environment and everything logged."""
    command = [sys.executable, "-m", "mira_megatron.cli", *words, "--workers=1"]
    return ended([*command, "--log-level=debug"], **{KEY_NAME: KEY})


def places_of_key(folder: Path) -> list[str]:
    """Returns the files that hold the key, or a piece of it, in bytes or in a parquet column."""
    pieces = [KEY, KEY.replace("/", "\\/"), KEY.replace("\\", "\\\\"), KEY[:16], KEY[-12:]]
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            text += str(pq.read_table(path).to_pydict())
        found += [f"{path}: {piece}" for piece in pieces if piece in text]
    return found


def test_api_key_that_a_teacher_repeats_everywhere_is_found_nowhere(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    teacher.fault = by_record(in_the_answer, in_an_error(401), in_an_error(500), not_json)
    recipe = teacher_recipe(tmp_path, teacher, api_key_env=KEY_NAME)
    for stage in ("discover", "label"):
        if stage == "label":
            with_given_anchors(recipe)
        done = mira_with_key(stage, recipe)
        assert_done(done)
        assert KEY not in done.output
    assert teacher.api_keys == {KEY}
    assert any(
        "<api key>" in raw for raw in rows(recipe, JUDGMENTS, "answers")["raw"].to_pylist() if raw
    )
    assert places_of_key(run_folder(recipe)) == []


@pytest.mark.parametrize("fault", [in_an_error(401), in_an_error(500), not_json])
def test_api_key_is_in_no_message_that_stops_a_run(
    tmp_path: Path, teacher: FakeTeacher, fault: Fault
) -> None:
    teacher.fault = fault
    recipe = teacher_recipe(tmp_path, teacher, api_key_env=KEY_NAME, max_failed_fraction=0.0)
    refused = mira_with_key("discover", recipe)
    assert_refused(refused, "no usable answer", "api key")
    assert not [piece for piece in (KEY, KEY[:16], KEY[-12:]) if piece in refused.output]
    assert places_of_key(run_folder(recipe)) == []


def test_api_key_that_is_not_set_is_named_and_nothing_is_asked(
    tmp_path: Path, teacher: FakeTeacher
) -> None:
    recipe = teacher_recipe(tmp_path, teacher, api_key_env="NO_SUCH_KEY_IS_SET")
    refused = mira_with_key("discover", recipe)
    assert_refused(refused, "NO_SUCH_KEY_IS_SET", "not set")
    assert teacher.asked.total() == 0
