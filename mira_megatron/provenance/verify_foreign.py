"""Say how often a blend of any prefixes shows what, and whether their files are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.provenance.counted_documents import (
    counted_documents,
    missing_samples,
    prefix_report,
    unread_tokens,
)
from mira_megatron.provenance.coverage import Coverage
from mira_megatron.provenance.replay import DataRequest, SplitReplay, replaying
from mira_megatron.provenance.verify_files import check_cache_folder, rebuilt_notes
from mira_megatron.provenance.verify_report import (
    PrefixReport,
    Problem,
    TailDocument,
    VerifyReport,
    repetition_notes,
)
from mira_megatron.tokenization.index_file import read_index


def verify_foreign(request: DataRequest, *, cache_folder: Path | None = None) -> VerifyReport:
    """Returns what a training sees of prefixes that no selection of ours stands behind.

    Nothing says what ought to be selected: problems are files that cannot be read, samples that do
    not exist, and documents that are validated on although they are trained on. Documents are named
    by number.
    """
    unreadable = _unreadable(request)
    problems, notes = ([], []) if cache_folder is None else check_cache_folder(cache_folder)
    problems += unreadable
    reports: list[PrefixReport] = []
    if not unreadable:
        try:
            with replaying(request, cache_folder) as splits:
                trained: dict[str, npt.NDArray[np.bool_]] = {}
                for split in splits.values():
                    problems += missing_samples("", split)
                    notes += rebuilt_notes("", split, cache_folder)
                    for prefix, coverage in zip(split.prefixes, split.coverages(), strict=True):
                        report, is_listed_D = _prefix_report(split, prefix, coverage)
                        reports.append(report)
                        if split.name == "train":
                            trained[prefix] = is_listed_D
                        elif prefix in trained:
                            problems += _shared(split, prefix, trained[prefix] & is_listed_D)
        except (ValueError, AssertionError, IndexError) as error:
            what = f"cannot be replayed: {error}"
            problems.append(_problem("", "", what, "a blend that it reads"))
    notes += repetition_notes(reports)
    return VerifyReport(
        arms=(), problems=tuple(problems), prefixes=tuple(reports), notes=tuple(notes)
    )


def _unreadable(request: DataRequest) -> list[Problem]:
    problems = []
    blends = [blend for blend in request.blends if blend is not None]
    for prefix in dict.fromkeys(prefix for blend in blends for prefix in blend.prefixes):
        try:
            read_index(Path(prefix))
        except (ValueError, OSError) as error:
            problems.append(_problem("", prefix, str(error), "an index and its .bin"))
    return problems


def _prefix_report(
    split: SplitReplay, prefix: str, coverage: Coverage
) -> tuple[PrefixReport, npt.NDArray[np.bool_]]:
    index = read_index(Path(prefix))
    counted = counted_documents(coverage, np.arange(len(index.lengths_S)), index)
    times_D = counted.most_listed_D // coverage.num_epochs
    unread_D = unread_tokens(times_D, counted, coverage)
    report = prefix_report(
        times_D,
        counted,
        coverage,
        arm="",
        split=split.name,
        name=Path(prefix).name,
        path_prefix=Path(prefix),
        tail=tuple(
            TailDocument(record_id=f"document {number}", num_tokens_unseen=int(unread_D[number]))
            for number in np.flatnonzero(unread_D).tolist()
        ),
    )
    return report, times_D > 0


def _shared(split: SplitReplay, prefix: str, is_shared_D: npt.NDArray[np.bool_]) -> list[Problem]:
    if not is_shared_D.any():
        return []
    what = f"{int(is_shared_D.sum()):,} documents are trained on as well"
    return [_problem(split.name, prefix, what, "none")]


def _problem(split: str, prefix: str, what: str, expected: str) -> Problem:
    return Problem(arm="", split=split, name=prefix, what=what, expected=expected)
