"""Degraded copies of a source's rows: which rows get one, and what it is as a row.

    degraded_copies: 1.0     mean number of copies per record, at most one in each way
    degradations: [truncated, shuffled, duplicated, machine_made]

A copy's `meta` says what it is: {"degraded": way, "derived_from": 32 hex digits}, the latter
xxh3-128 of its parent's text, by which held-out documents are known. Nothing else tells: ids are
hashes of content, and meta is shown to no judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import xxhash

from mira_megatron.corpus.degradation import PARTS_BY_FAMILY, WAYS, Draws, degraded_text
from mira_megatron.corpus.degraded_messages import degraded_messages
from mira_megatron.corpus.readers import Row
from mira_megatron.corpus.renderers import Payload, render
from mira_megatron.corpus.sources import DEGRADED, DERIVED_FROM, SourceConfig
from mira_megatron.shards import canonical_json

_HASHES = 1 << 64


def degraded_copies(config: SourceConfig, row: Row) -> Iterator[Row | None]:
    """Yields the copies of a row that its text's hash asks for; None for one that would be equal.

    Neither order of rows nor number of workers decides, and a way's choices are independent of the
    other ways'.
    """
    if not config.degraded_copies:
        return
    share = config.degraded_copies / len(config.degradations)
    parent = parent_hash(row.text)
    for way in WAYS:
        if way in config.degradations and _is_chosen(parent, way, share):
            yield _copy(config.family, row, way, parent)


def degraded_payload(
    family: str, payload: Mapping[str, Any], way: str, draws: Draws
) -> Payload | None:
    """Returns a payload spoiled in one way; None where there is too little to spoil."""
    if family == "agent":
        messages = degraded_messages(payload["messages"], way, draws)
        return None if messages is None else {**payload, "messages": messages}
    for part in draws.order(PARTS_BY_FAMILY[family]):
        text = degraded_text(payload[part], way, draws)
        if text is not None and text != payload[part]:
            return {**payload, part: text}
    return None


def parent_hash(text: str) -> str:
    """Returns by which hash copies of a record of this text name it."""
    return xxhash.xxh3_128_hexdigest(text.encode())


def way_and_parent(meta: str | None) -> tuple[str, str] | None:
    """Returns way and `derived_from` of a copy by its meta; None for a record that is none.

    Only of records of a source with degraded copies: elsewhere these keys may be a stranger's.
    """
    content = None if meta is None else orjson.loads(meta)
    if content is None or DERIVED_FROM not in content:
        return None
    return content[DEGRADED], content[DERIVED_FROM]


def _is_chosen(parent: str, way: str, share: float) -> bool:
    return xxhash.xxh3_64_intdigest(f"degraded:{way}:{parent}".encode()) < share * _HASHES


def _copy(family: str, row: Row, way: str, parent: str) -> Row | None:
    payload = {"text": row.text} if row.payload is None else orjson.loads(row.payload)
    spoiled = degraded_payload(family, payload, way, Draws(f"{way}:{parent}"))
    if spoiled is None:
        return None
    rendered = render(family, spoiled)
    if rendered.text == row.text:
        return None
    meta = {} if row.meta is None else orjson.loads(row.meta)
    return Row(
        origin=row.origin,
        text=rendered.text,
        payload=None if row.payload is None else canonical_json(spoiled).decode(),
        meta=canonical_json({**meta, DEGRADED: way, DERIVED_FROM: parent}).decode(),
        control_spans=rendered.control_spans,
    )
