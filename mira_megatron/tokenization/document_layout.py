"""How documents are put together: pieces of plain text, and the ids of control tokens between them.

Shape letters: D documents, I inserted ids, T token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mira_megatron.tokenization.plain_encoders import TokenLists


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLayout:
    """Pieces of plain text in order, and the ids that are put in between and after them."""

    pieces: pa.LargeStringArray
    value_I: npt.NDArray[np.int64]
    after_I: npt.NDArray[np.int64]  # how many pieces come before each
    eod_D: npt.NDArray[np.int64]  # which of the inserted ids is the EOD of each document

    def document_of(self, piece: int) -> int:
        """Returns which document a piece belongs to."""
        pieces_before_end_D = self.after_I[self.eod_D]
        return int(np.searchsorted(pieces_before_end_D, piece, side="right"))


def texts_alone(texts: pa.LargeStringArray, eod_id: int) -> DocumentLayout:
    """Returns the layout of documents that are one text and an EOD each."""
    documents = np.arange(len(texts), dtype=np.int64)
    eods = np.full(len(texts), eod_id, np.int64)
    return DocumentLayout(pieces=texts, value_I=eods, after_I=documents + 1, eod_D=documents)


def pieces_and_ids(documents: Sequence[Sequence[str | int]], eod_id: int) -> DocumentLayout:
    """Returns the layout of documents given as pieces of text and ids; an EOD ends each."""
    pieces: list[str] = []
    values: list[int] = []
    after: list[int] = []
    eods: list[int] = []
    for document in documents:
        for piece in document:
            if isinstance(piece, str):
                pieces.append(piece)
            else:
                values.append(piece)
                after.append(len(pieces))
        eods.append(len(values))
        values.append(eod_id)
        after.append(len(pieces))
    return DocumentLayout(
        pieces=pa.array(pieces, pa.large_string()),
        value_I=np.array(values, np.int64),
        after_I=np.array(after, np.int64),
        eod_D=np.array(eods, np.int64),
    )


def assembled(
    layout: DocumentLayout, encoded: TokenLists, dtype: np.dtype[np.number]
) -> tuple[npt.NDArray[np.number], npt.NDArray[np.int64]]:
    """Returns the ids of all documents one after another, shape (T,), and tokens per document (D,).

    `encoded` holds the ids of the layout's pieces.
    """
    starts = np.concatenate([[0], encoded.ends_D])
    at_I = starts[layout.after_I] + np.arange(len(layout.after_I))
    ids_T: npt.NDArray[np.number] = np.empty(len(encoded.ids_T) + len(at_I), dtype)
    is_plain_T = np.ones(len(ids_T), bool)
    is_plain_T[at_I] = False
    ids_T[at_I] = layout.value_I
    ids_T[is_plain_T] = encoded.ids_T
    return ids_T, np.diff(at_I[layout.eod_D] + 1, prepend=0)
