"""Raw files straight to one `.bin/.idx`, without a recipe: `mira tokens write FILES…`.

Reads   .jsonl, .jsonl.gz, .jsonl.zst and .parquet files, in the order given; a tokenizer.json
Writes  <prefix>.bin, <prefix>.idx: one document per row, EOD appended
        <prefix>.records.parquet: row i describes document i (DOCUMENT_SCHEMA); record_id is the id
        field, or file:row, and no document is held out
        <prefix>.dropped.jsonl: rows that could not become documents; only if there are any
        <prefix>.written.json: what was asked for and what came of it, last of all
        <prefix>.shards/ while it works: a killed run goes on there, shard by shard

Byte for byte what megatron-core 0.16.1's tools/preprocess_data.py --append-eod writes, but for
* the text of a control token inside a document: ordinary text here, a false document end there;
* an empty document: its EOD alone here, a document without a sequence there, which shifts every
  later sequence against its row;
* tokens that a post-processor adds to every text (a BOS): not added here.

Memory: eighty bytes per document in the end; while it works some ten times CHUNK_BYTES or the
longest row per worker. Small inputs are worked on by threads, since a process and its tokenizer
take seconds to start; large ones by processes, since parsing JSON holds a process's interpreter.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.file_lock import held_lock
from mira_megatron.shards import file_digest, map_shards, write_parquet
from mira_megatron.tokenization.index_file import idx_path
from mira_megatron.tokenization.plain_encoders import BACKENDS
from mira_megatron.tokenization.raw_rows import FileRange
from mira_megatron.tokenization.raw_shards import (
    PlacedShard,
    RawReport,
    RawTask,
    joined_documents,
    placed,
    write_raw_shard,
)
from mira_megatron.tokenization.raw_text import file_ranges
from mira_megatron.tokenization.record_shards import open_encoder
from mira_megatron.tokenization.token_shards import join_shards
from mira_megatron.tokenization.tokenizer import tokenizer_file

_PROCESSES_FROM_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteConfig:
    """What is written, of what."""

    tokenizer: Path  # tokenizer.json or its folder
    eod_token: str = "<|endoftext|>"
    text_field: str = "text"
    id_field: str | None = None  # None: the record's id is its file and row
    max_bad_fraction: float = 0.0  # of the rows; above it the files are refused
    backend: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend={self.backend!r} must be one of {', '.join(BACKENDS)}")
        if not 0 <= self.max_bad_fraction < 1:
            raise ValueError(f"max_bad_fraction={self.max_bad_fraction} must be in [0, 1)")
        if self.workers < 1:
            raise ValueError(f"workers={self.workers} must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteReport:
    """What came of it."""

    path_prefix: Path
    num_files: int
    num_text_bytes: int
    num_documents: int
    num_tokens: int
    num_control_texts: int  # control-token strings in texts, encoded as ordinary text
    num_dropped: dict[str, int]  # rows by reason
    was_done: bool = False  # by an earlier run
    seconds: float = 0.0

    @property
    def megabytes_per_second(self) -> float:
        """Returns text written per second of this run; 0 when an earlier one had done it."""
        return 0.0 if self.was_done else self.num_text_bytes / 1e6 / self.seconds


def write_tokens(files: Sequence[Path], path_prefix: Path, config: WriteConfig) -> WriteReport:
    """Returns what was written; nothing is done where the same had been written before.

    Raises ValueError, with file and row, for malformed rows above `max_bad_fraction`, a text that
    gigatoken encodes unlike Hugging Face, damaged files, a tokenizer that cannot be used, or a
    prefix that holds something else.
    """
    started = time.monotonic()
    plan = _plan(files, config)
    folder = path_prefix.with_name(f"{path_prefix.name}.shards")
    done = _written_before(path_prefix, folder, plan)
    if done is not None:
        shutil.rmtree(folder, ignore_errors=True)
        return done
    lock = path_prefix.with_name(f".{path_prefix.name}.lock")
    with held_lock(lock, f"{lock}: another process writes {path_prefix}. Wait for it to end."):
        write_json(folder / "plan.json", plan)
        report = _write(files, path_prefix, folder, plan, config)
        write_json(_written_path(path_prefix), {"plan": plan, "report": _plain(report)})
        shutil.rmtree(folder)
    lock.unlink(missing_ok=True)
    return dataclasses.replace(report, seconds=time.monotonic() - started)


def print_write_report(console: Console, report: WriteReport) -> None:
    """Prints what was written, and how fast."""
    done = "already written" if report.was_done else "written"
    console.print(
        f"{report.path_prefix}.bin/.idx: {done}, {report.num_documents:,} documents, "
        f"{report.num_tokens:,} tokens of {report.num_text_bytes / 1e6:,.1f} MB of text from "
        f"{report.num_files:,} files"
    )
    if report.num_control_texts:
        console.print(f"Control tokens encoded as ordinary text: {report.num_control_texts:,}")
    if report.num_dropped:
        reasons = ", ".join(f"{name} {num:,}" for name, num in sorted(report.num_dropped.items()))
        console.print(f"Rows left out: {reasons} (listed in {report.path_prefix}.dropped.jsonl)")
    if not report.was_done:
        console.print(f"{report.seconds:,.1f} s, {report.megabytes_per_second:,.1f} MB/s")


def _plan(files: Sequence[Path], config: WriteConfig) -> dict[str, Any]:
    """Returns what decides the bytes written."""
    if not files:
        raise ValueError("no input files: name at least one .jsonl or .parquet file")
    twice = [str(path) for path, times in Counter(files).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0]}: named more than once; every row would be written twice")
    parts = [dataclasses.asdict(part) for part in file_ranges(files)]
    stats = [path.stat() for path in files]
    return {
        "files": [[str(p), s.st_size, s.st_mtime_ns] for p, s in zip(files, stats, strict=True)],
        "tokenizer_digest": file_digest(tokenizer_file(config.tokenizer)),
        "eod_token": config.eod_token,
        "text_field": config.text_field,
        "id_field": config.id_field,
        "max_bad_fraction": config.max_bad_fraction,
        "shards": parts,
    }


def _written_before(path_prefix: Path, folder: Path, plan: dict[str, Any]) -> WriteReport | None:
    """Returns the report of an earlier run that wrote the same; ValueError where it wrote other."""
    written = _written_path(path_prefix)
    begun = folder / "plan.json"
    if written.is_file():
        content = orjson.loads(written.read_bytes())
        _check_same(content["plan"], plan, written)
        report = {**content["report"], "path_prefix": path_prefix, "was_done": True}
        return WriteReport(**report)
    if begun.is_file():
        _check_same(orjson.loads(begun.read_bytes()), plan, begun)
    elif idx_path(path_prefix).exists():
        raise ValueError(
            f"{idx_path(path_prefix)}: exists, and was not written by `mira tokens write`. "
            "Choose another --output: nothing is overwritten."
        )
    return None


def _check_same(found: dict[str, Any], plan: dict[str, Any], path: Path) -> None:
    differing = [name for name in plan if found.get(name) != plan[name]]
    if differing:
        raise ValueError(
            f"{path}: another {', '.join(differing)} than in this command. Choose another "
            "--output, or delete what lies under this one."
        )


def _write(
    files: Sequence[Path],
    path_prefix: Path,
    folder: Path,
    plan: dict[str, Any],
    config: WriteConfig,
) -> WriteReport:
    tokenizer, digest = tokenizer_file(config.tokenizer), plan["tokenizer_digest"]
    # Opened first: threads share it, and what is wrong with a tokenizer is said before work starts.
    encoder = open_encoder(tokenizer, digest, config.eod_token, config.backend)
    if not _is_large(plan):
        encoder.prepare(config.workers)
    tasks = [
        RawTask(
            part=FileRange(**part),
            shard=folder / f"shard-{number:06d}",
            tokenizer=tokenizer,
            tokenizer_digest=digest,
            eod_token=config.eod_token,
            backend=config.backend,
            text_field=config.text_field,
            id_field=config.id_field,
        )
        for number, part in enumerate(plan["shards"])
    ]
    shards = list(_encoded(tasks, plan, config))
    reports = [shard.report for shard in shards]
    documents = joined_documents(shards, has_ids=config.id_field is not None)
    join_shards(
        [task.shard for task in tasks],
        path_prefix,
        num_tokens_D=documents["num_tokens"].to_numpy(),
        dtype=encoder.token_dtype,
        workers=config.workers,
    )
    write_parquet(path_prefix.with_name(f"{path_prefix.name}.records.parquet"), documents)
    bad = [row for shard in shards for row in shard.bad_rows()]
    if bad:
        lines = (dict(zip(("origin", "reason", "detail"), row, strict=True)) for row in bad)
        content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        write_bytes(path_prefix.with_name(f"{path_prefix.name}.dropped.jsonl"), content)
    return WriteReport(
        path_prefix=path_prefix,
        num_files=len(files),
        num_text_bytes=sum(report.num_text_bytes for report in reports),
        num_documents=documents.num_rows,
        num_tokens=sum(report.num_tokens for report in reports),
        num_control_texts=sum(report.num_control_texts for report in reports),
        num_dropped=_num_bad(shards),
    )


def _encoded(
    tasks: Sequence[RawTask], plan: dict[str, Any], config: WriteConfig
) -> Iterator[PlacedShard]:
    """Yields the shards in order, refusing bad rows as soon as they are too many."""
    shards: list[PlacedShard] = []
    for task, report in zip(tasks, _mapped(tasks, plan, config), strict=True):
        shards.append(placed(task, report, shards[-1] if shards else None))
        yield shards[-1]
        if config.max_bad_fraction == 0:
            _check_bad(shards[-1:], config)
    _check_bad(shards, config)


def _mapped(
    tasks: Sequence[RawTask], plan: dict[str, Any], config: WriteConfig
) -> Iterator[RawReport]:
    """Yields the reports in order, by processes or, of small inputs, by threads."""
    if _is_large(plan):
        yield from map_shards(write_raw_shard, tasks, workers=config.workers, title="write tokens")
        return
    with ThreadPoolExecutor(config.workers) as pool:
        futures = [pool.submit(write_raw_shard, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_large(plan: dict[str, Any]) -> bool:
    return sum(int(size) for _, size, _ in plan["files"]) >= _PROCESSES_FROM_BYTES


def _check_bad(shards: Sequence[PlacedShard], config: WriteConfig) -> None:
    num_bad = sum(_num_bad(shards).values())
    num_rows = sum(shard.report.num_rows for shard in shards)
    if num_bad <= config.max_bad_fraction * num_rows:
        return
    origin, reason, detail = next(row for shard in shards for row in shard.bad_rows())
    raise ValueError(
        f"{origin}: {reason}: {detail}. {num_bad:,} of {num_rows:,} rows read so far cannot become "
        f"documents, more than max_bad_fraction={config.max_bad_fraction}. Correct the file, name "
        "its fields, or allow more."
    )


def _num_bad(shards: Sequence[PlacedShard]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard.report.num_bad)
    return dict(total)


def _written_path(path_prefix: Path) -> Path:
    return path_prefix.with_name(f"{path_prefix.name}.written.json")


def _plain(report: WriteReport) -> dict[str, Any]:
    left_out = ("path_prefix", "was_done", "seconds")
    return {name: v for name, v in dataclasses.asdict(report).items() if name not in left_out}
