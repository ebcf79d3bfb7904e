"""How the rule judge's scores spread over the demo's records: `usual` scores, limits of overall.

Prints a table to stderr: per family and dimension how many of a seeded sample could be measured,
and the percentiles of their scores; p50 is what `usual` means in the tables of dimensions. Last
come the 10th and 35th percentile of overall over all families, below which a record is advised to
be dropped or thinned out. Nothing goes to stdout: this is a measurement, not a claim.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mira_megatron.corpus.readers import Row, read_rows
from mira_megatron.corpus.sources import input_shards, load_source, resolve_files
from mira_megatron.rubric.rule_judge import dimension_names, rate

SOURCES = Path(__file__).parents[1] / "tokenization" / "sources"
GSM8K = Path(__file__).parents[2] / "shared/data/corpus/gsm8k/train.jsonl"
SAMPLE = 400  # records of a source
PERCENTILES = (5, 25, 50, 75, 95)


def main() -> int:
    """Returns the exit code."""
    overalls: list[float] = []
    for family, names in (
        ("text", ("python_modules", "python_tests", "package_docs")),
        ("qa", ("docstring_qa",)),
        ("agent", ("doctest_traces",)),
    ):
        views = [view for name in names for view in _sample(SOURCES / f"{name}.yaml")]
        overalls += _report(f"{family}: {', '.join(names)}", family, views)
    if GSM8K.is_file():
        lines = itertools.islice(GSM8K.read_text(encoding="utf-8").splitlines(), 2 * SAMPLE)
        _report("qa: the first worked answers of GSM8K's training part", "qa", lines)
    limits = np.percentile(overalls, (10, 35)).round(1).tolist()
    sys.stderr.write(f"\noverall of {len(overalls)} records: p10, p35 = {limits}\n")
    return 0


def _sample(descriptor: Path) -> Sequence[str]:
    """Returns the views of SAMPLE records of a source, drawn with a seed."""
    config = load_source(descriptor)
    shards = input_shards(config, resolve_files(config, descriptor.parent))
    rows = (row for shard in shards for row in read_rows(config, shard) if isinstance(row, Row))
    views = [
        row.payload or row.text
        for row in rows
        if config.min_chars <= len(row.text) <= (config.max_chars or sys.maxsize)
    ]
    return random.Random(0).sample(views, min(SAMPLE, len(views)))


def _report(title: str, family: str, views: Iterable[str]) -> Iterator[float]:
    """Writes one table; returns the overalls."""
    names = dimension_names(family)
    verdicts = [rate(family, view, names) for view in views]
    sys.stderr.write(f"\n{title} ({len(verdicts)} records)\n")
    columns = zip(*(each.scores for each in verdicts), strict=True)
    for name, scores in zip(names, columns, strict=True):
        measured = [score for score in scores if score is not None]
        spread = np.percentile(measured, PERCENTILES).tolist() if measured else []
        values = " ".join(f"{value:5.1f}" for value in spread)
        sys.stderr.write(f"  {name:34} {len(measured):5} measured  {values}\n")
    return (each.overall for each in verdicts if each.overall is not None)


if __name__ == "__main__":
    sys.exit(main())
