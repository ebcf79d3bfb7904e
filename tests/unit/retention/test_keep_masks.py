from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mira_megatron.retention.keep_masks import (
    KeepMask,
    check_keep_mask,
    read_keep_mask,
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
