"""Weights of a blend: what they are, what is said of them, and what Megatron draws by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from token_datasets import blend, one_process, write_with_megatron

from mira_megatron.tokenization.blend import BlendConfig
from mira_megatron.tokenization.blend_weights import (
    WeightedPrefix,
    source_weights,
    token_weights,
    weight_consequences,
)
from mira_megatron.tokenization.megatron_datasets import build_datasets


def prefix(source: str, num_samples: int, *, name: str | None = None) -> WeightedPrefix:
    """A prefix whose tokens are ten times its samples."""
    return WeightedPrefix(
        source=source,
        name=name or source,
        num_tokens=10 * num_samples,
        num_samples=num_samples,
    )


WIKI, CODE = prefix("wiki", 80), prefix("code", 20)


def test_weights_by_kept_tokens_are_their_shares() -> None:
    assert token_weights([WIKI, CODE]) == [0.8, 0.2]


def test_weights_by_kept_tokens_repeat_and_leave_out_nothing() -> None:
    assert weight_consequences([WIKI, CODE], token_weights([WIKI, CODE]), 100) == []


def test_source_weights_are_shared_by_tokens_within_a_source() -> None:
    shards = [prefix("wiki", 60, name="wiki.0"), prefix("wiki", 20, name="wiki.1"), CODE]
    assert source_weights(shards, {"wiki": 1, "code": 1}) == [0.375, 0.125, 0.5]


def test_equal_weights_say_in_numbers_what_they_repeat_and_leave_out() -> None:
    wiki, code = weight_consequences([WIKI, CODE], [0.5, 0.5], 100)
    assert "0.62 passes over its 80; that leaves out 30 samples" in wiki
    assert "2.50 passes over its 20; that repeats 30 samples" in code


def test_source_weights_must_name_every_source() -> None:
    with pytest.raises(ValueError, match="names no weight for code"):
        source_weights([WIKI, CODE], {"wiki": 1})


def test_weight_of_a_source_that_is_not_trained_on_takes_no_share() -> None:
    assert source_weights([WIKI, CODE], {"wiki": 3, "code": 1, "qa": 4}) == [0.75, 0.25]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weights": "tokens"}, "must be null or kept_tokens"),
        ({"weights": "kept_tokens", "source_weights": {"wiki": 1}}, "one of them"),
        ({"source_weights": {"wiki": 0.0}}, "source_weights.wiki=0.0 must be a positive"),
        ({"source_weights": {"wiki": float("nan")}}, "must be a positive"),
    ],
)
def test_blend_with_wrong_weights_is_refused(weights: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlendConfig(handover="index_view", sequence_length=8, **weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
def test_megatron_draws_samples_by_weight_as_is_said(tmp_path: Path, weights: list[float]) -> None:
    lengths = {"wiki": [8] * 80 + [1], "code": [8] * 20 + [1], "held": [9]}
    for name, documents in lengths.items():
        write_with_megatron(tmp_path / name, documents)
    content = blend(
        [tmp_path / "wiki", tmp_path / "code"],
        tmp_path / "held",
        train_weights=weights,
        num_train_samples=100,
    )
    with one_process():
        datasets = build_datasets(content, seed=1, cache_folder=tmp_path / "cache")
    drawn = np.bincount(datasets.train.dataset_index, minlength=2)
    assert len(datasets.train) == 100
    assert np.abs(drawn - 100 * np.array(weights)).max() <= 1
    assert len(datasets.valid) == 1
