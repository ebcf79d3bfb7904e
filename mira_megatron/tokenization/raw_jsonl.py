"""JSON Lines, plain or compressed, as chunks of texts; a plain file can be read in ranges.

Lines are parsed many at a time by Arrow, which leaves the interpreter to other threads, and one by
one by orjson where a line of them is no document. A line is taken if one of the two takes it, so
that what becomes of it depends on that line alone: Arrow takes NaN and any depth of nesting in
fields that nobody asked for, orjson a key twice (the last one counts) and whole numbers for ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.json

from mira_megatron.tokenization.raw_rows import CHUNK_BYTES, BadRow, FileRange, RawChunk, row_id

# A line of more is no document: the file is not JSON Lines.
MAX_LINE_BYTES = 1 << 30
_SCAN_BYTES = 1 << 20
_NEWLINE = ord("\n")
_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
_CODECS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    text: str
    id: str | None


@dataclass(frozen=True, slots=True)
class _Lines:
    """Whole lines, one after another."""

    content: pa.Buffer  # in memory that Arrow owns: its threads may outlive the interpreter
    ends_L: npt.NDArray[np.int64]  # after each one's line end, of which the last may have none


def jsonl_chunks(part: FileRange, *, text_field: str, id_field: str | None) -> Iterator[RawChunk]:
    """Yields the rows of the lines that begin in a range; empty lines are counted, no more.

    Raises ValueError naming the file when it is damaged as a whole.
    """
    path = Path(part.file)
    row = 1
    try:
        for lines in _whole_lines(_blocks(path, part), path):
            chunk = _parsed(lines, row, text_field, id_field, is_first=part.start == 0)
            yield chunk
            row += chunk.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}. Copy it again.") from error


def _blocks(path: Path, part: FileRange) -> Iterator[pa.Buffer]:
    """Yields the bytes of the lines that begin in a range."""
    codec = _CODECS.get(path.suffix)
    if codec is not None:
        # Arrow's stream refuses a truncated zstd frame, which zstandard takes for the end.
        with pa.input_stream(str(path), compression=codec) as stream:
            while (block := stream.read_buffer(CHUNK_BYTES)).size:
                yield block
        return
    with path.open("rb", buffering=0) as file:
        start = _line_start(file.seek, file.read, part.start)
        stop = _line_start(file.seek, file.read, part.stop)
        file.seek(start)
        while start < stop:
            block = pa.allocate_buffer(min(CHUNK_BYTES, stop - start))
            num_bytes = file.readinto(memoryview(block))
            if not num_bytes:
                raise OSError("it became shorter while it was read")
            yield block.slice(0, num_bytes)
            start += num_bytes


def _line_start(seek: Callable[[int], object], read: Callable[[int], bytes], position: int) -> int:
    """Returns where the first line begins that begins at `position` or later."""
    if position == 0:
        return 0
    scanned = position - 1
    seek(scanned)
    while block := read(_SCAN_BYTES):
        newline = block.find(b"\n")
        if newline >= 0:
            return scanned + newline + 1
        scanned += len(block)
    return scanned


def _whole_lines(blocks: Iterator[pa.Buffer], path: Path) -> Iterator[_Lines]:
    """Yields the same bytes, cut where lines end."""
    begun: list[pa.Buffer] = []  # of a line whose end is not read yet
    row = 1
    for block in blocks:
        ends_L = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE) + 1
        if len(ends_L):
            num_begun = sum(piece.size for piece in begun)
            end = int(ends_L[-1])
            yield _Lines(_joined([*begun, block.slice(0, end)]), ends_L + num_begun)
            row += len(ends_L)
            begun = []
            block = block.slice(end)
        if block.size:
            begun.append(block)
        if sum(piece.size for piece in begun) > MAX_LINE_BYTES:
            raise ValueError(
                f"{path}: a line of more than {MAX_LINE_BYTES:,} bytes, {row:,} lines after the "
                "start of its shard. JSON Lines has one object per line."
            )
    if begun:
        last = _joined(begun)
        yield _Lines(last, np.array([last.size]))


def _parsed(
    lines: _Lines, first_row: int, text_field: str, id_field: str | None, *, is_first: bool
) -> RawChunk:
    """Returns what lines hold, all at once where every one of them is a document."""
    num_rows = len(lines.ends_L)
    columns = _columns(lines, text_field, id_field)
    if columns is None:
        return _parsed_one_by_one(lines, first_row, text_field, id_field, is_first=is_first)
    return RawChunk(
        texts=columns[0],
        ids=columns[1],
        rows=range(first_row, first_row + num_rows),
        bad=[],
        num_rows=num_rows,
    )


def _columns(
    lines: _Lines, text_field: str, id_field: str | None
) -> tuple[pa.LargeStringArray, pa.StringArray | None] | None:
    """Returns texts and ids of lines that all are objects with strings in these fields, or None."""
    utf8 = np.frombuffer(lines.content, np.uint8)
    starts_L = np.concatenate([[0], lines.ends_L[:-1]])
    lasts_L = lines.ends_L - 1
    lasts_L = lasts_L - (utf8[lasts_L] == _NEWLINE)
    # Inside of a JSON value no } is followed by a {. So lines that begin with the one and end with
    # the other hold a value each at least, and one each if there are no more values than lines.
    if (utf8[starts_L] != ord("{")).any() or (utf8[lasts_L] != ord("}")).any():
        return None
    try:
        # Arrow looks at the UTF-8 of no field that it is not asked for.
        _as_one_text(lines.content).validate(full=True)
    except pa.ArrowInvalid:
        return None
    for id_type in (pa.string(), pa.int64())[: 1 if id_field is None else 2]:
        types = {id_field: id_type, text_field: pa.large_string()}
        types.pop(None, None)
        with suppress(pa.ArrowInvalid):
            table = _read(lines.content, pa.schema(types))
            if table.num_rows != len(lines.ends_L) or any(c.null_count for c in table.columns):
                return None
            texts = table[text_field].combine_chunks()
            ids = None if id_field is None else table[id_field].combine_chunks().cast(pa.string())
            return texts, ids
    return None


def _read(content: pa.Buffer, schema: pa.Schema) -> pa.Table:
    return pa.json.read_json(
        pa.BufferReader(content),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=content.size + 1),
        parse_options=pa.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore"
        ),
    )


def _parsed_one_by_one(
    lines: _Lines, first_row: int, text_field: str, id_field: str | None, *, is_first: bool
) -> RawChunk:
    """Returns what lines hold; `is_first` in the range with which the file begins."""
    texts: list[str] = []
    ids: list[str] = []
    rows: list[int] = []
    bad: list[BadRow] = []
    content = memoryview(lines.content)
    for row, (start, end) in enumerate(pairwise([0, *lines.ends_L.tolist()]), start=first_row):
        line = bytes(content[start:end])
        if row == 1 and is_first:
            line = line.removeprefix(_BOM)
        if not line.strip():
            continue
        parsed = _parsed_line(line, text_field, id_field)
        if isinstance(parsed, _Row):
            texts.append(parsed.text)
            ids += [] if parsed.id is None else [parsed.id]
            rows.append(row)
        else:
            bad.append(BadRow(row=row, reason=parsed[0], detail=parsed[1]))
    return RawChunk(
        texts=pa.array(texts, pa.large_string()),
        ids=None if id_field is None else pa.array(ids, pa.string()),
        rows=rows,
        bad=bad,
        num_rows=len(lines.ends_L),
    )


def _parsed_line(line: bytes, text_field: str, id_field: str | None) -> _Row | tuple[str, str]:
    """Returns a row, or the reason why there is none and what to tell a person."""
    try:
        line.decode()
        loaded = orjson.loads(line)
    except UnicodeDecodeError as error:
        return "invalid_utf8", f"{error.reason} (byte {error.start})"
    except orjson.JSONDecodeError as error:
        columns = _columns(_one_line(line.strip(_BLANKS)), text_field, id_field)
        if columns is None:
            return "invalid_json", f"{error.msg} (character {error.pos})"
        texts, ids = columns
        return _Row(text=texts[0].as_py(), id=None if ids is None else ids[0].as_py())
    if not isinstance(loaded, dict):
        return "not_an_object", f"expected an object, found {type(loaded).__name__}"
    if not isinstance(loaded.get(text_field), str):
        found = type(loaded[text_field]).__name__ if text_field in loaded else "no such field"
        return "no_text", f"expected a string in {text_field!r}, found {found}"
    try:
        return _Row(text=loaded[text_field], id=id_field and row_id(loaded.get(id_field)))
    except TypeError:
        return "no_id", f"expected a string or whole number in {id_field!r}"


def _one_line(line: bytes) -> _Lines:
    owned = pa.allocate_buffer(len(line))
    memoryview(owned).cast("B")[:] = line
    return _Lines(owned, np.array([len(line)]))


def _joined(buffers: Sequence[pa.Buffer]) -> pa.Buffer:
    """Returns the buffers' bytes, one after another."""
    if len(buffers) == 1:
        return buffers[0]
    joined = pa.allocate_buffer(sum(buffer.size for buffer in buffers))
    start = 0
    for buffer in buffers:
        memoryview(joined)[start : start + buffer.size] = memoryview(buffer)
        start += buffer.size
    return joined


def _as_one_text(content: pa.Buffer) -> pa.LargeStringArray:
    offsets = pa.array([0, content.size], pa.int64()).buffers()[1]
    return pa.LargeStringArray.from_buffers(1, offsets, content)
