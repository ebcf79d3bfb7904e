"""The held-out documents of a source: their tokens as Megatron has them, and the bytes of a text.

Shape letters: S sequences of a prefix, D documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.manifest import verify_digests
from mira_megatron.retention.documents import documents_table, token_dataset
from mira_megatron.shards import read_part
from mira_megatron.stage import Workspace
from mira_megatron.tokenization.index_file import SequenceIndex, bin_path, read_index
from mira_megatron.tokenization.token_dataset import TokenPrefix, check_unchanged
from mira_megatron.tokenization.tokenizer import whole_text_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutDocument:
    """One document that no arm is trained on."""

    source: str
    record_id: str
    ids: tuple[int, ...]  # of the .bin, EOD included
    num_bytes: int  # of its text in UTF-8


def held_out_documents(
    workspace: Workspace, source: str, *, is_adopted: bool
) -> list[HeldOutDocument]:
    """Returns a source's held-out documents in document order.

    An adopted source has no texts: its bytes are those that its tokens spell. Raises ValueError
    where a part has changed, or the records are not those of the documents.
    """
    folder = layout.tokens(source)
    # Read as they are, and any bytes are tokens.
    verify_digests(workspace.run.folder / folder, workspace.upstream_manifest(folder))
    table = documents_table(workspace, source, ["record_id", "is_validation"])
    is_held_out_D = table["is_validation"].to_numpy()
    record_ids = table["record_id"].filter(table["is_validation"])
    ids: list[tuple[int, ...]] = []
    start = 0
    for prefix in token_dataset(workspace, source).prefixes:
        own = is_held_out_D[start : start + prefix.num_documents]
        ids += _document_ids(prefix, np.flatnonzero(own).tolist())
        start += prefix.num_documents
    if is_adopted:
        num_bytes = _spelled_bytes(workspace, ids)
    else:
        num_bytes = _text_bytes(workspace, source, record_ids)
    return [
        HeldOutDocument(source=source, record_id=record_id, ids=tokens, num_bytes=size)
        for record_id, tokens, size in zip(record_ids.to_pylist(), ids, num_bytes, strict=True)
    ]


def _document_ids(prefix: TokenPrefix, documents: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields the tokens of some documents; one of several sequences is these after each other."""
    if not documents:
        return
    check_unchanged(prefix)
    index = read_index(prefix.path_prefix)
    tokens = np.memmap(bin_path(prefix.path_prefix), dtype=index.dtype, mode="r")
    for document in documents:
        first, end = index.document_indices_D[document : document + 2].tolist()
        yield tuple(
            token for number in range(first, end) for token in _sequence(tokens, index, number)
        )


def _sequence(
    tokens: np.memmap[tuple[int], np.dtype[np.number]], index: SequenceIndex, number: int
) -> list[int]:
    start = int(index.pointers_S[number]) // index.dtype.itemsize
    ids: list[int] = tokens[start : start + int(index.lengths_S[number])].tolist()
    return ids


def _text_bytes(workspace: Workspace, source: str, record_ids: pa.ChunkedArray) -> list[int]:
    """Returns the bytes of the texts of records, in their order."""
    found: dict[str, int] = {}
    folder = layout.records(source)
    for path, part in workspace.upstream_parts(folder, ".parquet"):
        table = read_part(path, part.digest, ["record_id", "text"])
        held_out = table.filter(pc.is_in(table["record_id"], record_ids))
        sizes = pc.binary_length(held_out["text"].cast(pa.large_binary()))
        found.update(zip(held_out["record_id"].to_pylist(), sizes.to_pylist(), strict=True))
    missing = [each for each in record_ids.to_pylist() if each not in found]
    if missing:
        raise ValueError(
            f"{workspace.run.folder / folder}: {len(missing):,} of the documents that "
            f"{layout.tokens(source)} holds out are no records of it, such as {missing[0]!r}. "
            "Run all stages with `mira run`: they are to be tokenised again."
        )
    return [found[each] for each in record_ids.to_pylist()]


def _spelled_bytes(workspace: Workspace, documents: Sequence[tuple[int, ...]]) -> list[int]:
    """Returns the bytes of what tokens spell, without the one that ends a document."""
    path = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    texts = whole_text_tokenizer(path).decode_batch(
        [list(ids[:-1]) for ids in documents], skip_special_tokens=False
    )
    return [len(text.encode()) for text in texts]
