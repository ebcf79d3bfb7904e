"""`mira tokens trace`: the records that an iteration trains on, from index caches and side files.

Nothing of the trainer is asked or touched, so a batch of last month and one of next week are told
the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.provenance.cached_indices import PrefixIndices
from mira_megatron.provenance.sample_parts import SamplePart, parts_of_sample
from mira_megatron.provenance.sequence_origins import SequenceOrigins
from mira_megatron.provenance.traced_records import RecordScore, record_ids, record_scores
from mira_megatron.provenance.traced_training import (
    TracedBlend,
    TracedTraining,
    first_document,
    last_iteration,
    read_traced_blend,
    samples_at,
    training_indices,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedSpan:
    """Consecutive tokens of one record in one sample.

    A sample has sequence_length + 1 tokens: all but the last are inputs, all but the first labels.
    """

    record_id: str
    source: str
    prefix: str  # name of the token dataset's prefix
    document: int  # row of that prefix
    score: float | None  # 0-10
    score_reason: str | None  # why there is none
    sample_start: int  # the first token's place in the sample
    document_start: int  # the first token's place in the document
    num_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedSample:
    """One sample, and when it is read."""

    iteration: int
    micro_batch: int  # of its rank and iteration, from 0
    rank: int  # data-parallel
    row: int  # in its micro-batch, from 0
    sample: int  # of the training dataset
    prefix_sample: int  # of the prefix's own dataset
    spans: tuple[TracedSpan, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What one iteration reads."""

    arm: str
    iteration: int
    rank: int | None  # data-parallel; None: all of them
    last_iteration: int | None  # of the data, or of the training; None: there is no end
    indices_from: str
    samples: tuple[TracedSample, ...]  # by micro-batch, rank and row


def trace(training: TracedTraining, *, iteration: int, rank: int | None = None) -> Trace:
    """Returns the samples of an iteration (from 1) with the records in them.

    `rank` is data-parallel (`batch_order.data_parallel_rank` gives it for a global rank); None
    traces the whole global batch. Raises ValueError for an iteration that the training does not
    reach, and where cache, blend and token datasets do not belong together.
    """
    order = training.order()
    ranks = range(order.data_parallel_size) if rank is None else [rank]
    positions = np.sort(np.concatenate([order.positions(iteration, r).ravel() for r in ranks]))
    blend = read_traced_blend(training.run_folder, training.arm)
    indices = training_indices(training, blend)
    last = last_iteration(training, order, indices.num_samples)
    if last is not None and iteration > last:
        raise ValueError(
            f"iteration {iteration:,} is after the last, {last:,}: the training dataset has "
            f"{indices.num_samples:,} samples, and train_iters is {training.train_iters}"
        )
    samples = samples_at(training, order, indices.num_samples, positions)
    numbers, prefix_samples = indices.located(samples)
    spans: dict[int, tuple[TracedSpan, ...]] = {}
    for number in np.unique(numbers).tolist():
        wanted = prefix_samples[numbers == number].tolist()
        of_prefix = _spans_of_prefix(training, blend, number, indices.prefixes[number], wanted)
        spans |= dict(zip(samples[numbers == number].tolist(), of_prefix, strict=True))
    places = order.places(positions)
    return Trace(
        arm=training.arm,
        iteration=iteration,
        rank=rank,
        last_iteration=last,
        indices_from=indices.origin,
        samples=tuple(
            TracedSample(
                iteration=iteration,
                micro_batch=int(places.micro_batch_N[at]),
                rank=int(places.rank_N[at]),
                row=int(places.row_N[at]),
                sample=sample,
                prefix_sample=int(prefix_samples[at]),
                spans=spans[sample],
            )
            for at, sample in enumerate(samples.tolist())
        ),
    )


def _spans_of_prefix(
    training: TracedTraining,
    blend: TracedBlend,
    number: int,
    indices: PrefixIndices,
    samples: Sequence[int],
) -> list[tuple[TracedSpan, ...]]:
    """Returns the spans of each of a prefix's samples."""
    origins = blend.trained[number].origins()
    parts_of = [
        parts_of_sample(indices, origins.lengths_S, sample, sequence_length=blend.sequence_length)
        for sample in samples
    ]
    parts = [part for parts in parts_of for part in parts]
    of_parts = iter(_spans(training, blend, origins, parts))
    return [tuple(next(of_parts) for _ in parts) for parts in parts_of]


def _spans(
    training: TracedTraining,
    blend: TracedBlend,
    origins: SequenceOrigins,
    parts: Sequence[SamplePart],
) -> list[TracedSpan]:
    prefix = origins.token_prefix
    origin_of = origins.origins_S[[part.sequence for part in parts]]
    documents = origins.documents(origin_of)
    distinct = np.unique(documents)
    ids = dict(zip(distinct.tolist(), record_ids(prefix, distinct), strict=True))
    first = first_document(blend, prefix)
    rows = {record_id: first + document for document, record_id in ids.items()}
    scores: dict[str, RecordScore] = record_scores(
        training.run_folder, training.scoring, prefix.source, rows
    )
    return [
        TracedSpan(
            record_id=ids[document],
            source=prefix.source,
            prefix=prefix.name,
            document=document,
            score=scores[ids[document]].score,
            score_reason=scores[ids[document]].reason,
            sample_start=part.sample_start,
            document_start=origins.offset_in_document(origin, document) + part.sequence_start,
            num_tokens=part.num_tokens,
        )
        for part, origin, document in zip(
            parts, origin_of.tolist(), documents.tolist(), strict=True
        )
    ]
