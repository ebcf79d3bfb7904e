"""The documents an arm chooses from, with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.retention.documents import (
    read_documents,
    score_table,
    texts_of_arms,
    token_dataset,
)
from mira_megatron.stage import Workspace
from mira_megatron.tokenization.token_dataset import TokenPrefix


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceDocuments:
    """The documents of one source with their scores; D documents, one prefix after another."""

    source: str
    record_ids: pa.ChunkedArray  # more than one array's 2 GiB of them are possible
    tokens_D: npt.NDArray[np.int64]
    scores_D: npt.NDArray[np.float32]
    is_scored_D: npt.NDArray[np.bool_]
    is_trainable_D: npt.NDArray[
        np.bool_
    ]  # not held out, no copy of that, in none of the other arms
    num_held_out: int
    num_duplicates: int
    scores_fingerprint: str  # empty for a source without scores
    prefixes: tuple[TokenPrefix, ...] = ()
    num_in_other_arms: int = 0
    tokens_in_other_arms: int = 0

    @property
    def trainable_tokens(self) -> int:
        """Returns the tokens of what may be kept."""
        return int(self.tokens_D[self.is_trainable_D].sum())


def scored_documents(
    workspace: Workspace,
    *,
    score: str,
    scored: Sequence[str],
    unscored: Sequence[str],
    without: Sequence[str],
) -> list[SourceDocuments]:
    """Returns the documents of every source, sorted by name.

    Raises ValueError where scores and tokens of a source do not align.
    """
    tables = read_documents(workspace, sorted([*scored, *unscored]))
    taken = texts_of_arms(workspace, without, tables)
    return [
        _source_documents(workspace, source, table, score if source in scored else None, taken)
        for source, table in tables.items()
    ]


def _source_documents(
    workspace: Workspace,
    source: str,
    documents: pa.Table,
    score: str | None,
    texts_taken: pa.ChunkedArray,
) -> SourceDocuments:
    scores, fingerprint = _scores(workspace, source, documents, score)
    is_held_out = documents["is_validation"].to_numpy()
    repeats_held_out = documents["repeats_held_out"].to_numpy()
    is_taken = pc.is_in(documents["text_hash"], texts_taken).to_numpy() & ~repeats_held_out
    tokens = documents["num_tokens"].to_numpy()
    return SourceDocuments(
        source=source,
        record_ids=documents["record_id"],
        tokens_D=tokens,
        scores_D=pc.fill_null(scores, 0.0).to_numpy(),
        is_scored_D=pc.is_valid(scores).to_numpy(),
        is_trainable_D=~repeats_held_out & ~is_taken,
        num_held_out=int(is_held_out.sum()),
        num_duplicates=int((repeats_held_out & ~is_held_out).sum()),
        scores_fingerprint=fingerprint,
        prefixes=token_dataset(workspace, source).prefixes,
        num_in_other_arms=int(is_taken.sum()),
        tokens_in_other_arms=int(tokens[is_taken].sum()),
    )


def _scores(
    workspace: Workspace, source: str, documents: pa.Table, score: str | None
) -> tuple[pa.ChunkedArray, str]:
    """Returns the scores of a source's documents, all null where it has none, and their digest."""
    if score is None:
        return pa.chunked_array([pa.nulls(documents.num_rows, pa.float32())]), ""
    table = score_table(workspace, score, source, documents, ["score"])
    folder = layout.record_scores(score, source)
    return table["score"], workspace.upstream_manifest(folder).output_digest
