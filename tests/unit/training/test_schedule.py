from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mira_megatron.training.schedule import TrainSettings, learning_rate_at, num_train_iters

SETTINGS = TrainSettings(
    sequence_length=8,
    micro_batch_size=2,
    global_batch_size=4,
    train_iters=None,
    learning_rate=1.0,
    min_learning_rate=0.0,
    warmup_iters=2,
    weight_decay=0.1,
    adam_beta1=0.9,
    adam_beta2=0.95,
    clip_grad=1.0,
    eval_interval=5,
    log_interval=1,
    seed=1,
)


def test_learning_rate_warms_up_then_follows_half_a_cosine() -> None:
    rates = [learning_rate_at(step, SETTINGS, train_iters=6) for step in (1, 2, 4, 6)]

    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_learning_rate_without_warmup_starts_below_the_maximum() -> None:
    settings = replace(SETTINGS, warmup_iters=0, min_learning_rate=0.2)

    rates = [learning_rate_at(step, settings, train_iters=2) for step in (1, 2)]

    assert rates == pytest.approx([0.6, 0.2])


@given(st.integers(1, 50), st.integers(0, 49), st.floats(0, 1))
def test_learning_rate_stays_between_zero_and_maximum(
    train_iters: int, warmup_iters: int, minimum: float
) -> None:
    settings = replace(
        SETTINGS, warmup_iters=min(warmup_iters, train_iters - 1), min_learning_rate=minimum
    )

    rates = [learning_rate_at(step, settings, train_iters) for step in range(1, train_iters + 1)]

    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert rates[-1] == pytest.approx(minimum)


def test_num_train_iters_without_a_number_is_one_pass_of_whole_batches() -> None:
    assert num_train_iters(SETTINGS, num_samples=15) == 3


def test_num_train_iters_of_a_dataset_below_one_batch_names_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"has 3 samples of 8 tokens.*needs 4\."):
        num_train_iters(SETTINGS, num_samples=3)


def test_num_train_iters_beyond_the_dataset_names_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"has 15 samples.*train_iters=4 .*needs 16\."):
        num_train_iters(replace(SETTINGS, train_iters=4), num_samples=15)


def test_num_train_iters_within_the_warmup_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_iters=2 must be below the 2 training steps"):
        num_train_iters(SETTINGS, num_samples=8)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("global_batch_size", 3, "global_batch_size=3 must be a multiple of micro_batch_size=2"),
        ("train_iters", 0, "train_iters=0 must be positive"),
        ("save_interval", 0, "save_interval=0 must be positive"),
        ("precision", "fp8", "precision='fp8' must be one of float32, bfloat16"),
        ("warmup_iters", -1, "warmup_iters=-1 must not be negative"),
        ("adam_beta2", 1.0, r"adam_beta2=1.0 must be in \[0, 1\)"),
        ("min_learning_rate", 2.0, "min_learning_rate=2.0 must not exceed learning_rate=1.0"),
    ],
)
def test_train_settings_out_of_range_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **{name: value})


def test_train_settings_load_through_omegaconf() -> None:
    values = {name: getattr(SETTINGS, name) for name in TrainSettings.__slots__}

    loaded = OmegaConf.merge(OmegaConf.structured(TrainSettings), values)

    assert OmegaConf.to_object(loaded) == SETTINGS
