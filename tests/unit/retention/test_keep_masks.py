from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mira_megatron.retention.keep_masks import (
    KeepMask,
    check_keep_mask,
    read_keep_mask,
    repeats_path,
    selection_digest,
    write_keep_mask,
)

IS_KEPT = np.array([True, False, True])
TOKENS = np.array([10, 20, 30])


def written(path: Path) -> KeepMask:
    write_keep_mask(path, IS_KEPT, TOKENS, idx_fingerprint="f1", scores_fingerprint="s1")
    return read_keep_mask(path)


def test_keep_mask_read_back_says_what_it_keeps(tmp_path: Path) -> None:
    mask = written(tmp_path / "wiki.keep.npy")
    assert mask.is_kept.tolist() == [True, False, True]
    assert (mask.info.num_documents, mask.info.num_kept) == (3, 2)
    assert (mask.info.tokens_total, mask.info.tokens_kept) == (60, 40)
    assert (tmp_path / "wiki.keep.json").is_file()


def test_keep_mask_of_the_wrong_length_is_refused_with_both_counts(tmp_path: Path) -> None:
    mask = written(tmp_path / "wiki.keep.npy")
    with pytest.raises(ValueError, match=r"3 entries but .*tokens/wiki\.idx has 4 documents"):
        check_keep_mask(mask, Path("tokens/wiki"), num_documents=4, idx_fingerprint="f1")


def test_keep_mask_of_another_index_is_refused_with_the_way_out(tmp_path: Path) -> None:
    mask = written(tmp_path / "wiki.keep.npy")
    with pytest.raises(ValueError, match=r"fingerprint f1, but .* has f2.*`mira select`"):
        check_keep_mask(mask, Path("tokens/wiki"), num_documents=3, idx_fingerprint="f2")


def test_keep_mask_changed_after_it_was_described_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wiki.keep.npy"
    written(path)
    np.save(path, ~IS_KEPT)
    with pytest.raises(ValueError, match=r"3 entries with 1 kept, but .*\.json says 3 with 2"):
        read_keep_mask(path)


def test_keep_mask_without_its_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wiki.keep.npy"
    np.save(path, IS_KEPT)
    with pytest.raises(FileNotFoundError, match=r"wiki\.keep\.json: no such file"):
        read_keep_mask(path)


def test_keep_mask_that_is_no_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wiki.keep.npy"
    np.save(path, np.array([0, 1]))
    with pytest.raises(ValueError, match="expected a 1-D bool array, got int64"):
        read_keep_mask(path)


def test_selection_digest_changes_with_every_decision_the_length_and_the_index() -> None:
    masks = [[True, False], [False, True], [True, False, False], [True]]
    digests = {selection_digest("f1", np.array(mask)) for mask in masks}
    digests.add(selection_digest("f2", np.array(masks[0])))
    assert len(digests) == 5


REPEATS = np.array([2, 0, 3], dtype=np.uint8)


def written_with_repeats(path: Path) -> KeepMask:
    write_keep_mask(
        path, IS_KEPT, TOKENS, idx_fingerprint="f1", scores_fingerprint="s1", repeats_D=REPEATS
    )
    return read_keep_mask(path)


def test_repeats_read_back_count_in_the_tokens_of_a_pass(tmp_path: Path) -> None:
    mask = written_with_repeats(tmp_path / "wiki.0.keep.npy")
    assert mask.repeats_D is not None
    assert mask.repeats_D.tolist() == [2, 0, 3]
    assert (mask.info.num_kept, mask.info.tokens_kept) == (2, 2 * 10 + 3 * 30)
    assert (tmp_path / "wiki.0.repeats.npy").is_file()


def test_repeats_that_were_lost_are_missed(tmp_path: Path) -> None:
    written_with_repeats(tmp_path / "wiki.keep.npy")
    repeats_path(tmp_path / "wiki.keep.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"wiki\.repeats\.npy: no such repeats"):
        read_keep_mask(tmp_path / "wiki.keep.npy")


def test_repeats_that_were_changed_are_refused(tmp_path: Path) -> None:
    written_with_repeats(tmp_path / "wiki.keep.npy")
    np.save(repeats_path(tmp_path / "wiki.keep.npy"), np.array([2, 0, 4], dtype=np.uint8))
    with pytest.raises(ValueError, match="its decisions are not those"):
        read_keep_mask(tmp_path / "wiki.keep.npy")


@pytest.mark.parametrize(
    ("repeats", "message"),
    [
        (np.array([1, 1, 1], np.uint8), "document 1 is repeated 1 times, but the mask drops it"),
        (np.array([0, 0, 1], np.uint8), "document 0 is repeated 0 times, but the mask keeps it"),
        (np.array([1, 0, 1]), "expected 3 repeats as uint8.*got int64"),
        (np.array([1, 0], np.uint8), r"expected 3 repeats as uint8.*got uint8 \(2,\)"),
    ],
)
def test_repeats_that_contradict_the_mask_are_refused(
    tmp_path: Path, repeats: npt.NDArray[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_keep_mask(
            tmp_path / "wiki.keep.npy",
            IS_KEPT,
            TOKENS,
            idx_fingerprint="f1",
            scores_fingerprint="s1",
            repeats_D=repeats,
        )
    assert not list(tmp_path.iterdir())


def test_mask_written_without_repeats_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    written_with_repeats(tmp_path / "wiki.keep.npy")
    assert written(tmp_path / "wiki.keep.npy").repeats_D is None
    assert not repeats_path(tmp_path / "wiki.keep.npy").exists()


def test_selection_digest_without_repeats_is_what_it_was_before_there_were_any() -> None:
    # blake2b-128 of the fingerprint, the length as 8 bytes and the packed bits: it names files.
    plain = selection_digest("f1", IS_KEPT)
    assert plain == "f564ff475353992bf578e1a448335d1e"
    with_repeats = {
        selection_digest("f1", IS_KEPT, np.array(r, np.uint8)) for r in ([1, 0, 1], [1, 0, 2])
    }
    assert len(with_repeats | {plain}) == 3
