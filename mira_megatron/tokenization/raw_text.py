"""Raw JSON Lines and Parquet files as chunks of texts, cut into shards that many workers read.

A shard is a range of a file: bytes of a plain .jsonl, row groups of a .parquet, all of a .jsonl.gz
or .jsonl.zst, which have no way in but the front. A row that cannot become a document comes back as
a BadRow and reading goes on; damage to a file as a whole raises ValueError.

Memory: some five times CHUNK_BYTES of text, or the longest row if that is longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mira_megatron.tokenization.raw_jsonl import jsonl_chunks
from mira_megatron.tokenization.raw_parquet import parquet_chunks, row_group_ranges
from mira_megatron.tokenization.raw_rows import FileRange, RawChunk

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
# Small inputs keep two cores busy, large ones stay at some hundred shards; no shard is larger than
# what is lost gladly when a worker is killed.
_MIN_SHARD_BYTES, _MAX_SHARD_BYTES, _SHARDS_WANTED = 4 << 20, 512 << 20, 256


def file_ranges(files: Sequence[Path]) -> list[FileRange]:
    """Returns the shards of all files, in order; the same files give the same shards.

    Raises as `check_files` does.
    """
    check_files(files)
    num_bytes = sum(path.stat().st_size for path in files)
    shard_bytes = min(max(num_bytes // _SHARDS_WANTED, _MIN_SHARD_BYTES), _MAX_SHARD_BYTES)
    return [part for path in files for part in _ranges_of(path, shard_bytes)]


def check_files(files: Sequence[Path]) -> None:
    """Raises FileNotFoundError for a missing file and ValueError for one of another kind."""
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected {', '.join(SUFFIXES)}")
        if not path.name.endswith(SUFFIXES):
            raise ValueError(
                f"{path}: cannot be read; expected a name that ends in {', '.join(SUFFIXES)}"
            )


def read_chunks(part: FileRange, *, text_field: str, id_field: str | None) -> Iterator[RawChunk]:
    """Yields the rows of a shard in file order, empty lines left out.

    Raises ValueError naming the file when it is damaged as a whole or has no such column.
    """
    read = parquet_chunks if part.file.endswith(".parquet") else jsonl_chunks
    return read(part, text_field=text_field, id_field=id_field)


def _ranges_of(path: Path, shard_bytes: int) -> Iterator[FileRange]:
    if path.suffix == ".parquet":
        yield from row_group_ranges(path, shard_bytes)
        return
    size = path.stat().st_size
    step = shard_bytes if path.suffix == ".jsonl" else max(size, 1)
    for start in range(0, size, step):
        yield FileRange(file=str(path), start=start, stop=min(start + step, size))
