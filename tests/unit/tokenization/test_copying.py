from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.tokenization.copying import check_writable, copy_runs, has_runs, runs_of

Numbers = npt.NDArray[np.int64]
SOURCE_BYTES = 5 << 20  # more than two batches of 2 MiB


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "a.bin"
    path.write_bytes(np.random.default_rng(0).bytes(SOURCE_BYTES))
    return path


def expected(source: Path, starts: Numbers, sizes: Numbers) -> bytes:
    content = source.read_bytes()
    return b"".join(
        content[start : start + size]
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    )


def ranges(*pairs: tuple[int, int]) -> tuple[Numbers, Numbers]:
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 90)), max_size=40),
    workers=st.integers(1, 4),
)
def test_ranges_in_any_order_are_laid_one_after_another(
    tmp_path_factory: pytest.TempPathFactory,
    source: Path,
    pairs: list[tuple[int, int]],
    workers: int,
) -> None:
    starts, sizes = ranges(*pairs)
    target = tmp_path_factory.mktemp("copy") / "b.bin"
    num_bytes = copy_runs(source, runs_of(starts, sizes), target, workers=workers)
    assert target.read_bytes() == expected(source, starts, sizes)
    assert num_bytes == sizes.sum()


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, SOURCE_BYTES)],
        [(7, SOURCE_BYTES - 7), (0, 7)],
        [(at, 700) for at in range(0, SOURCE_BYTES - 700, 900)],  # 5,825 runs in two batches
        [(0, 100), (1000, 2 << 20), (5000, 100), (0, 3 << 20)],
        [(0, 10), (10, 0), (10, 20), (50, 0)],
    ],
)
@pytest.mark.parametrize("workers", [1, 3])
def test_ranges_over_several_batches_are_copied_whole(
    tmp_path: Path, source: Path, pairs: list[tuple[int, int]], workers: int
) -> None:
    starts, sizes = ranges(*pairs)
    runs = runs_of(starts, sizes)
    (tmp_path / "b.bin").write_bytes(b"before")
    copy_runs(source, runs, tmp_path / "b.bin", at=6, workers=workers)
    assert (tmp_path / "b.bin").read_bytes() == b"before" + expected(source, starts, sizes)
    assert has_runs(source, runs, tmp_path / "b.bin", at=6, workers=workers)


@pytest.mark.parametrize("at", [0, 3 << 20, SOURCE_BYTES - 1])
def test_difference_of_one_byte_is_found(tmp_path: Path, source: Path, at: int) -> None:
    content = bytearray(source.read_bytes())
    content[at] ^= 1
    (tmp_path / "b.bin").write_bytes(content)
    runs = runs_of(*ranges((0, SOURCE_BYTES)))
    assert has_runs(source, runs, source)
    assert not has_runs(source, runs, tmp_path / "b.bin")
    (tmp_path / "b.bin").write_bytes(content[:-1])
    assert not has_runs(source, runs, tmp_path / "b.bin")


def test_neighbouring_ranges_are_one_run_and_repeated_ones_are_not() -> None:
    runs = runs_of(*ranges((0, 10), (10, 5), (15, 0), (15, 5), (0, 10), (0, 10)))
    assert runs.starts_U.tolist() == [0, 0, 0]
    assert runs.sizes_U.tolist() == [20, 10, 10]
    assert runs.places_U.tolist() == [0, 20, 30]


def test_source_that_ends_too_early_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"12345")
    runs = runs_of(*ranges((0, 4), (3, 4)))
    with pytest.raises(
        ValueError, match=r"a\.bin: ends at byte 5, but documents up to byte 7 are to"
    ):
        copy_runs(tmp_path / "a.bin", runs, tmp_path / "b.bin")


@pytest.mark.parametrize("answer", [OSError(errno.EXDEV, "other device"), 0])
def test_long_run_where_the_kernel_cannot_copy_is_written(
    tmp_path: Path, source: Path, answer: OSError | int
) -> None:
    runs = runs_of(*ranges((0, SOURCE_BYTES)))
    effect = {"side_effect": answer} if isinstance(answer, OSError) else {"return_value": answer}
    with mock.patch.object(os, "copy_file_range", **effect) as in_kernel:
        copy_runs(source, runs, tmp_path / "b.bin")
    assert in_kernel.called
    assert (tmp_path / "b.bin").read_bytes() == source.read_bytes()


def test_writes_that_stop_short_are_gone_on_with(tmp_path: Path, source: Path) -> None:
    pwrite = os.pwrite
    starts, sizes = ranges((5, 100), (900, 300))
    with mock.patch.object(os, "pwrite", lambda fd, content, at: pwrite(fd, content[:11], at)):
        copy_runs(source, runs_of(starts, sizes), tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == expected(source, starts, sizes)


def test_disk_that_is_full_is_reported_as_such(tmp_path: Path, source: Path) -> None:
    full = OSError(errno.ENOSPC, "no space")
    with (
        mock.patch.object(os, "copy_file_range", side_effect=full),
        pytest.raises(OSError, match="no space"),
    ):
        copy_runs(source, runs_of(*ranges((0, SOURCE_BYTES))), tmp_path / "b.bin")


def test_folder_that_cannot_be_written_to_is_named_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/mira"), tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=f"{folder}: cannot be written to .*Nothing was made"):
            check_writable(folder)
    check_writable(tmp_path / "made" / "anew")
    assert list((tmp_path / "made" / "anew").iterdir()) == []
