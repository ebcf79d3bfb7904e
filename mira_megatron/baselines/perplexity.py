"""Perplexity: records ranked by how well a reference language model predicts them.

After Marion et al. 2023 (arXiv 2309.04564), the work that the MIRA paper cites: the band of records
around the median is kept by default, the lowest or highest perplexities if asked for. A record's
loss is the mean of -log p(token | tokens before it) in nats over its targets; its perplexity is exp
of that.

Reads   records/<source>/part-*.parquet; a Hugging Face model
Writes  baselines/<name>/losses/<source>/part-*.parquet: record_id, loss (null: nothing to predict),
        num_targets; with `engine: endpoint` also status, reason, num_attempts
        record_scores/<name>/<source>/part-*.parquet

Scores: band `low` minus the loss, `high` the loss, `middle` from 1 at the median to 0 at both ends:
1 - |2 p - 1|, p being the place of the record's loss among all losses of its scope. So what fits a
token budget is a band around the median, exact to the token. The published work takes ranks of
documents, 25 to 75 % for a half.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.baselines.perplexity_config import PerplexityConfig, perplexity_config
from mira_megatron.baselines.perplexity_endpoint import served_loss_units
from mira_megatron.baselines.score_parts import Part, Scores, parts_of, write_scores
from mira_megatron.baselines.token_windows import Window, encoded_for, windows_of
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.manifest import Counts
from mira_megatron.progress import track
from mira_megatron.retention.documents import scope_name
from mira_megatron.scoring.judge import model_files
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 2
NOTHING_TO_PREDICT = "nothing_to_predict"
NOT_FINITE = "not_finite"  # the model's loss is no number: weights or dtype overflow
_OK = "ok"  # of the status that a request's loss has
_RECORDS_AT_ONCE = 256

LOSS_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("loss", pa.float64()),  # nats per target
        pa.field("num_targets", pa.int64(), nullable=False),
    ]
)


class Reference(Protocol):
    """A model that predicts tokens."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of texts."""

    def losses(self, windows: Sequence[Window]) -> list[npt.NDArray[np.float64]]:
        """Returns the loss of every window's targets in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """What measuring one source needs."""

    config: PerplexityConfig
    source: str
    model: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class RankSettings:
    """What scoring one source needs."""

    band: str
    losses: str  # folder
    in_scope: tuple[str, ...]  # folders of all losses that its own are placed among


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranking:
    band: str
    sorted_losses: npt.NDArray[np.float64] = field(repr=False)


def perplexity_units(
    recipe: Recipe,
    baseline: str,
    values: Mapping[str, Any],
    groups: Mapping[str, str],
    where: str,
) -> list[Unit]:
    """Returns one unit per source that measures it, then one that scores its records."""
    config, asked = perplexity_config(values, where)
    losses = (
        _loss_units(recipe, baseline, config, list(groups))
        if asked is None
        else served_loss_units(recipe, baseline, config, asked, list(groups), where)
    )
    scopes = {
        source: scope_name(config.scope, source=source, source_group=group)
        for source, group in groups.items()
    }
    return [*losses, *(_score_unit(baseline, config, source, scopes) for source in groups)]


def _loss_units(
    recipe: Recipe, baseline: str, config: PerplexityConfig, sources: Sequence[str]
) -> list[Unit]:
    """Returns one unit per source that runs the model here."""
    model = recipe.path_of(config.model)
    measured = fingerprinted(config)
    for name in ("model", "engine", "band", "scope"):
        del measured[name]
    return [
        Unit(
            stage="baseline",
            name=f"{baseline}.{source}.losses",
            folder=layout.losses(baseline, source),
            version=VERSION,
            config={"method": "perplexity", **measured},
            upstream=(layout.records(source),),
            raw_files=lambda: model_files(model),
            work="mira_megatron.baselines.perplexity:measure",
            settings=LossSettings(config=config, source=source, model=model),
        )
        for source in sources
    ]


def _score_unit(
    baseline: str, config: PerplexityConfig, source: str, scopes: Mapping[str, str]
) -> Unit:
    members = [other for other in scopes if scopes[other] == scopes[source]]
    # The median alone asks for the others.
    asked = members if config.band == "middle" else [source]
    in_scope = tuple(layout.losses(baseline, other) for other in asked)
    return Unit(
        stage="baseline",
        name=f"{baseline}.{source}",
        folder=layout.record_scores(baseline, source),
        version=VERSION,
        config={"method": "perplexity", "band": config.band, "scope": config.scope},
        upstream=in_scope,
        waits_for=in_scope,
        work="mira_megatron.baselines.perplexity:rank",
        settings=RankSettings(
            band=config.band, losses=layout.losses(baseline, source), in_scope=in_scope
        ),
    )


def measure(workspace: Workspace, settings: LossSettings) -> WorkResult:
    """Writes the losses of one source's records; a part that is there is not measured again."""
    parts = parts_of(workspace, layout.records(settings.source))
    todo = [part for part in parts if not _output(workspace, part).is_file()]
    if todo:
        # torch, which whoever only plans does not load
        module = importlib.import_module("mira_megatron.baselines.reference_model")
        reference = module.ReferenceModel(settings.model, settings.config.dtype)
        _check_window(settings, reference.max_window)
        with track(workspace.unit.label, len(todo)) as advance:
            for part in todo:
                tables = _measured(part, reference, settings.config)
                write_parquet(_output(workspace, part), pa.concat_tables(tables))
                advance()
    found = {part.path.name: pq.read_table(_output(workspace, part)) for part in parts}
    rows = {name: table.num_rows for name, table in found.items()}
    totals = {
        "targets": sum(pc.sum(table["num_targets"]).as_py() or 0 for table in found.values()),
    }
    for table in found.values():
        nulls = table.filter(pc.is_null(table["loss"]))["num_targets"].to_pylist()
        for num in nulls:
            reason = f"null: {_why_null(num, _OK)}"
            totals[reason] = totals.get(reason, 0) + 1
    num_records = sum(rows.values())
    counts = Counts(num_in=num_records, num_out=num_records, totals=totals)
    return WorkResult(counts=counts, rows=rows)


def _output(workspace: Workspace, part: Part) -> Path:
    return workspace.folder / part.path.name


def _check_window(settings: LossSettings, max_window: int) -> None:
    if settings.config.window_tokens > max_window:
        raise ValueError(
            f"{settings.model}: window_tokens={settings.config.window_tokens:,} is more than the "
            f"{max_window:,} tokens that this model was made for. Lower it to at most that"
        )


def _measured(part: Part, reference: Reference, config: PerplexityConfig) -> list[pa.Table]:
    """Returns the losses of a part's records, some records at a time."""
    table = part.rows(["record_id", "text"])
    found = [LOSS_SCHEMA.empty_table()]
    for start in range(0, table.num_rows, _RECORDS_AT_ONCE):
        rows = table.slice(start, _RECORDS_AT_ONCE)
        windows = [
            windows_of(ids, config.window_tokens, config.stride_tokens)
            for ids in encoded_for(
                rows["text"].to_pylist(),
                reference.encode,
                config.window_tokens,
                config.stride_tokens,
            )
        ]
        losses = iter(reference.losses([window for each in windows for window in each]))
        totals = [[next(losses) for _ in each] for each in windows]
        nums = [sum(map(len, each)) for each in totals]
        means = [
            _finite(sum(float(loss.sum()) for loss in each) / num) if num else None
            for each, num in zip(totals, nums, strict=True)
        ]
        columns = [rows["record_id"], pa.array(means, pa.float64()), pa.array(nums, pa.int64())]
        found.append(pa.Table.from_arrays(columns, schema=LOSS_SCHEMA))
    return found


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def rank(workspace: Workspace, settings: RankSettings) -> WorkResult:
    """Writes the record scores of one source."""
    losses = [
        part.rows(["loss"])["loss"].drop_null().to_numpy()
        for folder in settings.in_scope
        for part in parts_of(workspace, folder)
    ]
    ranking = _Ranking(band=settings.band, sorted_losses=np.sort(np.concatenate(losses)))
    return write_scores(workspace, settings.losses, _rank_part, ranking)


def _rank_part(part: Part, ranking: _Ranking) -> Scores:
    is_served = "status" in pq.read_schema(part.path).names
    columns = ["record_id", "loss", "num_targets", *(["status"] if is_served else [])]
    table = part.rows(columns)
    is_null = table["loss"].is_null().to_numpy()
    nums = table["num_targets"].to_pylist()
    statuses = table["status"].to_pylist() if is_served else [_OK] * len(nums)
    losses = pc.fill_null(table["loss"], 0.0).to_numpy()
    scores = band_scores(losses, ranking.band, ranking.sorted_losses)
    return Scores(
        record_ids=table["record_id"],
        scores=[
            None if missing else float(score)
            for score, missing in zip(scores, is_null, strict=True)
        ],
        reasons=[
            _why_null(num, status) if missing else None
            for missing, num, status in zip(is_null, nums, statuses, strict=True)
        ],
    )


def _why_null(num_targets: int, status: str) -> str:
    if status != _OK:
        return status
    return NOT_FINITE if num_targets else NOTHING_TO_PREDICT


def band_scores(
    losses: npt.NDArray[np.float64], band: str, sorted_losses: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Returns the scores of losses, the band's best highest; `sorted_losses` are all of the scope.

    Equal losses have equal scores: the place of one is in the middle of those equal to it.
    """
    if band == "low":
        return -losses
    if band == "high":
        return losses
    before = np.searchsorted(sorted_losses, losses, side="left")
    up_to = np.searchsorted(sorted_losses, losses, side="right")
    place: npt.NDArray[np.float64] = (before + up_to) / (2 * max(len(sorted_losses), 1))
    return 1 - np.abs(2 * place - 1)
