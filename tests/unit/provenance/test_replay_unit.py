"""The replay says what Megatron's datasets give, counted token by token from their samples."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from token_datasets import EOD, VOCAB_SIZE, one_process, write_mask, write_with_megatron

from mira_megatron.provenance.coverage import dataset_coverage
from mira_megatron.provenance.replay import (
    DataRequest,
    PrefixBlend,
    SplitReplay,
    blend_request,
    build_splits,
    replaying,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer

pytestmark = pytest.mark.megatron

LENGTH = 8
LENGTHS = [5, 9, 3, 12, 1, 7, 6, 4, 11, 8]
DATASETS = st.lists(
    st.lists(st.integers(1, 14), min_size=6, max_size=20).filter(lambda ones: sum(ones) > LENGTH),
    min_size=1,
    max_size=3,
)


def request_of(prefixes: list[Path], **changes: Any) -> DataRequest:
    weights = changes.pop("weights", None)
    listed = PrefixBlend(prefixes=tuple(map(str, prefixes)), weights=weights)
    settings: dict[str, Any] = {
        "blends": (listed, None, None),
        "sequence_length": LENGTH,
        "seed": 1,
        "tokenizer": BlendTokenizer(vocab_size=VOCAB_SIZE, eod=EOD),
    }
    return DataRequest(**{**settings, **changes})


def write_all(folder: Path, datasets: list[list[int]]) -> list[Path]:
    for number, lengths in enumerate(datasets):
        write_with_megatron(folder / str(number), lengths)
    return [folder / str(number) for number in range(len(datasets))]


def drawn_places(split: SplitReplay) -> list[set[int]]:
    """Returns, per prefix, the places of its document order that drawn samples hold.

    From the samples that Megatron's datasets give, which know their place by their number.
    """
    places: list[set[int]] = [set() for _ in split.datasets]
    draws = split.draws(0, split.num_drawn)
    for number, (prefix, sample) in enumerate(zip(draws.prefix_N, draws.sample_N, strict=True)):
        given_by_megatron = split.dataset[number]
        dataset = split.datasets[prefix]
        tokens = [*given_by_megatron["tokens"].tolist(), int(given_by_megatron["labels"][-1])]
        ordered = np.concatenate([dataset.dataset[int(at)] for at in dataset.document_index])
        first = int(sample) * LENGTH
        assert tokens == ordered[first : first + LENGTH + 1].tolist()
        places[prefix] |= set(range(first, first + LENGTH + 1))
    return places


def check_against_samples(split: SplitReplay) -> None:
    for dataset, coverage, places in zip(
        split.datasets, split.coverages(), drawn_places(split), strict=True
    ):
        lengths = np.array(dataset.dataset.sequence_lengths)
        tokens, times = np.zeros_like(lengths), np.zeros_like(lengths)
        start = 0
        for sequence in dataset.document_index.tolist():
            held = len(places & set(range(start, start + lengths[sequence])))
            start += lengths[sequence]
            tokens[sequence] += held
            times[sequence] += held == lengths[sequence]
        assert coverage.tokens_seen_S.tolist() == tokens.tolist()
        assert coverage.times_seen_S.tolist() == times.tolist()
        listed = Counter(dataset.document_index.tolist())
        assert coverage.times_exposed_S.tolist() == [listed[at] for at in range(len(lengths))]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(datasets=DATASETS, data=st.data())
def test_replay_counts_what_the_samples_hold(
    tmp_path_factory: pytest.TempPathFactory, datasets: list[list[int]], data: st.DataObject
) -> None:
    prefixes = write_all(tmp_path_factory.mktemp("replay"), datasets)
    wanted = data.draw(st.one_of(st.none(), st.integers(1, 40)))
    weights = None
    if wanted is not None and len(prefixes) > 1 and data.draw(st.booleans()):
        weights = tuple(data.draw(st.integers(1, 9)) for _ in prefixes)
    asked = request_of(prefixes, weights=weights, num_samples=(wanted, None, None))
    with replaying(asked) as splits:
        check_against_samples(splits["train"])


@pytest.mark.parametrize("num_prefixes", [1, 2])
def test_replay_of_a_split_string_divides_sequences_by_position(
    tmp_path: Path, num_prefixes: int
) -> None:
    prefixes = write_all(tmp_path, [LENGTHS, LENGTHS][:num_prefixes])
    with replaying(request_of(prefixes, split="60,40,0")) as splits:
        assert set(splits) == {"train", "valid"}
        for split in splits.values():
            check_against_samples(split)
        for train, valid in zip(
            splits["train"].coverages(), splits["valid"].coverages(), strict=True
        ):
            assert train.times_exposed_S.tolist() == [1] * 6 + [0] * 4
            assert valid.times_exposed_S.tolist() == [0] * 6 + [1] * 4


def test_replay_of_one_pass_leaves_out_less_than_a_sample(tmp_path: Path) -> None:
    with replaying(request_of(write_all(tmp_path, [LENGTHS, [20]]))) as splits:
        first, second = splits["train"].coverages()
    assert (first.num_samples, first.num_drawn, first.num_epochs) == (8, 8, 1)
    assert (first.num_tokens_seen, first.tail_tokens) == (65, 1)
    assert (second.num_tokens_seen, second.tail_tokens) == (17, 3)


def test_replay_of_weights_draws_more_of_the_heavy_prefix_than_it_has(tmp_path: Path) -> None:
    prefixes = write_all(tmp_path, [[9, 9], LENGTHS])
    asked = request_of(prefixes, weights=(3.0, 1.0), num_samples=(12, None, None))
    with replaying(asked) as splits:
        train = splits["train"]
        assert train.drawn_per_prefix().tolist() == [9, 3]
        heavy, light = train.coverages()
    assert heavy.num_epochs == 5
    assert heavy.times_seen_S.max() == 5
    assert (light.times_seen_S == 0).any()


def test_replay_of_one_prefix_asked_for_several_epochs_counts_each(tmp_path: Path) -> None:
    asked = request_of(write_all(tmp_path, [LENGTHS]), num_samples=(16, None, None))
    with replaying(asked) as splits:
        (coverage,) = splits["train"].coverages()
    # 66 tokens a pass, 129 asked for: two epochs.
    assert (coverage.num_epochs, coverage.num_drawn) == (2, 16)
    assert coverage.times_exposed_S.tolist() == [2] * 10
    assert coverage.num_tokens_seen == 16 * LENGTH + 1


def test_replay_says_how_many_samples_are_missing(tmp_path: Path) -> None:
    asked = request_of(write_all(tmp_path, [LENGTHS, [20]]), num_samples=(100, None, None))
    with replaying(asked) as splits:
        assert (splits["train"].num_drawn, splits["train"].num_missing) == (10, 90)


def test_replay_of_a_keep_mask_lists_kept_sequences_alone(tmp_path: Path) -> None:
    (prefix,) = write_all(tmp_path, [LENGTHS])
    mask = write_mask(tmp_path / "a.keep.npy", prefix, [True, False] * 5)
    with replaying(request_of([prefix], keep_masks={str(prefix): str(mask.path)})) as splits:
        (coverage,) = splits["train"].coverages()
    assert coverage.times_exposed_S.tolist() == [1, 0] * 5


def test_replay_leaves_neither_process_group_nor_files(tmp_path: Path) -> None:
    prefixes = write_all(tmp_path / "data", [LENGTHS, LENGTHS])
    before = sorted(tmp_path.rglob("*"))
    with replaying(request_of(prefixes)) as splits:
        assert len(splits["train"].dataset) == 16
    assert not torch.distributed.is_initialized()
    assert sorted(tmp_path.rglob("*")) == before


def test_replay_keeps_a_process_group_that_is_there(tmp_path: Path) -> None:
    asked = request_of(write_all(tmp_path, [LENGTHS, LENGTHS]))
    with one_process():
        with replaying(asked, tmp_path / "cache") as splits:
            assert len(splits["train"].dataset) == 16
        assert torch.distributed.is_initialized()


def test_coverage_of_a_cache_that_is_of_another_index_is_refused(tmp_path: Path) -> None:
    (prefix,) = write_all(tmp_path, [LENGTHS])
    for lengths, found in (
        (LENGTHS, ""),
        (LENGTHS[:5], "names sequence 9 of 5"),
        ([*LENGTHS[:8], 8, 11], "does not start where one has to"),
    ):
        write_with_megatron(prefix, lengths)
        with one_process():
            dataset = build_splits(request_of([prefix]), tmp_path / "cache")["train"].dataset
            if not found:
                assert dataset_coverage(dataset).num_samples == 8
                continue
            with pytest.raises(ValueError, match=found):
                dataset_coverage(dataset)


def test_weights_without_a_number_of_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_iters"):
        request_of([tmp_path / "a", tmp_path / "b"], weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="1 weights for 2 prefixes"):
        request_of([tmp_path / "a", tmp_path / "b"], weights=(0.5,))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"sequence_length": 0}, "sequence_length=0 must be positive"),
        ({"sequence_length": -8}, "sequence_length=-8"),
        ({"num_samples": (0, None, None)}, "train: num_samples=0 must be positive"),
        ({"num_samples": (None, -1, None)}, "valid: num_samples=-1"),
        ({"split": "abc"}, "split='abc': expected shares"),
        ({"split": "0,0,0"}, "expected shares"),
        ({"split": "90,-10"}, "expected shares"),
        ({"split": "1,1,1,1"}, "expected shares"),
        ({"split": ""}, "expected shares"),
        ({"weights": (1.0, 0.0)}, "weight 0.0 must be a positive number"),
        ({"weights": (1.0, float("nan"))}, "weight nan"),
    ],
)
def test_request_that_no_training_could_make_is_refused(
    tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(found)):
        request_of([tmp_path / "a", tmp_path / "b"], **changes)


@pytest.mark.parametrize("split", ["969,30,1", "1", ".5, .5", "99.5,0.5"])
def test_split_strings_of_megatron_are_taken(tmp_path: Path, split: str) -> None:
    assert request_of([tmp_path / "a"], split=split).split == split


def test_coverage_of_a_shuffle_that_draws_a_sample_twice_is_refused(tmp_path: Path) -> None:
    (prefix,) = write_all(tmp_path, [LENGTHS])
    with replaying(request_of([prefix])) as splits:
        dataset: Any = splits["train"].dataset
        twice = np.array(dataset.shuffle_index)
        twice[1] = twice[0]
        dataset.shuffle_index = twice
        with pytest.raises(ValueError, match="does not draw each of its 8 samples once"):
            dataset_coverage(dataset)


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("dataset_sample_index", "is sample 0 of prefix"),
        ("dataset_index", "draws 16 samples of"),
    ],
)
def test_replay_refuses_the_order_of_a_blend_that_is_not_its_prefixes(
    tmp_path: Path, part: str, found: str
) -> None:
    asked = request_of(write_all(tmp_path / "data", [LENGTHS, LENGTHS]))
    with one_process():
        build_splits(asked, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*-{part}.npy")
    np.save(path, np.zeros_like(np.load(path)))
    if part == "dataset_index":
        (places,) = (tmp_path / "cache").glob("*-dataset_sample_index.npy")
        np.save(places, np.arange(16))
    with pytest.raises(ValueError, match=found), replaying(asked, tmp_path / "cache"):
        pass


def test_replay_reads_a_cache_folder_and_writes_nothing_there(tmp_path: Path) -> None:
    prefixes = write_all(tmp_path / "data", [LENGTHS, LENGTHS])
    asked, cache = request_of(prefixes), tmp_path / "cache"
    with replaying(asked, cache) as splits:
        assert splits["train"].num_not_in(cache) == 3
    assert not cache.exists()
    with one_process():
        build_splits(request_of(prefixes[:1]), cache)
    before = sorted(cache.iterdir())
    with replaying(asked, cache) as splits:
        assert splits["train"].num_not_in(cache) == 2
    assert sorted(cache.iterdir()) == before


def test_split_string_beside_blends_per_split_is_refused(tmp_path: Path) -> None:
    one = PrefixBlend(prefixes=("a",))
    with pytest.raises(ValueError, match="divides one blend"):
        request_of([tmp_path / "a"], blends=(one, one, None), split="969,30,1")


def test_request_of_a_weighted_blend_asks_for_the_samples_it_names(tmp_path: Path) -> None:
    blend = {
        "train": ["/a", "/b"],
        "valid": ["/v"],
        "train_weights": [0.25, 0.75],
        "num_train_samples": 40,
        "handover": "index_view",
        "sequence_length": LENGTH,
        "vocab_size": VOCAB_SIZE,
        "eod_id": EOD,
        "keep_masks": {},
    }
    assert blend_request(blend, seed=1).num_samples == (40, None, None)
    assert blend_request(blend, seed=1, num_samples=7).num_samples == (7, None, None)
    assert blend_request({**blend, "train_weights": None}, seed=1).num_samples[0] is None
