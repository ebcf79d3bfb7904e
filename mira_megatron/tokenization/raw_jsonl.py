"""JSON Lines, plain or compressed, as chunks of texts; a plain file can be read in ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa

from mira_megatron.tokenization.raw_rows import CHUNK_BYTES, BadRow, FileRange, RawChunk, row_id

# A line of more is no document: the file is not JSON Lines.
MAX_LINE_BYTES = 1 << 30
_SCAN_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_CODECS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    text: str
    id: str | None


def jsonl_chunks(part: FileRange, *, text_field: str, id_field: str | None) -> Iterator[RawChunk]:
    """Yields the rows of the lines that begin in a range; empty lines are counted, no more.

    Raises ValueError naming the file when it is damaged as a whole.
    """
    path = Path(part.file)
    try:
        for block, first_row in _numbered(_blocks(path, part), path):
            yield _parsed(block, first_row, text_field, id_field)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}. Copy it again.") from error


def _blocks(path: Path, part: FileRange) -> Iterator[bytes]:
    """Yields the bytes of the lines that begin in a range."""
    codec = _CODECS.get(path.suffix)
    if codec is not None:
        # Arrow's stream refuses a truncated zstd frame, which zstandard takes for the end.
        with pa.input_stream(str(path), compression=codec) as stream:
            while block := stream.read(CHUNK_BYTES):
                yield block
        return
    with path.open("rb", buffering=0) as file:
        start = _line_start(file.seek, file.read, part.start)
        stop = _line_start(file.seek, file.read, part.stop)
        file.seek(start)
        while start < stop and (block := file.read(min(CHUNK_BYTES, stop - start))):
            start += len(block)
            yield block


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


def _numbered(blocks: Iterator[bytes], path: Path) -> Iterator[tuple[list[bytes], int]]:
    """Yields whole lines, many at a time, and the number of the first of them."""
    begun: list[bytes] = []  # of a line whose end is not read yet
    row = 1
    for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = b"".join([*begun, lines[0]])
            yield lines, row
            row += len(lines)
            begun = []
        begun.append(rest)
        if sum(map(len, begun)) > MAX_LINE_BYTES:
            raise ValueError(
                f"{path}: a line of more than {MAX_LINE_BYTES:,} bytes, {row:,} lines after the "
                "start of its shard. JSON Lines has one object per line."
            )
    if any(begun):
        yield [b"".join(begun)], row


def _parsed(
    lines: Sequence[bytes], first_row: int, text_field: str, id_field: str | None
) -> RawChunk:
    try:
        return _all_parsed(lines, first_row, text_field, id_field)
    except (orjson.JSONDecodeError, TypeError, KeyError, pa.ArrowException):
        pass  # an empty line, or one that is no document: each is looked at by itself
    texts: list[str] = []
    ids: list[str] = []
    rows: list[int] = []
    bad: list[BadRow] = []
    for row, line in enumerate(lines, start=first_row):
        try:
            loaded = orjson.loads(line)
            text = loaded[text_field]
            if type(text) is not str:
                raise TypeError
            if id_field is not None:
                ids.append(row_id(loaded[id_field]))
        except (orjson.JSONDecodeError, TypeError, KeyError):
            content = line.removeprefix(_BOM) if row == 1 else line
            if not content.strip():
                continue
            again = _slowly_parsed(content, text_field, id_field)
            if not isinstance(again, _Row):
                bad.append(BadRow(row=row, reason=again[0], detail=again[1]))
                continue
            text = again.text
            if again.id is not None:
                ids.append(again.id)
        texts.append(text)
        rows.append(row)
    return RawChunk(
        texts=pa.array(texts, pa.large_string()),
        ids=None if id_field is None else ids,
        rows=rows,
        bad=bad,
        num_rows=len(lines),
    )


def _all_parsed(
    lines: Sequence[bytes], first_row: int, text_field: str, id_field: str | None
) -> RawChunk:
    """Returns lines that are all documents, in half the time; raises where one is not."""
    loaded = [orjson.loads(line) for line in lines]
    texts = [row[text_field] for row in loaded]
    if set(map(type, texts)) != {str}:
        raise TypeError
    return RawChunk(
        texts=pa.array(texts, pa.large_string()),
        ids=None if id_field is None else [row_id(row[id_field]) for row in loaded],
        rows=range(first_row, first_row + len(lines)),
        bad=[],
        num_rows=len(lines),
    )


def _slowly_parsed(line: bytes, text_field: str, id_field: str | None) -> _Row | tuple[str, str]:
    """Returns a row, or the reason why there is none and what to tell a person."""
    try:
        line.decode()
        loaded = orjson.loads(line)
    except UnicodeDecodeError as error:
        return "invalid_utf8", f"{error.reason} (byte {error.start})"
    except orjson.JSONDecodeError as error:
        return "invalid_json", f"{error.msg} (character {error.pos})"
    if not isinstance(loaded, dict):
        return "not_an_object", f"expected an object, found {type(loaded).__name__}"
    if not isinstance(loaded.get(text_field), str):
        found = type(loaded[text_field]).__name__ if text_field in loaded else "no such field"
        return "no_text", f"expected a string in {text_field!r}, found {found}"
    try:
        return _Row(text=loaded[text_field], id=id_field and row_id(loaded.get(id_field)))
    except TypeError:
        return "no_id", f"expected a string or whole number in {id_field!r}"
