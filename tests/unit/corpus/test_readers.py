import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.readers import (
    CHUNK_BYTES,
    MAX_ROW_BYTES,
    BadRow,
    Row,
    read_rows,
    split_lines,
)
from mira_megatron.corpus.sources import resolve_files, source_from_mapping

REAL_DATA = Path(__file__).parents[4] / "shared" / "data" / "corpus"
TEXT = {"family": "text", "fields": {"text": "text"}}

needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason=f"needs the public data files in {REAL_DATA}"
)


def read(folder: Path, **settings: Any) -> list[Row | BadRow]:
    """Rows of every file in `folder` that the settings name."""
    config = source_from_mapping({"paths": ["."], **settings}, "test")
    return list(read_rows(config, resolve_files(config, folder)))


def read_text(path: Path, content: bytes) -> list[Row | BadRow]:
    path.write_bytes(content)
    return read(path.parent, format="jsonl", **TEXT)


def texts(rows: list[Row | BadRow]) -> list[str]:
    return [row.text if isinstance(row, Row) else row.reason for row in rows]


def line(text: str) -> bytes:
    return orjson.dumps({"text": text}) + b"\n"


def test_jsonl_skips_bom_carriage_returns_and_blank_lines_but_counts_lines(tmp_path: Path) -> None:
    rows = read_text(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text":"x"}\r\n\r\n  \n{"text":"y\\n"}')

    assert [(row.origin, text) for row, text in zip(rows, texts(rows), strict=True)] == [
        ("a.jsonl:1", "x"),
        ("a.jsonl:4", "y\n"),
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "cut', "invalid_json"),
        (b'{"text": "x", "score": NaN}', "invalid_json"),
        (b'{"text": "\\ud800"}', "invalid_json"),
        (b'{"text": "\xff"}', "invalid_utf8"),
        (b'["text"]', "not_an_object"),
        (b'{"body": "x"}', "missing_field"),
        (b'{"text": null}', "missing_field"),
        (b'{"text": {"a": 1}}', "wrong_type"),
    ],
)
def test_jsonl_malformed_row_is_counted_with_its_line_and_reading_goes_on(
    tmp_path: Path, bad: bytes, reason: str
) -> None:
    rows = read_text(tmp_path / "a.jsonl", line("x") + bad + b"\n" + line("y"))

    assert texts(rows) == ["x", reason, "y"]
    assert rows[1].origin == "a.jsonl:2"


def test_jsonl_malformed_row_never_quotes_its_text(tmp_path: Path) -> None:
    secret = "s3cret" * 40
    rows = read_text(tmp_path / "a.jsonl", b'{"text": ["%s"]}\n{"%s\n' % ((secret.encode(),) * 2))

    details = [row.detail for row in rows if isinstance(row, BadRow)]
    assert len(details) == 2
    assert not any("s3cret" in detail for detail in details)


def test_jsonl_nested_too_deeply_to_write_back_is_a_bad_row(tmp_path: Path) -> None:
    deep = b'{"text": "x", "deep": ' + b"[" * 400 + b"]" * 400 + b"}"
    (tmp_path / "a.jsonl").write_bytes(deep + b"\n" + line("y"))

    rows = read(tmp_path, format="jsonl", meta_fields=["deep"], **TEXT)

    assert texts(rows) == ["invalid_json", "y"]


def test_jsonl_too_long_line_is_skipped_without_losing_the_next(tmp_path: Path) -> None:
    rows = read_text(tmp_path / "a.jsonl", line("x" * 2 * MAX_ROW_BYTES) + line("y" * 2_000_000))

    assert [text[:9] for text in texts(rows)] == ["too_long", "y" * 9]


def test_split_lines_never_holds_much_more_than_the_longest_row() -> None:
    endless = (b"x" * CHUNK_BYTES for _ in range(2 * MAX_ROW_BYTES // CHUNK_BYTES))

    (cut,) = split_lines(endless)

    assert MAX_ROW_BYTES < len(cut) <= MAX_ROW_BYTES + CHUNK_BYTES


def test_jsonl_reads_every_gzip_member_and_zstd_frame(tmp_path: Path) -> None:
    halves = line("x"), line("y")
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    (tmp_path / "b.jsonl.zst").write_bytes(b"".join(map(zstandard.compress, halves)))

    assert texts(read(tmp_path, format="jsonl", **TEXT)) == ["x", "y", "x", "y"]


@pytest.mark.parametrize("keep_bytes", [0, 3, -1])
@pytest.mark.parametrize(
    ("suffix", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_jsonl_truncated_archive_raises_and_names_the_file(
    tmp_path: Path, suffix: str, compress: Any, keep_bytes: int
) -> None:
    with pytest.raises(ValueError, match=f"a.jsonl{suffix}: .*opy it again"):
        read_text(tmp_path / f"a.jsonl{suffix}", compress(line("x") * 1000)[:keep_bytes])


@given(
    lines=st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\n", b"")), min_size=1),
    cuts=st.lists(st.integers(0, 60)),
)
def test_lines_do_not_depend_on_where_chunks_end(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(piece + b"\n" for piece in lines)
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = (content[a:b] for a, b in itertools.pairwise(edges))

    assert list(split_lines(chunks)) == lines


def test_jsonl_dotted_paths_reach_into_objects_and_lists(tmp_path: Path) -> None:
    row = {"choices": [{"q": "2+2?"}], "model": {"a": "4"}, "ok": True}
    (tmp_path / "a.jsonl").write_bytes(orjson.dumps(row))

    (found,) = read(
        tmp_path,
        format="jsonl",
        family="qa",
        fields={"question": "choices.0.q", "answer": "model.a"},
        meta_fields=["ok", "choices.1.q"],
    )

    assert isinstance(found, Row)
    assert found.payload == '{"answer":"4","question":"2+2?"}'
    assert found.meta == '{"choices.1.q":null,"ok":true}'


def test_json_reads_one_array_and_numbers_its_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "x"}, 3]')

    rows = read(tmp_path, format="json", **TEXT)

    assert [(row.origin, text) for row, text in zip(rows, texts(rows), strict=True)] == [
        ("a.json:1", "x"),
        ("a.json:2", "not_an_object"),
    ]


@pytest.mark.parametrize("content", ['{"text": "x"}', '[{"text": "x"}'])
def test_json_that_is_no_array_raises_and_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)

    with pytest.raises(ValueError, match=r"a\.json: "):
        read(tmp_path, format="json", **TEXT)


def test_parquet_reads_nested_columns_and_numbers_rows_across_batches(tmp_path: Path) -> None:
    rows = [{"row": {"text": f"t{i}"}, "unused": i} for i in range(130)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=50)

    found = read(tmp_path, format="parquet", family="text", fields={"text": "row.text"})

    assert texts(found) == [f"t{i}" for i in range(130)]
    assert found[-1].origin == "a.parquet:130"


def test_parquet_null_and_invalid_utf8_are_bad_rows(tmp_path: Path) -> None:
    column = pa.array([b"x", None, b"\xff", b"y"]).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")

    found = read(tmp_path, format="parquet", **TEXT)

    assert texts(found) == ["x", "missing_field", "invalid_utf8", "y"]


def test_parquet_meta_may_hold_values_that_json_has_no_word_for(tmp_path: Path) -> None:
    table = pa.table({"text": ["x"], "day": pa.array([0], pa.date32()), "raw": [b"\x00"]})
    pq.write_table(table, tmp_path / "a.parquet")

    (row,) = read(tmp_path, format="parquet", meta_fields=["day", "raw"], **TEXT)

    assert isinstance(row, Row)
    assert row.meta == r"""{"day":"1970-01-01","raw":"b'\\x00'"}"""


def test_parquet_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "a.parquet")

    with pytest.raises(ValueError, match=r"a\.parquet: no column text; it has content"):
        read(tmp_path, format="parquet", **TEXT)


def test_parquet_truncated_file_raises_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 1000]}), path)
    path.write_bytes(path.read_bytes()[:-9])

    with pytest.raises(ValueError, match=r"a\.parquet: unreadable Parquet"):
        read(tmp_path, format="parquet", **TEXT)


def test_huggingface_saved_dataset_is_read_in_its_order(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(150)], "n": range(150)})
    rows.select([149, *range(100)]).save_to_disk(tmp_path / "saved", num_shards=2)

    found = read(tmp_path, format="huggingface", **{**TEXT, "paths": ["saved"]})

    assert texts(found) == ["t149", *(f"t{i}" for i in range(100))]
    assert found[51].origin == "data-00001-of-00002.arrow:1"


def test_huggingface_dataset_without_local_files_is_streamed(tmp_path: Path) -> None:
    # load_dataset takes a folder where it takes a hub name, so this needs no network.
    (tmp_path / "train.jsonl").write_bytes(line("x") + line("y"))
    config = source_from_mapping(
        {"format": "huggingface", "paths": [str(tmp_path)], "split": "train", **TEXT}, "test"
    )

    rows = list(read_rows(config, ()))

    assert texts(rows) == ["x", "y"]
    assert rows[1].origin == f"{tmp_path}:2"


def test_text_tree_gives_one_row_per_file_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_bytes(b"\xef\xbb\xbfint x;\r\n")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe")

    rows = read(tmp_path, format="text_tree", family="text")

    assert texts(rows) == ["int x;\r\n", "invalid_utf8"]
    assert rows[0] == Row(
        origin="a.c:1", text="int x;\r\n", payload=None, meta=None, control_spans=()
    )


def test_python_docstring_qa_gives_rows_at_the_line_of_the_definition(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('import os\ndef f():\n    """Doc."""\n')
    (tmp_path / "b.py").write_text("def f(:\n")
    (tmp_path / "c.py").write_bytes(b"# \xff\n")
    (tmp_path / "d.py").write_text('def f():\n    "lone \\ud800"\n\nx = 1\n')

    rows = read(tmp_path, format="python_docstring_qa", family="qa")

    assert [row.origin for row in rows] == ["a.py:2", "b.py:1", "c.py:1", "d.py:1"]
    assert texts(rows)[1:] == ["syntax_error", "invalid_utf8", "invalid_json"]


def test_python_doctest_traces_come_from_docstrings_and_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('def f():\n    """\n    >>> f()\n    1\n    """\n')
    (tmp_path / "b.rst").write_text("Prose.\n\n>>> 1 + 1\n2\n")
    (tmp_path / "c.txt").write_text("No session here.\n")
    (tmp_path / "d.txt").write_text(">>> x\n>>>y\n")

    rows = read(tmp_path, format="python_doctest_traces", family="agent")

    assert [row.origin for row in rows] == ["a.py:1", "b.rst:1", "d.txt:1"]
    assert "`a.f` works" in texts(rows)[0]
    assert texts(rows)[2] == "malformed_doctest"


@needs_real_data
def test_real_gsm8k_reads_as_qa_without_a_bad_row() -> None:
    rows = read(
        REAL_DATA / "gsm8k",
        format="jsonl",
        family="qa",
        fields={"question": "question", "answer": "answer"},
    )

    assert Counter(type(row) for row in rows) == {Row: 7473}
    assert "Natalia sold 48/2" in texts(rows)[0]


@needs_real_data
def test_real_model_solutions_read_through_a_dotted_path() -> None:
    rows = read(
        REAL_DATA / "gsm8k_model_solutions",
        format="jsonl",
        family="qa",
        fields={"question": "question", "answer": "175b_verification.solution"},
        meta_fields=["175b_verification.is_correct"],
    )

    assert Counter(type(row) for row in rows) == {Row: 1319}
    metas = Counter(row.meta for row in rows if isinstance(row, Row))
    assert set(metas) == {
        '{"175b_verification.is_correct":false}',
        '{"175b_verification.is_correct":true}',
    }


@needs_real_data
def test_real_taubench_reads_as_agent_traces_with_all_their_calls() -> None:
    rows = read(
        REAL_DATA / "taubench",
        format="json",
        family="agent",
        fields={"messages": "traj"},
        meta_fields=["reward", "task_id"],
    )

    good = [row for row in rows if isinstance(row, Row)]
    assert len(good) == len(rows) == 200
    assert sum(row.text.count("\n<tool_call>\n") for row in good) == 1164
    assert json.loads(good[0].meta or "") == {"reward": 0.0, "task_id": 0}
