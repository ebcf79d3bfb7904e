"""Whether the files behind a blend are the ones that it was made of.

Each check returns the problems it finds; reading an index that is no index raises, as `read_index`
says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron.doctor.finding import ERROR
from mira_megatron.provenance.index_caches import check_caches
from mira_megatron.provenance.replay import SplitReplay
from mira_megatron.provenance.traced_records import read_rows
from mira_megatron.provenance.verify_report import Problem
from mira_megatron.retention.keep_masks import read_keep_mask, selection_digest
from mira_megatron.tokenization.handovers import marker_path
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    idx_path,
)
from mira_megatron.tokenization.token_dataset import TokenPrefix

_NUM_NAMED = 10  # record ids in a problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """What one split of an arm is to hold of a prefix, D documents."""

    split: str
    times_D: npt.NDArray[np.int64]
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One prefix of one split, as blend.json lists it."""

    arm: str
    split: str
    token_prefix: TokenPrefix
    path_prefix: Path  # what Megatron is given
    handover: str  # index_view | physical_copy | keep_mask_dataset
    listed: Mapping[str, Any]  # the entry itself

    def problem(self, what: str, expected: str) -> Problem:
        """Returns a problem of this entry."""
        name = self.token_prefix.name
        return Problem(arm=self.arm, split=self.split, name=name, what=what, expected=expected)

    def documents_problem(
        self, is_wrong_D: npt.NDArray[np.bool_], what: str, expected: str
    ) -> list[Problem]:
        """Returns a problem that names the documents, or none where there are none."""
        numbers = np.flatnonzero(is_wrong_D)
        if not len(numbers):
            return []
        problem = self.problem(what, expected)
        first = tuple(record_ids(self.token_prefix, numbers[:_NUM_NAMED]))
        return [replace(problem, num_documents=len(numbers), record_ids=first)]


def read_documents(prefix: TokenPrefix) -> pa.Table:
    """Returns num_tokens, is_validation and text_hash of a prefix's documents."""
    return pq.read_table(prefix.documents, columns=["num_tokens", "is_validation", "text_hash"])


def record_ids(prefix: TokenPrefix, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Returns the ids of these documents, whose numbers rise; those the table has."""
    ids: list[str] = read_rows([prefix.documents], numbers, ["record_id"])["record_id"].to_pylist()
    return ids


def held_out_selection(prefix: TokenPrefix, documents: pa.Table) -> Selected:
    """Returns what the validation split is to hold: every held-out document once."""
    is_held_out = documents["is_validation"].to_numpy()
    return Selected(
        split="valid",
        times_D=is_held_out.astype(np.int64),
        digest=selection_digest(prefix.idx_fingerprint, is_held_out),
    )


def kept_selection(path: Path) -> Selected:
    """Returns what the training split is to hold: every kept document as often as its repeats."""
    mask = read_keep_mask(path)
    times = mask.is_kept if mask.repeats_D is None else mask.repeats_D
    return Selected(
        split="train", times_D=times.astype(np.int64), digest=mask.info.selection_digest
    )


def check_token_prefix(
    prefix: TokenPrefix, index: SequenceIndex, fingerprint: str, documents: pa.Table
) -> list[tuple[str, str]]:
    """Returns (what, expected) where files are not those that `dataset.json` describes."""
    found: list[tuple[str, str]] = []
    if fingerprint != prefix.idx_fingerprint:
        found.append(
            (
                f"{idx_path(prefix.path_prefix)} has fingerprint {fingerprint}",
                f"{prefix.idx_fingerprint}, as dataset.json says: it was written anew",
            )
        )
    num_bytes = bin_path(prefix.path_prefix).stat().st_size
    if num_bytes != prefix.num_bytes:
        found.append(
            (
                f"{bin_path(prefix.path_prefix)} has {num_bytes:,} bytes",
                f"{prefix.num_bytes:,}, as dataset.json says",
            )
        )
    tokens_D = index.document_tokens()
    if len(tokens_D) != documents.num_rows or prefix.num_documents != documents.num_rows:
        found.append(
            (
                f"{prefix.documents} has {documents.num_rows:,} rows",
                f"one per document: {len(tokens_D):,} in the .idx, "
                f"{prefix.num_documents:,} in dataset.json",
            )
        )
    elif (different := documents["num_tokens"].to_numpy() != tokens_D).any():
        number = int(np.argmax(different))
        found.append(
            (
                f"{prefix.documents}: document {number:,} has another length than in the .idx",
                f"{tokens_D[number]:,} tokens, as in the .idx",
            )
        )
    return found


def check_selected(entry: Entry, selected: Selected, whole: SequenceIndex) -> list[Problem]:
    """Returns the problem of a selection that is not the one that blend.json counted.

    Raises ValueError where it selects among another number of documents than the dataset has.
    """
    if len(selected.times_D) != whole.num_documents:
        raise ValueError(
            f"{entry.split} selects among {len(selected.times_D):,} documents, but "
            f"{entry.token_prefix.path_prefix}.idx has {whole.num_documents:,}"
        )
    num_documents = int(selected.times_D.sum())
    num_tokens = int(selected.times_D @ whole.document_tokens())
    wanted = (entry.listed["num_documents"], entry.listed["num_tokens"])
    if (num_documents, num_tokens) == wanted:
        return []
    what = f"{num_documents:,} documents, {num_tokens:,} tokens are selected"
    return [entry.problem(what, f"{wanted[0]:,}, {wanted[1]:,}, as blend.json says")]


def check_cache_folder(folder: Path) -> tuple[list[Problem], list[str]]:
    """Returns problems and notes of the index caches that a trainer would find in a folder."""
    problems, notes = [], []
    for finding in check_caches(folder):
        if finding.level == ERROR:
            what = f"{finding.where}: {finding.what}"
            problems.append(
                Problem(arm="", split="", name="index cache", what=what, expected=finding.way_out)
            )
        else:
            notes.append(f"{finding.where}: {finding.what}")
    return problems, notes


def rebuilt_notes(arm: str, split: SplitReplay, cache_folder: Path | None) -> list[str]:
    """Returns a note where a folder lacks indices under the key of the training replayed here.

    Another trainer's stand under other keys, which name its tokenizer.
    """
    num_rebuilt = 0 if cache_folder is None else split.num_not_in(cache_folder)
    if not num_rebuilt:
        return []
    where = f"{arm} {split.name}".strip()
    return [
        f"{where}: no cache of this training's own key in {cache_folder}: {num_rebuilt:,} indices "
        "were rebuilt"
    ]


def check_entry(entry: Entry, selected: Selected, index: SequenceIndex) -> list[Problem]:
    """Returns the problems of what Megatron is given for a prefix; `index` is its index."""
    found = [entry.problem(*pair) for pair in _check_listed(entry, index)]
    match entry.handover:
        case "index_view":
            found += [entry.problem(*pair) for pair in _check_view(entry, selected, index)]
        case "physical_copy":
            num_bytes = bin_path(entry.path_prefix).stat().st_size
            wanted = index.num_tokens * index.dtype.itemsize
            if num_bytes != wanted:
                what = f"{bin_path(entry.path_prefix)} has {num_bytes:,} bytes"
                found.append(entry.problem(what, f"{wanted:,}, the tokens of its .idx"))
        case _:
            if not idx_path(entry.path_prefix).samefile(idx_path(entry.token_prefix.path_prefix)):
                expected = f"{entry.token_prefix.path_prefix}, the token dataset itself"
                found.append(entry.problem(f"Megatron is given {entry.path_prefix}", expected))
    return found


def entry_handover(handover: str, split: str) -> str:
    """Returns how a split is handed over: held-out documents are a view beside keep masks."""
    is_masked = handover == "keep_mask_dataset"
    return "index_view" if is_masked and split == "valid" else handover


def _check_listed(entry: Entry, index: SequenceIndex) -> list[tuple[str, str]]:
    if entry.handover == "keep_mask_dataset":
        return []  # the index is the whole dataset's, and Megatron refuses a mask of another one
    wanted = (entry.listed["num_documents"], entry.listed["num_tokens"])
    found = (index.num_documents, index.num_tokens)
    if found == wanted:
        return []
    return [
        (
            f"{idx_path(entry.path_prefix)} holds {found[0]:,} documents, {found[1]:,} tokens",
            f"{wanted[0]:,} documents, {wanted[1]:,} tokens, as blend.json says",
        )
    ]


def _check_view(entry: Entry, selected: Selected, index: SequenceIndex) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    link, original = bin_path(entry.path_prefix), bin_path(entry.token_prefix.path_prefix)
    if not link.samefile(original):
        found.append((f"{link} leads to {link.resolve()}", f"{original}, which the view is of"))
    marker = marker_path(entry.path_prefix)
    try:
        content = json.loads(marker.read_bytes())
    except FileNotFoundError:
        return [*found, (f"{marker} is missing", "the marker that keeps others from merging it")]
    except ValueError as error:
        return [*found, (f"{marker} is not JSON ({error})", "the view's marker")]
    wanted = {
        "selection_digest": selected.digest,
        "idx_fingerprint": entry.token_prefix.idx_fingerprint,
        "num_documents": index.num_documents,
        "num_tokens": index.num_tokens,
    }
    for name, value in wanted.items():
        if content.get(name) != value:
            found.append((f"{marker} has {name} {content.get(name)}", f"{value}"))
    return found
