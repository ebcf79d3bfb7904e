"""How often training reads each document of a prefix, beside how often it was selected.

Shape letters: S sequences of the dataset, V of the hand-over, D documents of the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.provenance.coverage import Coverage
from mira_megatron.provenance.listed_documents import (
    add_up,
    least_per_document,
    most_per_document,
)
from mira_megatron.provenance.replay import SplitReplay
from mira_megatron.provenance.verify_files import Entry, Selected
from mira_megatron.provenance.verify_report import (
    PrefixReport,
    Problem,
    TailDocument,
    TimesSeen,
)
from mira_megatron.tokenization.index_file import SequenceIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How often each of D documents of a prefix is listed and read."""

    least_listed_D: npt.NDArray[np.int64]  # over its sequences: all are listed together
    most_listed_D: npt.NDArray[np.int64]
    times_seen_D: npt.NDArray[np.int64]  # from end to end
    tokens_seen_D: npt.NDArray[np.int64]
    tokens_D: npt.NDArray[np.int64]
    num_unknown: int  # sequences that are none of the prefix's


def counted_documents(
    coverage: Coverage, sequence_V: npt.NDArray[np.int64], whole: SequenceIndex
) -> Counted:
    """Returns a prefix's coverage per document; `sequence_V` as `listed_documents` gives it."""
    num_sequences = len(whole.lengths_S)
    listed_S = add_up(coverage.times_exposed_S, sequence_V, num_sequences)
    seen_S = add_up(coverage.times_seen_S, sequence_V, num_sequences)
    tokens_S = add_up(coverage.tokens_seen_S, sequence_V, num_sequences)
    ends = np.concatenate([[0], np.cumsum(tokens_S)])
    return Counted(
        least_listed_D=least_per_document(listed_S, whole),
        most_listed_D=most_per_document(listed_S, whole),
        times_seen_D=least_per_document(seen_S, whole),
        tokens_seen_D=np.diff(ends[whole.document_indices_D]),
        tokens_D=whole.document_tokens(),
        num_unknown=int((sequence_V == -1).sum()),
    )


def check_times(
    entry: Entry, selected: Selected, counted: Counted, num_epochs: int
) -> list[Problem]:
    """Returns the problems of documents that are not listed as often as selected, per epoch."""
    found = []
    if counted.num_unknown:
        what = f"{counted.num_unknown:,} sequences are none of the dataset's"
        found.append(entry.problem(what, "sequences of the dataset alone"))
    wanted_D = selected.times_D * num_epochs
    is_wrong_D = (counted.tokens_D > 0) & (
        (counted.least_listed_D != wanted_D) | (counted.most_listed_D != wanted_D)
    )
    is_selected_D = selected.times_D > 0
    unselected = "dropped" if entry.split == "train" else "not held out, but validated on"
    return [
        *found,
        *entry.documents_problem(
            is_wrong_D & ~is_selected_D, f"{unselected}: listed nevertheless", "not listed"
        ),
        *entry.documents_problem(
            is_wrong_D & is_selected_D,
            "listed more or less often than selected",
            f"as often as selected, in each of {num_epochs:,} epochs",
        ),
    ]


def missing_samples(arm: str, split: SplitReplay) -> list[Problem]:
    """Returns the problems of prefixes without a sample, and of a training that asks for more."""
    empty = [
        Problem(
            arm=arm,
            split=split.name,
            name=Path(prefix).name,
            what="has not one sample",
            expected=f"more than {dataset.config.sequence_length:,} tokens",
        )
        for prefix, dataset in zip(split.prefixes, split.datasets, strict=True)
        if not len(dataset)
    ]
    if not split.num_missing:
        return empty
    asked = split.num_drawn + split.num_missing
    what = f"training asks for {asked:,} samples and would stop after {split.num_drawn:,}"
    expected = f"at most {split.num_drawn:,} (train_iters * global_batch_size), or weights"
    return [*empty, Problem(arm=arm, split=split.name, name="", what=what, expected=expected)]


def unread_tokens(
    times_D: npt.NDArray[np.int64], counted: Counted, coverage: Coverage
) -> npt.NDArray[np.int64]:
    """Returns the tokens of each document that a whole single pass leaves out, shape (D,).

    0 throughout where training draws less or more than that.
    """
    if coverage.num_epochs > 1 or coverage.num_drawn < coverage.num_samples:
        return np.zeros(len(times_D), dtype=np.int64)
    unread: npt.NDArray[np.int64] = np.maximum(
        counted.tokens_D * times_D - counted.tokens_seen_D, 0
    )
    return unread


def prefix_report(
    times_D: npt.NDArray[np.int64],
    counted: Counted,
    coverage: Coverage,
    *,
    arm: str,
    split: str,
    name: str,
    path_prefix: Path,
    tail: tuple[TailDocument, ...],
) -> PrefixReport:
    """Returns what is read of a prefix of which `times_D` was selected."""
    is_counted_D = (times_D > 0) & (counted.tokens_D > 0)
    tokens = counted.tokens_D[is_counted_D]
    levels, level_of = np.unique(counted.times_seen_D[is_counted_D], return_inverse=True)
    return PrefixReport(
        arm=arm,
        split=split,
        name=name,
        path_prefix=str(path_prefix),
        num_documents=int(is_counted_D.sum()),
        num_tokens=int(tokens.sum()),
        num_samples=coverage.num_samples,
        num_drawn=coverage.num_drawn,
        num_epochs=coverage.num_epochs,
        num_tokens_read=coverage.num_tokens_seen,
        times_seen=tuple(
            TimesSeen(
                times=int(times),
                num_documents=int((level_of == level).sum()),
                num_tokens=int(tokens[level_of == level].sum()),
            )
            for level, times in enumerate(levels)
        ),
        num_unseen=int((is_counted_D & (counted.tokens_seen_D == 0)).sum()),
        num_repeated=int((is_counted_D & (counted.times_seen_D > times_D)).sum()),
        tail=tail,
    )
