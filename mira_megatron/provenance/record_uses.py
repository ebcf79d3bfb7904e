"""The inverse of a trace: when a record was or will be trained on, or why never."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mira_megatron.provenance.batch_order import BatchOrder
from mira_megatron.provenance.cached_indices import BlendIndices
from mira_megatron.provenance.sample_parts import SamplePart, parts_of_sequences
from mira_megatron.provenance.sequence_origins import SequenceOrigins
from mira_megatron.provenance.traced_records import FoundRecord, find_records, record_scores
from mira_megatron.provenance.traced_training import (
    TracedBlend,
    TracedTraining,
    first_document,
    last_iteration,
    read_traced_blend,
    training_indices,
)
from mira_megatron.retention.keep_masks import read_keep_mask

MAX_RECORDS = 20  # told at once

# Why no token of a record is trained on.
HELD_OUT = "held_out"  # a validation document
NO_TOKENS = "no_tokens"  # an empty document
DROPPED = "dropped"  # by the arm's keep mask
FILLS_NO_SEQUENCE = "fills_no_sequence"  # its prefix is left out of the blend
TAIL = "tail"  # after the last whole sample of its prefix
NOT_DRAWN = "not_drawn"  # its samples are none of the blend's: others fill the size asked for
NOT_REACHED = "not_reached"  # its samples come after the last iteration


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordUse:
    """One sample that reads tokens of a record."""

    iteration: int
    micro_batch: int  # of its rank and iteration, from 0
    rank: int  # data-parallel
    row: int  # in its micro-batch, from 0
    sample: int  # of the training dataset
    sample_start: int  # the first token's place in the sample, 0..sequence_length
    document_start: int  # the first token's place in the document
    num_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordUses:
    """A record and every time it is trained on."""

    arm: str
    record_id: str
    source: str
    prefix: str  # name of the token dataset's prefix
    document: int  # row of that prefix
    num_document_tokens: int
    score: float | None  # 0-10
    score_reason: str | None  # why there is none
    never: str | None  # one of the reasons above, where there is no use
    num_tokens_unread: int  # in no use: all of them, or the end of a document that is in the tail
    last_iteration: int | None  # of the data, or of the training
    indices_from: str | None  # None where they were not needed
    uses: tuple[RecordUse, ...]  # by iteration, micro-batch, rank and row


def uses(training: TracedTraining, record_id: str) -> tuple[RecordUses, ...]:
    """Returns when the records whose id is, or begins with, `record_id` are trained on.

    Raises ValueError for an unknown id, for one that fits more than MAX_RECORDS records, and where
    cache, blend and token datasets do not belong together.
    """
    order = training.order()
    if training.dataloader_type == "cyclic" and training.train_iters is None:
        raise ValueError("a cyclic loader never ends: say how many train_iters there are")
    blend = read_traced_blend(training.run_folder, training.arm)
    found = find_records(list(blend.token_prefixes.values()), record_id, at_most=MAX_RECORDS)
    reasons = [_never_in_blend(blend, record) for record in found]
    indices = training_indices(training, blend) if None in reasons else None
    return tuple(
        _uses_of(training, blend, order, indices, record, reason)
        for record, reason in zip(found, reasons, strict=True)
    )


def _never_in_blend(blend: TracedBlend, record: FoundRecord) -> str | None:
    """Returns why the blend's training prefixes do not list a record; None where they do."""
    if record.is_validation:
        return HELD_OUT
    if record.num_tokens == 0:
        return NO_TOKENS
    mask_path = blend.mask_paths[record.prefix.name]
    if not read_keep_mask(mask_path).is_kept[record.document]:
        return DROPPED
    if _number_of(blend, record) is None:
        return FILLS_NO_SEQUENCE
    return None


def _number_of(blend: TracedBlend, record: FoundRecord) -> int | None:
    names = [each.token_prefix.name for each in blend.trained]
    return names.index(record.prefix.name) if record.prefix.name in names else None


def _uses_of(
    training: TracedTraining,
    blend: TracedBlend,
    order: BatchOrder,
    indices: BlendIndices | None,
    record: FoundRecord,
    reason: str | None,
) -> RecordUses:
    found: tuple[RecordUse, ...] = ()
    last = None if indices is None else last_iteration(training, order, indices.num_samples)
    if reason is None and indices is not None:
        found, reason = _found_uses(training, blend, order, indices, record)
    row = first_document(blend, record.prefix) + record.document
    score = record_scores(
        training.run_folder, training.scoring, record.prefix.source, {record.record_id: row}
    )[record.record_id]
    return RecordUses(
        arm=training.arm,
        record_id=record.record_id,
        source=record.prefix.source,
        prefix=record.prefix.name,
        document=record.document,
        num_document_tokens=record.num_tokens,
        score=score.score,
        score_reason=score.reason,
        never=reason,
        num_tokens_unread=record.num_tokens - _num_tokens_read(found),
        last_iteration=last,
        indices_from=None if indices is None else indices.origin,
        uses=found,
    )


def _found_uses(
    training: TracedTraining,
    blend: TracedBlend,
    order: BatchOrder,
    indices: BlendIndices,
    record: FoundRecord,
) -> tuple[tuple[RecordUse, ...], str | None]:
    """Returns the uses of a record that the blend lists, or why there is none."""
    number = _number_of(blend, record)
    assert number is not None
    origins = blend.trained[number].origins()
    sequences = origins.sequences_of(record.document)
    if not len(sequences):
        raise ValueError(
            f"{blend.trained[number].path_prefix}: does not list document {record.document} of "
            f"{record.prefix.path_prefix}, but {blend.mask_paths[record.prefix.name]} keeps it. "
            "The blend was made from another selection; make it anew."
        )
    parts = parts_of_sequences(
        indices.prefixes[number],
        origins.lengths_S,
        sequences,
        sequence_length=blend.sequence_length,
    )
    if not parts:
        return (), TAIL
    by_sample = _blend_samples(indices, number, parts)
    if not by_sample:
        return (), NOT_DRAWN
    starts = _document_starts(origins, record.document, sequences)
    placed = _placed(training, order, indices.num_samples, list(by_sample))
    found = [
        RecordUse(
            **place,
            sample_start=part.sample_start,
            document_start=starts[part.sequence] + part.sequence_start,
            num_tokens=part.num_tokens,
        )
        for place in placed
        for part in by_sample[place["sample"]]
    ]
    return tuple(found), None if found else NOT_REACHED


def _blend_samples(
    indices: BlendIndices, number: int, parts: Sequence[SamplePart]
) -> dict[int, list[SamplePart]]:
    """Returns the parts by the blend's samples that read them."""
    by_prefix_sample: dict[int, list[SamplePart]] = {}
    for part in parts:
        by_prefix_sample.setdefault(part.sample, []).append(part)
    wanted = np.array(sorted(by_prefix_sample), dtype=np.int64)
    samples = indices.blend_samples(number, wanted)
    _, prefix_samples = indices.located(samples)
    return {
        sample: by_prefix_sample[prefix_sample]
        for sample, prefix_sample in zip(samples.tolist(), prefix_samples.tolist(), strict=True)
    }


def _document_starts(
    origins: SequenceOrigins, document: int, sequences: npt.NDArray[np.int64]
) -> Mapping[int, int]:
    return {
        sequence: origins.offset_in_document(int(origins.origins_S[sequence]), document)
        for sequence in sequences.tolist()
    }


def _placed(
    training: TracedTraining, order: BatchOrder, num_samples: int, samples: Sequence[int]
) -> list[dict[str, int]]:
    """Returns when and where rising samples are read, in that order, up to the last iteration."""
    wanted = np.array(samples, dtype=np.int64)
    last = last_iteration(training, order, num_samples)
    assert last is not None
    end = order.consumed_before(last + 1) if last > training.start_iteration else 0
    if training.dataloader_type == "single":
        read, positions = wanted, wanted
    else:
        cyclic = importlib.import_module("mira_megatron.provenance.cyclic_order")
        read, positions = cyclic.CyclicOrder(
            order=order, num_samples=num_samples, has_data_sharding=training.has_data_sharding
        ).positions(wanted, end=end)
    read, positions = read[positions < end], positions[positions < end]
    places = order.places(positions)
    return [
        {
            "iteration": int(places.iteration_N[at]),
            "micro_batch": int(places.micro_batch_N[at]),
            "rank": int(places.rank_N[at]),
            "row": int(places.row_N[at]),
            "sample": int(sample),
        }
        for at, sample in enumerate(read.tolist())
    ]


def _num_tokens_read(found: Sequence[RecordUse]) -> int:
    """Returns how many different tokens of the document the uses read."""
    num_tokens = end = 0
    for start, stop in sorted(
        (use.document_start, use.document_start + use.num_tokens) for use in found
    ):
        num_tokens += max(stop - max(start, end), 0)
        end = max(end, stop)
    return num_tokens
