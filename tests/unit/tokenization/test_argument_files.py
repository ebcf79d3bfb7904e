"""Files for Megatron-LM's arguments, read back by Megatron's own functions and built from."""

from __future__ import annotations

import json
import shlex
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from megatron.core.datasets.utils import get_blend_from_list
from rich.console import Console
from token_datasets import EOD, VOCAB_SIZE, blend, one_process, write_with_megatron

from mira_megatron.tokenization.argument_files import (
    ArgumentFiles,
    phase_arguments,
    print_argument_files,
    print_phases,
    train_only_text,
    write_argument_files,
)
from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer, build_datasets

pytestmark = pytest.mark.megatron

SEED = 3
LENGTHS = [[30, 0, 9, 21], [12, 19, 0, 40], [50, 3, 8], [17, 26]]


def a_blend(folder: Path, num_train: int, **changes: Any) -> dict[str, Any]:
    """Returns a blend of `num_train` training prefixes and two held-out ones, all on disk."""
    train = [folder / f"train{number}" for number in range(num_train)]
    valid = [folder / "valid0", folder / "valid1"]
    lengths = [*LENGTHS[:num_train], [20, 14], [11, 7]]
    for path_prefix, documents in zip([*train, *valid], lengths, strict=True):
        write_with_megatron(path_prefix, documents)
    num_samples = sum((sum(documents) - 1) // 8 for documents in LENGTHS[:num_train])
    held_out = [str(path) for path in valid]
    sizes = {"num_train_samples": num_samples, "train_weights": None, "arm": "group"}
    return {**blend(train, valid[0]), **sizes, "valid": held_out, "test": held_out, **changes}


def config(cache_folder: Path, **changes: Any) -> GPTDatasetConfig:
    settings = {
        "random_seed": SEED,
        "sequence_length": 8,
        "path_to_cache": str(cache_folder),
        "tokenizer": BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "create_attention_mask": False,
        **changes,
    }
    return GPTDatasetConfig(**settings)


def built(config: GPTDatasetConfig, sizes: list[int | None]) -> Any:
    """Returns (train, valid, test) as Megatron's own builder makes them."""
    return BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()


def per_split(files: ArgumentFiles) -> list[Any]:
    """Returns blend_per_split as Megatron-LM makes it of the JSON (training/utils.py, 0.16.1)."""
    content = json.loads(Path(files.arguments[1]).read_bytes())
    return [get_blend_from_list(content[split]) for split in ("train", "valid", "test")]


def samples(dataset: Any) -> list[list[int]]:
    return [[*sample["tokens"].tolist(), int(sample["labels"][-1])] for sample in dataset]


@pytest.mark.parametrize("num_train", [1, 2, 3, 4])
def test_per_split_file_gives_megatron_the_samples_of_the_blend(
    tmp_path: Path, num_train: int
) -> None:
    blended = a_blend(tmp_path, num_train)
    files = write_argument_files(blended, tmp_path / "arguments")
    blends = per_split(files)
    assert blends[0] == (blended["train"], None)
    sizes: list[int | None] = [files.num_train_samples, 4, 4]
    with one_process():
        train, _, _ = built(config(tmp_path / "theirs", blend_per_split=blends), sizes)
        ours = build_datasets(blended, seed=SEED, cache_folder=tmp_path / "ours")
        assert samples(train) == samples(ours.train)
    assert len(train) == blended["num_train_samples"]


def test_per_split_file_gives_megatron_the_weights_of_the_blend(tmp_path: Path) -> None:
    weights = [0.1, 2 / 3, 1e-3]
    blended = a_blend(tmp_path, 3, train_weights=weights, num_train_samples=40)
    files = write_argument_files(blended, tmp_path / "arguments")
    blends = per_split(files)
    assert blends[0] == (blended["train"], weights)
    with one_process():
        train, _, _ = built(config(tmp_path / "c", blend_per_split=blends), [40, 4, 4])
        ours = build_datasets(blended, seed=SEED, cache_folder=tmp_path / "ours")
        assert samples(train) == samples(ours.train)
        shares = np.bincount([sample["dataset_id"] for sample in train], minlength=3) / len(train)
    assert shares == pytest.approx(np.array(weights) / sum(weights), abs=2 / len(train))


def test_evaluation_never_runs_dry_and_sees_every_held_out_prefix(tmp_path: Path) -> None:
    blended = a_blend(tmp_path, 2)
    files = write_argument_files(blended, tmp_path / "arguments")
    wanted = 10 * 6  # ten passes over the 4 + 2 samples of the two prefixes
    with one_process():
        _, valid, test = built(
            config(tmp_path / "c", blend_per_split=per_split(files)), [4, wanted, 5]
        )
        assert len(valid) >= wanted
        assert len(test) >= 5
        drawn = np.bincount([sample["dataset_id"] for sample in valid])
    assert drawn / drawn.sum() == pytest.approx([4 / 6, 2 / 6], abs=0.02)


@pytest.mark.parametrize("weights", [None, [0.3, 0.7]])
def test_train_only_file_with_its_split_gives_the_whole_selection_to_training(
    tmp_path: Path, weights: list[float] | None
) -> None:
    blended = a_blend(tmp_path, 2, train_weights=weights)
    files = write_argument_files(blended, tmp_path / "arguments")
    words = dict(zip(files.train_only[::2], files.train_only[1::2], strict=True))
    content = get_blend_from_list(Path(words["--data-args-path"]).read_text().split())
    assert content == (blended["train"], weights)
    assert words["--eval-iters"] == "0"
    sizes: list[int | None] = [int(words["--train-samples"]), 0, 0]
    with one_process():
        train, valid, test = built(
            config(tmp_path / "c", blend=content, split=words["--split"]), sizes
        )
        ours = build_datasets(a_blend(tmp_path, 2), seed=SEED, cache_folder=tmp_path / "ours")
        if weights is None:
            assert samples(train) == samples(ours.train)
    assert len(train) >= blended["num_train_samples"]
    assert (valid, test) == (None, None)


def test_sequences_file_tells_megatron_what_it_would_read_itself(tmp_path: Path) -> None:
    blended = a_blend(tmp_path, 3)
    files = write_argument_files(blended, tmp_path / "arguments")
    counts = json.loads(Path(files.fast_start[1]).read_bytes())
    read = {prefix: IndexedDataset(prefix) for prefix in [*blended["train"], *blended["valid"]]}
    assert counts == {
        prefix: [dataset.index.sequence_count, dataset.index.document_count]
        for prefix, dataset in read.items()
    }
    assert counts[str(tmp_path / "train0")] == [3, 5]  # one document has no sequence


def test_sequences_file_with_the_fast_cache_gives_the_same_samples(tmp_path: Path) -> None:
    files = write_argument_files(a_blend(tmp_path, 3), tmp_path / "arguments")
    blends = per_split(files)
    counts = json.loads(Path(files.fast_start[1]).read_bytes())
    fast = {"fast_cache_load": True, "sequences_per_dataset": counts}
    with one_process():
        sizes: list[int | None] = [files.num_train_samples, 6, 6]
        first = built(config(tmp_path / "c", blend_per_split=blends), sizes)
        second = built(config(tmp_path / "c", blend_per_split=blends, **fast), sizes)
        assert [samples(dataset) for dataset in first] == [samples(dataset) for dataset in second]


def test_prefix_stored_otherwise_than_megatron_infers_gets_no_sequences_file(
    tmp_path: Path,
) -> None:
    # 65,500 to 65,536: Megatron's preprocessing writes int32 and its fast start reads uint16.
    blended = a_blend(tmp_path, 1)
    write_argument_files(blended, tmp_path / "arguments")
    files = write_argument_files({**blended, "vocab_size": 65_520}, tmp_path / "arguments")
    reason = files.not_written["sequences_per_dataset.json"]
    assert str(tmp_path / "train0") in reason
    assert "holds token ids as int32" in reason
    assert files.fast_start == ()
    assert not (tmp_path / "arguments" / "sequences_per_dataset.json").exists()


def test_prefix_of_two_bytes_a_token_gets_a_sequences_file_that_reads_it(tmp_path: Path) -> None:
    builder = IndexedDatasetBuilder(str(bin_path(tmp_path / "a")), dtype=np.uint16)
    builder.add_document(torch.arange(30), [30])
    builder.finalize(str(idx_path(tmp_path / "a")))
    blended = a_blend(tmp_path, 1, num_train_samples=3, vocab_size=300)
    blended.update({split: [str(tmp_path / "a")] for split in ("train", "valid", "test")})
    files = write_argument_files(blended, tmp_path / "arguments")
    counts = json.loads(Path(files.fast_start[1]).read_bytes())
    small = BlendTokenizer(vocab_size=300, eod=EOD)
    fast = config(
        tmp_path / "c",
        blend_per_split=per_split(files),
        sequences_per_dataset=counts,
        tokenizer=small,
    )
    train, _, _ = built(fast, [3, 3, 3])
    assert sorted(samples(train)) == [list(range(start, start + 9)) for start in (0, 8, 16)]


def test_path_with_a_space_is_refused_by_name_where_megatron_would_cut_it(tmp_path: Path) -> None:
    blended = a_blend(tmp_path / "my run", 2)
    files = write_argument_files(blended, tmp_path / "arguments")
    assert str(tmp_path / "my run" / "train0") in files.not_written["data_train_only.txt"]
    assert files.train_only == ()
    with pytest.raises(ValueError, match="cuts the file of --data-args-path at white space"):
        train_only_text(blended)
    assert per_split(files)[0] == (blended["train"], None)


def test_path_that_ends_in_a_space_is_refused(tmp_path: Path) -> None:
    blended = a_blend(tmp_path, 1)
    with pytest.raises(ValueError, match="strips white space"):
        write_argument_files({**blended, "valid": [f"{tmp_path}/valid0 "]}, tmp_path / "arguments")


def test_keep_masks_are_refused_because_the_stock_trainer_would_drop_them(tmp_path: Path) -> None:
    blended = a_blend(tmp_path, 1, handover="keep_mask_dataset")
    with pytest.raises(ValueError, match=r"arm 'group': .* train on every document"):
        write_argument_files(blended, tmp_path / "arguments")
    assert not (tmp_path / "arguments").exists()


def test_missing_prefix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    blended = a_blend(tmp_path, 1)
    idx_path(tmp_path / "valid1").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid1\.idx"):
        write_argument_files(blended, tmp_path / "arguments")
    assert not (tmp_path / "arguments").exists()


def test_printed_lines_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    files = write_argument_files(a_blend(tmp_path / "a [b] c", 2), tmp_path / "argument files")
    text = StringIO()
    print_argument_files(Console(file=text, width=40), files)
    lines = [shlex.split(line) for line in text.getvalue().splitlines()]
    assert list(files.arguments) in lines
    assert "Train on 15 samples and evaluate:" in text.getvalue()
    assert list(files.fast_start) in lines
    assert "data_train_only.txt is not written" in text.getvalue()


def test_phases_end_at_whole_global_batches_and_repeat_no_sample() -> None:
    blends = [
        {"arm": arm, "sequence_length": 8, "num_train_samples": number}
        for arm, number in {"early": 103, "late": 48, "last": 20}.items()
    ]
    phases = phase_arguments(blends, global_batch_size=10)
    assert phases.start_iterations == (0, 10, 14)
    assert phases.num_samples == (100, 40, 20)
    assert phases.unused_samples == (3, 8, 0)
    assert phases.arguments == (
        *("--train-samples", "160"),
        *("--phase-transition-iterations", "10,14"),
        *("--global-batch-size", "10"),
    )


def test_single_phase_has_no_transition() -> None:
    only = {"arm": "a", "sequence_length": 8, "num_train_samples": 25}
    phases = phase_arguments([only], global_batch_size=10)
    assert "--phase-transition-iterations" not in phases.arguments
    assert (phases.num_samples, phases.unused_samples) == ((20,), (5,))


def test_printed_phases_say_what_is_left_over_and_how_each_is_traced() -> None:
    blends = [
        {"arm": arm, "sequence_length": 8, "num_train_samples": number}
        for arm, number in {"early": 103, "late": 48}.items()
    ]
    text = StringIO()
    phases = phase_arguments(blends, global_batch_size=10)
    print_phases(Console(file=text, width=40), ["early", "late"], phases)
    lines = text.getvalue().splitlines()
    assert shlex.split(lines[1]) == list(phases.arguments)
    assert "from iteration 11 on: 40 samples, 8 are left over" in lines[4]
    assert lines[5].split() == ["--arm", "late", "--start-iteration", "10", "--num-samples", "40"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train_samples": 9}, r"arm 'late': 9 samples are no global batch of 10"),
        ({"arm": "early"}, r"arm 'early' is two of the phases"),
        ({"sequence_length": 16}, r"phases have sequence lengths \[8, 16\]"),
    ],
)
def test_phases_that_megatron_could_not_count_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    early = {"arm": "early", "sequence_length": 8, "num_train_samples": 30}
    with pytest.raises(ValueError, match=message):
        phase_arguments([early, {**early, "arm": "late", **changes}], global_batch_size=10)


def test_phases_of_no_global_batch_are_refused() -> None:
    early = {"arm": "early", "sequence_length": 8, "num_train_samples": 30}
    with pytest.raises(ValueError, match="global_batch_size=0 must be positive"):
        phase_arguments([early], global_batch_size=0)
