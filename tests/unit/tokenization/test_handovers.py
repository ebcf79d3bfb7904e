"""One selection, three hand-overs, the same samples: checked on Megatron's own datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from token_datasets import (
    DOCUMENT_STRIDE,
    EOD,
    blend,
    one_process,
    write_mask,
    write_with_megatron,
)

from mira_megatron.provenance.coverage import dataset_coverage
from mira_megatron.retention.keep_masks import KeepMask
from mira_megatron.tokenization.handovers import is_view, write_index_view, write_physical_copy
from mira_megatron.tokenization.index_file import bin_path, read_index
from mira_megatron.tokenization.megatron_datasets import build_datasets, prefix_datasets

pytestmark = pytest.mark.megatron

LENGTHS = [5, 0, 9, 3, 12, 1, 7, 0, 6, 4]
KEPT = [True, True, False, True, True, False, True, False, True, True]
# Documents are at least a sample long in total, or Megatron has nothing to draw.
DOCUMENTS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40).filter(
    lambda documents: sum(length for length, kept in documents if kept) > 8
)


def all_samples(dataset: Any) -> list[list[int]]:
    return [[*sample["tokens"].tolist(), int(sample["labels"][-1])] for sample in dataset]


def three_blends(folder: Path, path_prefix: Path, mask: KeepMask) -> dict[str, dict[str, Any]]:
    write_index_view(path_prefix, mask, folder / "view" / "a")
    write_physical_copy(path_prefix, mask, folder / "copy" / "a")
    return {
        "index_view": blend([folder / "view" / "a"], path_prefix),
        "physical_copy": blend([folder / "copy" / "a"], path_prefix),
        "keep_mask_dataset": blend(
            [path_prefix],
            path_prefix,
            handover="keep_mask_dataset",
            keep_masks={str(path_prefix): str(mask.path)},
        ),
    }


def training_data(blended: dict[str, Any], cache_folder: Path) -> Any:
    return build_datasets(blended, seed=3, cache_folder=cache_folder).train


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(documents=DOCUMENTS)
def test_handovers_give_identical_samples_of_kept_documents_alone(
    tmp_path_factory: pytest.TempPathFactory, documents: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("handovers")
    lengths, kept = [length for length, _ in documents], [keep for _, keep in documents]
    write_with_megatron(folder / "a", lengths)
    mask = write_mask(folder / "a.keep.npy", folder / "a", kept)
    samples = {
        name: all_samples(training_data(blended, folder / name / "cache"))
        for name, blended in three_blends(folder, folder / "a", mask).items()
    }
    assert samples["index_view"] == samples["physical_copy"] == samples["keep_mask_dataset"]
    seen = {
        token // DOCUMENT_STRIDE for sample in samples["index_view"] for token in sample if token
    }
    assert seen <= {number for number, keep in enumerate(kept) if keep}


@pytest.mark.parametrize("handover", ["index_view", "physical_copy", "keep_mask_dataset"])
def test_handover_shows_every_kept_token_once_but_for_the_tail(
    tmp_path: Path, handover: str
) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    mask = write_mask(tmp_path / "a.keep.npy", tmp_path / "a", KEPT)
    dataset = training_data(three_blends(tmp_path, tmp_path / "a", mask)[handover], tmp_path / "c")
    inputs = [token for sample in dataset for token in sample["tokens"].tolist() if token != EOD]
    assert len(inputs) == len(set(inputs))
    coverage = dataset_coverage(dataset)
    kept_tokens = sum(length for length, keep in zip(LENGTHS, KEPT, strict=True) if keep)
    assert coverage.num_tokens_seen + coverage.tail_tokens == kept_tokens == 37
    assert coverage.num_samples == 4
    assert coverage.tail_tokens == 4
    assert coverage.times_exposed_S.max() == 1


def test_mask_that_changed_under_one_prefix_never_trains_on_the_old_documents(
    tmp_path: Path,
) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    path = tmp_path / "a.keep.npy"
    swapped = blend(
        [tmp_path / "a"],
        tmp_path / "a",
        handover="keep_mask_dataset",
        keep_masks={str(tmp_path / "a"): str(path)},
    )
    for kept in (KEPT, [not keep for keep in KEPT]):
        write_mask(path, tmp_path / "a", kept)
        seen = {
            token // DOCUMENT_STRIDE
            for sample in all_samples(training_data(swapped, tmp_path / "one_cache"))
            for token in sample
            if token
        }
        assert seen <= {number for number, keep in enumerate(kept) if keep}


def test_handover_keeps_held_out_splits_whole(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    mask = write_mask(tmp_path / "a.keep.npy", tmp_path / "a", KEPT)
    masked = three_blends(tmp_path, tmp_path / "a", mask)["keep_mask_dataset"]
    valid: Any = build_datasets(masked, seed=3, cache_folder=tmp_path / "c").valid
    coverage = dataset_coverage(valid)
    assert coverage.num_tokens_seen + coverage.tail_tokens == sum(LENGTHS)


def test_training_prefix_without_a_mask_is_refused(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", LENGTHS)
    masked = blend([tmp_path / "a"], tmp_path / "a", handover="keep_mask_dataset")
    with pytest.raises(Exception, match="no keep mask for this training prefix"):
        training_data(masked, tmp_path / "c")


def test_view_holds_kept_documents_and_a_relative_link(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "tokens" / "a", LENGTHS)
    mask = write_mask(tmp_path / "a.keep.npy", tmp_path / "tokens" / "a", KEPT)
    view = write_index_view(tmp_path / "tokens" / "a", mask, tmp_path / "blends" / "a-1")
    assert view.document_tokens().tolist() == [5, 0, 3, 12, 7, 6, 4]
    assert str(bin_path(tmp_path / "blends" / "a-1").readlink()) == "../tokens/a.bin"
    assert is_view(tmp_path / "blends" / "a-1")
    assert not is_view(tmp_path / "tokens" / "a")


def test_copy_holds_exactly_the_kept_tokens(tmp_path: Path) -> None:
    write_with_megatron(tmp_path / "a", [2, 3, 1])
    mask = write_mask(tmp_path / "a.keep.npy", tmp_path / "a", [True, False, True])
    write_physical_copy(tmp_path / "a", mask, tmp_path / "copy")
    index = read_index(tmp_path / "copy")
    ids = np.fromfile(bin_path(tmp_path / "copy"), index.dtype)
    assert ids.tolist() == [1, EOD, EOD]
    assert index.pointers_S.tolist() == [0, 8]


def test_blend_of_several_views_shows_each_kept_token_once(tmp_path: Path) -> None:
    views = []
    for name in ("a", "b", "c"):
        write_with_megatron(tmp_path / name, LENGTHS)
        mask = write_mask(tmp_path / f"{name}.keep.npy", tmp_path / name, KEPT)
        write_index_view(tmp_path / name, mask, tmp_path / "blend" / name)
        views.append(tmp_path / "blend" / name)
    with one_process():
        dataset = training_data(blend(views, tmp_path / "a"), tmp_path / "cache")
        assert len(dataset) == 3 * 4
        assert sorted(
            (int(dataset.dataset_index[i]), int(dataset.dataset_sample_index[i]))
            for i in range(len(dataset))
        ) == [(number, sample) for number in range(3) for sample in range(4)]
        for part in prefix_datasets(dataset):
            assert dataset_coverage(part).tail_tokens == 4
