"""Raw files read whole and in ranges."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mira_megatron.tokenization import raw_jsonl, raw_parquet, raw_rows, raw_text
from mira_megatron.tokenization.raw_rows import FileRange
from mira_megatron.tokenization.raw_text import file_ranges, read_chunks

ROWS: list[dict[str, Any]] = [
    {"text": "one", "id": "a"},
    {"text": "", "id": "b"},
    {"text": '日本 🙂\n\u2028 and "quotes" \\ n', "id": 3},
    {"text": "x" * 5000, "id": "d"},
    {"text": "last", "id": "e"},
]
LINES = [orjson.dumps(row) for row in ROWS]

# What one of the two parsers takes and the other does not, and what looks like two lines.
ODD_LINES = [
    b'{"text": "nan", "x": [NaN, -Infinity]}',
    b'{"text": "first", "text": "twice"}',
    b'{"text": "deep", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"text": "a"}{"text": "b"}',
    b'{"text": "b", "x": "\xff"}',
    b'{"text": "cr"}\r',
]

Read = list[tuple[int, str]]  # row and text, or reason of a bad one


def jsonl(folder: Path, content: bytes, suffix: str = ".jsonl") -> Path:
    path = folder / f"raw{suffix}"
    if suffix.endswith(".gz"):
        # Two members, as appending to a .gz makes them.
        half = len(content) // 2
        content = gzip.compress(content[:half]) + gzip.compress(content[half:])
    if suffix.endswith(".zst"):
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def parquet(folder: Path, column: pa.Array, **options: Any) -> Path:
    path = folder / "raw.parquet"
    pq.write_table(pa.table({"text": column}), path, **options)
    return path


def rows_of(parts: list[FileRange], id_field: str | None = None) -> tuple[Read, Read]:
    """Rows that became texts and bad ones, numbered through all ranges of a file."""
    good: Read = []
    bad: Read = []
    before = 0
    for part in parts:
        num_rows = 0
        for chunk in read_chunks(part, text_field="text", id_field=id_field):
            found = (chunk.texts if chunk.ids is None else chunk.ids).to_pylist()
            good += [(before + row, text) for row, text in zip(chunk.rows, found, strict=True)]
            bad += [(before + row.row, row.reason) for row in chunk.bad]
            num_rows += chunk.num_rows
        before += num_rows
    return good, bad


EXPECTED = [(number, row["text"]) for number, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_are_read_in_order(tmp_path: Path, suffix: str, end: bytes) -> None:
    path = jsonl(tmp_path, b"\n".join(LINES) + end, suffix)
    assert rows_of(file_ranges([path])) == (EXPECTED, [])
    ids = [(number, str(row["id"])) for number, row in enumerate(ROWS, start=1)]
    assert rows_of(file_ranges([path]), id_field="id") == (ids, [])


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
@pytest.mark.parametrize("column", [pa.string(), pa.large_string(), pa.dictionary])
def test_parquet_rows_are_read_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group_size: int, column: Any
) -> None:
    monkeypatch.setattr(raw_text, "_MIN_SHARD_BYTES", 1)
    texts = [row["text"] for row in ROWS]
    array = (
        pa.array(texts).dictionary_encode() if column is pa.dictionary else pa.array(texts, column)
    )
    path = parquet(tmp_path, array, row_group_size=row_group_size)
    assert rows_of(file_ranges([path])) == (EXPECTED, [])


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    lines=st.lists(st.sampled_from([*LINES, *ODD_LINES, b"", b"{", b"  "]), max_size=8),
    shard_bytes=st.integers(1, 12_000),
    chunk_bytes=st.integers(1, 300),
    end=st.sampled_from([b"", b"\n"]),
)
def test_lines_are_the_same_however_the_file_is_cut(
    tmp_path: Path, lines: list[bytes], shard_bytes: int, chunk_bytes: int, end: bytes
) -> None:
    path = jsonl(tmp_path, b"\n".join(lines) + end)
    whole = rows_of(file_ranges([path]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_text, "_MIN_SHARD_BYTES", shard_bytes)
        patch.setattr(raw_jsonl, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(raw_jsonl, "_SCAN_BYTES", chunk_bytes)
        assert rows_of(file_ranges([path])) == whole
    assert [row for row, _ in sorted([*whole[0], *whole[1]])] == [
        number for number, line in enumerate(lines, start=1) if line.strip()
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "invalid_json"),
        (b'{"text": "\\ud800"}', "invalid_json"),  # a lone surrogate
        (b'{"text": "\xff"}', "invalid_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8"),
        (b"[1]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"txt": "a"}', "no_text"),
        (b'{"text": null}', "no_text"),
        (b'{"text": 3}', "no_text"),
    ],
)
def test_a_line_that_is_no_document_is_counted_where_it_stands(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = jsonl(tmp_path, b"\n".join([LINES[0], line, b"", LINES[4]]))
    good, bad = rows_of(file_ranges([path]))
    assert good == [(1, "one"), (4, "last")]
    assert bad == [(2, reason)]


@pytest.mark.parametrize("line", [b'{"text": "a"}', b'{"text": "a", "id": null}'])
def test_a_line_without_the_id_asked_for_is_counted(tmp_path: Path, line: bytes) -> None:
    path = jsonl(tmp_path, b"\n".join([LINES[0], line]))
    assert rows_of(file_ranges([path]), id_field="id") == ([(1, "a")], [(2, "no_id")])


def test_a_line_becomes_the_same_whatever_is_beside_it(tmp_path: Path) -> None:
    expected = {0: "nan", 1: "twice", 2: "deep", 5: "cr"}
    for number, line in enumerate(ODD_LINES):
        for beside in ([], [LINES[0]], [b"{"]):
            good, bad = rows_of(file_ranges([jsonl(tmp_path, b"\n".join([line, *beside]))]))
            texts, reasons = dict(good), dict(bad)
            assert texts.get(1) == expected.get(number)
            reason = {3: "invalid_json", 4: "invalid_utf8"}.get(number)
            assert reasons.get(1) == reason


def test_blanks_around_a_line_and_marks_inside_a_file_change_nothing(tmp_path: Path) -> None:
    nan = ODD_LINES[0]
    path = jsonl(tmp_path, b"\n".join([nan + b"\r", b"  " + nan + b" ", b"\xef\xbb\xbf" + nan]))
    assert rows_of(file_ranges([path])) == ([(1, "nan"), (2, "nan")], [(3, "invalid_json")])
    whole = FileRange(file=str(path), start=0, stop=path.stat().st_size)
    after_first = FileRange(file=str(path), start=len(nan) * 2 + 4, stop=whole.stop)
    assert rows_of([after_first]) == ([], [(1, "invalid_json")])


def test_two_objects_in_a_line_and_one_in_two_lines_are_no_two_documents(tmp_path: Path) -> None:
    path = jsonl(tmp_path, b'{"text": "a"}{"text": "b"}\n{"text":\n"c"}\n' + LINES[0])
    good, bad = rows_of(file_ranges([path]))
    assert good == [(4, "one")]
    assert [row for row, _ in bad] == [1, 2, 3]


def test_parquet_rows_that_are_no_document_are_counted_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every row a batch and a chunk by itself.
    monkeypatch.setattr(raw_parquet, "_BATCH_ROWS", 1)
    monkeypatch.setattr(raw_rows, "CHUNK_BYTES", 1)
    column = pa.array([b"a", None, b"\xff", b"b"], pa.binary()).view(pa.string())
    path = parquet(tmp_path, column)
    assert rows_of(file_ranges([path])) == (
        [(1, "a"), (4, "b")],
        [(2, "no_text"), (3, "invalid_utf8")],
    )


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, b"\xef\xbb\xbf" + b"\n".join(LINES))
    assert rows_of(file_ranges([path])) == (EXPECTED, [])


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_truncated_archive_is_refused(tmp_path: Path, suffix: str) -> None:
    path = jsonl(tmp_path, b"\n".join(LINES * 50), suffix)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot be read to its end"):
        rows_of(file_ranges([path]))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(file_ranges([jsonl(tmp_path, b"")])) == ([], [])


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jsonl: no such file"):
        file_ranges([tmp_path / "gone.jsonl"])
    (tmp_path / "raw.txt").touch()
    with pytest.raises(ValueError, match=r"raw\.txt: cannot be read; expected a name that ends in"):
        file_ranges([tmp_path / "raw.txt"])
    path = parquet(tmp_path, pa.array([1, 2]))
    with pytest.raises(ValueError, match=r"column 'text' is int64, expected string"):
        rows_of(file_ranges([path]))
    with pytest.raises(ValueError, match="no column body; it has text"):
        list(read_chunks(file_ranges([path])[0], text_field="body", id_field=None))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="unreadable Parquet"):
        file_ranges([path])


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_jsonl, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(raw_jsonl, "CHUNK_BYTES", 100)
    with pytest.raises(ValueError, match=r"raw\.jsonl: a line of more than 1,000 bytes, 4 lines"):
        rows_of(file_ranges([jsonl(tmp_path, b"\n".join(LINES))]))
