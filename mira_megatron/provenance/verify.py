"""Prove which documents training sees, how often, and that it sees no others.

What is proven comes from Megatron's own index building, replayed, and from where the tokens of each
sequence lie in the `.bin`; keep masks and documents tables only say what ought to come out.

Memory grows with the largest prefix: about 200 bytes per document of it, Megatron's own building
included (158 to 201 measured at 1 to 4 million documents), and 16 bytes per document trained on
over all arms given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mira_megatron import layout
from mira_megatron.provenance.counted_documents import (
    Counted,
    check_times,
    counted_documents,
    missing_samples,
    prefix_report,
    unread_tokens,
)
from mira_megatron.provenance.coverage import Coverage
from mira_megatron.provenance.listed_documents import copied_sequences, viewed_sequences
from mira_megatron.provenance.replay import blend_request, replaying
from mira_megatron.provenance.verify_blend import (
    check_lists,
    check_numbers,
    read_whole_blend,
    samples_of,
)
from mira_megatron.provenance.verify_files import (
    Entry,
    Selected,
    check_cache_folder,
    check_entry,
    check_selected,
    check_token_prefix,
    entry_handover,
    held_out_selection,
    kept_selection,
    read_documents,
    rebuilt_notes,
    record_ids,
)
from mira_megatron.provenance.verify_manifests import check_tokens, check_unit, is_adopted
from mira_megatron.provenance.verify_report import (
    PrefixReport,
    Problem,
    TailDocument,
    VerifyReport,
    repetition_notes,
)
from mira_megatron.tokenization.degraded_documents import copies_beside, is_text_of
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    read_index,
    read_index_with_fingerprint,
)
from mira_megatron.tokenization.token_dataset import TokenPrefix, read_token_dataset

_TEXTS = pa.binary(16)


def verify(
    run_folder: Path,
    arms: Sequence[str],
    *,
    seed: int,
    sources: Sequence[str] | None = None,
    num_samples: int | None = None,
    cache_folder: Path | None = None,
    full: bool = False,
) -> VerifyReport:
    """Returns what training on each arm sees; several arms are phases that share no document.

    `seed` is the trainer's, `num_samples` its train_iters * global_batch_size (None: one pass, or
    what a weighted blend.json names), `sources` all whose held-out texts count (None: the blend's),
    `cache_folder` the trainer's index cache, read and never written. `full` reads every `.bin` of
    the token datasets and compares it with its digest; without it only sizes are compared.
    Raises FileNotFoundError where an arm has no blend or a source no token dataset.
    """
    problems, notes = ([], []) if cache_folder is None else check_cache_folder(cache_folder)
    reports: list[PrefixReport] = []
    token_prefixes: dict[str, list[TokenPrefix]] = {}
    unread: set[str] = set()  # sources whose .bin a training maps
    earlier: list[tuple[str, pa.ChunkedArray]] = []
    for arm in arms:
        proof = _ArmProof(run_folder, arm, sources, earlier)
        proof.run(seed=seed, num_samples=num_samples, cache_folder=cache_folder)
        problems += proof.problems
        reports += proof.reports
        notes += proof.notes
        earlier.append((arm, pa.chunked_array(proof.texts, _TEXTS)))
        for dataset in proof.datasets:
            token_prefixes[dataset.source] = list(dataset.prefixes)
            is_compared = full or proof.blend["handover"] == "physical_copy"
            if not (is_compared or is_adopted(run_folder, dataset.source, dataset.prefixes)):
                unread.add(dataset.source)
    for source, prefixes in sorted(token_prefixes.items()):
        found = check_tokens(run_folder, source, prefixes, full=full)
        problems += [
            Problem(arm="", split="", name=source, what=w, expected=e) for w, e in found.problems
        ]
        notes += found.notes
    if unread:
        notes.append(
            f"tokens of {', '.join(sorted(unread))} were not read: only the size of each .bin was "
            "compared; --full reads them and compares digests"
        )
    notes += repetition_notes(reports)
    return VerifyReport(
        arms=tuple(arms), problems=tuple(problems), prefixes=tuple(reports), notes=tuple(notes)
    )


class _ArmProof:
    """One arm's proof while it is made."""

    def __init__(
        self,
        run_folder: Path,
        arm: str,
        sources: Sequence[str] | None,
        earlier: Sequence[tuple[str, pa.ChunkedArray]],
    ) -> None:
        self.run_folder, self.arm, self.earlier = run_folder, arm, earlier
        self.blend = read_whole_blend(run_folder / layout.blend(arm))
        in_blend = {entry["source"] for entry in (*self._listed(), *self.blend["left_out"])}
        self.datasets = [
            read_token_dataset(run_folder / layout.tokens(source))
            for source in (sorted(in_blend) if sources is None else sources)
        ]
        self.prefixes = {
            prefix.name: prefix for dataset in self.datasets for prefix in dataset.prefixes
        }
        self.problems: list[Problem] = []
        self.reports: list[PrefixReport] = []
        self.notes: list[str] = []
        self.texts: list[pa.Array] = []  # hashes of what is trained on

    def run(self, *, seed: int, num_samples: int | None, cache_folder: Path | None) -> None:
        """Fills problems, reports, notes and texts."""
        self._check_manifests()
        if not self._check_blend():
            self.notes.append(f"{self.arm}: not replayed, because blend.json contradicts itself")
            return
        try:
            held_out = self._held_out_texts()
        except (ValueError, OSError) as error:
            self._problem("", "", str(error), "documents tables that can be read")
            return
        entries = self._entries()
        self._check_left_out(entries)
        if not self._check_prefixes(entries):
            self.notes.append(f"{self.arm}: not replayed, because files cannot be read")
            return
        try:
            request = blend_request(self.blend, seed=seed, num_samples=num_samples)
            with replaying(request, cache_folder) as splits:
                for split in splits.values():
                    self.problems += missing_samples(self.arm, split)
                    self.notes += rebuilt_notes(self.arm, split, cache_folder)
                    of_split = [entry for entry in entries if entry.split == split.name]
                    for entry, coverage in zip(of_split, split.coverages(), strict=True):
                        self._count(entry, coverage, held_out)
        except (ValueError, AssertionError, IndexError) as error:
            # What Megatron raises of a blend that it cannot build, or a cache of other files.
            self._problem("", "", f"cannot be replayed: {error}", "a blend it reads")

    def _listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.blend["entries"]
        return listed

    def _problem(self, split: str, name: str, what: str, expected: str) -> None:
        self.problems.append(
            Problem(arm=self.arm, split=split, name=name, what=what, expected=expected)
        )

    def _check_manifests(self) -> None:
        keep, blend = layout.keep(self.arm), layout.blend(self.arm)
        made_of = [keep, *(layout.tokens(dataset.source) for dataset in self.datasets)]
        for found in (
            check_unit(self.run_folder, blend, made_of=made_of),
            check_unit(self.run_folder, keep),
        ):
            for what, expected in found.problems:
                self._problem("", "", what, expected)
            self.notes += found.notes

    def _check_blend(self) -> bool:
        """Returns whether Megatron's lists are those of the entries; names what disagrees."""
        folder = self.run_folder / layout.blend(self.arm)
        contradictions = [*check_lists(folder, self.blend, self.prefixes)]
        for found in (*contradictions, *check_numbers(self.blend, self.datasets)):
            self._problem(*found)
        return not contradictions

    def _entries(self) -> list[Entry]:
        """Returns the entries of train and valid, in the order of Megatron's lists."""
        entries = []
        for split in ("train", "valid"):
            listed = [entry for entry in self._listed() if entry["split"] == split]
            for entry, prefix in zip(listed, self.blend[split], strict=True):
                entries.append(
                    Entry(
                        arm=self.arm,
                        split=split,
                        token_prefix=self.prefixes[entry["name"]],
                        path_prefix=Path(prefix),
                        handover=entry_handover(self.blend["handover"], split),
                        listed=entry,
                    )
                )
        return entries

    def _held_out_texts(self) -> pa.ChunkedArray:
        texts: list[pa.Array] = []
        for prefix in self.prefixes.values():
            table = read_documents(prefix)
            texts += table.filter(table["is_validation"])["text_hash"].chunks
        return pa.chunked_array(texts, _TEXTS)

    def _selected(self, prefix: TokenPrefix, split: str, documents: pa.Table) -> Selected:
        if split == "valid":
            return held_out_selection(prefix, documents)
        keep = self.run_folder / layout.keep(self.arm)
        return kept_selection(keep / f"{prefix.name}.keep.npy")

    def _check_prefixes(self, entries: Sequence[Entry]) -> bool:
        """Returns whether every file can be read, after naming those that are not as they were."""
        all_readable = True
        for name, prefix in self.prefixes.items():
            try:
                documents = read_documents(prefix)
                whole, fingerprint = read_index_with_fingerprint(prefix.path_prefix)
                for pair in check_token_prefix(prefix, whole, fingerprint, documents):
                    self._problem("", name, *pair)
                for entry in entries:
                    if entry.token_prefix.name == name:
                        selected = self._selected(prefix, entry.split, documents)
                        self.problems += check_selected(entry, selected, whole)
                        self.problems += check_entry(entry, selected, read_index(entry.path_prefix))
            except (ValueError, OSError) as error:
                self._problem("", name, str(error), "files that can be read")
                all_readable = False
        return all_readable

    def _check_left_out(self, entries: Sequence[Entry]) -> None:
        """Names every prefix that a split misses: too short for a sample, or forgotten."""
        listed = {(entry.split, entry.token_prefix.name) for entry in entries}
        short = {(entry["split"], entry["name"]) for entry in self.blend["left_out"]}
        for name, prefix in self.prefixes.items():
            for split in ("train", "valid"):
                if (split, name) in short and (split, name) in listed:
                    self._problem(split, name, "is both listed and left out", "one of them")
                elif (split, name) not in listed:
                    self._check_unlisted(prefix, split, is_left_out=(split, name) in short)

    def _check_unlisted(self, prefix: TokenPrefix, split: str, *, is_left_out: bool) -> None:
        try:
            documents = read_documents(prefix)
            times_D = self._selected(prefix, split, documents).times_D
            num_tokens = int(times_D @ documents["num_tokens"].to_numpy())
        except (ValueError, OSError) as error:
            self._problem(split, prefix.name, str(error), "files that can be read")
            return
        num_samples = samples_of(num_tokens, self.blend["sequence_length"])
        if is_left_out and num_samples:
            what = f"is left out, though its {num_tokens:,} tokens fill {num_samples:,} samples"
            self._problem(split, prefix.name, what, f"listed in {split}")
        elif is_left_out:
            left_out = f"{split} of {prefix.name} is left out: {num_tokens:,} tokens fill no sample"
            self.notes.append(f"{self.arm}: {left_out}")
        elif times_D.any():
            wanted = f"its {int((times_D > 0).sum()):,} documents, or left_out"
            self._problem(split, prefix.name, "stands nowhere in blend.json", wanted)

    def _count(self, entry: Entry, coverage: Coverage, held_out: pa.ChunkedArray) -> None:
        documents = read_documents(entry.token_prefix)
        selected = self._selected(entry.token_prefix, entry.split, documents)
        counted = _counted(entry, selected, read_index(entry.token_prefix.path_prefix), coverage)
        self.problems += check_times(entry, selected, counted, coverage.num_epochs)
        if entry.split == "train":
            self._check_texts(entry, counted.most_listed_D > 0, documents, held_out)
        unread_D = unread_tokens(selected.times_D, counted, coverage)
        if unread_D.sum() >= self.blend["sequence_length"]:
            what = f"{unread_D.sum():,} tokens of a whole pass are read by no sample"
            expected = f"fewer than sequence_length {self.blend['sequence_length']:,}"
            self.problems.append(entry.problem(what, expected))
        self.reports.append(
            prefix_report(
                selected.times_D,
                counted,
                coverage,
                arm=self.arm,
                split=entry.split,
                name=entry.token_prefix.name,
                path_prefix=entry.path_prefix,
                tail=_tail(entry.token_prefix, unread_D),
            )
        )

    def _check_texts(
        self,
        entry: Entry,
        is_listed_D: npt.NDArray[np.bool_],
        documents: pa.Table,
        held_out: pa.ChunkedArray,
    ) -> None:
        """Checks what is trained on against held-out documents, their copies, earlier phases."""
        is_held_out = documents["is_validation"].to_numpy()
        self.problems += entry.documents_problem(
            is_listed_D & is_held_out, "held-out documents are trained on", "none"
        )
        listed = np.flatnonzero(is_listed_D)
        copies = copies_beside(entry.token_prefix.documents)
        texts = documents["text_hash"].take(pa.array(listed))
        for is_in, what in (
            (
                is_text_of(documents, copies, held_out)[listed] & ~is_held_out[listed],
                "copies of held-out documents are",
            ),
            *(
                (
                    is_text_of(documents, None, other)[listed],
                    f"documents, or copies of those, of phase {arm} are",
                )
                for arm, other in self.earlier
            ),
        ):
            is_wrong_D = np.zeros(len(is_listed_D), dtype=bool)
            is_wrong_D[listed[is_in]] = True
            self.problems += entry.documents_problem(is_wrong_D, f"{what} trained on", "none")
        self.texts += texts.chunks


def _counted(entry: Entry, selected: Selected, whole: SequenceIndex, coverage: Coverage) -> Counted:
    if entry.handover == "keep_mask_dataset":
        return counted_documents(coverage, np.arange(len(whole.lengths_S)), whole)
    index = read_index(entry.path_prefix)
    if entry.handover == "index_view":
        return counted_documents(coverage, viewed_sequences(index, whole), whole)
    return counted_documents(coverage, copied_sequences(index, whole, selected.times_D), whole)


def _tail(prefix: TokenPrefix, unread_D: npt.NDArray[np.int64]) -> tuple[TailDocument, ...]:
    numbers = np.flatnonzero(unread_D)
    return tuple(
        TailDocument(record_id=record_id, num_tokens_unseen=int(unread_D[number]))
        for number, record_id in zip(numbers, record_ids(prefix, numbers), strict=True)
    )
