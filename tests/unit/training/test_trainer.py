import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from megatron.core.models.gpt.gpt_model import GPTModel
from tiny_training import SETTINGS, SHAPE, VOCAB_SIZE, counting_samples, sample
from torch import Tensor

from mira_megatron.training.adamw import parameter_groups
from mira_megatron.training.batches import TokenDataset
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.trainer import train
from mira_megatron.training.training_log import EvalEntry, LogEntry, TrainEntry

pytestmark = pytest.mark.megatron


@pytest.fixture
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


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
def test_training_in_bfloat16_follows_the_losses_of_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        result = train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, precision=precision),
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(48),
            valid_dataset=None,
        )
        losses.append([e.loss for e in result.state.log_history if isinstance(e, TrainEntry)])

    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # bfloat16 has three digits


@pytest.mark.usefixtures("process_group")
def test_training_starts_from_the_weights_that_initialise_gives() -> None:
    def first_loss(initialise: Callable[[GPTModel], None] | None) -> float:
        result = train(
            model_shape=SHAPE,
            settings=replace(SETTINGS, train_iters=2),
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(16),
            valid_dataset=counting_samples(1),
            initialise=initialise,
        )
        entry = result.state.log_history[0]
        assert isinstance(entry, EvalEntry)
        return entry.eval_loss

    def all_zero(model: GPTModel) -> None:
        with torch.no_grad():
            model.embedding.word_embeddings.weight.zero_()

    assert first_loss(all_zero) == pytest.approx(np.log(128))  # every token alike, 128 rows
    assert first_loss(None) != pytest.approx(np.log(128))


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

    decayed, spared = parameter_groups(list(model.parameters()), weight_decay=0.1)

    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    spared_names = [names[id(parameter)] for parameter in spared["params"]]
    assert spared_names
    assert all("layernorm" in name or name.endswith("bias") for name in spared_names)
    assert not any("layernorm" in names[id(parameter)] for parameter in decayed["params"])
