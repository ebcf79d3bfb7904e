"""Which documents of a token dataset the sequences of a training prefix are.

Index view           sequences begin at the same bytes of the same .bin: joined by byte offset
Physical copy        the kept documents in their order, checked by their lengths
Keep-mask dataset    the token dataset itself

Shape letters: S sequences of the training prefix, N asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.provenance.listed_documents import viewed_sequences
from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask
from mira_megatron.tokenization.handovers import checked_index, selected_sequences
from mira_megatron.tokenization.index_file import SequenceIndex, bin_path, idx_path, read_index
from mira_megatron.tokenization.token_dataset import TokenPrefix


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceOrigins:
    """The sequences of a training prefix, and the token dataset's sequences that they are."""

    token_prefix: TokenPrefix
    lengths_S: npt.NDArray[np.int32]  # tokens, as Megatron reads them
    origins_S: npt.NDArray[np.int64]  # sequences of `original`; a view's empty ones: negative
    original: SequenceIndex  # of the token dataset

    def documents(self, origins_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the document that each sequence of the token dataset belongs to."""
        boundaries = self.original.document_indices_D
        # Of documents without a sequence and the one after them, the last begins at it.
        return np.searchsorted(boundaries, origins_N, side="right") - 1

    def offset_in_document(self, origin: int, document: int) -> int:
        """Returns how many tokens of the document lie before a sequence of it."""
        first = int(self.original.document_indices_D[document])
        return int(self.original.lengths_S[first:origin].sum(dtype=np.int64))

    def sequences_of(self, document: int) -> npt.NDArray[np.int64]:
        """Returns the training prefix's sequences that hold tokens of a document."""
        first, end = self.original.document_indices_D[document : document + 2]
        is_of_document_S = (self.origins_S >= first) & (self.origins_S < end)
        return np.flatnonzero(is_of_document_S & (self.lengths_S > 0))


def sequence_origins(
    path_prefix: Path, token_prefix: TokenPrefix, *, handover: str, mask_path: Path
) -> SequenceOrigins:
    """Returns where the sequences of a training prefix come from.

    Raises ValueError where the two prefixes do not belong together.
    """
    match handover:
        case "keep_mask_dataset":
            original = checked_index(token_prefix.path_prefix, read_keep_mask(mask_path))
            index = original
            origins_S = np.arange(len(original.lengths_S), dtype=np.int64)
        case "index_view":
            original = read_index(token_prefix.path_prefix)
            index = read_index(path_prefix)
            origins_S = _view_origins(path_prefix, index, token_prefix, original)
        case _:
            mask = read_keep_mask(mask_path)
            original = checked_index(token_prefix.path_prefix, mask)
            index = read_index(path_prefix)
            origins_S = _copy_origins(path_prefix, index, original, mask)
    return SequenceOrigins(
        token_prefix=token_prefix,
        lengths_S=index.lengths_S,
        origins_S=origins_S,
        original=original,
    )


def _view_origins(
    path_prefix: Path, view: SequenceIndex, token_prefix: TokenPrefix, original: SequenceIndex
) -> npt.NDArray[np.int64]:
    target = bin_path(token_prefix.path_prefix)
    if not bin_path(path_prefix).samefile(target):
        raise ValueError(
            f"{bin_path(path_prefix)} is {bin_path(path_prefix).resolve()}, expected {target}: the "
            "view belongs to another token dataset. Make the blend anew."
        )
    try:
        origins_S = viewed_sequences(view, original)
    except ValueError as error:
        raise ValueError(
            f"{idx_path(token_prefix.path_prefix)}: {error}. Copy the dataset first, with `mira "
            "tokens materialise`."
        ) from error
    if (origins_S[view.lengths_S > 0] < 0).any():
        raise ValueError(
            f"{idx_path(path_prefix)}: lists bytes that are no sequence of "
            f"{idx_path(token_prefix.path_prefix)}. Make the blend anew."
        )
    return origins_S


def _copy_origins(
    path_prefix: Path, copy: SequenceIndex, original: SequenceIndex, mask: KeepMask
) -> npt.NDArray[np.int64]:
    origins_S = selected_sequences(original, mask.is_kept, mask.repeats_D)
    if not np.array_equal(original.lengths_S[origins_S], copy.lengths_S):
        raise ValueError(
            f"{idx_path(path_prefix)}: its {len(copy.lengths_S):,} sequences are not as long as "
            f"the {len(origins_S):,} that {mask.path} keeps. Make the blend anew."
        )
    return origins_S
