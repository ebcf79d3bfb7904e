"""Rates records through an endpoint as the stage `score` does, in a process of its own.

Parts of records are made first, of Python's standard library; timed is from the first question to
the last part on the disk. Prints one JSON line: records, rows that are ok, seconds, CPU seconds,
and the most memory that was resident.

    python benchmarks/harness/score_records.py --url http://127.0.0.1:8000/v1 --folder F \
        --records 10000 --record-bytes 8000 --records-per-part 2000
"""

from __future__ import annotations

import argparse
import json
import resource
import sysconfig
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.records import NUM_SLOTS, RECORD_SCHEMA, Anchor
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.judged_parts import JudgedPart
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rating import RatingForm
from mira_megatron.shards import file_digest, write_parquet

IN_FLIGHT = 64
_STEP = 4_099  # characters from the beginning of one record to that of the next


def main() -> None:
    """Writes the records, has them rated, and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--records", required=True, type=int)
    parser.add_argument("--record-bytes", default=8_000, type=int)
    parser.add_argument("--records-per-part", default=2_000, type=int)
    arguments = parser.parse_args()
    parts = list(write_records(arguments))
    form = _form(arguments.url, arguments.folder)
    unit = SimpleNamespace(label="score benchmark", stage="score")
    resources = SimpleNamespace(workers=1, secrets={}, is_shared=False)
    workspace = SimpleNamespace(unit=unit, resources=resources, earlier=None)
    started, cpu = time.perf_counter(), time.process_time()
    outcomes = judge_parts(cast(Any, workspace), parts, form, form.judge)
    print(
        json.dumps(
            {
                "records": sum(outcome.total() for outcome in outcomes),
                "ok": sum(outcome["ok"] for outcome in outcomes),
                "rows": sum(pq.read_metadata(part.output).num_rows for part in parts),
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def write_records(arguments: argparse.Namespace) -> Iterator[JudgedPart]:
    """Writes records, no two alike, and yields their parts."""
    texts = record_texts(arguments.records, arguments.record_bytes)
    for first in range(0, arguments.records, arguments.records_per_part):
        numbers = range(first, min(first + arguments.records_per_part, arguments.records))
        columns: dict[str, list[Any]] = {
            name: [None] * len(numbers) for name in RECORD_SCHEMA.names
        }
        columns["record_id"] = [f"{number:032x}" for number in numbers]
        columns["content_hash"] = columns["record_id"]
        columns["text"] = list(islice(texts, len(numbers)))
        columns["num_chars"] = list(map(len, columns["text"]))
        for name, value in {"source": "s", "family": "text", "origin": "o:1"}.items():
            columns[name] = [value] * len(numbers)
        columns["control_spans"] = [[]] * len(numbers)
        path = arguments.folder / f"part-{first // arguments.records_per_part:05d}.parquet"
        write_parquet(path, pa.Table.from_pydict(columns, schema=RECORD_SCHEMA))
        yield JudgedPart(
            records=path,
            digest=file_digest(path),
            output=arguments.folder / "ratings" / path.name,
            record_ids=None,
            num_records=len(numbers),
        )


def record_texts(num_records: int, num_chars: int) -> Iterator[str]:
    """Yields texts out of the standard library's modules, each with a number of its own."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    code = "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    num_places = len(code) - num_chars
    for number in range(num_records):
        place = number * _STEP % num_places
        yield f"{number} {code[place : place + num_chars]}"


def _form(url: str, folder: Path) -> RatingForm:
    anchors = tuple(
        Anchor(
            anchor_id=f"A{slot}",
            name=f"Quality {slot}",
            description="What is said of it in one sentence of some length, as a person would. "
            * 4,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="v",
        )
        for slot in range(1, NUM_SLOTS + 1)
    )
    config = JudgeConfig(
        engine="endpoint",
        model="instant",
        endpoints=[url],
        temperature=0.0,
        top_p=1.0,
        max_tokens=2_048,
        max_in_flight=IN_FLIGHT,
    )
    judge = Judge(config=config, seed=0, tokenizer=None, answers=folder / "answers")
    return RatingForm(family="text", anchors=anchors, judge=judge)


if __name__ == "__main__":
    main()
