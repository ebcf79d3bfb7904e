import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from torch import Tensor

from mira_megatron.training.batches import TokenDataset
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.schedule import TrainSettings
from mira_megatron.training.trainer import EvalEntry, LogEntry, TrainEntry, parameter_groups, train

pytestmark = pytest.mark.megatron

VOCAB_SIZE = 64
SHAPE = ModelShape(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=4,
    num_query_groups=2,
    max_sequence_length=16,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
SETTINGS = TrainSettings(
    sequence_length=16,
    micro_batch_size=4,
    global_batch_size=8,
    train_iters=6,
    learning_rate=1e-2,
    min_learning_rate=1e-3,
    warmup_iters=1,
    weight_decay=0.1,
    adam_beta1=0.9,
    adam_beta2=0.95,
    clip_grad=1.0,
    eval_interval=4,
    log_interval=2,
    seed=7,
)


@pytest.fixture
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


def sample(tokens: list[int], loss_mask: list[int]) -> dict[str, Tensor]:
    """One item as GPTDataset gives it; the last of `tokens` is only a label."""
    return {
        "tokens": torch.tensor(tokens[:-1]),
        "labels": torch.tensor(tokens[1:]),
        "loss_mask": torch.tensor(loss_mask, dtype=torch.float32),
        "position_ids": torch.arange(len(tokens) - 1),
    }


def counting_samples(num_samples: int) -> list[dict[str, Tensor]]:
    """Sample i counts up from i: the next token is always the token after this one."""
    return [sample([(i + k) % VOCAB_SIZE for k in range(17)], [1] * 16) for i in range(num_samples)]


def megatron_datasets(
    folder: Path, *, create_attention_mask: bool
) -> tuple[TokenDataset, TokenDataset]:
    """A blend of two prefixes for training, 3 samples for validation, the last one half padding."""
    rng = np.random.default_rng(0)
    for name, num_tokens in (("a", 500), ("b", 500), ("valid", 41)):
        builder = IndexedDatasetBuilder(str(folder / f"{name}.bin"), dtype=np.uint16)
        # Every document counts up by 3 from a random token: easy to learn, and EOD appears often.
        start = int(rng.integers(VOCAB_SIZE))
        builder.add_item(torch.tensor([(start + 3 * k) % VOCAB_SIZE for k in range(num_tokens)]))
        builder.end_document()
        builder.finalize(str(folder / f"{name}.idx"))
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=16,
        blend_per_split=[
            ([str(folder / "a"), str(folder / "b")], None),
            ([str(folder / "valid")], None),
            None,
        ],
        path_to_cache=str(folder / "cache"),
        tokenizer=SimpleNamespace(
            vocab_size=VOCAB_SIZE, eod=0, pad=-1, unique_identifiers={"class": "counting"}
        ),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=create_attention_mask,
        drop_last_partial_validation_sequence=False,
    )
    builder = BlendedMegatronDatasetBuilder(GPTDataset, [None, None, None], lambda: True, config)
    train_dataset, valid_dataset, _ = builder.build()
    return train_dataset, valid_dataset


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("create_attention_mask", [False, True])
def test_training_on_a_megatron_blend_lowers_the_loss(
    tmp_path: Path, create_attention_mask: bool
) -> None:
    train_dataset, valid_dataset = megatron_datasets(
        tmp_path, create_attention_mask=create_attention_mask
    )

    result = train(
        model_shape=SHAPE,
        settings=replace(SETTINGS, train_iters=None),
        vocab_size=VOCAB_SIZE,
        train_dataset=train_dataset,
        valid_dataset=valid_dataset,
    )

    assert result.state.max_steps == len(train_dataset) // 8 == 7
    evaluations = [entry for entry in result.state.log_history if isinstance(entry, EvalEntry)]
    assert [entry.step for entry in evaluations] == [0, 4, 7]
    assert {entry.eval_tokens for entry in evaluations} == {40}  # 41 tokens have 40 successors
    assert evaluations[0].eval_loss == pytest.approx(np.log(128), abs=0.1)  # uniform, 128 rows
    assert evaluations[-1].eval_loss < evaluations[0].eval_loss - 0.5


@pytest.mark.usefixtures("process_group")
def test_training_twice_with_one_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.json", "second.json"):
        result = train(
            model_shape=SHAPE,
            settings=SETTINGS,
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(48),
            valid_dataset=counting_samples(5),
        )
        result.state.save(tmp_path / name)

    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


@pytest.mark.usefixtures("process_group")
def test_trainer_state_file_is_laid_out_like_hugging_faces(tmp_path: Path) -> None:
    result = train(
        model_shape=SHAPE,
        settings=replace(SETTINGS, train_iters=2),
        vocab_size=VOCAB_SIZE,
        train_dataset=counting_samples(16),
        valid_dataset=counting_samples(1),
    )
    result.state.save(tmp_path / "trainer_state.json")

    written = json.loads((tmp_path / "trainer_state.json").read_text())
    assert written["global_step"] == written["max_steps"] == 2
    assert written["num_train_tokens"] == 2 * 8 * 16
    assert [sorted(entry) for entry in written["log_history"]] == [
        ["eval_loss", "eval_tokens", "step"],
        ["grad_norm", "learning_rate", "loss", "step"],
        ["eval_loss", "eval_tokens", "step"],
    ]


@pytest.mark.usefixtures("process_group")
def test_training_in_smaller_micro_batches_gives_the_same_losses() -> None:
    # Micro-batches of two then hold 32 or 2 tokens with a loss.
    long, short = counting_samples(1), [sample(list(range(30, 47)), [1] + [0] * 15)]
    losses = []
    for micro_batch_size in (8, 2):
        result = train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, micro_batch_size=micro_batch_size),
            vocab_size=VOCAB_SIZE,
            train_dataset=(2 * long + 2 * short) * 12,
            valid_dataset=None,
        )
        losses.append([e.loss for e in result.state.log_history if isinstance(e, TrainEntry)])

    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # float32 sums in another order


@pytest.mark.usefixtures("process_group")
def test_validation_weighs_samples_by_their_loss_tokens() -> None:
    full = sample(list(range(17)), [1] * 16)
    quarter = sample(list(range(20, 37)), [1] * 4 + [0] * 12)

    def first_evaluation(valid_dataset: list[dict[str, Tensor]]) -> EvalEntry:
        result = train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, train_iters=2),
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(16),
            valid_dataset=valid_dataset,
        )
        entry = result.state.log_history[0]
        assert isinstance(entry, EvalEntry)
        return entry

    both = first_evaluation([full, quarter])

    assert both.eval_tokens == 20
    weighted = (
        16 * first_evaluation([full]).eval_loss + 4 * first_evaluation([quarter]).eval_loss
    ) / 20
    assert both.eval_loss == pytest.approx(weighted, rel=1e-6)


@pytest.mark.usefixtures("process_group")
def test_on_log_hears_every_entry_with_its_speed() -> None:
    heard: list[LogEntry] = []

    result = train(
        model_shape=SHAPE,
        settings=SETTINGS,
        vocab_size=VOCAB_SIZE,
        train_dataset=counting_samples(48),
        valid_dataset=counting_samples(3),
        on_log=heard.append,
    )

    assert tuple(log.entry for log in heard) == result.state.log_history
    assert [log.entry.step for log in heard] == [0, 2, 4, 4, 6, 6]
    assert all(log.max_steps == 6 and log.tokens_per_second > 0 for log in heard)


@pytest.mark.usefixtures("process_group")
def test_training_with_an_exploding_loss_stops_and_names_the_step() -> None:
    with pytest.raises(ValueError, match=r"step [2-6]: the (loss|gradient norm) is (nan|inf)"):
        train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, learning_rate=1e30),
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(48),
            valid_dataset=None,
        )


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    ("changed_settings", "vocab_size", "message"),
    [
        ({}, 60, "sample 45 holds token id 60, but the vocabulary has 60 tokens"),
        ({"sequence_length": 8}, 64, "sample 0 has 16 tokens, expected sequence_length=8"),
        ({"sequence_length": 32}, 64, "sequence_length=32 exceeds .* max_sequence_length=16"),
    ],
)
def test_training_on_a_dataset_that_does_not_fit_is_refused(
    changed_settings: dict[str, Any], vocab_size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, **changed_settings),
            vocab_size=vocab_size,
            train_dataset=counting_samples(48),
            valid_dataset=None,
        )


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("split", ["train", "valid"])
def test_training_on_samples_without_loss_tokens_is_refused(split: str) -> None:
    masked = [sample(list(range(17)), [0] * 16)] * 48
    datasets = {"train": counting_samples(48), "valid": counting_samples(1), split: masked}

    with pytest.raises(ValueError, match=r"loss_mask is 0|no token with a loss"):
        train(
            model_shape=SHAPE,
            settings=SETTINGS,
            vocab_size=VOCAB_SIZE,
            train_dataset=datasets["train"],
            valid_dataset=datasets["valid"],
        )


@pytest.mark.usefixtures("process_group")
def test_parameter_groups_spare_norms_and_biases_from_decay() -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    decayed, spared = parameter_groups(model, weight_decay=0.1)

    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    spared_names = [names[id(parameter)] for parameter in spared["params"]]
    assert spared_names
    assert all("layernorm" in name or name.endswith("bias") for name in spared_names)
    assert not any("layernorm" in names[id(parameter)] for parameter in decayed["params"])


def train_as_rank(rank: int, world_size: int, port: int | None, state_path: Path) -> None:
    with megatron_process_group(
        rank=rank,
        world_size=world_size,
        master_address=None if port is None else "127.0.0.1",
        master_port=port,
    ):
        result = train(
            model_shape=SHAPE,
            settings=SETTINGS,
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(48),
            valid_dataset=counting_samples(5),
        )
    if rank == 0:
        result.state.save(state_path)


def test_training_in_two_processes_gives_the_losses_of_one(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = get_context("spawn")
    with ExitStack() as running:
        processes = [
            context.Process(target=train_as_rank, args=(rank, 2, port, tmp_path / "two.json"))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
            running.callback(process.kill)
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0, 0]
    train_as_rank(0, 1, None, tmp_path / "one.json")

    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two"))
    assert two["num_train_tokens"] == one["num_train_tokens"]
    for expected, entry in zip(one["log_history"], two["log_history"], strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)  # float32 sums in another order
