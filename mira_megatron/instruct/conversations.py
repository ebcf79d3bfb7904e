"""A rendered conversation as a sample: which of its words are the assistant's, in tokens.

Shape letters: N tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mira_megatron.distill.packed_dataset import TokenSample
from mira_megatron.instruct.conversation_files import answer_ranges
from mira_megatron.tokenization.tokenizer import RecordEncoder


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a conversation that is all answer, or all not."""

    text: str
    control_spans: tuple[int, ...]  # start, end … of control tokens, from the segment's start
    is_answer: bool


def segments(text: str, control_spans: Sequence[int]) -> list[Segment]:
    """Returns a record cut at its answers, up to the end of the last; empty without an answer."""
    cut: list[Segment] = []
    position = 0
    for start, end in answer_ranges(text, control_spans):
        cut.append(_segment(text, control_spans, position, start, is_answer=False))
        cut.append(_segment(text, control_spans, start, end, is_answer=True))
        position = end
    return cut


def _segment(
    text: str, control_spans: Sequence[int], start: int, end: int, *, is_answer: bool
) -> Segment:
    pairs = zip(control_spans[::2], control_spans[1::2], strict=True)
    within = [pair for pair in pairs if start <= pair[0] and pair[1] <= end]
    spans = tuple(offset - start for pair in within for offset in pair)
    return Segment(text[start:end], spans, is_answer)


def token_samples(
    encoder: RecordEncoder, conversations: Sequence[Sequence[Segment]]
) -> list[TokenSample]:
    """Returns each conversation's ids; every segment is encoded by itself, as a prompt is served.

    Text becomes ids as it does for mid-training: control tokens only where the renderer wrote them.
    """
    flat = [segment for conversation in conversations for segment in conversation]
    texts = pa.array([segment.text for segment in flat], pa.large_string())
    spans = pa.array([segment.control_spans for segment in flat], pa.list_(pa.int64()))
    encoded = encoder.encode(texts, spans)
    ids_of = iter(np.split(encoded.ids_T, np.cumsum(encoded.num_tokens_D)[:-1]))
    samples = []
    for conversation in conversations:
        # The encoder ends every text as a document; a turn is no document.
        ids = [next(ids_of)[:-1].astype(np.int32) for _ in conversation]
        is_answer = [
            np.full(len(part), segment.is_answer)
            for part, segment in zip(ids, conversation, strict=True)
        ]
        samples.append(TokenSample(np.concatenate(ids), np.concatenate(is_answer)))
    return samples
