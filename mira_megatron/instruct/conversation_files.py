"""Instructions from jsonl files, as every arm's tuning reads them: on a cluster, and here.

A line holds either
    {"messages": [{"role": …, "content": …}, …]}   roles system, user, assistant, tool
    {"input": text, "output": text}
and lines of both forms may be in one file, plain, .gz or .zst. They are rendered as records are, in
ChatML (corpus/renderers.py), so a text that is also a record of a source is the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import xxhash

from mira_megatron.corpus.readers import BadRow, Row, read_rows
from mira_megatron.corpus.renderers import ControlToken
from mira_megatron.corpus.sources import SourceConfig, SourceFile

_ASSISTANT = "assistant\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A conversation as it was read."""

    record_id: str
    source: str
    text: str
    control_spans: tuple[int, ...]
    is_degraded: bool = False  # a copy of a record, spoiled on purpose

    @property
    def text_hash(self) -> bytes:
        """Returns the hash by which tokenize knows held-out texts."""
        return xxhash.xxh3_128_digest(self.text.encode())


def file_conversations(file: SourceFile) -> Iterator[Told]:
    """Yields a file's conversations; ValueError with file and line for one that is none."""
    for row in _rows(file):
        if isinstance(row, BadRow):
            line = row.origin.rpartition(":")[2]
            raise ValueError(
                f"{file.path}:{line}: {row.reason} ({row.detail}). Expected messages with role and "
                "content, or input and output. Correct or remove the line."
            )
        yield Told(
            record_id=row.origin,
            source=file.path.name,
            text=row.text,
            control_spans=row.control_spans,
        )


def answer_ranges(text: str, control_spans: Sequence[int]) -> list[tuple[int, int]]:
    """Returns start and end of every answer in a rendered record, in characters, ascending.

    An answer is what the assistant wrote in a turn, and the token that ends it; one that says
    nothing, or comes before everything else, is none. Only control tokens that the renderer wrote
    count: the same characters inside a record open and end nothing.
    """
    ranges = []
    opened = None
    for start, end in zip(control_spans[::2], control_spans[1::2], strict=True):
        match text[start:end]:
            case ControlToken.IM_START:
                is_answer = start > 0 and text.startswith(_ASSISTANT, end)
                opened = end + len(_ASSISTANT) if is_answer else None
            case ControlToken.IM_END if opened is not None:
                if text[opened:start].strip():
                    ranges.append((opened, end))
                opened = None
    return ranges


def _rows(file: SourceFile) -> Iterator[Row | BadRow]:
    """Yields each line as messages, or as a pair where it has no messages."""
    messages = SourceConfig(
        format="jsonl", family="agent", paths=[file.name], fields={"messages": "messages"}
    )
    fields = {"question": "input", "answer": "output"}
    pair = SourceConfig(format="jsonl", family="qa", paths=[file.name], fields=fields)
    both = zip(read_rows(messages, [file]), read_rows(pair, [file]), strict=True)
    for as_messages, as_pair in both:
        is_without = isinstance(as_messages, BadRow) and (
            as_messages.detail == "messages is absent or null"
        )
        yield as_pair if is_without else as_messages
