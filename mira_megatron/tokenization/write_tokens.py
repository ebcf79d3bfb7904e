"""Raw files straight to one `.bin/.idx`, without a recipe: `mira tokens write FILES…`.

Reads   .jsonl, .jsonl.gz, .jsonl.zst and .parquet files, in the order given; a tokenizer.json
Writes  <prefix>.bin, <prefix>.idx: one document per row, EOD appended
        <prefix>.records.parquet: row i describes document i (DOCUMENT_SCHEMA); record_id is the id
        field, or file:row, and no document is held out
        <prefix>.dropped.jsonl: all rows that could not become documents; only if there are any
        <prefix>.written.json: what was asked for, what came of it and how large, last of all
        .<prefix>.mira-write/ while it works: a run that was killed or refused goes on there after
        the shards at the beginning whose range of a file, tokenizer and fields are the same

Byte for byte what megatron-core 0.16.1's tools/preprocess_data.py --append-eod writes, but for
* the text of a control token inside a document: ordinary text here, a false document end there;
* an empty document: its EOD alone here, a document without a sequence there, which shifts every
  later sequence against its row;
* tokens that a post-processor adds to every text (a BOS): not added here.

Memory: thirty bytes per document in the end; while it works some ten times CHUNK_BYTES or the
longest row per worker, and the ids of three shards (64 MiB each at most). Small inputs are worked
on by threads, since a process and its tokenizer take seconds to start; large ones by processes,
since what is left to the interpreter would hold up many threads.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from mira_megatron.file_lock import held_lock
from mira_megatron.shards import file_digest, json_digest, map_shards
from mira_megatron.tokenization.copying import check_writable
from mira_megatron.tokenization.index_file import check_local
from mira_megatron.tokenization.plain_encoders import BACKENDS
from mira_megatron.tokenization.raw_shards import (
    PlacedShard,
    RawReport,
    RawTask,
    check_ids,
    encode_raw_shard,
    placed,
    write_bad_rows,
    write_records,
)
from mira_megatron.tokenization.raw_text import check_files, file_ranges
from mira_megatron.tokenization.record_shards import open_encoder
from mira_megatron.tokenization.shard_joining import ShardJoiner
from mira_megatron.tokenization.token_shards import read_num_tokens
from mira_megatron.tokenization.tokenizer import RecordEncoder, tokenizer_file
from mira_megatron.tokenization.write_outputs import WriteOutputs

VERSION = 2  # raised when other bytes are written of the same input
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
    num_rows: int  # documents, rows left out, and empty lines
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
    gigatoken encodes unlike Hugging Face, damaged files, equal ids, files without any document, a
    tokenizer that cannot be used, a prefix in object storage or one that holds something else.
    OSError for a folder that cannot be written to.
    """
    started = time.monotonic()
    check_local(path_prefix)
    outputs = WriteOutputs(path_prefix)
    plan = _plan(files, config)
    outputs.check_apart(files)
    report = _written_before(outputs, plan, config)
    if report is None:
        check_writable(path_prefix.parent)
        # What is wrong with a tokenizer is said before work starts.
        encoder = open_encoder(
            tokenizer_file(config.tokenizer),
            plan["tokenizer_digest"],
            config.eod_token,
            config.backend,
        )
        refusal = f"{outputs.lock}: another process writes {path_prefix}. Wait for it to end."
        with held_lock(outputs.lock, refusal):
            report = _written_before(outputs, plan, config)  # by a process that held the lock
            if report is None:
                outputs.begin(plan)
                report = _write(files, outputs, plan, config, encoder)
                outputs.finish(plan, _plain(report))
                return dataclasses.replace(report, seconds=time.monotonic() - started)
    outputs.delete_work()
    return report


def print_write_report(console: Console, report: WriteReport) -> None:
    """Prints what was written, and how fast."""
    done = "already written" if report.was_done else "written"
    lines = [
        f"{report.path_prefix}.bin/.idx: {done}, {report.num_documents:,} documents, "
        f"{report.num_tokens:,} tokens of {report.num_text_bytes / 1e6:,.1f} MB of text from "
        f"{report.num_files:,} files"
    ]
    if report.num_control_texts:
        lines.append(f"Control tokens encoded as ordinary text: {report.num_control_texts:,}")
    if report.num_dropped:
        reasons = ", ".join(f"{name} {num:,}" for name, num in sorted(report.num_dropped.items()))
        dropped = WriteOutputs(report.path_prefix).dropped
        lines.append(f"Rows left out: {reasons} (listed in {dropped})")
    if not report.was_done:
        lines.append(f"{report.seconds:,.1f} s, {report.megabytes_per_second:,.1f} MB/s")
    for line in lines:
        console.print(Text(line), soft_wrap=True)  # not as markup: paths have brackets


def _plan(files: Sequence[Path], config: WriteConfig) -> dict[str, Any]:
    """Returns what decides the bytes written."""
    if not files:
        raise ValueError("no input files: name at least one .jsonl or .parquet file")
    first_name: dict[Path, Path] = {}
    for path in files:
        resolved = path.resolve()
        if resolved in first_name:
            raise ValueError(
                f"{path}: named more than once (as {first_name[resolved]}); every row would be "
                "written twice"
            )
        first_name[resolved] = path
    check_files(files)
    stats = [path.stat() for path in files]
    return {
        "version": VERSION,
        "files": [[str(p), s.st_size, s.st_mtime_ns] for p, s in zip(files, stats, strict=True)],
        "tokenizer_digest": file_digest(tokenizer_file(config.tokenizer)),
        "eod_token": config.eod_token,
        "text_field": config.text_field,
        "id_field": config.id_field,
    }


def _written_before(
    outputs: WriteOutputs, plan: dict[str, Any], config: WriteConfig
) -> WriteReport | None:
    """Returns the report of an earlier run that wrote the same; ValueError where it wrote other."""
    content = outputs.written_before(plan)
    if content is None:
        return None
    report = WriteReport(**content, path_prefix=outputs.path_prefix, was_done=True)
    num_bad = sum(report.num_dropped.values())
    if num_bad > config.max_bad_fraction * report.num_rows:
        raise ValueError(
            f"{outputs.written}: written without {num_bad:,} of {report.num_rows:,} rows, more "
            f"than max_bad_fraction={config.max_bad_fraction}. Allow more, or choose another "
            "--output."
        )
    return report


def _write(
    files: Sequence[Path],
    outputs: WriteOutputs,
    plan: dict[str, Any],
    config: WriteConfig,
    encoder: RecordEncoder,
) -> WriteReport:
    tasks = _tasks(files, outputs.work, plan, config)
    paths = [task.shard for task in tasks]
    with ShardJoiner(outputs.joined, paths, RawReport, workers=config.workers) as joiner:
        shards = _laid(joiner, tasks, plan, config, encoder)
        num_documents = sum(shard.report.num_documents for shard in shards)
        if not num_documents:
            raise ValueError(
                f"{', '.join(map(str, files[:3]))}{' …' if len(files) > 3 else ''}: no document in "
                f"{len(files):,} files. Megatron cannot read a pair without documents: name others."
            )
        if config.id_field is not None:
            check_ids(shards)
        outputs.begin_joining()
        num_tokens_D = read_num_tokens(paths, num_documents)
        joiner.finish(outputs.path_prefix, num_tokens_D, encoder.token_dtype)
    write_records(outputs.records, shards, has_ids=config.id_field is not None)
    if _num_bad(shards):
        write_bad_rows(outputs.dropped, shards)
    else:
        outputs.dropped.unlink(missing_ok=True)  # of a run that was killed before its end
    reports = [shard.report for shard in shards]
    return WriteReport(
        path_prefix=outputs.path_prefix,
        num_files=len(files),
        num_text_bytes=sum(report.num_text_bytes for report in reports),
        num_rows=sum(report.num_rows for report in reports),
        num_documents=num_documents,
        num_tokens=sum(report.num_tokens for report in reports),
        num_control_texts=sum(report.num_control_texts for report in reports),
        num_dropped=_num_bad(shards),
    )


def _tasks(
    files: Sequence[Path], folder: Path, plan: dict[str, Any], config: WriteConfig
) -> list[RawTask]:
    """Returns the shards to be made, each named by all that decides its bytes."""
    of_all = {name: value for name, value in plan.items() if name != "files"}
    of_file = {name: [name, *stat] for name, *stat in plan["files"]}
    return [
        RawTask(
            part=part,
            shard=folder
            / f"shard-{json_digest([of_all, of_file[part.file], part.start, part.stop])}",
            tokenizer=tokenizer_file(config.tokenizer),
            tokenizer_digest=plan["tokenizer_digest"],
            eod_token=config.eod_token,
            backend=config.backend,
            text_field=config.text_field,
            id_field=config.id_field,
        )
        for part in file_ranges(files)
    ]


def _laid(
    joiner: ShardJoiner[RawReport],
    tasks: Sequence[RawTask],
    plan: dict[str, Any],
    config: WriteConfig,
    encoder: RecordEncoder,
) -> list[PlacedShard]:
    """Returns all shards, laid; refuses bad rows as soon as they are too many."""
    shards: list[PlacedShard] = []

    def place(report: RawReport) -> None:
        shards.append(placed(tasks[len(shards)], report, shards[-1] if shards else None))
        if config.max_bad_fraction == 0:
            _check_bad(shards[-1:], config)

    for report in joiner.reports:
        place(report)
    left = tasks[len(shards) :]
    in_threads = not _is_large(plan)
    if in_threads:
        encoder.prepare(min(config.workers, len(left)))
    for encoded in map_shards(
        encode_raw_shard, left, workers=config.workers, title="write tokens", in_threads=in_threads
    ):
        joiner.add(encoded)
        place(encoded.report)
    _check_bad(shards, config)
    return shards


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
        "its fields (--text-field, --id-field), or allow more (--max-bad-fraction)."
    )


def _num_bad(shards: Sequence[PlacedShard]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard.report.num_bad)
    return dict(total)


def _plain(report: WriteReport) -> dict[str, Any]:
    left_out = ("path_prefix", "was_done", "seconds")
    return {name: v for name, v in dataclasses.asdict(report).items() if name not in left_out}
