"""Instructions from jsonl files as prompts and completions, for the tuning that every arm shares.

Reads   jsonl files the user names, of messages or of input and output: see
            instruct/conversation_files.py, by which instructions are read on one machine too
Writes  training.jsonl, validation.jsonl: one completion per line (distill/sft_files.SftRow), as a
            scorer's samples are; record_id is <file>:<line>, or <file>:<line>.<turn> of messages
        rows.json: how many there are, their tokens, and what was left out and why

A conversation becomes one row for each of the assistant's turns, with all before it as its prompt:
so every answer is learned once, and nothing else is. The chat form of Megatron-Bridge is not used:
with a template without `{% generation %}`, as Qwen's, 0.3.1 takes the loss on every token.
Left out are texts that hold the tokenizer's control tokens other than those of turns and tools,
rows longer than a sample, conversations that were there before, and those that a source holds out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash

from mira_megatron.atomic_files import replacing, write_json
from mira_megatron.corpus.renderers import ControlToken
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_files import TRAINING, VALIDATION, SftRow
from mira_megatron.instruct.conversation_files import Told, answer_ranges, file_conversations

ROWS = "rows.json"
NO_ANSWER, CONTROL_TOKEN, TOO_LONG = "no_answer", "control_token", "too_long"
HELD_OUT, DUPLICATE = "held_out", "duplicate"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructRows:
    """The content of rows.json."""

    num_training: int
    num_validation: int
    training_tokens: int
    dropped: dict[str, int]  # rows, and lines without one, by reason


def write_instruct_rows(
    folder: Path,
    paths: Sequence[Path],
    tokenizer_file: Path,
    *,
    sequence_length: int,
    validation_fraction: float,
    seed: int,
    held_out: Collection[bytes] = (),
) -> InstructRows:
    """Writes training.jsonl, validation.jsonl and rows.json, and returns what the last holds.

    All rows of a line are on one side, chosen by the seed and the line's name; `held_out` are the
    hashes of texts that are on neither. Raises ValueError
    for a file that cannot be read as instructions, or where one side would have no row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    measure = _Measure(tokenizer_file)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    seen: set[bytes] = set()
    with ExitStack() as stack:
        # Entered in this order, put in place in the other: with training.jsonl all are there.
        files = {
            name: stack.enter_context(stack.enter_context(replacing(folder / name)).open("wb"))
            for name in (TRAINING, VALIDATION)
        }
        for path in paths:
            for told in file_conversations(SourceFile(path=path, name=path.name)):
                rows_of = _turns(told)
                if reason := _whole_reason(rows_of, told.text_hash, held_out, seen):
                    dropped[reason] += 1
                    continue
                seen.add(told.text_hash)
                is_held_out = _is_held_out(told.record_id, seed, validation_fraction)
                side = VALIDATION if is_held_out else TRAINING
                for row in rows_of:
                    num_tokens, is_clean = measure.row(row, told)
                    if not is_clean or num_tokens > sequence_length:
                        dropped[TOO_LONG if is_clean else CONTROL_TOKEN] += 1
                        continue
                    files[side].write(row.line())
                    counts[side] += 1
                    counts[f"{side}_tokens"] += num_tokens
        for side in (TRAINING, VALIDATION):
            if counts[side] == 0:
                raise ValueError(
                    f"{', '.join(map(str, paths))}: no row for {side} is left (left out: "
                    f"{dict(dropped)}). Give more instructions, or shorter ones."
                )
    rows = InstructRows(
        num_training=counts[TRAINING],
        num_validation=counts[VALIDATION],
        training_tokens=counts[f"{TRAINING}_tokens"],
        dropped=dict(sorted(dropped.items())),
    )
    write_json(folder / ROWS, {name: getattr(rows, name) for name in rows.__slots__})
    logger.info("%s: %s", folder, rows)
    return rows


def read_instruct_rows(folder: Path) -> InstructRows | None:
    """Returns what a finished folder holds; None for one that is not there or not finished."""
    try:
        return InstructRows(**orjson.loads((folder / ROWS).read_bytes()))
    except FileNotFoundError:
        return None


def _whole_reason(
    rows: Sequence[SftRow], text_hash: bytes, held_out: Collection[bytes], seen: Collection[bytes]
) -> str | None:
    """Returns why a conversation is left out as a whole."""
    if not rows:
        return NO_ANSWER
    if text_hash in held_out:
        return HELD_OUT
    return DUPLICATE if text_hash in seen else None


def _turns(told: Told) -> list[SftRow]:
    """Returns a row for each answer, with all before it as its prompt."""
    ranges = answer_ranges(told.text, told.control_spans)
    return [
        SftRow(
            input=told.text[:start],
            output=told.text[start:end],
            record_id=told.record_id if len(ranges) == 1 else f"{told.record_id}.{turn}",
            source="instruct",
        )
        for turn, (start, end) in enumerate(ranges)
    ]


class _Measure:
    """Counts a row's tokens, and finds control tokens that the renderer did not write."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._tokenizer = ScorerTokenizer(tokenizer_file)
        # What the renderer writes is a control token of some tokenizers, and text to others.
        self._weight = {
            token.value: self._tokenizer.num_control_tokens(self._tokenizer.encode(token))
            for token in ControlToken
        }

    def row(self, row: SftRow, told: Told) -> tuple[int, bool]:
        """Returns a row's number of tokens, and whether its control tokens are the renderer's."""
        bounds = (0, len(row.input), len(row.input) + len(row.output))
        num_tokens, is_clean = 0, True
        for text, start, end in zip((row.input, row.output), bounds, bounds[1:], strict=False):
            ids = self._tokenizer.encode(text)
            num_tokens += len(ids)
            written = zip(told.control_spans[::2], told.control_spans[1::2], strict=True)
            wanted = sum(
                self._weight[told.text[first:last]]
                for first, last in written
                if start <= first and last <= end
            )
            is_clean = is_clean and self._tokenizer.num_control_tokens(ids) == wanted
        return num_tokens, is_clean


def _is_held_out(name: str, seed: int, fraction: float) -> bool:
    return xxhash.xxh3_64_intdigest(name.encode(), seed=seed) < fraction * 2**64
