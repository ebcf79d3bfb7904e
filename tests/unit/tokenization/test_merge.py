"""Merging, against Megatron's own merge where that is right."""

from __future__ import annotations

import io
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_work import num_calls_or_killed
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from rich.console import Console
from token_datasets import document, write_mask, write_with_megatron

from mira_megatron.file_lock import held_lock
from mira_megatron.tokenization.handovers import marker_path, write_index_view
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    read_index,
    records_path,
    write_index,
)
from mira_megatron.tokenization.merge import materialise, merge
from mira_megatron.tokenization.merge_report import print_merge

pytestmark = pytest.mark.megatron

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)
KILLS = 10


def merge_with_megatron(prefixes: Sequence[Path], output: Path) -> None:
    builder = IndexedDatasetBuilder(str(bin_path(output)), dtype=np.int32)
    for prefix in prefixes:
        builder.add_index(str(prefix))
    builder.finalize(str(idx_path(output)))


def documents_of(path_prefix: Path) -> list[list[int]]:
    """Returns every document's ids as Megatron reads them; sequences of one are joined."""
    stock = IndexedDataset(str(path_prefix))
    bounds = stock.document_indices.tolist()
    return [
        [token for number in range(first, end) for token in stock[number].tolist()]
        for first, end in pairwise(bounds)
    ]


def same_files(one: Path, other: Path) -> bool:
    return all(path(one).read_bytes() == path(other).read_bytes() for path in (bin_path, idx_path))


def write_view(folder: Path, name: str, lengths: Sequence[int], kept: Sequence[bool]) -> Path:
    write_with_megatron(folder / "tokens" / name, lengths)
    mask = write_mask(folder / f"{name}.keep.npy", folder / "tokens" / name, kept)
    write_index_view(folder / "tokens" / name, mask, folder / "views" / name)
    return folder / "views" / name


def write_records(path_prefix: Path, ids: Sequence[str], **columns: Any) -> None:
    pq.write_table(pa.table({"record_id": ids, **columns}), records_path(path_prefix))


# Few: Megatron collects garbage for every input, which takes longest of all.
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(datasets=st.lists(LENGTHS, min_size=1, max_size=3))
def test_merge_is_byte_identical_to_megatrons(
    tmp_path_factory: pytest.TempPathFactory, datasets: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    # Not in the order of their names: Megatron's tool sorts, shard_10 before shard_2.
    prefixes = [folder / f"shard_{10 - number}" for number in range(len(datasets))]
    for prefix, lengths in zip(prefixes, datasets, strict=True):
        write_with_megatron(prefix, lengths)
    merge_with_megatron(prefixes, folder / "stock")
    report = merge(prefixes, folder / "ours")
    assert same_files(folder / "ours", folder / "stock")
    assert report.num_documents == sum(map(len, datasets))
    assert report.num_bytes == bin_path(folder / "ours").stat().st_size


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(first=LENGTHS, second=LENGTHS, seed=st.integers(0, 99))
def test_merge_of_views_holds_the_documents_they_list(
    tmp_path_factory: pytest.TempPathFactory, first: list[int], second: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("views")
    kept = (np.random.default_rng(seed).random(len(first)) < 0.5).tolist()
    view = write_view(folder, "a", first, kept)
    write_with_megatron(folder / "b", second)
    report = merge([view, folder / "b"], folder / "ours")
    expected = [document(number, size) for number, size in enumerate(first) if kept[number]]
    expected += [document(number, size) for number, size in enumerate(second)]
    assert documents_of(folder / "ours") == expected
    assert read_index(folder / "ours").is_contiguous()
    assert [part.is_view for part in report.inputs] == [True, False]


def test_megatrons_own_merge_of_a_view_is_wrong_and_ours_right(tmp_path: Path) -> None:
    view = write_view(tmp_path, "a", [2, 3, 4], [False, True, True])
    merge_with_megatron([view], tmp_path / "stock")
    materialise(view, tmp_path / "ours")
    kept = [document(1, 3), document(2, 4)]
    assert documents_of(view) == documents_of(tmp_path / "ours") == kept
    # No error there: other tokens.
    assert documents_of(tmp_path / "stock") == [[1, 0, 1001], [1002, 0, 2001, 2002]]


def test_slice_of_a_view_is_wrong_and_of_the_materialised_one_right(tmp_path: Path) -> None:
    view = write_view(tmp_path, "a", [2, 3, 4], [True, False, True])
    materialise(view, tmp_path / "ours")
    kept = [document(0, 2), document(2, 4)]
    # Kept by name: Megatron closes its map under what it gave, and reading on ends the process.
    plain, sliced = IndexedDataset(str(tmp_path / "ours")), IndexedDataset(str(view))
    assert [part.tolist() for part in plain[0:2]] == kept
    assert [part.tolist() for part in sliced[0:2]] == [[1, 0], [1001, 1002, 0, 2001]]


def test_merge_keeps_documents_of_several_sequences(tmp_path: Path) -> None:
    for name in ("a", "b"):
        builder = IndexedDatasetBuilder(str(bin_path(tmp_path / name)), dtype=np.uint16)
        builder.add_document(np.arange(5), [2, 3])
        builder.add_document(np.arange(0), [])
        builder.add_document(np.arange(4), [4])
        builder.finalize(str(idx_path(tmp_path / name)))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ours")
    index = read_index(tmp_path / "ours")
    assert index.document_indices_D.tolist() == [0, 2, 2, 3, 5, 5, 6]
    assert index.lengths_S.tolist() == [2, 3, 4, 2, 3, 4]
    assert index.dtype == np.uint16


def test_merge_joins_side_files_in_order(tmp_path: Path) -> None:
    for name, ids in (("a", ["x", "y"]), ("b", ["z"])):
        write_with_megatron(tmp_path / name, [3] * len(ids))
        write_records(tmp_path / name, ids)
    report = merge([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    assert report.records == tmp_path / "out.records.parquet"
    table = pq.read_table(report.records)
    assert table["record_id"].to_pylist() == ["z", "x", "y"]
    assert not merge([tmp_path / "b", tmp_path / "a"], tmp_path / "out").is_new


def test_merge_of_large_side_files_keeps_every_row(tmp_path: Path) -> None:
    sizes, ids = (70_000, 1, 150_000), []
    for number, size in enumerate(sizes):
        lengths = np.ones(size, np.int32)
        write_index(
            idx_path(tmp_path / f"{number}"), one_sequence_per_document(lengths, np.dtype(np.int32))
        )
        bin_path(tmp_path / f"{number}").write_bytes(lengths.tobytes())
        write_records(tmp_path / f"{number}", [f"{number}-{row}" for row in range(size)])
        ids += [f"{number}-{row}" for row in range(size)]
    merge([tmp_path / f"{number}" for number in range(3)], tmp_path / "out")
    table = pq.ParquetFile(records_path(tmp_path / "out"))
    assert table.read()["record_id"].to_pylist() == ids
    assert table.num_row_groups == -(-sum(sizes) // (1 << 16))


def test_merge_without_every_side_file_makes_none_and_says_why(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_with_megatron(tmp_path / name, [3])
    write_records(tmp_path / "a", ["x"])
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert report.records is None
    assert report.without_records == (tmp_path / "b",)
    console = Console(file=io.StringIO(), width=200)
    print_merge(console, report)
    assert isinstance(console.file, io.StringIO)
    assert f"No .records.parquet: {tmp_path / 'b'} has none" in console.file.getvalue()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"record_id": ["y", "z"]}, r"b\.records\.parquet: 2 rows, but .*b\.idx has 1 documents"),
        ({"record_id": [1]}, r"b\.records\.parquet: columns .*types"),
        ({"id": ["y"]}, r"b\.records\.parquet: columns \['id'\], but .*\['record_id'\]"),
    ],
)
def test_side_files_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    for name in ("a", "b"):
        write_with_megatron(tmp_path / name, [3])
    write_records(tmp_path / "a", ["x"])
    pq.write_table(pa.table(columns), records_path(tmp_path / "b"))
    with pytest.raises(ValueError, match=message):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not bin_path(tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".records.parquet"])
def test_output_that_exists_with_other_content_is_left_alone(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b", "out"):
        write_with_megatron(tmp_path / name, [3, 4])
        write_records(tmp_path / name, ["x", "y"])
    other = tmp_path / f"out{suffix}"
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    merge([tmp_path / "a"], tmp_path / "again")
    for path in tmp_path.glob("again.*"):
        path.rename(tmp_path / path.name.replace("again", "out"))
    other.write_bytes(content)
    before = {path: path.read_bytes() for path in tmp_path.glob("[!.]*")}
    with pytest.raises(ValueError, match=rf"out{suffix}: exists with other content"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert {path: path.read_bytes() for path in tmp_path.glob("[!.]*")} == before


def test_merge_again_finds_everything_there(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 0, 4])
    assert merge([tmp_path / "a"], tmp_path / "out").is_new
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")}
    assert not merge([tmp_path / "a"], tmp_path / "out").is_new
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")} == stamps


def test_merge_to_an_output_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 4])
    lock = tmp_path / ".out.lock"
    with (
        held_lock(lock, "held"),
        pytest.raises(ValueError, match=r"out\.lock: another process writes .*out\. Wait"),
    ):
        merge([tmp_path / "a"], tmp_path / "out")
    assert not bin_path(tmp_path / "out").exists()
    merge([tmp_path / "a"], tmp_path / "out")
    assert lock.exists()  # deleted, two could hold it at once


def test_rest_of_another_merge_that_was_killed_leaves_no_byte(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 4])
    (tmp_path / ".out.bin.tmp").write_bytes(bytes(1000))
    merge([tmp_path / "a"], tmp_path / "out")
    assert bin_path(tmp_path / "out").read_bytes() == bin_path(tmp_path / "a").read_bytes()


def test_paths_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for name, dtype in (("a", np.int32), ("b", np.int32), ("small", np.uint16)):
        write_with_megatron(tmp_path / name, [3])
        if dtype is np.uint16:
            write_index(
                idx_path(tmp_path / name), one_sequence_per_document(np.array([6]), np.dtype(dtype))
            )
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    view = write_view(tmp_path, "v", [3, 4], [True, False])
    cases: list[tuple[Sequence[Path], Path, str]] = [
        ([], out, "nothing to merge"),
        ([a, b, a], out, "a: named twice"),
        ([a, b], b, "b: is an input and the output"),
        ([a, tmp_path / "small"], out, "small: tokens are uint16, those of .*a int32"),
        ([a, tmp_path / "gone"], out, r"gone\.idx: no such index"),
        ([Path("s3://bucket/a")], out, "object storage"),
        ([a], Path("gs://bucket/out"), "object storage"),
        ([a], view, "an index view lies there"),
        ([view], view, "is an input and the output"),
        ([a], Path("/proc/mira/out"), "/proc/mira: cannot be written to"),
    ]
    for prefixes, output, message in cases:
        with pytest.raises((ValueError, OSError), match=message):
            merge(prefixes, output)
    assert not list(tmp_path.glob("*out*"))


def test_prefix_named_twice_on_purpose_is_there_twice(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 1])
    merge([tmp_path / "a"] * 2, tmp_path / "out", may_repeat=True)
    assert documents_of(tmp_path / "out") == [document(0, 3), document(1, 1)] * 2


def test_swapped_tokens_are_refused(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    write_with_megatron(tmp_path / "b", [3, 4])
    shutil.copy(bin_path(tmp_path / "b"), bin_path(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"2 documents are 20 bytes of int32, but .* 28 bytes"):
        merge([tmp_path / "a"], tmp_path / "out")


def test_view_whose_tokens_were_made_anew_is_refused(tmp_path: Path) -> None:
    view = write_view(tmp_path, "a", [2, 3, 4], [True, False, True])
    write_with_megatron(tmp_path / "tokens" / "a", [3, 3, 4])
    with pytest.raises(ValueError, match="the tokens were made anew"):
        materialise(view, tmp_path / "out")


def test_view_that_is_not_what_its_marker_says_is_refused(tmp_path: Path) -> None:
    view = write_view(tmp_path, "a", [2, 3, 4], [True, False, True])
    other = write_view(tmp_path, "b", [2, 3, 4], [True, True, True])
    shutil.copy(marker_path(other), marker_path(view))
    with pytest.raises(ValueError, match=r"2 documents with 6 tokens, but .* says 3 with 9"):
        materialise(view, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"selection_', r"a\.view\.json: no JSON"),
        ('{"selection_digest": "0"}', r"a\.view\.json: expected the keys idx_fingerprint, num_"),
        ("[]", r"a\.view\.json: expected the keys"),
    ],
)
def test_broken_marker_of_a_view_is_named(tmp_path: Path, content: str, message: str) -> None:
    view = write_view(tmp_path, "a", [2, 3, 4], [True, False, True])
    marker_path(view).write_text(content)
    with pytest.raises(ValueError, match=message):
        materialise(view, tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        merge([view], tmp_path / "out")
    assert not bin_path(tmp_path / "out").exists()


def test_every_path_of_a_merge_is_printed_whole(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with a long name and [bold]brackets[/bold] " * 3).strip()
    for name in ("wiki_1", "wiki_2"):
        write_with_megatron(folder / name, [3])
    report = merge([folder / "wiki_1", folder / "wiki_2"], folder / "out")
    console = Console(file=io.StringIO(), width=80)
    print_merge(console, report)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert {str(folder / "wiki_1"), str(folder / "wiki_2"), f"Output: {folder / 'out'}"} <= {*lines}
    assert lines[1] == "  dataset: 1 documents, 3 tokens, 12 bytes"


def test_plain_dataset_is_nothing_to_materialise(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [2, 3])
    with pytest.raises(ValueError, match="no index view"):
        materialise(tmp_path / "a", tmp_path / "out")


def merge_inputs(folder: Path) -> tuple[list[Path], Path]:
    prefixes = [folder / name for name in ("a", "b", "c")]
    for number, prefix in enumerate(prefixes):
        write_with_megatron(prefix, [9, 5 + number, 0, 900] * 30)
        write_records(prefix, [f"{prefix.name}{row}" for row in range(120)])
    return prefixes, folder / "out" / "merged"


def view_inputs(folder: Path) -> tuple[Path, Path]:
    lengths = [900] * 2000  # 3.6 MB kept, in two batches
    kept = [number % 2 == 0 for number in range(2000)]
    return write_view(folder, "a", lengths, kept), folder / "out" / "plain"


@pytest.mark.parametrize(("work", "inputs"), [(merge, merge_inputs), (materialise, view_inputs)])
def test_work_killed_anywhere_and_run_again_gives_the_same_bytes(
    tmp_path: Path,
    work: Callable[..., object],
    inputs: Callable[[Path], tuple[Any, Path]],
) -> None:
    what, output = inputs(tmp_path)
    num_calls = num_calls_or_killed(work, (what, output), kill_at=0)
    expected = {path.name: path.read_bytes() for path in output.parent.iterdir()}
    points = random.Random(0)
    for _ in range(KILLS):
        shutil.rmtree(output.parent)
        kill_at = points.randint(1, num_calls)
        assert num_calls_or_killed(work, (what, output), kill_at) == -signal.SIGKILL
        work(what, output)
        found = {path.name: path.read_bytes() for path in output.parent.iterdir()}
        assert found == expected, f"killed at call {kill_at} of {num_calls}"
