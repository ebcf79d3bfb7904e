from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livecodebench_files import RISES, lcb_row, lcb_tests, packed, write_lcb

from mira_megatron.eval.livecodebench_data import (
    Edition,
    edition_of,
    load_tasks,
    release_files,
    release_numbers,
)
from mira_megatron.eval.livecodebench_tests import unpacked_tests

V6 = Edition(release="v6")


@pytest.mark.parametrize(
    ("release", "numbers"),
    [("release_v1", [1]), ("release_v3", [1, 2, 3]), ("v6", [6]), ("v4_v6", [4, 5, 6])],
)
def test_a_release_is_the_files_that_its_name_says(release: str, numbers: list[int]) -> None:
    assert list(release_numbers(release)) == numbers


@pytest.mark.parametrize("release", ["", "None", "v0", "release_v0", "v6_v4", "6", "release_v1_v2"])
def test_a_release_of_no_known_name_is_refused(release: str) -> None:
    with pytest.raises(ValueError, match="release="):
        Edition(release=release)


def test_a_release_without_one_of_its_files_names_the_file(tmp_path: Path) -> None:
    write_lcb(tmp_path, lcb_row(), number=1)
    with pytest.raises(FileNotFoundError, match=r"test2\.jsonl is not there"):
        release_files(tmp_path, "release_v2")


def test_a_window_has_both_of_its_days_and_none_beside(tmp_path: Path) -> None:
    days = ["2025-01-31", "2025-02-01", "2025-02-28", "2025-03-01"]
    write_lcb(tmp_path, *(lcb_row(day, day=day) for day in days))
    edition = edition_of({"release": "v6", "from": "2025-02-01", "until": "2025-02-28"}, "lcb")
    assert list(load_tasks(tmp_path, edition)) == days[1:3]
    assert str(edition) == "v6 2025-02-01..2025-02-28"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"release": "v6", "from": "2025"},
        {"release": "v6", "window": "2025-02"},
        {"release": "v6", "from": "2025-02-02", "until": "2025-02-01"},
    ],
)
def test_options_that_name_no_edition_are_refused_with_the_format(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"lcb: .*release_v6: all up to v6"):
        edition_of(options, "lcb")


def test_a_window_without_tasks_is_an_error_and_no_score(tmp_path: Path) -> None:
    write_lcb(tmp_path, lcb_row())
    with pytest.raises(ValueError, match="none of 1 tasks of v6"):
        load_tasks(tmp_path, Edition(release="v6", last_day=date(2020, 1, 1)))


def test_a_task_that_two_files_have_counts_once_and_must_be_the_same(tmp_path: Path) -> None:
    write_lcb(tmp_path, lcb_row(), number=5)
    write_lcb(tmp_path, lcb_row(), number=6)
    assert len(load_tasks(tmp_path, Edition(release="v5_v6"))) == 1
    write_lcb(tmp_path, lcb_row(tests=[("1\n", "1\n")]), number=6)
    with pytest.raises(ValueError, match=r"test6\.jsonl:1: task abc300_a is another one in"):
        load_tasks(tmp_path, Edition(release="v5_v6"))


def test_tests_are_read_again_from_the_line_of_their_task(tmp_path: Path) -> None:
    rows = [
        lcb_row("a", [("1", "a\u00e9")], private=[("2", "b")]),
        lcb_row("b", RISES, function="rises"),
    ]
    tasks = load_tasks(write_lcb(tmp_path, *rows), V6)
    assert [(test.input, test.output) for test in tasks["a"].tests()] == [("1", "aé"), ("2", "b")]
    assert [(test.input, test.output) for test in tasks["b"].tests()] == RISES
    assert tasks["b"].function == "rises"


@pytest.mark.parametrize("place", ["test6.parquet", "v6/test-00000-of-00001.parquet"])
def test_a_parquet_mirror_gives_the_same_tasks_as_the_raw_file(tmp_path: Path, place: str) -> None:
    rows = [lcb_row(f"t{number}", [(str(number), "x")]) for number in range(40)]
    raw = load_tasks(write_lcb(tmp_path / "raw", *rows), V6)
    path = tmp_path / "mirror" / place
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    mirror = load_tasks(tmp_path / "mirror", V6)
    assert [task.digest for task in mirror.values()] == [task.digest for task in raw.values()]
    assert mirror["t33"].tests() == raw["t33"].tests()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("metadata", '{"func_name": "__import__(1)"}', "names no function"),
        ("metadata", "{", "test6.jsonl:1"),
        ("contest_date", "soon", "test6.jsonl:1"),
        ("question_content", None, "question_content"),
        ("private_test_cases", "[1]", "is no test"),
        ("private_test_cases", "[", "LiveCodeBench's format"),
        ("public_test_cases", "[]", "expected tests, all of them stdin"),
    ],
)
def test_a_row_that_is_not_of_the_format_is_refused_with_its_place(
    tmp_path: Path, field: str, value: Any, said: str
) -> None:
    write_lcb(tmp_path, {**lcb_row(), field: value})
    with pytest.raises(ValueError, match=said):
        load_tasks(tmp_path, V6)["abc300_a"].tests()


@given(
    st.lists(st.tuples(st.text(), st.text())),
    st.integers(min_value=0, max_value=pickle.HIGHEST_PROTOCOL),
)
def test_packed_tests_of_any_pickle_protocol_are_read_as_they_were(
    tests: list[tuple[str, str]], protocol: int
) -> None:
    entries = lcb_tests(tests)
    plain = unpacked_tests("[]", json.dumps(entries), "here")
    assert unpacked_tests("[]", packed(entries, protocol), "here") == plain
    assert [(test.input, test.output) for test in plain] == tests


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("content", [_Harmful(), ["a"], {"a": 1}, 1, [_Harmful()]])
def test_a_pickle_of_anything_but_one_text_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    monkeypatch.chdir(tmp_path)
    private = base64.b64encode(zlib.compress(pickle.dumps(content))).decode()
    with pytest.raises(ValueError, match="pickle"):
        unpacked_tests("[]", private, "here")
    assert list(tmp_path.iterdir()) == []


def test_private_tests_that_unpack_without_end_are_refused_at_the_limit() -> None:
    bomb = base64.b64encode(zlib.compress(b"a" * 1_000_001)).decode()
    with pytest.raises(ValueError, match="more than 1,000,000 bytes"):
        unpacked_tests("[]", bomb, "here", max_bytes=1_000_000)
