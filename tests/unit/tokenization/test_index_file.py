from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_datasets import document, write_with_megatron

from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    one_sequence_per_document,
    read_index,
    token_dtype,
    write_index,
)

pytestmark = pytest.mark.megatron


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_index_written_is_byte_identical_to_megatrons(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    write_with_megatron(folder / "stock", lengths)
    index = one_sequence_per_document(np.array(lengths), np.dtype(np.int32))
    write_index(folder / "ours.idx", index)
    assert (folder / "ours.idx").read_bytes() == (folder / "stock.idx").read_bytes()


def test_index_of_three_documents_is_this(tmp_path: Path) -> None:
    write_index(tmp_path / "a.idx", one_sequence_per_document(np.array([2, 1, 3]), np.dtype("<u2")))
    golden = Path(__file__).parents[2] / "golden" / "three_documents.idx"
    assert (tmp_path / "a.idx").read_bytes() == golden.read_bytes()


def test_index_with_an_empty_document_is_read_as_one_without_tokens(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 0, 2])
    index = read_index(tmp_path / "a")
    assert index.num_documents == 3
    assert index.lengths_S.tolist() == [3, 2]
    assert index.document_tokens().tolist() == [3, 0, 2]
    ids = np.fromfile(bin_path(tmp_path / "a"), index.dtype).tolist()
    assert ids == document(0, 3) + document(2, 2)


def test_token_dtype_is_megatrons_choice() -> None:
    assert token_dtype(65_499) == np.uint16
    assert token_dtype(65_500) == np.int32
    assert token_dtype(151_936) == np.int32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda idx: idx[:20], "too few for a Megatron index"),
        (lambda idx: b"XX" + idx[2:], "not a Megatron index"),
        (lambda idx: idx[:17] + b"\x63" + idx[18:], "unknown token dtype code 99"),
        (lambda idx: idx[:-4], "cut short"),
        (lambda idx: idx + b"\0\0", "more than its header announces"),
        (lambda idx: idx[:-8] + b"\x09" + idx[-7:], "document boundaries must rise"),
    ],
)
def test_index_that_is_damaged_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    path = idx_path(tmp_path / "a")
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path / "a")


def test_index_with_a_bin_cut_short_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    tokens = bin_path(tmp_path / "a")
    tokens.write_bytes(tokens.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"points to byte 20, but .*a\.bin has 16 bytes"):
        read_index(tmp_path / "a")


def test_index_without_files_says_which_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.idx: no such index"):
        read_index(tmp_path / "a")
    write_with_megatron(tmp_path / "a", [3])
    bin_path(tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.bin: no such file"):
        read_index(tmp_path / "a")
