from __future__ import annotations

import importlib
import json
import re
import time

import pytest
from contamination_scans import hits

from mira_megatron.eval.contamination.items import Item

pytest.importorskip("sqlglot", reason="sqlglot comes with the extra `eval`")

GOLD = "SELECT T1.name, count(*) FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id WHERE T2.year > 2014 GROUP BY T1.name"  # noqa: E501
SPIDER = Item(benchmark="spider", task_id="7", cluster="x", query=GOLD)
SAME = {
    "as it is": GOLD,
    "lower case": GOLD.lower(),
    "other aliases, no AS": (
        "select s.name, count( * ) from singer s join concert c on s.id = c.singer_id "
        "where c.year > 2014 group by s.name;"
    ),
    "over lines, with a comment": GOLD.replace(" FROM", " -- names\n  FROM").replace(
        " WHERE", "\nWHERE"
    ),
    "quoted names": GOLD.replace("singer AS", "`singer` AS").replace("concert AS", '"concert" AS'),
}


def surfaces(text: str) -> list[str]:
    return [hit["surface"] for hit in hits([SPIDER], [text])]


@pytest.mark.parametrize("query", SAME.values(), ids=SAME)
@pytest.mark.parametrize("frame", ["{}", "The answer:\n```sql\n{}\n```\nIt counts.", "{}; -- end"])
def test_the_same_query_is_found_in_any_writing(query: str, frame: str) -> None:
    assert surfaces(frame.replace("{}", query)) == ["query", "masked_query"]


def test_a_query_in_json_or_in_a_string_is_found() -> None:
    assert surfaces(json.dumps({"sql": SAME["over lines, with a comment"]})) == [
        "query",
        "masked_query",
    ]
    assert surfaces(f'cursor.execute("{SAME["lower case"]}")\n') == ["query", "masked_query"]


def test_another_literal_is_the_masked_query_alone() -> None:
    assert surfaces(GOLD.replace("2014", "1999")) == ["masked_query"]


@pytest.mark.parametrize(
    "query",
    [
        GOLD.replace("count(*)", "max(T2.year)"),
        GOLD.replace("T1.id = T2.singer_id", "T2.id = T1.singer_id"),
        GOLD.replace("singer AS", "dancer AS"),
        GOLD + " ORDER BY count(*)",
    ],
)
def test_another_query_is_none(query: str) -> None:
    assert surfaces(query) == []


def test_a_query_that_anybody_writes_is_not_looked_for() -> None:
    short = Item(benchmark="spider", task_id="1", cluster="y", query="SELECT count(*) FROM singer")
    assert hits([short], ["SELECT count(*) FROM singer"]) == []


def test_a_query_with_a_common_table_is_found_as_a_whole() -> None:
    gold = (
        "WITH recent AS (SELECT singer_id FROM concert WHERE year > 2014) "
        "SELECT name FROM singer JOIN recent ON singer.id = recent.singer_id"
    )
    known = Item(benchmark="bird", task_id="1", cluster="x", query=gold)
    text = f"With all that, one gets:\n{gold.replace(') SELECT', ')' + chr(10) + 'SELECT')};"
    assert [hit["surface"] for hit in hits([known], [text])] == ["query", "masked_query"]
    assert hits([known], [text.replace("2014", "2015").replace("JOIN", "LEFT JOIN")]) == []


def test_the_place_of_a_query_is_told_in_characters() -> None:
    text = f"é: {GOLD}; and more"
    (exact, _) = hits([SPIDER], [text])
    assert text[exact["start"] : exact["end"]] == GOLD


def test_text_that_only_looks_like_sql_is_passed_over() -> None:
    text = "Select one from singer and join them with (((( 'an open quote from singer"
    assert surfaces(text * 50) == []


@pytest.mark.parametrize(
    "broken",
    [
        f"select {'a.' * 1500}a from singer join concert on x = y",
        "select { : } not from singer where or exists interval : with partition over",
    ],
    ids=["too deep to be written", "a slip of the parser"],
)
def test_a_text_that_no_parser_takes_is_passed_over(broken: str) -> None:
    assert surfaces(f"{broken}\n\n{GOLD}") == ["query", "masked_query"]


def test_a_table_whose_name_begins_with_an_n_is_found() -> None:
    gold = "SELECT name, population FROM nation WHERE region_id = 3 AND population > 1000"
    known = Item(benchmark="bird", task_id="1", cluster="x", query=gold)
    found = [hit["surface"] for hit in hits([known], [gold, json.dumps({"sql": f"\n{gold}"})])]
    assert found == ["query", "masked_query"] * 2


def test_a_long_line_of_one_letter_does_not_hold_up_a_scan() -> None:
    line = "n" * 20_000
    assert surfaces(f"with \\{line} from \\{line} from singer; {GOLD}") == ["query", "masked_query"]


def keys_in(text: str, **bounds: int) -> list[str]:
    sql = importlib.import_module("mira_megatron.eval.contamination.sql_queries")
    known = {sql.query_hashes(GOLD).exact: 0}
    starts = [found.start() for found in re.finditer("SELECT", text)]
    found = sql.query_hits(text, starts, known, frozenset({"singer", "concert"}), **bounds)
    return [hit.key for hit in found]


def test_a_query_that_stands_in_a_text_many_times_is_parsed_once() -> None:
    text = f"{GOLD.replace('year', 'age')};\n" * 20_000 + GOLD
    started = time.process_time()
    assert len(keys_in(text)) == 1
    assert time.process_time() - started < 10  # a parse takes a millisecond


def test_a_text_of_queries_is_looked_through_up_to_a_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "".join(f"{GOLD.replace('year', f'age{number}')};\n" for number in range(50)) + GOLD
    assert len(keys_in(text)) == 1
    assert caplog.text == ""
    assert keys_in(text, max_work=20 * len(text)) == []
    assert f"a text of {len(text)} characters has too many queries" in caplog.text
