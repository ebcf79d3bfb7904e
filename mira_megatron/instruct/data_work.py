"""The work behind `mira instruct-data`: conversations read, left out or kept, ordered, encoded.

What is left out, and why:
    no_answer      no turn of the assistant's says something and answers something
    held_out       its text is one that a source holds out of every training
    duplicate      its text was there before, in the order of sources and files
    beyond_number  it comes after the first num_records that fit; counted, not listed
    over_long      it has more tokens than a sequence
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.distill.chatml import END, START
from mira_megatron.distill.packed_dataset import TokenSample
from mira_megatron.distill.sft_order import is_validation, order_key
from mira_megatron.instruct.conversation_files import Told, file_conversations
from mira_megatron.instruct.conversations import segments, token_samples
from mira_megatron.instruct.data_files import (
    DROPPED,
    FACTS,
    TRAINING,
    VALIDATION,
    Conversation,
    write_conversations,
)
from mira_megatron.instruct.instruct_data import InstructDataSettings
from mira_megatron.manifest import Counts
from mira_megatron.shards import read_part
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.degraded_documents import read_copies
from mira_megatron.tokenization.tokenizer import RecordEncoder, whole_text_tokenizer

_BATCH = 256  # conversations encoded at once


@dataclass(frozen=True, slots=True)
class _Dropped:
    record_id: str
    source: str
    reason: str
    detail: str | None = None


def instruct_data(workspace: Workspace, settings: InstructDataSettings) -> WorkResult:
    """Writes what every arm is tuned on.

    Raises ValueError where the tokenizer cannot mark turns, a line of a file is no conversation, or
    one side would be empty.
    """
    tokenizer_file = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    encoder = turn_encoder(tokenizer_file)
    held_out = _held_out(workspace, settings.token_sources)
    dropped: list[_Dropped] = []
    candidates = []
    seen: set[bytes] = set()
    for told in _told(workspace, settings):
        reason = _reason(told, held_out, seen)
        if not told.is_degraded:
            seen.add(told.text_hash)
        if reason is None:
            candidates.append(told)
        else:
            dropped.append(_Dropped(told.record_id, told.source, reason))
    num_in = len(candidates) + len(dropped)
    candidates.sort(key=lambda told: (order_key(told.record_id, settings.seed), told.record_id))
    sides = _sides(encoder, candidates, settings, dropped)
    num_beyond = num_in - len(dropped) - sum(map(len, sides.values()))
    reasons = Counter(each.reason for each in dropped) + Counter(beyond_number=num_beyond)
    _check_not_empty(settings, sides, reasons)
    for name, conversations in sides.items():
        write_conversations(workspace.folder / name, conversations)
    lines = [orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in dropped]
    write_bytes(workspace.folder / DROPPED, b"".join(lines))
    training, validation = sides[TRAINING], sides[VALIDATION]
    facts = {
        "num_training": len(training),
        "num_validation": len(validation),
        "num_answer_tokens": sum(int(each.sample.is_answer_N.sum()) for each in training),
        "vocab_size": encoder.vocab_size,
        "end_id": whole_text_tokenizer(tokenizer_file).token_to_id(END),
    }
    write_json(workspace.folder / FACTS, facts)
    return WorkResult(
        counts=Counts(
            num_in=num_in,
            num_out=len(training) + len(validation),
            dropped=dict(sorted(reasons.items())),
            totals={"training": len(training), "validation": len(validation)},
        ),
        rows={TRAINING: len(training), VALIDATION: len(validation), DROPPED: len(dropped)},
    )


def turn_encoder(tokenizer_file: Path) -> RecordEncoder:
    """Returns the trainee's encoder; ValueError where the tokenizer has no tokens for turns.

    Their ids are those that mid-training saw: nothing is added to a vocabulary afterwards, which
    would change the model's size.
    """
    ids = whole_text_tokenizer(tokenizer_file).get_added_tokens_decoder().values()
    missing = {START, END} - {token.content for token in ids}
    if missing:
        raise ValueError(
            f"{tokenizer_file}: {' and '.join(sorted(missing))} not among its added tokens, with "
            "which turns begin and end. Instruction tuning is in ChatML: give tokenize.tokenizer "
            "a tokenizer that has them, such as Qwen's, or leave out instruct_sft."
        )
    # Which token ends a document does not matter: conversations are cut before it.
    return RecordEncoder(tokenizer_file, END, "huggingface")


def _held_out(workspace: Workspace, sources: Iterable[str]) -> set[bytes]:
    """Returns the hashes of all texts that a source holds out."""
    hashes: set[bytes] = set()
    for source in sources:
        for path, part in workspace.upstream_parts(layout.tokens(source), ".records.parquet"):
            table = read_part(path, part.digest, ["text_hash", "is_validation"])
            hashes.update(table.filter(pc.field("is_validation"))["text_hash"].to_pylist())
    return hashes


def _told(workspace: Workspace, settings: InstructDataSettings) -> Iterator[Told]:
    """Yields the conversations of all sources, then of all files, in their order."""
    columns = ["record_id", "text", "control_spans"]
    for source in settings.config.sources or ():
        start = 0
        table = read_copies(workspace, source)
        copies = set() if table is None else set(table["document"].to_pylist())
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet"):
            rows = read_part(path, part.digest, columns).to_pylist()
            for number, row in enumerate(rows, start=start):
                row["control_spans"] = tuple(row["control_spans"])
                yield Told(source=source, is_degraded=number in copies, **row)
            start += len(rows)
    for file in settings.files:
        yield from file_conversations(file)


def _reason(told: Told, held_out: set[bytes], seen: set[bytes]) -> str | None:
    if not segments(told.text, told.control_spans):
        return "no_answer"
    if told.is_degraded:
        return "degraded_copy"
    if told.text_hash in held_out:
        return "held_out"
    return "duplicate" if told.text_hash in seen else None


def _sides(
    encoder: RecordEncoder,
    candidates: Sequence[Told],
    settings: InstructDataSettings,
    dropped: list[_Dropped],
) -> dict[str, list[Conversation]]:
    """Returns the samples of each file in order, and adds to `dropped` what is left out."""
    config = settings.config
    sides: dict[str, list[Conversation]] = {TRAINING: [], VALIDATION: []}
    fitting = _fitting(encoder, candidates, config.sequence_length, dropped)
    for told, sample in islice(fitting, config.num_records):
        is_held_back = is_validation(
            told.text_hash.hex(), settings.seed, config.validation_fraction
        )
        sides[VALIDATION if is_held_back else TRAINING].append(
            Conversation(record_id=told.record_id, source=told.source, sample=sample)
        )
    return sides


def _fitting(
    encoder: RecordEncoder,
    candidates: Sequence[Told],
    sequence_length: int,
    dropped: list[_Dropped],
) -> Iterator[tuple[Told, TokenSample]]:
    """Yields what fits a sequence in its order, encoding no more batches than are asked for."""
    for start in range(0, len(candidates), _BATCH):
        batch = candidates[start : start + _BATCH]
        cut = [segments(told.text, told.control_spans) for told in batch]
        for told, sample in zip(batch, token_samples(encoder, cut), strict=True):
            num_tokens = len(sample.ids_N)
            if num_tokens <= sequence_length:
                yield told, sample
                continue
            detail = f"{num_tokens:,} tokens, sequence_length={sequence_length:,}"
            dropped.append(_Dropped(told.record_id, told.source, "over_long", detail))


def _check_not_empty(
    settings: InstructDataSettings,
    sides: dict[str, list[Conversation]],
    reasons: Counter[str],
) -> None:
    """Raises ValueError where one side has no sample."""
    empty = [name.removesuffix(".parquet") for name, side in sides.items() if not side]
    if not empty:
        return
    told = ", ".join(f"{reason} {num:,}" for reason, num in sorted(reasons.items())) or "none"
    config = settings.config
    raise ValueError(
        f"instruct-data: no conversation for {' and '.join(empty)} (left out: {told}). Give "
        "instruct_sft more sources or data, raise num_records="
        f"{config.num_records} or sequence_length={config.sequence_length}, or change "
        f"validation_fraction={config.validation_fraction}."
    )
