"""Read the raw files of a source as rows: rendered text, payload and meta, ready to be hashed.

A malformed row comes back as a BadRow with its file and line, and reading goes on. Damage to a file
as a whole (a truncated archive, an unreadable Parquet file) raises ValueError instead, because
nobody can say how many rows were lost.

Memory is bounded by a chunk of a file or a small batch of rows; only the format `json`, which is
one array per file, holds a whole file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.corpus.pieces import pieces
from mira_megatron.corpus.python_corpus import docstring_question, doctest_trace, documented
from mira_megatron.corpus.renderers import RowError, payload_from_fields, render
from mira_megatron.corpus.sources import SourceConfig, SourceFile

CHUNK_BYTES = 2**20
ROWS_PER_BATCH = 64
# Longer rows are skipped, not held: 64 MiB of text is some 16 million tokens in one document.
MAX_ROW_BYTES = 64 * 2**20

_CODEC_BY_SUFFIX: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"

# 1-based line or row, and either the value found there or why there is none.
_Located = tuple[int, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a source as it enters the corpus."""

    origin: str  # file name and 1-based line or row, as name:12
    text: str
    payload: str | None  # canonical JSON; None for family text
    meta: str | None  # canonical JSON; None without meta_fields
    control_spans: tuple[int, ...]  # as in renderers.Rendered


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that cannot become a record."""

    origin: str
    reason: str  # a short word to count by
    detail: str  # for a person; never the row's text


def read_rows(config: SourceConfig, shard: Sequence[SourceFile]) -> Iterator[Row | BadRow]:
    """The rows of one shard in file order; an empty shard streams the source from the hub.

    Raises:
        ValueError: a file as a whole is damaged, or lacks a column that `fields` names.
    """
    if config.format == "huggingface" and not shard:
        for number, loaded in _hub_rows(config):
            yield _row(config, f"{config.paths[0]}:{number}", loaded)
    for file in shard:
        for number, loaded in _file_rows(config, file):
            yield _row(config, f"{file.name}:{number}", loaded)


def _file_rows(config: SourceConfig, file: SourceFile) -> Iterator[_Located]:
    match config.format:
        case "jsonl":
            return _jsonl_rows(file.path)
        case "json":
            return _json_rows(file.path)
        case "parquet":
            return _batch_rows(_parquet_batches(config, file.path))
        case "huggingface":
            return _batch_rows(_arrow_batches(config, file.path))
        case "text_tree":
            return _text_rows(file.path, config.piece_chars)
        case "python_docstring_qa":
            return _docstring_rows(file.path)
        case "python_doctest_traces":
            return _doctest_rows(file.path)
        case _:
            raise ValueError(f"format={config.format!r} has no reader")


def _row(config: SourceConfig, origin: str, loaded: object) -> Row | BadRow:
    try:
        if isinstance(loaded, RowError):
            raise loaded
        if not isinstance(loaded, dict):
            raise RowError("not_an_object", f"expected an object, found {type(loaded).__name__}")
        fields = {ours: _at(loaded, path) for ours, path in config.fields.items()} or loaded
        payload = payload_from_fields(config.family, fields)
        rendered = render(config.family, payload)
        meta = {path: _at(loaded, path) for path in config.meta_fields}
        return Row(
            origin=origin,
            text=rendered.text,
            payload=None if config.family == "text" else _canonical(payload),
            meta=_canonical(meta, default=str) if meta else None,
            control_spans=rendered.control_spans,
        )
    except RowError as error:
        return BadRow(origin=origin, reason=error.reason, detail=error.detail)


def _at(row: object, dotted_path: str) -> object:
    """The value at a dotted path, or None: an absent and a null field are the same."""
    value = row
    for step in dotted_path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _canonical(value: object, default: Callable[[object], str] | None = None) -> str:
    try:
        return orjson.dumps(value, default, orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise RowError("invalid_json", f"cannot be written as JSON: {error}") from error


def _chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file, every gzip member and zstd frame of it, in chunks.

    Arrow's streams are used because they refuse a truncated zstd frame, which zstandard's reader
    takes for the end of the file.
    """
    codec = _CODEC_BY_SUFFIX.get(path.suffix)
    if codec and path.stat().st_size == 0:
        raise ValueError(f"{path}: empty, but even {codec} of nothing has a header; copy it again")
    try:
        with pa.input_stream(str(path), compression=codec, buffer_size=CHUNK_BYTES) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read to its end: {error}. Copy it again.") from error


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their newline; one longer than MAX_ROW_BYTES comes back cut, still too long."""
    line = bytearray()
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            line += piece
            yield bytes(line)
            line.clear()
        if len(line) <= MAX_ROW_BYTES:
            line += rest
    if line:
        yield bytes(line)


def _jsonl_rows(path: Path) -> Iterator[_Located]:
    for number, line in enumerate(split_lines(_chunks(path)), start=1):
        row = line.removeprefix(_BOM) if number == 1 else line
        if row.strip():
            yield number, _parsed(row)


def _parsed(line: bytes) -> object:
    if len(line) > MAX_ROW_BYTES:
        return RowError("too_long", f"more than {MAX_ROW_BYTES:,} bytes")
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            _decoded(line)
        except RowError as undecodable:
            return undecodable
        return RowError("invalid_json", f"{error.msg} (character {error.pos})")


def _decoded(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError as error:
        raise RowError("invalid_utf8", f"{error.reason} (byte {error.start})") from error


def _json_rows(path: Path) -> Iterator[_Located]:
    try:
        rows = orjson.loads(b"".join(_chunks(path)).removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error.msg} (character {error.pos})") from error
    if not isinstance(rows, list):
        raise ValueError(
            f"{path}: format 'json' expects one array of objects, found {type(rows).__name__}. "
            "For one object per line use format 'jsonl'."
        )
    return enumerate(rows, start=1)


def _text(path: Path) -> str:
    """A whole file as text, or RowError."""
    content = bytearray()
    for chunk in _chunks(path):
        content += chunk
        if len(content) > MAX_ROW_BYTES:
            raise RowError("too_long", f"more than {MAX_ROW_BYTES:,} bytes")
    return _decoded(bytes(content.removeprefix(_BOM)))


def _text_rows(path: Path, piece_chars: int | None) -> Iterator[_Located]:
    try:
        text = _text(path)
    except RowError as error:
        yield 1, error
        return
    for line, piece in pieces(text, piece_chars) if piece_chars else [(1, text)]:
        yield line, {"text": piece}


def _docstring_rows(path: Path) -> Iterator[_Located]:
    try:
        items = documented(_text(path))
    except RowError as error:
        yield 1, error
        return
    for item in items:
        if item.kind != "module":
            yield item.line, docstring_question(item)


def _doctest_rows(path: Path) -> Iterator[_Located]:
    for line, subject, document in _documents(path):
        try:
            if isinstance(document, RowError):
                raise document
            trace = doctest_trace(document, subject)
        except RowError as error:
            yield line, error
            continue
        if trace is not None:
            yield line, trace


def _documents(path: Path) -> list[tuple[int, str, str | RowError]]:
    """Line, subject and text of every document in a file: its docstrings, or all of a text file."""
    try:
        text = _text(path)
        if path.suffix != ".py":
            return [(1, path.name, text)]
        module = path.parent.name if path.stem == "__init__" else path.stem
        return [
            (item.line, f"{module}.{item.name}".removesuffix("."), item.docstring)
            for item in documented(text)
        ]
    except RowError as error:
        return [(1, path.name, error)]


def _columns(config: SourceConfig) -> list[str]:
    """The top-level columns that the dotted paths of a source start from."""
    return sorted({path.split(".")[0] for path in (*config.fields.values(), *config.meta_fields)})


def _checked_columns(config: SourceConfig, schema: pa.Schema, where: object) -> list[str]:
    columns = _columns(config)
    absent = [name for name in columns if name not in schema.names]
    if absent:
        raise ValueError(
            f"{where}: no column {', '.join(absent)}; it has {', '.join(schema.names)}. "
            "Correct `fields` or `meta_fields` of the source."
        )
    return columns


def _parquet_batches(config: SourceConfig, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        # With a buffer size and no prefetch, a row group is read page by page, not as a whole.
        with pq.ParquetFile(path, buffer_size=CHUNK_BYTES, pre_buffer=False) as file:
            columns = _checked_columns(config, file.schema_arrow, path)
            yield from file.iter_batches(ROWS_PER_BATCH, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: unreadable Parquet: {error}. Copy it again.") from error


def _arrow_batches(config: SourceConfig, path: Path) -> Iterator[pa.RecordBatch]:
    """Small batches of a file that Dataset.save_to_disk wrote."""
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as stream:
            columns = _checked_columns(config, stream.schema, path)
            for batch in stream:
                selected = batch.select(columns)
                for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                    yield selected.slice(start, ROWS_PER_BATCH)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: unreadable Arrow stream: {error}. Copy it again.") from error


def _batch_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[_Located]:
    num_before = 0
    for batch in batches:
        yield from enumerate(_batch_values(batch), start=num_before + 1)
        num_before += batch.num_rows


def _batch_values(batch: pa.RecordBatch) -> Sequence[object]:
    """The rows of a batch; where one is not UTF-8, each is decoded by itself to find it."""
    try:
        return cast("Sequence[object]", batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            return [RowError("invalid_utf8", f"{error.reason} (byte {error.start})")]
        return [_batch_values(batch.slice(row, 1))[0] for row in range(batch.num_rows)]


def _hub_rows(config: SourceConfig) -> Iterator[_Located]:
    # Only hub sources pay for this import: 0.9 s and 76 MB in every worker.
    import datasets  # noqa: PLC0415

    stream = datasets.load_dataset(
        config.paths[0],
        name=config.subset,
        split=config.split,
        revision=config.revision,
        streaming=True,
    )
    # A column left out is neither downloaded (Parquet) nor decoded (images, audio).
    return enumerate(stream.select_columns(_columns(config)), start=1)
