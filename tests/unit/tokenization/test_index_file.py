from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_datasets import document, write_with_megatron

from mira_megatron.tokenization.index_file import (
    bin_path,
    check_covers_bin,
    idx_path,
    index_fingerprint,
    is_index_at,
    one_sequence_per_document,
    read_index,
    read_index_with_fingerprint,
    token_dtype,
    write_index,
)

pytestmark = pytest.mark.megatron


@settings(deadline=None)
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
        (lambda idx: idx[:-8] + b"\x09" + idx[-7:], "document boundaries must rise"),
        (lambda idx: idx[:17] + b"\x07" + idx[18:], r"dtype code 7 \(float32\).*expected 4"),
        (lambda idx: idx[:17] + b"\x05" + idx[18:], r"points to byte 28, but .* 20 bytes"),
        (lambda idx: idx[:49] + b"\x7f" + idx[50:], "points to byte 9,151,314,442"),
        # With its size added, this pointer is a negative number.
        (lambda idx: idx[:42] + b"\xff" * 7 + b"\x7f" + idx[50:], "points to byte 9,223,372,036"),
        (lambda idx: idx[:49] + b"\x80" + idx[50:], "points to byte -9,223,372,036"),
        (lambda idx: idx[:37] + b"\xff" + idx[38:], "points to byte -67,"),
        (lambda idx: idx + b"\0\0", r"2 bytes more .*multimodal"),
        # Not believed before it is compared with the file: 2^63 sequences of memory.
        (lambda idx: idx[:25] + b"\x80" + idx[26:], "cut short"),
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


def test_index_and_fingerprint_of_one_reading_are_those_of_two(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 0, 2])
    index, fingerprint = read_index_with_fingerprint(tmp_path / "a")
    content = idx_path(tmp_path / "a").read_bytes()
    assert fingerprint == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert fingerprint == index_fingerprint(tmp_path / "a")
    assert index.lengths_S.tolist() == [3, 2]
    assert index.lengths_S.flags.aligned
    assert is_index_at(idx_path(tmp_path / "a"), index)


def test_index_beside_the_tokens_of_a_larger_dataset_is_refused_where_sizes_are_compared(
    tmp_path: Path,
) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    write_with_megatron(tmp_path / "b", [3, 4])
    bin_path(tmp_path / "a").write_bytes(bin_path(tmp_path / "b").read_bytes())
    index = read_index(tmp_path / "a")  # every pointer fits
    with pytest.raises(ValueError, match=r"2 documents are 20 bytes of int32, but .* 28 bytes"):
        check_covers_bin(index, 28, tmp_path / "a")
    assert check_covers_bin(index, 20, tmp_path / "a")


def test_index_with_gaps_cannot_be_compared_with_a_size(tmp_path: Path) -> None:
    index = one_sequence_per_document(np.array([3, 2]), np.dtype(np.int32))
    index.pointers_S[1] += 4
    assert not check_covers_bin(index, 20, tmp_path / "a")


def test_index_with_the_code_of_smaller_tokens_is_refused_where_sizes_are_compared(
    tmp_path: Path,
) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    content = idx_path(tmp_path / "a").read_bytes()
    idx_path(tmp_path / "a").write_bytes(content[:17] + b"\x08" + content[18:])
    index = read_index(tmp_path / "a")  # every sequence would end inside the .bin
    with pytest.raises(ValueError, match=r"4 bytes per token apart, but .* uint16, 2 bytes"):
        check_covers_bin(index, 20, tmp_path / "a")


def test_index_with_the_code_of_larger_tokens_is_refused_even_of_a_large_bin(
    tmp_path: Path,
) -> None:
    write_with_megatron(tmp_path / "a", [3, 2])
    content = idx_path(tmp_path / "a").read_bytes()
    idx_path(tmp_path / "a").write_bytes(content[:17] + b"\x05" + content[18:])
    bin_path(tmp_path / "a").write_bytes(bytes(100))
    with pytest.raises(ValueError, match=r"4 bytes per token apart, but .* int64, 8 bytes"):
        read_index(tmp_path / "a")


def test_view_of_every_second_document_is_not_taken_for_larger_tokens(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3, 3, 3, 3])
    index = read_index(tmp_path / "a")
    every_second = one_sequence_per_document(np.array([3, 3]), np.dtype(np.int32))
    every_second.pointers_S[:] = index.pointers_S[::2]
    write_index(idx_path(tmp_path / "a"), every_second)
    assert read_index(tmp_path / "a").pointers_S.tolist() == [0, 24]


def test_index_at_a_path_is_recognised_by_every_byte(tmp_path: Path) -> None:
    index = one_sequence_per_document(np.array([3, 2]), np.dtype(np.int32))
    write_index(tmp_path / "a.idx", index)
    content = (tmp_path / "a.idx").read_bytes()
    assert is_index_at(tmp_path / "a.idx", index)
    for other in (content[:-1], content + b"\0", content[:40] + b"\1" + content[41:]):
        (tmp_path / "b.idx").write_bytes(other)
        assert not is_index_at(tmp_path / "b.idx", index)


def test_document_longer_than_an_int32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a document of 2,147,483,648 tokens.*2,147,483,647"):
        one_sequence_per_document(np.array([1, 2**31]), np.dtype(np.int32))


@pytest.mark.parametrize("prefix", ["s3://bucket/a", "msc://profile/a", "gs://bucket/a"])
def test_index_in_object_storage_is_refused_with_what_works(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"object storage.*physical copy"):
        read_index(Path(prefix))


def test_view_whose_tokens_are_gone_names_what_it_links_to(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [3])
    bin_path(tmp_path / "a").unlink()
    bin_path(tmp_path / "a").symlink_to("../tokens/a.bin")
    with pytest.raises(FileNotFoundError, match=r"a\.bin \(a link to \.\./tokens/a\.bin\)"):
        read_index(tmp_path / "a")
