"""`mira tokens doctor`: what would stop a training at its data, or have it read other data.

Nothing is written and no training is started; looking at 32 documents of a prefix is the most that
is read of a `.bin`.
"""

from __future__ import annotations

import math
import os
import resource
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mira_megatron.doctor.finding import ERROR, INFO, WARNING, Finding
from mira_megatron.provenance.index_caches import (
    SURPLUS,
    check_caches,
    check_packed_files,
    default_cache_folder,
)
from mira_megatron.tokenization.index_file import (
    SequenceIndex,
    bin_path,
    check_local,
    idx_path,
    read_index,
)
from mira_megatron.written_numbers import size

# BlendedDataset numbers its prefixes in int16 and refuses this many or more (0.16.1, line 49).
MAX_PREFIXES = 32_767
# GPTDataset lists sequences in int32 (0.16.1, line 511).
_MAX_LISTED = 2**31
# GPTDatasetConfig takes token ids for int32 above this vocabulary, DType.optimal_dtype from 65,500.
_UINT16_VOCABULARY = 65_536
# CPU seconds per million listed documents of 1,250 tokens in samples of 4,096, and bytes per listed
# document at the peak: measured with megatron-core 0.16.1 by benchmarks/index_building.py.
SECONDS_PER_MILLION_DOCUMENTS = 0.13  # 0.05 where nothing else runs
PEAK_BYTES_PER_DOCUMENT = 33
_NUM_LOOKED_AT = 32
# Open for as long as a training runs, per prefix: .idx, .bin and three arrays of the cache.
_FILES_PER_PREFIX = 5
_STYLES = {ERROR: "bold red", WARNING: "yellow", INFO: "dim"}


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexCost:
    """What Megatron needs for the indices of one prefix."""

    num_listed: int  # sequences times epochs
    num_samples: int
    held_bytes: int  # afterwards, mapped from the cache by every process
    peak_bytes: int  # while the first process builds them
    seconds: float


def index_cost(
    num_sequences: int, num_tokens: int, sequence_length: int, num_samples: int | None = None
) -> IndexCost:
    """Returns what building takes; `num_samples` are asked of this prefix (None: one pass).

    The document index holds an int32 per sequence and epoch, and eight times that while it is made
    (two int64 grids of numpy.mgrid and a third in between, the sequences of the split, the lengths,
    the result); the sample index two int32 per sample, the shuffle index a uint32
    (gpt_dataset.py 640-703, 0.16.1).
    """
    epochs = 1
    if num_samples is not None and num_tokens:
        epochs = max(-(-(num_samples * sequence_length + 1) // num_tokens), 1)
    samples = max(epochs * num_tokens - 1, 0) // sequence_length
    listed = epochs * num_sequences
    held = 4 * listed + 8 * (samples + 1) + 4 * samples
    return IndexCost(
        num_listed=listed,
        num_samples=samples,
        held_bytes=held,
        peak_bytes=max(PEAK_BYTES_PER_DOCUMENT * listed, held),
        seconds=listed / 1e6 * SECONDS_PER_MILLION_DOCUMENTS,
    )


def examine(
    blend: Mapping[str, Any],
    *,
    cache_folder: Path | None = None,
    num_samples: int | None = None,
    data_folders: Sequence[Path] = (),
) -> list[Finding]:
    """Returns what is found of a blend (as `read_blend` gives it), the worst first.

    `cache_folder` is the trainer's path_to_cache (None: Megatron's own choice, beside each prefix),
    `num_samples` its train_iters * global_batch_size, `data_folders` hold SFT data whose packed
    files are to be looked at.
    """
    prefixes = list(dict.fromkeys([*blend["train"], *blend["valid"], *blend.get("test", ())]))
    findings = [*_check_lists(blend, len(prefixes)), *_check_num_samples(blend, num_samples)]
    costs = []
    for prefix in prefixes:
        index = _readable(prefix, findings)
        if index is not None:
            findings += _check_prefix(blend, prefix, index)
            length, asked = blend["sequence_length"], _samples_asked(blend, prefix, num_samples)
            costs.append(index_cost(len(index.lengths_S), index.num_tokens, length, asked))
            findings += check_limits(prefix, costs[-1])
    findings += _check_cost(costs)
    findings += _check_cache_folders(blend, prefixes, cache_folder)
    for folder in data_folders:
        findings += check_packed_files(folder)
    return sorted(findings, key=lambda finding: list(_STYLES).index(finding.level))


def print_findings(console: Console, findings: Sequence[Finding], title: str = "") -> None:
    """Prints findings, the worst first, and how many there are of each kind.

    `title` comes first: whose findings these are.
    """
    if title:
        console.print(Text(title, style="bold"))
    alike: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        key = (finding.level, finding.what, finding.way_out)
        alike.setdefault(key, []).append(finding.where)
    for (level, what, way_out), places in alike.items():
        others = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
        # Paths may hold brackets, which rich would take for markup, and must not be broken.
        where = Text.assemble((level, _STYLES[level]), f"  {places[0]}{others}")
        console.print(where, soft_wrap=True)
        console.print(Padding(Text(what), (0, 0, 0, 4)))
        console.print(Padding(Text(f"-> {way_out}"), (0, 0, 0, 4)))
    counts = Counter(finding.level for finding in findings)
    console.print(Text(", ".join(f"{level}: {counts[level]:,}" for level in _STYLES)))


def _finding(level: str, where: str, what: str, way_out: str) -> Finding:
    return Finding(level=level, what=what, where=where, way_out=way_out)


def _check_lists(blend: Mapping[str, Any], num_prefixes: int) -> Iterator[Finding]:
    for split in ("train", "valid"):
        listed = blend[split]
        if len(listed) >= MAX_PREFIXES:
            what = f"{len(listed):,} prefixes in one blend; Megatron takes {MAX_PREFIXES - 1:,}"
            yield _finding(ERROR, split, what, "join some: mira tokens merge")
        for prefix, times in Counter(listed).items():
            if times > 1:
                what = f"listed {times} times in {split}: its documents are read as often"
                yield _finding(WARNING, prefix, what, "list it once, or give documents repeats")
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_PER_PREFIX * num_prefixes
    if allowed != resource.RLIM_INFINITY and wanted > allowed // 2:
        what = f"{num_prefixes:,} prefixes keep {wanted:,} files open, of {allowed:,} allowed here"
        yield _finding(WARNING, "open files", what, "ulimit -n 1048576, or mira tokens merge")


def _check_num_samples(blend: Mapping[str, Any], num_samples: int | None) -> Iterator[Finding]:
    """Says what becomes of more samples than one pass has, where no weights share them out."""
    if num_samples is None:
        return
    if num_samples < 1:
        what = f"{num_samples:,} samples are asked for"
        yield _finding(ERROR, "train", what, "ask for train_iters * global_batch_size samples")
        return
    one_pass = int(blend["num_train_samples"])
    if num_samples <= one_pass:
        return
    asked = f"{num_samples:,} samples are asked for, one pass has {one_pass:,}"
    if len(blend["train"]) == 1:
        what = f"{asked}: Megatron repeats the documents of a single prefix, without a word"
        yield _finding(WARNING, "train", what, "ask for one pass, or give documents repeats")
    elif blend.get("train_weights") is None:
        what = f"{asked}: without weights training stops there"
        yield _finding(ERROR, "train", what, "ask for one pass, or give blend.weights")


def _samples_asked(blend: Mapping[str, Any], prefix: str, num_samples: int | None) -> int | None:
    """Returns the samples that Megatron asks of a prefix; None: one pass.

    Of several prefixes it asks by weight, half a percent more than it needs (0.16.1,
    blended_megatron_dataset_builder.py 553-581).
    """
    train, weights = blend["train"], blend.get("train_weights")
    if prefix not in train:
        return None
    if len(train) == 1 or weights is None:
        return num_samples if len(train) == 1 else None
    wanted = blend["num_train_samples"] if num_samples is None else num_samples
    share = float(weights[train.index(prefix)] / sum(weights))
    return math.ceil(math.ceil(wanted * share) * (1 + SURPLUS))


def _readable(prefix: str, findings: list[Finding]) -> SequenceIndex | None:
    """Returns a prefix's index, or None after saying why it cannot be read."""
    try:
        check_local(Path(prefix))
    except ValueError as error:
        findings.append(_finding(ERROR, prefix, str(error), "blend.handover=physical_copy"))
        return None
    if " " in prefix or "\t" in prefix:
        what = "a space in the path: Megatron-LM splits --data-args-path and --data-path there"
        way_out = "use --per-split-data-args-path (JSON), or a path without spaces"
        findings.append(_finding(WARNING, prefix, what, way_out))
    for path in (idx_path(Path(prefix)), bin_path(Path(prefix))):
        if not path.exists():
            linked = f": it links to {path.readlink()}" if path.is_symlink() else ""
            what = f"no such file{linked}"
            way_out = "put back what it links to, or make the blend anew: mira blend"
            findings.append(_finding(ERROR, str(path), what, way_out))
            return None
    try:
        return read_index(Path(prefix))
    except (ValueError, OSError) as error:
        findings.append(_finding(ERROR, prefix, str(error), "make it anew: mira blend"))
        return None


def _check_prefix(blend: Mapping[str, Any], prefix: str, index: SequenceIndex) -> Iterator[Finding]:
    vocab_size, length = int(blend["vocab_size"]), int(blend["sequence_length"])
    if index.num_tokens <= length:
        what = f"its {index.num_tokens:,} tokens fill no sample of {length:,} and a label"
        yield _finding(ERROR, prefix, what, "leave it out, or lower the sequence length")
    declared = np.dtype(np.int32 if vocab_size > _UINT16_VOCABULARY else np.uint16)
    if index.dtype != declared:
        what = (
            f"its tokens are {index.dtype}, but of a vocabulary of {vocab_size:,} Megatron takes "
            f"them for {declared} under --per-dataset-sequences-path (from 65,500 to 65,536 ids "
            "its own writers and readers disagree)"
        )
        yield _finding(WARNING, prefix, what, "do not give --per-dataset-sequences-path")
    yield from _check_tokens(blend, prefix, index)


def _check_tokens(blend: Mapping[str, Any], prefix: str, index: SequenceIndex) -> Iterator[Finding]:
    """Looks at documents spread over the prefix: how they end, and whether ids are in range."""
    eod, vocab_size = int(blend["eod_id"]), int(blend["vocab_size"])
    lasts = index.document_indices_D[1:][np.diff(index.document_indices_D) > 0] - 1
    lasts = lasts[index.lengths_S[lasts] > 0]
    if not len(lasts):
        return
    places = np.unique(np.linspace(0, len(lasts) - 1, _NUM_LOOKED_AT).astype(np.int64))
    num_open, largest = 0, 0
    with bin_path(Path(prefix)).open("rb") as file:
        for sequence in lasts[places].tolist():
            num_tokens = min(int(index.lengths_S[sequence]), 4096)
            end = int(index.pointers_S[sequence]) + index.dtype.itemsize * int(
                index.lengths_S[sequence]
            )
            file.seek(end - num_tokens * index.dtype.itemsize)
            tokens = np.frombuffer(file.read(num_tokens * index.dtype.itemsize), index.dtype)
            num_open += int(tokens[-1]) != eod
            largest = max(largest, int(tokens.max()), -int(tokens.min()))
    if num_open:
        what = f"{num_open:,} of {len(places):,} documents looked at do not end with EOD {eod}"
        way_out = "check eod_id (Instruct tokenizers have another eos), or tokenise with EOD"
        yield _finding(WARNING, prefix, what, way_out)
    if largest >= vocab_size:
        what = f"a token id {largest:,} in documents looked at; the vocabulary has {vocab_size:,}"
        way_out = "the .bin is another dataset's or tokenizer's: restore it, or tokenise anew"
        yield _finding(ERROR, prefix, what, way_out)


def check_limits(prefix: str, cost: IndexCost) -> Iterator[Finding]:
    """Yields a finding where Megatron cannot number a prefix's sequences."""
    if cost.num_listed >= _MAX_LISTED:
        what = (
            f"{cost.num_listed:,} sequences over all epochs; Megatron numbers them in 32 bits "
            f"({_MAX_LISTED:,})"
        )
        yield _finding(ERROR, prefix, what, "spread it over several prefixes, or ask for less")


def _check_cost(costs: Sequence[IndexCost]) -> Iterator[Finding]:
    if not costs:
        return
    held = sum(cost.held_bytes for cost in costs)
    # What was built stays in memory until the last prefix is.
    peak = held + max(cost.peak_bytes - cost.held_bytes for cost in costs)
    seconds = sum(cost.seconds for cost in costs)
    what = (
        f"indices of {sum(cost.num_listed for cost in costs):,} listed sequences: about "
        f"{size(peak)} of memory and {seconds:,.0f} s of a CPU while the first process builds "
        f"them, {size(held)} afterwards"
    )
    way_out = "mira tokens doctor --prebuild builds them before GPUs wait for it"
    yield _finding(INFO, "index caches", what, way_out)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if peak > available:
        what = f"building takes about {size(peak)}, this machine has {size(available)}"
        yield _finding(WARNING, "index caches", what, "build on a larger machine")


def _check_cache_folders(
    blend: Mapping[str, Any], prefixes: Sequence[str], cache_folder: Path | None
) -> Iterator[Finding]:
    has_masks = blend["handover"] == "keep_mask_dataset"
    class_name = "KeepMaskGPTDataset" if has_masks else "GPTDataset"  # of all its splits
    folders = (
        [default_cache_folder(prefix, class_name) for prefix in prefixes]
        if cache_folder is None
        else [cache_folder]
    )
    for folder in folders:
        yield from check_caches(folder)
    if cache_folder is None and len(prefixes) > 1:
        what = "no cache folder: Megatron builds the order of a blend anew in every start"
        yield _finding(WARNING, "index caches", what, "give --data-cache-path")
    blocked = {near for folder in folders if (near := unwritable(folder)) is not None}
    for near in sorted(blocked):
        what = "cannot be written, and Megatron would put its index cache under it"
        way_out = "give --data-cache-path a folder on a file system that all nodes can write"
        yield _finding(ERROR, str(near), what, way_out)


def unwritable(folder: Path) -> Path | None:
    """Returns what keeps a folder from being made or written: itself, or the nearest above it."""
    absolute = folder.absolute()
    near = next(path for path in (absolute, *absolute.parents) if path.exists())
    return None if near.is_dir() and os.access(near, os.W_OK | os.X_OK) else near
