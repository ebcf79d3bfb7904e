"""The work behind `mira adopt` for tokens: which documents the pairs hold, which are held out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.manifest import Counts
from mira_megatron.records import DOCUMENT_SCHEMA
from mira_megatron.shards import map_shards, write_parquet
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.adopt import AdoptSettings
from mira_megatron.tokenization.adopted_tables import read_ids
from mira_megatron.tokenization.handovers import marker_path
from mira_megatron.tokenization.held_out import choose_held_out
from mira_megatron.tokenization.index_file import (
    bin_path,
    check_covers_bin,
    read_index_with_fingerprint,
)
from mira_megatron.tokenization.token_dataset import (
    TokenDataset,
    TokenPrefix,
    prefix_name,
    write_token_dataset,
)
from mira_megatron.tokenization.token_hashes import TokenCheck, hash_documents, hash_ids
from mira_megatron.tokenization.tokenizer import RecordEncoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _PrefixTask:
    path_prefix: Path
    eod_id: int
    vocab_size: int
    documents: Path  # where its table is staged
    record_ids: pa.ChunkedArray
    check_tokens: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _PrefixReport:
    idx_fingerprint: str
    num_documents: int
    num_tokens: int
    num_bytes: int
    mtime_ns: int  # of the .bin, before it was read
    num_empty: int  # documents without a token; most have no sequence either
    num_without_eod: int | None  # None where tokens were not read


def adopt_tokens(workspace: Workspace, settings: AdoptSettings) -> WorkResult:
    """Writes what is known of a source's documents, and where its pairs lie."""
    source = settings.source
    prefixes = source.path_prefixes()
    encoder = RecordEncoder(
        workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE, settings.tokenize.eod_token
    )
    names = [prefix_name(source.name, at, len(prefixes)) for at in range(len(prefixes))]
    ids = read_ids(source, prefixes)
    tasks = [
        _PrefixTask(
            path_prefix=prefix,
            eod_id=encoder.eod_id,
            vocab_size=encoder.vocab_size,
            documents=workspace.scratch / f"{name}.parquet",
            record_ids=record_ids,
            check_tokens=source.config.check_tokens,
        )
        for prefix, name, record_ids in zip(prefixes, names, ids, strict=True)
    ]
    title = f"adopt {source.name}"
    workers = workspace.resources.workers
    reports = list(map_shards(_examine, tasks, workers=workers, title=title))
    _warn(source.name, prefixes, reports)
    tables = _with_held_out([pq.read_table(task.documents) for task in tasks], settings)
    entries = []
    for task, report, name, table in zip(tasks, reports, names, tables, strict=True):
        path = workspace.folder / f"{name}-{workspace.fingerprint[:8]}.records.parquet"
        write_parquet(path, table)
        entries.append(_token_prefix(source.name, name, task.path_prefix, path, report))
    dataset = TokenDataset(
        source=source.name,
        eod_id=encoder.eod_id,
        vocab_size=encoder.vocab_size,
        prefixes=tuple(entries),
    )
    totals = _totals(tables, reports)
    write_token_dataset(workspace.folder, dataset, totals)
    return WorkResult(
        counts=Counts(num_in=dataset.num_documents, num_out=dataset.num_documents, totals=totals),
        rows={entry.documents.name: entry.num_documents for entry in entries},
    )


def _examine(task: _PrefixTask) -> _PrefixReport:
    """Reads one pair and stages its documents table, all columns but `is_validation`."""
    index, fingerprint = read_index_with_fingerprint(task.path_prefix)
    tokens_path = bin_path(task.path_prefix)
    status = tokens_path.stat()
    # A view of neighbouring documents looks like a pair whose .bin is too long.
    if not tokens_path.is_symlink() and not marker_path(task.path_prefix).exists():
        check_covers_bin(index, status.st_size, task.path_prefix)
    tokens = index.document_tokens()
    num_without_eod = None
    if task.check_tokens:
        check = TokenCheck(eod_id=task.eod_id, vocab_size=task.vocab_size)
        hashes, num_without_eod = hash_documents(task.path_prefix, index, check)
    else:
        hashes = hash_ids(task.record_ids)
    table = pa.table(
        {"record_id": task.record_ids, "num_tokens": pa.array(tokens), "text_hash": hashes}
    )
    write_parquet(task.documents, table)
    return _PrefixReport(
        idx_fingerprint=fingerprint,
        num_documents=index.num_documents,
        num_tokens=index.num_tokens,
        num_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        num_empty=int((tokens == 0).sum()),
        num_without_eod=num_without_eod,
    )


def _with_held_out(tables: list[pa.Table], settings: AdoptSettings) -> list[pa.Table]:
    """Returns the tables with `is_validation`, chosen among all documents that hold a token."""
    whole = pa.concat_tables(tables)
    tokens: npt.NDArray[np.int64] = whole["num_tokens"].to_numpy()
    is_filled = tokens > 0
    is_held_out = np.zeros(whole.num_rows, dtype=bool)
    is_held_out[is_filled] = choose_held_out(
        whole["text_hash"].combine_chunks().filter(pa.array(is_filled)),
        tokens[is_filled],
        fraction=settings.tokenize.validation_fraction,
        max_tokens=settings.tokenize.validation_max_tokens,
    )
    column = pa.array(is_held_out)
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    return [
        table.append_column("is_validation", column.slice(start, table.num_rows))
        .select(DOCUMENT_SCHEMA.names)
        .cast(DOCUMENT_SCHEMA)
        for table, start in zip(tables, starts[:-1].tolist(), strict=True)
    ]


def _token_prefix(
    source: str, name: str, path_prefix: Path, documents: Path, report: _PrefixReport
) -> TokenPrefix:
    return TokenPrefix(
        name=name,
        source=source,
        path_prefix=path_prefix,
        documents=documents,
        idx_fingerprint=report.idx_fingerprint,
        num_documents=report.num_documents,
        num_tokens=report.num_tokens,
        num_bytes=report.num_bytes,
        mtime_ns=report.mtime_ns,
    )


def _totals(tables: list[pa.Table], reports: list[_PrefixReport]) -> dict[str, int]:
    whole = pa.concat_tables(tables)
    held_out = whole.filter(whole["is_validation"])["num_tokens"].to_numpy()
    unended = [report.num_without_eod for report in reports if report.num_without_eod is not None]
    return {
        "tokens": sum(report.num_tokens for report in reports),
        "validation_documents": len(held_out),
        "validation_tokens": int(held_out.sum()),
        "empty_documents": sum(report.num_empty for report in reports),
        **({"documents_without_eod": sum(unended)} if len(unended) == len(reports) else {}),
    }


def _warn(source: str, prefixes: list[Path], reports: list[_PrefixReport]) -> None:
    for prefix, report in zip(prefixes, reports, strict=True):
        if report.num_without_eod:
            logger.warning(
                "adopt %s: %s of %s documents of %s do not end with the EOD: to Megatron they run "
                "into the next one",
                source,
                f"{report.num_without_eod:,}",
                f"{report.num_documents:,}",
                prefix,
            )
