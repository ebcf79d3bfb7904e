from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_dataset import SftDataset
from mira_megatron.distill.sft_files import SftRow
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group

pytest_plugins = ("sft_samples",)
pytestmark = pytest.mark.megatron

_LENGTH, _PAD_ID, _EPOCHS = 96, 0, 2
_FILES_ARE_OVERWRITTEN = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _row(number: int, prompt: str, answer: str) -> SftRow:
    message = {"role": "user", "content": prompt}
    return SftRow(render([message]), f"{answer}{END}", f"r{number}", "notes")


_TEXTS = st.text("the note 7/10[A1]:\n注é<|im_end|>", min_size=1, max_size=25)
_ROWS = st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=12).map(
    lambda texts: [
        # An end token typed out in an answer would be one: answers never hold it, see sft_rows.
        _row(number, prompt.replace("<|", "<·|"), answer.replace("<|", "<·|"))
        for number, (prompt, answer) in enumerate(texts)
    ]
)


def _dataset(folder: Path, tokenizer: Path, rows: list[SftRow], seed: int = 5) -> SftDataset:
    path = folder / "training.jsonl"
    path.write_bytes(b"".join(row.line() for row in rows))
    return SftDataset(
        path,
        tokenizer,
        sequence_length=_LENGTH,
        pad_id=_PAD_ID,
        seed=seed,
        num_epochs=_EPOCHS,
    )


def _samples(sequence: dict[str, Tensor]) -> Iterator[slice]:
    """Yields where each sample lies: from one position 0 to its last token with loss."""
    is_padding = sequence["attention_mask"][0].logical_not().sum(0) == 1
    starts = [
        place
        for place in torch.nonzero(sequence["position_ids"] == 0).flatten().tolist()
        if not (is_padding[place] and sequence["loss_mask"][place] == 0)
    ]
    used = int(torch.nonzero(sequence["loss_mask"]).max()) + 1
    for start, end in zip(starts, [*starts[1:], used], strict=True):
        yield slice(start, end)


def _texts(dataset: SftDataset, tokenizer: ScorerTokenizer, epoch: int) -> Counter[tuple[str, str]]:
    """Counts what each sample reads without loss, and the labels that have loss, as texts."""
    found: Counter[tuple[str, str]] = Counter()
    for index in range(epoch * dataset.num_sequences, (epoch + 1) * dataset.num_sequences):
        sequence = dataset[index]
        for sample in _samples(sequence):
            tokens, labels = sequence["tokens"][sample], sequence["labels"][sample]
            has_loss = sequence["loss_mask"][sample].bool()
            # The last token of the prompt is read where the first token of the answer is the label.
            num_prompt = int((~has_loss).sum()) + 1
            assert bool(has_loss[num_prompt - 1 :].all())
            read = tokenizer.decode(tokens[:num_prompt].tolist())
            found[read, tokenizer.decode(labels[has_loss].tolist())] += 1
    return found


@given(_ROWS)
@_FILES_ARE_OVERWRITTEN
def test_sft_dataset_has_loss_on_exactly_the_answers(
    tmp_path: Path, chat_tokenizer_path: Path, rows: list[SftRow]
) -> None:
    dataset = _dataset(tmp_path, chat_tokenizer_path, rows)
    tokenizer = ScorerTokenizer(chat_tokenizer_path)
    expected = Counter((row.input, row.output) for row in rows)
    for epoch in range(_EPOCHS):
        assert _texts(dataset, tokenizer, epoch) == expected


@given(_ROWS)
@_FILES_ARE_OVERWRITTEN
def test_sft_dataset_attention_and_positions_end_with_a_sample(
    tmp_path: Path, chat_tokenizer_path: Path, rows: list[SftRow]
) -> None:
    dataset = _dataset(tmp_path, chat_tokenizer_path, rows)
    for index in range(len(dataset)):
        sequence = dataset[index]
        expected = torch.ones(_LENGTH, _LENGTH).bool()
        expected.fill_diagonal_(False)  # padding sees itself alone
        for sample in _samples(sequence):
            num_tokens = sample.stop - sample.start
            expected[sample, sample] = torch.ones(num_tokens, num_tokens).triu(1).bool()
            assert sequence["position_ids"][sample].tolist() == list(range(num_tokens))
            padding = slice(sample.stop, _LENGTH)
        assert torch.equal(sequence["attention_mask"], expected[None])
        assert set(sequence["tokens"][padding].tolist()) <= {_PAD_ID}
        assert not sequence["loss_mask"][padding].any()
        assert {name: len(sequence[name]) for name in ("tokens", "labels", "loss_mask")} == {
            "tokens": _LENGTH,
            "labels": _LENGTH,
            "loss_mask": _LENGTH,
        }


def _many_rows() -> list[SftRow]:
    return [_row(number, "note " * (number % 7 + 1), f"{number % 10}/10") for number in range(40)]


def test_sft_dataset_epochs_are_ordered_differently_and_again_alike(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    one, again, other = (
        _dataset(tmp_path, chat_tokenizer_path, _many_rows(), seed) for seed in (5, 5, 6)
    )

    def read(dataset: SftDataset, epoch: int) -> list[list[int]]:
        first = epoch * dataset.num_sequences
        return [dataset[first + each]["tokens"].tolist() for each in range(dataset.num_sequences)]

    assert read(one, 1) == read(again, 1)
    assert read(one, 0) == read(again, 0)  # after epoch 1: any order of access
    assert read(one, 0) != read(one, 1)
    assert read(one, 0) != read(other, 0)


def test_sft_dataset_efficiency_is_the_share_of_places_that_are_no_padding(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    dataset = _dataset(tmp_path, chat_tokenizer_path, _many_rows())
    masks = [dataset[index]["attention_mask"][0] for index in range(dataset.num_sequences)]
    # A place is padding if it sees only itself and nothing else sees it.
    num_alone = sum(int((((~mask).sum(0) == 1) & ((~mask).sum(1) == 1)).sum()) for mask in masks)
    num_places = dataset.num_sequences * _LENGTH
    assert dataset.packing_efficiency == pytest.approx(1 - num_alone / num_places)
    assert len(dataset) == _EPOCHS * dataset.num_sequences


def test_sft_dataset_sample_of_exactly_a_sequence_fits_and_a_longer_one_is_refused(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    tokenizer = ScorerTokenizer(chat_tokenizer_path)
    row = _row(3, "note", "x" * 10)
    missing = _LENGTH + 1 - len(tokenizer.encode(row.input)) - len(tokenizer.encode(row.output))
    fitting = _row(3, "note", "x" * 10 + "注" * (missing // 3) + "!?.\\;"[: missing % 3])
    sequence = _dataset(tmp_path, chat_tokenizer_path, [fitting])[0]
    num_tokens = len(tokenizer.encode(fitting.input)) + len(tokenizer.encode(fitting.output))
    assert num_tokens <= _LENGTH + 1
    assert int(sequence["loss_mask"].nonzero().max()) == num_tokens - 2
    with pytest.raises(ValueError, match=r"training.jsonl:1: record r3 has .* sequence_length=96"):
        _dataset(tmp_path, chat_tokenizer_path, [_row(3, "note", "注" * 200)])


def test_sft_dataset_file_without_samples_is_refused(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"training.jsonl: holds no sample"):
        _dataset(tmp_path, chat_tokenizer_path, [])


def test_sft_dataset_line_that_is_no_sample_is_refused(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    path = tmp_path / "training.jsonl"
    path.write_text('{"input": "x", "output": "y"}\n')
    with pytest.raises(ValueError, match=r"training.jsonl:1: not a sample"):
        SftDataset(path, chat_tokenizer_path, sequence_length=96, pad_id=0, seed=1)


def _losses(dataset: SftDataset, vocab_size: int) -> list[float]:
    """Returns the summed loss of every sample, in order of size, under one tiny model."""
    shape = ModelShape(
        num_layers=2,
        hidden_size=16,
        ffn_hidden_size=24,
        num_attention_heads=4,
        num_query_groups=2,
        max_sequence_length=_LENGTH,
        rotary_base=10_000,
        layernorm_epsilon=1e-6,
        tie_embeddings=True,
    )
    torch.manual_seed(1)
    model = build_model(shape, vocab_size).eval()
    losses = []
    for index in range(dataset.num_sequences):
        sequence = {name: values[None] for name, values in dataset[index].items()}
        with torch.no_grad():
            loss = model(
                sequence["tokens"],
                sequence["position_ids"],
                sequence["attention_mask"],
                labels=sequence["labels"],
            )[0]
        loss = loss * sequence["loss_mask"][0]
        losses += [float(loss[sample].sum()) for sample in _samples(dataset[index])]
    return sorted(losses)


def test_sft_dataset_sample_has_the_same_loss_packed_and_alone(
    tmp_path: Path, chat_tokenizer_path: Path
) -> None:
    rows = [_row(number, "note " * number, f"[A1] Clarity: {number}/10") for number in range(9)]
    vocab_size = ScorerTokenizer(chat_tokenizer_path).vocab_size
    packed = _dataset(tmp_path, chat_tokenizer_path, rows)
    assert packed.num_sequences < len(rows) / 2
    with megatron_process_group():
        together = _losses(packed, vocab_size)
        alone = [
            loss
            for row in rows
            for loss in _losses(_dataset(tmp_path, chat_tokenizer_path, [row]), vocab_size)
        ]
    assert together == pytest.approx(sorted(alone), rel=1e-5)  # float32 sums in another order
