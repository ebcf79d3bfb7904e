"""The work behind `mira held-out`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import Counts
from mira_megatron.retention.documents import token_dataset
from mira_megatron.shards import json_digest, write_parquet
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.token_dataset import check_one_vocabulary
from mira_megatron.training.cpu_threads import cpu_threads
from mira_megatron.training.document_loss import document_nats
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.held_out import DOCUMENTS, SCHEMA, SUMMARY, HeldOutSettings
from mira_megatron.training.held_out_documents import HeldOutDocument, held_out_documents
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.trained_weights import TrainedWeights, trained_weights


def held_out(workspace: Workspace, settings: HeldOutSettings) -> WorkResult:
    """Writes one model's loss on every held-out document of every source.

    Raises ValueError where the model and the tokens are not of one tokenizer, where a part has
    changed, and where a loss is no number.
    """
    documents = _documents(workspace, settings)
    datasets = [token_dataset(workspace, source) for source in settings.sources]
    check_one_vocabulary(datasets)
    weights = trained_weights(
        workspace,
        checkpoint=settings.checkpoint,
        base=settings.base,
        num_tokens=datasets[0].vocab_size,
    )
    with cpu_threads(settings.num_threads):
        nats = _nats(workspace, weights, settings.precision, documents)
    table = pa.table(
        [
            pa.array([each.source for each in documents]),
            pa.array([each.record_id for each in documents]),
            pa.array([len(each.ids) for each in documents], pa.int64()),
            pa.array([each.num_bytes for each in documents], pa.int64()),
            pa.array(nats, pa.float64()),
        ],
        schema=SCHEMA,
    )
    write_parquet(workspace.folder / DOCUMENTS, table)
    summary = held_out_summary(table)
    window = weights.shape.max_sequence_length
    write_json(workspace.folder / SUMMARY, {"window_tokens": window, **summary})
    whole = summary["all"]
    totals = {name: whole[name] for name in ("tokens", "bytes", "nats")}
    if whole["bits_per_byte"] is not None:
        totals["bits_per_byte"] = round(whole["bits_per_byte"], 6)
    counts = Counts(num_in=len(documents), num_out=len(documents), totals=totals)
    return WorkResult(counts=counts, rows={DOCUMENTS: len(documents)})


def held_out_summary(documents: pa.Table) -> dict[str, Any]:
    """Returns, by source and in all, what documents of SCHEMA add up to.

    `bits_per_byte` is nats / ln 2 / bytes; null where there is no byte.
    """
    names = documents["source"].to_pylist()
    rows = list(
        zip(
            names,
            *(documents[name].to_pylist() for name in ("num_tokens", "num_bytes", "nats")),
            strict=True,
        )
    )
    by_source = {
        source: _added_up([row[1:] for row in rows if row[0] == source])
        for source in dict.fromkeys(names)
    }
    return {"sources": by_source, "all": _added_up([row[1:] for row in rows])}


def _added_up(rows: Sequence[tuple[int, int, float]]) -> dict[str, int | float | None]:
    num_bytes = sum(row[1] for row in rows)
    nats = math.fsum(row[2] for row in rows)
    return {
        "documents": len(rows),
        "tokens": sum(row[0] for row in rows),
        "bytes": num_bytes,
        "nats": nats,
        "bits_per_byte": nats / math.log(2) / num_bytes if num_bytes else None,
    }


def _documents(workspace: Workspace, settings: HeldOutSettings) -> list[HeldOutDocument]:
    """Returns the held-out documents of all sources; each source is read once for all models."""

    def read(source: str) -> list[HeldOutDocument]:
        is_adopted = source in settings.adopted
        folders = [layout.tokens(source), *([] if is_adopted else [layout.records(source)])]
        digests = [workspace.upstream_manifest(folder).output_digest for folder in folders]
        return settings.shared.once(
            (source, json_digest(digests)),
            lambda: held_out_documents(workspace, source, is_adopted=is_adopted),
        )

    return [document for source in settings.sources for document in read(source)]


def _nats(
    workspace: Workspace,
    weights: TrainedWeights,
    precision: str,
    documents: Sequence[HeldOutDocument],
) -> list[float]:
    with megatron_process_group():
        model = build_model(weights.shape, weights.vocab_size, dtype=getattr(torch, precision))
        weights.load(model)
        model.eval()
        return document_nats(
            model,
            [each.ids for each in documents],
            vocab_size=weights.vocab_size,
            window_tokens=weights.shape.max_sequence_length,
            title=workspace.unit.label,
        )
