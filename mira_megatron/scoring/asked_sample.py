"""A sample of a group's records, asked about in more than one way, and how the answers agree.

What a unit that compares two askings writes into its folder:

<asking>-<source>-*.parquet  the ratings of the sample, once per asking (records.RATING_SCHEMA)
agreement.parquet            a row per anchor (rank_agreement.AGREEMENT_SCHEMA)
agreement.json               the medians over the anchors, and what was asked

Both units draw the same sample, so that an endpoint's answers to one serve the other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import Counts
from mira_megatron.records import NUM_SLOTS
from mira_megatron.scoring.group_scorer import GroupScorer, rating_form
from mira_megatron.scoring.judged_parts import JudgedPart, sampled_parts
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.rank_agreement import (
    AGREEMENT_SCHEMA,
    agreement,
    compare,
    mean_difference,
)
from mira_megatron.shards import write_parquet
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.written_numbers import decimal

logger = logging.getLogger(__name__)

AGREEMENT, SUMMARY = "agreement.parquet", "agreement.json"
PURPOSE = "mode_agreement"  # of the draw


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSettings:
    """What one group's unit needs."""

    sources: tuple[str, ...]
    scorer: GroupScorer


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How two askings about a sample agree, as agreement.json says it."""

    group: str
    model: str
    answer_mode: str
    num_records: int
    agreement: float | None  # Spearman, median of the anchors
    mean_abs_difference: float | None  # of the scores, 0-10, likewise


def records_per_source(num_records: int, num_sources: int) -> int:
    """Returns how many records of each source are in a group's sample."""
    return -(-num_records // num_sources)


def compare_askings(
    workspace: Workspace,
    settings: SampleSettings,
    num_records: int,
    askings: Mapping[str, GroupScorer],
) -> WorkResult:
    """Asks a sample of `num_records` in two ways and writes how the second agrees with the first.

    `askings` are two, by name. Raises ValueError where too many are not answered.
    """
    scores: list[npt.NDArray[np.float64]] = []
    outcomes: Counter[str] = Counter()
    rows: dict[str, int] = {}
    for name, asked in askings.items():
        form = rating_form(workspace, asked)
        parts = _sample(workspace, settings, num_records, stem=name)
        ended = sum(judge_parts(workspace, parts, form, form.judge), Counter[str]())
        outcomes.update({f"{name}: {how}": num for how, num in ended.items()})
        rows |= {part.output.name: part.num_records for part in parts}
        scores.append(_scores(parts))
    found = compare(*scores, anchors=form.anchors)
    table = pa.Table.from_pylist([asdict(each) for each in found], schema=AGREEMENT_SCHEMA)
    write_parquet(workspace.folder / AGREEMENT, table)
    summary = Agreement(
        group=settings.scorer.group,
        model=form.judge.model,
        answer_mode=settings.scorer.judge.config.answer_mode,
        num_records=len(scores[0]),
        agreement=agreement(found),
        mean_abs_difference=mean_difference(found),
    )
    write_json(workspace.folder / SUMMARY, {"schema_version": 2, **asdict(summary)})
    logger.info(
        "%s: %s of %d records: Spearman %s, mean difference %s of 10 (medians of %d anchors)",
        workspace.unit.label,
        " and ".join(askings),
        summary.num_records,
        decimal(summary.agreement),
        decimal(summary.mean_abs_difference),
        len(found),
    )
    return WorkResult(
        counts=Counts(
            num_in=summary.num_records,
            num_out=outcomes.total(),
            totals=dict(sorted(outcomes.items())),
        ),
        rows={**rows, AGREEMENT: len(found)},
    )


def read_summary(folder: Path) -> Agreement | None:
    """Returns what a unit's agreement.json says, None where it was not measured yet."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    written: dict[str, Any] = orjson.loads(path.read_bytes())
    return Agreement(**{name: written[name] for name in Agreement.__dataclass_fields__})


def _sample(
    workspace: Workspace, settings: SampleSettings, num_records: int, *, stem: str
) -> list[JudgedPart]:
    """Returns the parts of the group's sample: as many records of each of its sources."""
    return [
        part
        for source in settings.sources
        for part in sampled_parts(
            workspace,
            source,
            records_per_source(num_records, len(settings.sources)),
            seed=settings.scorer.judge.seed,
            purpose=PURPOSE,
            stem=f"{stem}-{source}",
        )
    ]


def _scores(parts: Sequence[JudgedPart]) -> npt.NDArray[np.float64]:
    """Returns scores as (records, slots), in the order of the parts."""
    rows = [
        scores
        for part in parts
        for scores in pq.read_table(part.output, columns=["scores"])["scores"].to_pylist()
    ]
    return np.array(rows, np.float64).reshape(-1, NUM_SLOTS)
