"""A blend as files that Megatron-LM's own arguments name, for the stock pretrain_gpt.py.

data_per_split.json         --per-split-data-args-path: train, valid and test, each a list
data_train_only.txt         --data-args-path: training data alone, for runs without evaluation
sequences_per_dataset.json  --per-dataset-sequences-path: prefix -> [sequences, documents + 1]

Paths in them are absolute. What is said of Megatron-LM was read in its source at core_v0.16.1.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.tokenization.blend_files import held_out_weights
from mira_megatron.tokenization.index_file import read_index

PER_SPLIT = "data_per_split.json"
TRAIN_ONLY = "data_train_only.txt"
SEQUENCES = "sequences_per_dataset.json"
# Megatron takes token ids for int32 above this vocabulary and for uint16 up to it, without looking
# into the .idx (GPTDatasetConfig.__post_init__), once it is given the sequences per dataset.
_LARGEST_UINT16_VOCABULARY = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class ArgumentFiles:
    """What was written, and the words to give to Megatron-LM.

    A file that cannot say what the blend says is not written; `not_written` says why.
    """

    num_train_samples: int  # one pass, or what the blend's weights are for
    arguments: tuple[str, ...]  # train, validate and test
    train_only: tuple[str, ...]  # in place of those; empty where not written
    fast_start: tuple[str, ...]  # in addition, once the index cache is complete; empty likewise
    not_written: Mapping[str, str]  # name of a file -> reason


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixCounts:
    """What Megatron can be told of an .idx, in place of 20 bytes for every document of it."""

    num_sequences: int
    num_boundaries: int  # documents + 1, which Megatron's own reader calls its document count
    dtype: np.dtype[np.number]  # of the token ids


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseArguments:
    """Several blends trained on one after the other, each from the checkpoint of the one before."""

    arguments: tuple[str, ...]  # the same for every phase
    start_iterations: tuple[int, ...]  # per phase the last iteration before it; they go on counting
    num_samples: tuple[int, ...]  # per phase, whole global batches: what its dataset is asked for
    unused_samples: tuple[int, ...]  # per phase; fewer than a global batch


def write_argument_files(
    blend: Mapping[str, Any], folder: Path, *, cache_folder: Path | None = None
) -> ArgumentFiles:
    """Writes what Megatron-LM reads for a blend from `read_blend`, and returns the arguments.

    Megatron's indices are to be cached in `cache_folder`, or in a folder beside the files. Raises
    ValueError for a hand-over that the stock trainer cannot read, and for a path that it would
    change.
    """
    _check_blend(blend)
    prefixes = list(dict.fromkeys([*blend["train"], *blend["valid"], *blend["test"]]))
    counts = {prefix: prefix_counts(Path(prefix)) for prefix in prefixes}
    folder = folder.resolve()
    write_json(folder / PER_SPLIT, per_split_content(blend))
    not_written = _write_others(blend, counts, folder)
    cache = folder / "index_cache" if cache_folder is None else cache_folder.resolve()
    sizes = [
        *("--train-samples", str(blend["num_train_samples"])),
        *("--seq-length", str(blend["sequence_length"])),
        *("--data-cache-path", str(cache)),
    ]
    # Without --split Megatron refuses the file; with its usual 969,30,1 it would take the end of
    # the selection away from training, and call it validation.
    train_only = ["--data-args-path", str(folder / TRAIN_ONLY), "--split", "1,0,0"]
    fast_start = ["--per-dataset-sequences-path", str(folder / SEQUENCES)]
    return ArgumentFiles(
        num_train_samples=int(blend["num_train_samples"]),
        arguments=("--per-split-data-args-path", str(folder / PER_SPLIT), *sizes),
        train_only=() if TRAIN_ONLY in not_written else (*train_only, "--eval-iters", "0", *sizes),
        fast_start=()
        if SEQUENCES in not_written
        else (*fast_start, "--dataloader-fast-cache-load"),
        not_written=not_written,
    )


def prefix_counts(path_prefix: Path) -> PrefixCounts:
    """Returns the counts of an index; raises as `read_index` does."""
    index = read_index(path_prefix)
    return PrefixCounts(
        num_sequences=len(index.lengths_S),
        num_boundaries=len(index.document_indices_D),
        dtype=index.dtype,
    )


def per_split_content(blend: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the JSON for --per-split-data-args-path, the held-out prefixes weighted."""
    return {
        "train": zipped_prefixes(blend["train"], blend.get("train_weights")),
        **{
            split: zipped_prefixes(blend[split], held_out_weights(blend, split))
            for split in ("valid", "test")
        },
    }


def zipped_prefixes(prefixes: Sequence[str], weights: Sequence[float] | None) -> list[str]:
    """Returns [weight, prefix, weight, prefix, ...], or the prefixes where weights say nothing."""
    if weights is None or len(prefixes) == 1:
        return list(prefixes)
    pairs = zip(weights, prefixes, strict=True)
    return [word for weight, prefix in pairs for word in (repr(float(weight)), prefix)]


def train_only_text(blend: Mapping[str, Any]) -> str:
    """Returns the text for --data-args-path; ValueError for a path that white space would cut."""
    for prefix in blend["train"]:
        if len(str(prefix).split()) != 1:
            raise ValueError(
                f"{prefix!r}: Megatron-LM cuts the file of --data-args-path at white space. Use "
                "--per-split-data-args-path, or move the run to a path without."
            )
    return "\n".join(zipped_prefixes(blend["train"], blend.get("train_weights"))) + "\n"


def sequences_content(
    blend: Mapping[str, Any], counts: Mapping[str, PrefixCounts]
) -> dict[str, list[int]]:
    """Returns the JSON for --per-dataset-sequences-path.

    Megatron then no longer reads an .idx's header, and infers from the vocabulary how token ids
    are stored: raises ValueError for a prefix of which that is not true.
    """
    is_large = blend["vocab_size"] > _LARGEST_UINT16_VOCABULARY
    inferred = np.dtype(np.int32 if is_large else np.uint16)
    for prefix, count in counts.items():
        if count.dtype != inferred:
            raise ValueError(
                f"{prefix}: holds token ids as {count.dtype}, but with sequences per dataset "
                f"Megatron reads a vocabulary of {blend['vocab_size']:,} as {inferred}. Train "
                "without --per-dataset-sequences-path."
            )
    return {prefix: [count.num_sequences, count.num_boundaries] for prefix, count in counts.items()}


def phase_arguments(
    blends: Sequence[Mapping[str, Any]], *, global_batch_size: int
) -> PhaseArguments:
    """Returns what every phase of a training over several blends is started with.

    Megatron-LM saves and ends at the iteration before each later phase, and is started again with
    the next blend's files; the arguments stay the same. Iterations go on counting, and samples of
    the dataset begin at 0 again (training/training.py, build_train_valid_test_data_loaders). Raises
    ValueError for phases that it could not tell apart.
    """
    if global_batch_size < 1:
        raise ValueError(f"global_batch_size={global_batch_size} must be positive")
    arms = [blend.get("arm") for blend in blends]
    again = next((arm for at, arm in enumerate(arms) if arm in arms[:at]), None)
    if again is not None:
        raise ValueError(
            f"arm {again!r} is two of the phases, and its documents would be read again. Name "
            "each arm once."
        )
    lengths = sorted({blend["sequence_length"] for blend in blends})
    if len(lengths) != 1:
        raise ValueError(
            f"phases have sequence lengths {lengths}; Megatron-LM counts them all in one unit. "
            "Blend them with one blend.sequence_length."
        )
    iterations = [int(blend["num_train_samples"]) // global_batch_size for blend in blends]
    for blend, num_iterations in zip(blends, iterations, strict=True):
        if num_iterations == 0:
            raise ValueError(
                f"arm {blend.get('arm')!r}: {blend['num_train_samples']:,} samples are no global "
                f"batch of {global_batch_size:,}, and so no phase. Select more, or leave it out."
            )
    *starts, last = accumulate(iterations, initial=0)
    arguments = ["--train-samples", str(last * global_batch_size)]
    if len(starts) > 1:
        arguments += ["--phase-transition-iterations", ",".join(map(str, starts[1:]))]
    return PhaseArguments(
        arguments=(*arguments, "--global-batch-size", str(global_batch_size)),
        start_iterations=tuple(starts),
        num_samples=tuple(each * global_batch_size for each in iterations),
        unused_samples=tuple(
            int(blend["num_train_samples"]) % global_batch_size for blend in blends
        ),
    )


def print_argument_files(console: Console, files: ArgumentFiles) -> None:
    """Prints the words to paste, quoted for a shell, and what was not written."""
    lines = {
        f"Train on {files.num_train_samples:,} samples and evaluate": files.arguments,
        "or train without evaluation": files.train_only,
        "in addition, once the index cache is complete": files.fast_start,
    }
    for title, words in lines.items():
        if words:
            console.print(f"{title}:\n  {shlex.join(words)}", **_AS_IT_IS)
    for name, reason in files.not_written.items():
        console.print(f"{name} is not written: {reason}", **_AS_IT_IS)


def print_phases(console: Console, arms: Sequence[str], phases: PhaseArguments) -> None:
    """Prints the words that every phase is started with, and how each phase is traced."""
    words = shlex.join(phases.arguments)
    console.print(f"As phases, instead of each arm's --train-samples:\n  {words}", **_AS_IT_IS)
    each = zip(
        arms, phases.start_iterations, phases.num_samples, phases.unused_samples, strict=True
    )
    for arm, start, num_samples, unused in each:
        console.print(
            f"Arm {arm} from iteration {start + 1:,} on: {num_samples:,} samples, {unused:,} are "
            "left over. To trace it:\n"
            f"  --arm {shlex.quote(arm)} --start-iteration {start} --num-samples {num_samples}",
            **_AS_IT_IS,
        )


# A line to paste must not be broken, coloured or read as markup.
_AS_IT_IS: dict[str, Any] = {"soft_wrap": True, "markup": False, "highlight": False}


def _write_others(
    blend: Mapping[str, Any], counts: Mapping[str, PrefixCounts], folder: Path
) -> dict[str, str]:
    """Writes the files that not every blend can have, and returns why which is missing."""
    not_written = {}
    try:
        write_bytes(folder / TRAIN_ONLY, train_only_text(blend).encode())
    except ValueError as error:
        not_written[TRAIN_ONLY] = str(error)
    try:
        write_json(folder / SEQUENCES, sequences_content(blend, counts))
    except ValueError as error:
        not_written[SEQUENCES] = str(error)
    for name in not_written:  # of an earlier blend, which it would still describe
        (folder / name).unlink(missing_ok=True)
    return not_written


def _check_blend(blend: Mapping[str, Any]) -> None:
    if blend["handover"] == "keep_mask_dataset":
        raise ValueError(
            f"arm {blend.get('arm')!r}: its prefixes are whole token datasets, and the stock "
            "pretrain_gpt.py would train on every document. Set blend.handover=index_view, or "
            "train with mira_megatron.tokenization.megatron_lm_provider."
        )
    for prefix in [*blend["train"], *blend["valid"], *blend["test"]]:
        if prefix != prefix.strip():
            raise ValueError(
                f"{prefix!r}: Megatron strips white space from the ends of a path. Rename it."
            )
