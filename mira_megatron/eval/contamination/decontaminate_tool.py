"""`mira decontaminate`: records and a suite's data files -> what of the benchmarks they hold.

Reads   records/<source>/part-*.parquet of a recipe, the suite's data files
Writes  OUTPUT/items.jsonl     a line per benchmark item: how much of it lies where
        OUTPUT/hits.parquet    a row per record and surface
        OUTPUT/keep.parquet    the records to leave out, as `with_masks` of an arm reads them
        OUTPUT/summary.json    counts per benchmark and source, files by digest, settings; last,
                               with the digests of the three: without it they are not finished
        OUTPUT/parts/          the hits of every part: what a killed run goes on from

The first four files are taken away before the first of them is written, so all that are there are
always of one run.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.eval.contamination.corpus import CorpusPart, Scan, corpus_parts, scan_corpus
from mira_megatron.eval.contamination.findings import Findings, findings_of
from mira_megatron.eval.contamination.item_records import ITEMS_FILE, ItemStatus, write_items
from mira_megatron.eval.contamination.items import MIN_SCORE, TEST, TRAIN
from mira_megatron.eval.contamination.published_files import data_files, read_items
from mira_megatron.eval.contamination.source_hits import MAX_ITEMS
from mira_megatron.eval.suite import Suite, load_suite
from mira_megatron.file_lock import held_lock
from mira_megatron.manifest import code_version
from mira_megatron.shards import file_digest, write_parquet
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.written_numbers import grouped, percent
from mira_megatron.written_tables import terminal_table

logger = logging.getLogger(__name__)

HITS_FILE, KEEP_FILE, SUMMARY_FILE = "hits.parquet", "keep.parquet", "summary.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminateOptions:
    """What `mira decontaminate` was told."""

    suite: Path
    data_folder: Path | None
    benchmarks: tuple[str, ...]  # of the suite; none: all
    train_files: Mapping[str, Path]  # by benchmark: their training splits
    threshold: float
    output: Path | None  # None: RUN_FOLDER/contamination/<suite>
    workers: int

    def __post_init__(self) -> None:
        if not MIN_SCORE <= self.threshold <= 1:
            raise ValueError(
                f"threshold={self.threshold} must be in [{MIN_SCORE}, 1]: lower scores are not kept"
            )


def run(console: Console, recipe: Recipe, options: DecontaminateOptions) -> int:
    """Looks through the corpus, writes the files and prints what was found; returns 0.

    Raises ValueError, FileNotFoundError or ModuleNotFoundError for what the user can fix.
    """
    suite = load_suite(options.suite, options.data_folder)
    files = _data_files(suite, options)
    items = [
        item
        for (name, split), path in files.items()
        for item in read_items(suite.entry(name).kind, name, path, split)
    ]
    parts = corpus_parts(recipe)
    output = options.output or recipe.run_folder / "contamination" / suite.name
    output.mkdir(parents=True, exist_ok=True)
    with held_lock(output / ".lock", f"{output}: another `mira decontaminate` writes here"):
        scan = scan_corpus(parts, items, output, max_items=MAX_ITEMS, workers=options.workers)
        findings = findings_of(scan, parts, options.threshold)
        _write(output, findings, _summary(recipe, suite, options, parts, findings, scan, files))
        shutil.rmtree(output / ".scratch", ignore_errors=True)
    print_findings(console, findings, parts)
    _print_next_step(console, findings, output)
    return 0


def _write(output: Path, findings: Findings, summary: Mapping[str, object]) -> None:
    written = (ITEMS_FILE, HITS_FILE, KEEP_FILE)
    for name in (SUMMARY_FILE, *written):
        (output / name).unlink(missing_ok=True)
    write_items(output / ITEMS_FILE, findings.items)
    write_parquet(output / HITS_FILE, findings.hits)
    write_parquet(output / KEEP_FILE, findings.keep)
    digests = {name: file_digest(output / name) for name in written}
    write_json(output / SUMMARY_FILE, {**summary, "written": digests})


def _data_files(suite: Suite, options: DecontaminateOptions) -> dict[tuple[str, str], Path]:
    """Returns the file of every benchmark and split; ValueError for a name that is not known."""
    names = options.benchmarks or tuple(suite.entries)
    files = {(name, TEST): suite.entry(name).file for name in dict.fromkeys(names)}
    for name, path in options.train_files.items():
        if name not in names:
            raise ValueError(f"--train {name}={path}: none of {', '.join(names)}")
        files[name, TRAIN] = path
    return files


def print_findings(console: Console, findings: Findings, parts: Sequence[CorpusPart]) -> None:
    """Prints what the corpus has of every benchmark, and what every source has of which."""
    table = terminal_table("Benchmark items in the corpus")
    for heading in ("benchmark", "split", "source"):
        table.add_column(heading)
    for heading in ("items", "unmeasured", "dirty", "records"):
        table.add_column(heading, justify="right")
    for (benchmark, split), counts in _statuses(findings).items():
        table.add_row(
            benchmark,
            split,
            "all",
            grouped(sum(counts.values())),
            grouped(counts[ItemStatus.UNMEASURED]),
            grouped(counts[ItemStatus.DIRTY]),
            "",
        )
        for source, overlap in findings.overlaps.get((benchmark, split), {}).items():
            dirty, records = grouped(overlap.num_dirty_items), grouped(overlap.num_records)
            table.add_row("", "", source, "", "", dirty, records)
    console.print(table)
    table = terminal_table("Records to leave out")
    table.add_column("source")
    for heading in ("records", "left out", "share"):
        table.add_column(heading, justify="right")
    sizes = _num_records(parts)
    for source, num_dropped in findings.dropped.items():
        size = sizes[source]
        table.add_row(source, grouped(size), grouped(num_dropped), percent(num_dropped, size))
    console.print(table)


def _print_next_step(console: Console, findings: Findings, output: Path) -> None:
    mask = f"with_masks: {{decontamination: {{path: {output / KEEP_FILE}, unlisted: keep}}}}"
    words = f"{len(findings.keep):,} records to leave out. In an arm: {mask}"
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def _summary(
    recipe: Recipe,
    suite: Suite,
    options: DecontaminateOptions,
    parts: Sequence[CorpusPart],
    findings: Findings,
    scan: Scan,
    files: Mapping[tuple[str, str], Path],
) -> dict[str, object]:
    not_scanned = sorted(adopted_sources(recipe))
    if not_scanned:
        logger.warning(
            "not looked through: %s. Adopted sources are tokens without texts",
            ", ".join(not_scanned),
        )
    sizes = _num_records(parts)
    return {
        "suite": {"name": suite.name, "path": str(suite.path), "digest": file_digest(suite.path)},
        "threshold": options.threshold,
        "max_items": MAX_ITEMS,
        "needles": scan.needles_digest,
        "code": code_version(),
        "files": [
            {"benchmark": name, "split": split, "path": str(file), "digest": file_digest(file)}
            for (name, split), path in files.items()
            for file in data_files(path)
        ],
        "benchmarks": [
            {
                "benchmark": benchmark,
                "split": split,
                "num_items": sum(counts.values()),
                **{f"num_{status.value}": counts[status] for status in ItemStatus},
                "sources": {
                    source: asdict(overlap)
                    for source, overlap in findings.overlaps.get((benchmark, split), {}).items()
                },
            }
            for (benchmark, split), counts in _statuses(findings).items()
        ],
        "sources": {
            source: {"num_records": sizes[source], "num_dropped": num_dropped}
            for source, num_dropped in findings.dropped.items()
        },
        "not_scanned": not_scanned,
        "num_parts": len(parts),
        "num_parts_kept": scan.num_kept,
    }


def _statuses(findings: Findings) -> dict[tuple[str, str], Counter[ItemStatus]]:
    found: dict[tuple[str, str], Counter[ItemStatus]] = {}
    for item in findings.items:
        found.setdefault((item.benchmark, item.split), Counter())[item.status] += 1
    return found


def _num_records(parts: Sequence[CorpusPart]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for part in parts:
        sizes[part.source] += part.num_records
    return sizes
