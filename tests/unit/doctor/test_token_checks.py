from __future__ import annotations

import pytest

from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.finding import ERROR, WARNING
from mira_megatron.doctor.token_checks import (
    check_end_token,
    check_joined_text,
    check_loss,
    check_tokenizer,
    check_vocabulary,
    embedding_rows,
)


@pytest.mark.parametrize(
    ("kind", "folder"), [("NullTokenizer", "base"), ("HuggingFaceTokenizer", None)]
)
def test_tokenizer_placeholder_is_found(kind: str, folder: str | None) -> None:
    (finding,) = check_tokenizer(TrainingFacts(tokenizer_type=kind, tokenizer_folder=folder))
    assert (finding.level, kind in finding.where) == (ERROR, True)


def test_tokenizer_that_is_real_is_silent() -> None:
    facts = TrainingFacts(tokenizer_type="HuggingFaceTokenizer", tokenizer_folder="base")
    assert not check_tokenizer(facts)


def test_loss_on_all_tokens_is_found() -> None:
    (finding,) = check_loss(TrainingFacts(answer_only_loss=False))
    assert "answer_only_loss=True" in finding.way_out


def test_loss_of_a_chat_without_generation_marks_is_found_whatever_answer_only_says() -> None:
    facts = TrainingFacts(is_chat=True, answer_only_loss=True, chat_template="{{ messages }}")
    (finding,) = check_loss(facts)
    assert "chat" in finding.where


def test_loss_on_answers_only_is_silent() -> None:
    assert not check_loss(TrainingFacts(answer_only_loss=True))
    marked = "{%- generation -%}{{ message.content }}{%- endgeneration -%}"
    assert not check_loss(TrainingFacts(is_chat=True, chat_template=marked))


def test_joined_text_with_bridges_default_space_is_found() -> None:
    assert len(check_joined_text(TrainingFacts(prompt_template="{input} {output}"))) == 1


def test_joined_text_of_input_and_output_alone_is_silent() -> None:
    assert not check_joined_text(TrainingFacts(prompt_template="{input}{output}"))


def test_end_token_of_a_base_model_is_an_error_where_samples_are_padded() -> None:
    (finding,) = check_end_token(TrainingFacts(eos_token="<|endoftext|>", context_parallel=8))
    assert finding.level == ERROR
    (finding,) = check_end_token(TrainingFacts(eos_token="<|endoftext|>", context_parallel=1))
    assert finding.level == WARNING


def test_end_token_added_twice_is_found() -> None:
    (finding,) = check_end_token(TrainingFacts(eos_token="<|im_end|>", adds_eos=True))
    assert "add_eos=False" in finding.way_out


def test_end_token_of_answers_is_silent() -> None:
    facts = TrainingFacts(eos_token="<|im_end|>", adds_eos=False, context_parallel=8)
    assert not check_end_token(facts)


def test_embedding_rows_are_padded_to_the_divisor_times_tensor_parallel() -> None:
    facts = TrainingFacts(num_tokenizer_ids=1000, vocab_divisor=128, tensor_parallel=2)
    assert embedding_rows(facts) == 1024
    assert embedding_rows(TrainingFacts(num_tokenizer_ids=1025, vocab_divisor=128)) == 1152


def test_vocabulary_padded_otherwise_than_the_weights_is_found() -> None:
    facts = TrainingFacts(
        num_tokenizer_ids=151_669,
        vocab_divisor=128,
        tensor_parallel=8,
        checkpoint_vocab_size=151_936,
    )
    (finding,) = check_vocabulary(facts)  # 152,576 = 149 x 1,024
    assert "152,576 rows, the weights it starts from 151,936" in finding.what


def test_vocabulary_smaller_than_the_tokenizer_is_found() -> None:
    facts = TrainingFacts(num_tokenizer_ids=300, model_vocab_size=256)
    (finding,) = check_vocabulary(facts)
    assert "300 ids, the embedding 256 rows" in finding.what


def test_vocabulary_that_tensor_parallelism_cannot_cut_is_found() -> None:
    (finding,) = check_vocabulary(TrainingFacts(model_vocab_size=1001, tensor_parallel=2))
    assert "cannot be cut into 2" in finding.what


def test_vocabulary_as_the_weights_have_it_is_silent() -> None:
    facts = TrainingFacts(
        num_tokenizer_ids=151_669,
        model_vocab_size=151_936,
        checkpoint_vocab_size=151_936,
        tensor_parallel=8,
    )
    assert not check_vocabulary(facts)
