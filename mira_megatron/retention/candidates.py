"""The documents an arm chooses from, with their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.retention.decisions import FIRST_DENIED, Decision
from mira_megatron.retention.documents import (
    SharedTables,
    read_documents,
    score_table,
    texts_of_arms,
    token_dataset,
)
from mira_megatron.retention.outside_masks import OutsideMask, denials
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
    # Decision.KEPT where a document may be kept; else why not, before anything is ranked.
    barred_D: npt.NDArray[np.uint8]
    scores_fingerprint: str  # empty for a source without scores
    prefixes: tuple[TokenPrefix, ...] = ()
    # Of the documents in another arm, those that a mask of this one denies besides.
    tokens_denied_in_another_arm: int = 0

    @property
    def is_trainable_D(self) -> npt.NDArray[np.bool_]:
        """Returns which documents may be kept."""
        is_trainable_D: npt.NDArray[np.bool_] = self.barred_D == Decision.KEPT
        return is_trainable_D

    @property
    def trainable_tokens(self) -> int:
        """Returns the tokens of what may be kept."""
        return self.tokens_barred(Decision.KEPT)

    def num_barred(self, decision: int) -> int:
        """Returns the documents that are barred for one reason."""
        return int(np.count_nonzero(self.barred_D == decision))

    def tokens_barred(self, decision: int) -> int:
        """Returns the tokens of the documents that are barred for one reason."""
        return int(np.dot(self.tokens_D, self.barred_D == decision))


def scored_documents(
    workspace: Workspace,
    *,
    score: str,
    scored: Sequence[str],
    unscored: Sequence[str],
    left_out: Sequence[str] = (),
    without: Sequence[str] = (),
    masks: Sequence[OutsideMask] = (),
    shared: SharedTables | None = None,
) -> list[SourceDocuments]:
    """Returns the documents of every source, sorted by name; of those `left_out` none may be kept.

    Raises ValueError where scores and tokens of a source do not align, or a mask made elsewhere
    does not fit.
    """
    shared = shared or SharedTables()
    sources = sorted([*scored, *unscored, *left_out])
    digests = tuple(
        workspace.upstream_manifest(layout.tokens(source)).output_digest for source in sources
    )
    tables = shared.once(
        ("documents", workspace.run.folder, tuple(sources), digests),
        lambda: read_documents(workspace, sources),
    )
    taken = texts_of_arms(workspace, without, tables)
    prefixes = {source: token_dataset(workspace, source).prefixes for source in sources}
    denied = denials(masks, tables, prefixes, left_out)
    found = []
    for source, table in tables.items():
        scores, fingerprint = _scores(
            workspace, source, table, score if source in scored else None, shared
        )
        is_denied = denied.get(source, [])
        barred_D = _barred(table, taken, is_denied, is_left_out=source in left_out)
        tokens_D = table["num_tokens"].to_numpy()
        found.append(
            SourceDocuments(
                source=source,
                record_ids=table["record_id"],
                tokens_D=tokens_D,
                scores_D=pc.fill_null(scores, 0.0).to_numpy(),
                is_scored_D=pc.is_valid(scores).to_numpy(),
                barred_D=barred_D,
                scores_fingerprint=fingerprint,
                prefixes=prefixes[source],
                tokens_denied_in_another_arm=_tokens_denied(tokens_D, barred_D, is_denied),
            )
        )
    return found


def _barred(
    documents: pa.Table,
    texts_taken: pa.ChunkedArray,
    is_denied: Sequence[npt.NDArray[np.bool_]],
    *,
    is_left_out: bool,
) -> npt.NDArray[np.uint8]:
    """Returns the first reason why a document is no candidate; what is written last counts."""
    barred_D = np.zeros(documents.num_rows, dtype=np.uint8)
    for number, is_denied_D in reversed(list(enumerate(is_denied))):
        barred_D[is_denied_D] = FIRST_DENIED + number
    if len(texts_taken):
        is_taken_D = pc.is_in(documents["text_hash"], texts_taken).to_numpy()
        barred_D[is_taken_D] = Decision.IN_ANOTHER_ARM
    if is_left_out:
        barred_D[:] = Decision.SOURCE_NOT_TRAINED_ON
    barred_D[documents["repeats_held_out"].to_numpy()] = Decision.DUPLICATE_OF_HELD_OUT
    barred_D[documents["is_validation"].to_numpy()] = Decision.HELD_OUT
    return barred_D


def _tokens_denied(
    tokens_D: npt.NDArray[np.int64],
    barred_D: npt.NDArray[np.uint8],
    is_denied: Sequence[npt.NDArray[np.bool_]],
) -> int:
    """Returns the tokens that masks deny of what is in another arm."""
    if not is_denied:
        return 0
    is_denied_D = np.logical_or.reduce(is_denied) & (barred_D == Decision.IN_ANOTHER_ARM)
    return int(np.dot(tokens_D, is_denied_D))


def _scores(
    workspace: Workspace,
    source: str,
    documents: pa.Table,
    score: str | None,
    shared: SharedTables,
) -> tuple[pa.ChunkedArray, str]:
    """Returns the scores of a source's documents, all null where it has none, and their digest."""
    if score is None:
        return pa.chunked_array([pa.nulls(documents.num_rows, pa.float32())]), ""
    digest = workspace.upstream_manifest(layout.record_scores(score, source)).output_digest
    tokens = workspace.upstream_manifest(layout.tokens(source)).output_digest
    scores = shared.once(
        ("scores", workspace.run.folder, score, source, (digest, tokens)),
        lambda: score_table(workspace, score, source, documents, ["score"])["score"],
    )
    return scores, digest
