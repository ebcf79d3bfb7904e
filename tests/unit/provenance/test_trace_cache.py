"""Index caches that are not the training's, not whole, or not of the files beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trace_samples import CODE, WEB, blend_of
from traced_runs import ARM, cached, planned, record_id, write_run

from mira_megatron import layout
from mira_megatron.provenance.record_uses import uses
from mira_megatron.provenance.trace import trace

pytestmark = pytest.mark.megatron


@pytest.mark.parametrize("sources", [{"code": [CODE]}, {"code": [CODE], "web": [WEB]}])
def test_cache_of_another_training_is_refused_with_what_it_holds(
    tmp_path: Path, sources: dict[str, Any]
) -> None:
    training = write_run(tmp_path, sources)
    training = cached(training, tmp_path / "cache", blend_of(training))
    trace(training, iteration=1)
    with pytest.raises(ValueError, match=r"has nothing for code-.*random_seed 4") as refused:
        trace(replace(training, seed=4), iteration=1)
    assert "random_seed 3, sequence_length 8" in str(refused.value)
    with pytest.raises(ValueError, match="built for 17 samples"):
        trace(replace(training, num_samples=17), iteration=1)


@pytest.mark.parametrize("sources", [{"code": [CODE]}, {"code": [CODE], "web": [WEB]}])
def test_cache_of_several_trainings_is_read_for_the_one_that_is_named(
    tmp_path: Path, sources: dict[str, Any]
) -> None:
    training = write_run(tmp_path, sources)
    for num_samples in (3, 4):
        sized = replace(training, num_samples=num_samples)
        cached(sized, tmp_path / "cache", blend_of(training))
    sized = replace(training, cache_folder=tmp_path / "cache")
    assert trace(replace(sized, num_samples=4), iteration=1).samples
    with pytest.raises(ValueError, match="more than one training fits code-"):
        trace(sized, iteration=1)


def test_cache_of_a_weighted_training_of_another_length_is_refused(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]}, weights=[0.3, 0.7])
    sized = replace(training, num_samples=10)
    sized = cached(sized, tmp_path / "cache", blend_of(training))
    assert trace(sized, iteration=10).samples
    for num_samples in (8, 13):
        with pytest.raises(ValueError, match=f"built for {num_samples} samples"):
            trace(replace(sized, num_samples=num_samples), iteration=1)


def test_cache_of_another_keep_mask_is_refused(tmp_path: Path) -> None:
    fewer = [replace(document, times=min(document.times, 1)) for document in CODE]
    training = write_run(tmp_path / "a", {"code": [CODE]}, handover="keep_mask_dataset")
    training = cached(training, tmp_path / "cache", blend_of(training))
    other = write_run(tmp_path / "b", {"code": [fewer]}, handover="keep_mask_dataset")
    other = replace(other, cache_folder=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"nothing for code-.*selection"):
        trace(other, iteration=1)


def test_two_trainers_with_other_tokenizers_share_a_cache(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    before = trace(training, iteration=1)
    for path in sorted((tmp_path / "cache").glob("*")):
        name = "0" * 32 + path.name[32:] if "Blended" in path.name else "1" + path.name[1:]
        content = path.read_bytes().replace(b'"vocab_size": 1000000', b'"vocab_size": 5')
        path.with_name(name).write_bytes(content)
    assert trace(training, iteration=1).samples == before.samples


def test_cache_that_moved_with_its_prefixes_is_found_by_name(tmp_path: Path) -> None:
    training = write_run(tmp_path / "here", {"code": [CODE], "web": [WEB]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    before = trace(training, iteration=1)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = replace(training, run_folder=tmp_path / "there")
    assert trace(moved, iteration=1).samples == before.samples


def test_missing_cache_and_unfinished_arrays_are_refused(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE]})
    with pytest.raises(FileNotFoundError, match="no index cache of Megatron's"):
        trace(replace(training, cache_folder=tmp_path / "none"), iteration=1)
    training = cached(training, tmp_path / "cache", blend_of(training))
    (array,) = (tmp_path / "cache").glob("*-sample_index.npy")
    array.write_bytes(array.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"sample_index\.npy: missing or cut short"):
        trace(training, iteration=1)
    array.unlink()
    with pytest.raises(ValueError, match="missing or cut short"):
        trace(training, iteration=1)
    (description,) = (tmp_path / "cache").glob("*-description.txt")
    description.write_text('{"class": "GPTData')
    with pytest.raises(ValueError, match="not a description of Megatron's"):
        trace(training, iteration=1)


def test_indices_made_for_other_files_are_refused_forwards_and_backwards(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [planned(*(((9,), 1) for _ in range(9)))]})
    training = cached(training, tmp_path / "cache", blend_of(training))
    (array,) = (tmp_path / "cache").glob("*-document_index.npy")
    np.save(array, np.zeros(9, dtype=np.int32) + 9)
    with pytest.raises(ValueError, match="were not made for the prefix as it is"):
        trace(training, iteration=1)
    with pytest.raises(ValueError, match="were not made for the prefix as it is"):
        uses(training, record_id("code", 0))
    shorter = write_run(tmp_path / "b", {"code": [planned(*(((7,), 1) for _ in range(9)))]})
    (stale,) = (tmp_path / "cache").glob("*-description.txt")
    (view,) = (tmp_path / "b" / layout.blend(ARM)).glob("*.idx")
    (own,) = (tmp_path / layout.blend(ARM)).glob("*.idx")
    stale.write_text(stale.read_text().replace(own.stem, view.stem))
    np.save(array, np.arange(9, dtype=np.int32))
    shorter = replace(shorter, cache_folder=tmp_path / "cache")
    with pytest.raises(ValueError, match="were not made for the prefix as it is"):
        [trace(shorter, iteration=iteration) for iteration in (1, 2, 3)]
    with pytest.raises(ValueError, match="were not made for the prefix as it is"):
        uses(shorter, record_id("code", 0))


def test_prefixes_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    documents = planned(*(((9,), 1) for _ in range(4)))
    training = write_run(tmp_path / "view", {"code": [documents]})
    (view,) = (tmp_path / "view" / layout.blend(ARM)).glob("*.bin")
    elsewhere = tmp_path / "elsewhere.bin"
    elsewhere.write_bytes(view.read_bytes())
    view.unlink()
    view.symlink_to(elsewhere)
    with pytest.raises(ValueError, match="the view belongs to another token dataset"):
        trace(training, iteration=1)
    shifted = write_run(tmp_path / "shifted", {"code": [documents]})
    (index,) = (tmp_path / "shifted" / layout.blend(ARM)).glob("*.idx")
    content = bytearray(index.read_bytes())
    np.frombuffer(content, "<i8", 4, offset=34 + 16)[0] += 4
    index.write_bytes(content)
    with pytest.raises(ValueError, match="lists bytes that are no sequence of"):
        trace(shifted, iteration=1)
    copy = write_run(tmp_path / "copy", {"code": [documents]}, handover="physical_copy")
    (index,) = (tmp_path / "copy" / layout.blend(ARM)).glob("*.idx")
    content = bytearray(index.read_bytes())
    np.frombuffer(content, "<i4", 4, offset=34)[:] = [8, 9, 9, 9]
    index.write_bytes(content)
    with pytest.raises(ValueError, match="not as long as the 4 that"):
        trace(copy, iteration=1)


def test_original_that_lists_bytes_twice_is_refused(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [planned(*(((9,), 1) for _ in range(4)))]})
    (original,) = (tmp_path / layout.tokens("code")).glob("*.idx")
    content = bytearray(original.read_bytes())
    pointers = np.frombuffer(content, "<i8", 4, offset=34 + 16)
    pointers[3] = pointers[1]
    original.write_bytes(content)
    with pytest.raises(ValueError, match=r"code-.*\.idx: .* Copy the dataset first"):
        trace(training, iteration=1)


def test_cache_of_other_weights_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    sources = {"code": [CODE], "web": [WEB]}
    training = replace(write_run(tmp_path / "a", sources, weights=[3.0, 7.0]), num_samples=10)
    training = cached(training, tmp_path / "cache", blend_of(training))
    assert trace(training, iteration=10).samples  # weights count in relation to each other
    for name, weights in {"b": [0.3001, 0.6999], "c": None}.items():
        other = write_run(tmp_path / name, sources, weights=weights)
        other = replace(other, num_samples=10, cache_folder=tmp_path / "cache")
        with pytest.raises(ValueError, match=r"has nothing for [^.]*code-") as refused:
            trace(other, iteration=1)
        assert "weights 0.3000, 0.7000" in str(refused.value)


def test_cache_without_weights_is_refused_for_a_weighted_blend(tmp_path: Path) -> None:
    sources = {"code": [CODE], "web": [WEB]}
    training = replace(write_run(tmp_path / "a", sources), num_samples=10)
    training = cached(training, tmp_path / "cache", blend_of(training))
    indices = trace(training, iteration=1)
    assert "index cache" in indices.indices_from
    # The very shares that Megatron draws by without weights, which builds other prefix indices.
    weighted = write_run(tmp_path / "b", sources, weights=[5.0, 5.0])
    weighted = replace(weighted, num_samples=10, cache_folder=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"weights 0\.5000, 0\.5000, built for 10 samples"):
        trace(weighted, iteration=1)


def test_weighted_blend_is_traced_to_the_number_of_samples_that_it_names(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE], "web": [WEB]}, weights=[0.5, 0.5])
    named = blend_of(training)["num_train_samples"]
    sized = trace(replace(training, num_samples=named), iteration=1)
    assert trace(training, iteration=1) == sized
    assert sized.last_iteration in (named, named + 1)  # each prefix is rounded up
    assert trace(replace(training, num_samples=8), iteration=1).last_iteration == 8


def test_view_that_is_a_hard_link_to_its_tokens_is_traced(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE]})
    before = trace(training, iteration=1)
    (view,) = (tmp_path / layout.blend(ARM)).glob("*.bin")
    tokens = view.resolve()
    view.unlink()
    view.hardlink_to(tokens)
    assert trace(training, iteration=1) == before


@pytest.mark.parametrize(
    ("field", "message"),
    [("left_out", "says nothing of left_out"), ("entries", "says nothing of entries")],
)
def test_blend_without_a_field_is_refused_by_file(tmp_path: Path, field: str, message: str) -> None:
    training = write_run(tmp_path, {"code": [CODE]})
    content = blend_of(training)
    path = tmp_path / layout.blend(ARM) / layout.BLEND
    path.write_text(json.dumps({name: content[name] for name in content if name != field}))
    with pytest.raises(ValueError, match=rf"blend\.json: {message}\. Make it anew"):
        trace(training, iteration=1)
    path.write_text(json.dumps(content)[:-9])
    with pytest.raises(ValueError, match=r"blend\.json: cut short .* Make it anew"):
        trace(training, iteration=1)
    path.write_text(json.dumps({**content, "train": ["elsewhere"]}))
    with pytest.raises(ValueError, match=r"elsewhere stands in none of its entries"):
        trace(training, iteration=1)


def test_rebuilding_leaves_nothing_beside_the_data(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE]})
    before = sorted(tmp_path.rglob("*"))
    trace(training, iteration=1)
    assert sorted(tmp_path.rglob("*")) == before


def test_loaders_that_are_not_megatrons_pretraining_ones_are_refused(tmp_path: Path) -> None:
    training = write_run(tmp_path, {"code": [CODE]})
    with pytest.raises(ValueError, match="dataloader_type='batch' must be one of single, cyclic"):
        replace(training, dataloader_type="batch")
    with pytest.raises(ValueError, match="train_iters=0 must be positive"):
        replace(training, train_iters=0)
    with pytest.raises(FileNotFoundError, match="no such blend"):
        trace(replace(training, arm="worst"), iteration=1)
