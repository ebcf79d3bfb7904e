from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_scorer import compact_answer, example_answers, record, write_tiny_scorer
from transformers import AutoModelForCausalLM

from mira_megatron.scoring.answer_draft import Place
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import expected_score
from mira_megatron.scoring.generation import Doubts, Generated, LocalJudge, LocalModel, Prompt
from mira_megatron.scoring.questions import Question
from mira_megatron.scoring.record_seed import record_seed
from mira_megatron.scoring.transformers_engine import TransformersEngine

_NAMES = ("depth", "clear order", "use")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_scorer(tmp_path_factory.mktemp("dense"), _NAMES, is_moe=False, num_steps=90)


@pytest.fixture(scope="module")
def moe_scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe")
    return write_tiny_scorer(
        folder, _NAMES, is_moe=True, num_steps=60, splits_digits=False, favourite=10
    )


def _model(folder: Path, *, batch_size: int = 8, max_model_len: int | None = None) -> LocalModel:
    return LocalModel(
        folder=folder,
        dtype="float32",
        max_model_len=max_model_len,
        seed=0,
        batch_size=batch_size,
        gpu_memory_utilization=0.9,
        tensor_parallel_size=1,
    )


def _questions(count: int) -> list[Question]:
    rng = random.Random(3)
    texts = [record(rng, rng.randint(2, 8)) for _ in range(count)]
    return [
        Question(
            key=str(number), record_id=str(number), messages=[{"role": "user", "content": text}]
        )
        for number, text in enumerate(texts)
    ]


def _answers(
    folder: Path,
    examples: Sequence[str],
    *,
    batch_size: int = 8,
    count: int = 12,
    max_tokens: int = 60,
) -> list[Answer]:
    engine = TransformersEngine(_model(folder, batch_size=batch_size))
    judge = LocalJudge(engine, max_tokens=max_tokens, is_expected=True, examples=examples)
    return _in_order(judge, _questions(count))


def _in_order(judge: LocalJudge, questions: Sequence[Question]) -> list[Answer]:
    by_key = {answer.key: answer for batch in judge.answers(questions) for answer in batch}
    return [by_key[question.key] for question in questions]


def _expected(answers: Sequence[Answer]) -> list[list[float]]:
    return [[expected_score(odds) for odds in answer.odds or ()] for answer in answers]


def _assert_equal(some: Sequence[Answer], others: Sequence[Answer]) -> None:
    for one, other in zip(some, others, strict=True):
        assert dataclasses.replace(one, odds=None) == dataclasses.replace(other, odds=None)
    for one_scores, other_scores in zip(_expected(some), _expected(others), strict=True):
        # float32 sums in another order
        assert one_scores == pytest.approx(other_scores, abs=1e-3)


def test_transformers_engine_trained_scorer_answers_every_slot(scorer: Path) -> None:
    answers = _answers(scorer, example_answers(_NAMES))
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert {len(answer.odds or ()) for answer in answers} == {3}
    assert all(0 < score < 10 for scores in _expected(answers) for score in scores)


@pytest.mark.parametrize("name", ["scorer", "moe_scorer"])
def test_transformers_engine_drafts_change_no_answer(
    name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    plain = _answers(folder, ())
    _assert_equal(_answers(folder, example_answers(_NAMES)), plain)
    # A draft that the model mostly disagrees with, and one that it leaves after a few tokens.
    _assert_equal(_answers(folder, example_answers(("use", "depth", "clear order"))), plain)
    _assert_equal(_answers(folder, example_answers(("depth", "depth", "depth"))), plain)


def test_transformers_engine_equals_greedy_generation_of_transformers(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer))
    model: Any = AutoModelForCausalLM.from_pretrained(scorer)
    questions = _questions(6)
    for question, answer in zip(questions, _answers(scorer, (), count=6), strict=True):
        ids = engine.tokenizer.apply_chat_template(
            list(question.messages), add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        whole = model.generate(ids, do_sample=False, max_new_tokens=60)[0, ids.shape[1] :]
        assert answer.text == engine.tokenizer.decode(whole, skip_special_tokens=True)
        assert answer.num_output_tokens == len(whole)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_transformers_engine_answers_do_not_depend_on_the_batch(
    scorer: Path, batch_size: int
) -> None:
    examples = example_answers(_NAMES)
    alone = _answers(scorer, examples, batch_size=batch_size)
    _assert_equal(alone, _answers(scorer, examples, batch_size=12))


def test_transformers_engine_asks_what_follows_a_one_with_the_answer_before_it(
    scorer: Path,
) -> None:
    engine = TransformersEngine(_model(scorer))
    judge = LocalJudge(engine, max_tokens=60, is_expected=True, examples=example_answers(_NAMES))
    (answer,) = _in_order(judge, _questions(1))
    (question,) = _questions(1)
    prompt = engine.tokenizer.apply_chat_template(
        list(question.messages), add_generation_prompt=True, tokenize=False
    )
    model = AutoModelForCausalLM.from_pretrained(scorer)
    zero_id = engine.tokenizer.convert_tokens_to_ids("0")
    assert answer.odds is not None
    for odds in answer.odds:
        assert odds.score not in (1, 10)  # or the answer's next token would have told
        ids = engine.tokenizer(answer.text)["input_ids"][: odds.token]
        begun = [*engine.tokenizer(prompt)["input_ids"], *ids]
        begun.append(engine.tokenizer.convert_tokens_to_ids("1"))
        with torch.inference_mode():
            logits = model(torch.tensor([begun])).logits[0, -1]
        assert odds.zero_after_one == pytest.approx(
            float(torch.softmax(logits, -1)[zero_id]), abs=1e-4
        )


def test_transformers_engine_tops_are_the_probabilities_of_the_model(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer))
    ids = engine.tokenizer("alpha beta")["input_ids"]
    (generated,) = engine.generate([Prompt(ids, 1)], None, lambda answer: [])
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(scorer)(torch.tensor([ids])).logits[0, -1]
    top = generated.tops[0]
    assert top is not None
    probabilities = torch.softmax(logits, -1)
    assert top[0][0] == int(logits.argmax())
    assert [math.exp(logprob) for _, logprob in top] == pytest.approx(
        probabilities.topk(20).values.tolist(), abs=1e-5
    )


def test_transformers_engine_cut_off_answer_says_so(scorer: Path) -> None:
    (answer,) = _answers(scorer, example_answers(_NAMES), count=1, max_tokens=5)
    assert (answer.finish_reason, answer.num_output_tokens) == ("length", 5)
    assert answer.text is not None
    assert compact_answer(_NAMES, (0, 0, 0)).startswith(answer.text[:7])


def test_transformers_engine_record_too_long_or_no_text_fails_alone(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer, max_model_len=60))
    judge = LocalJudge(engine, max_tokens=60, is_expected=False)
    contents = ("alpha " * 60, "alpha", "half \ud800")
    questions = [
        Question(key=content, record_id=content, messages=[{"role": "user", "content": content}])
        for content in contents
    ]
    answers = _in_order(judge, questions)
    assert [answer.failure for answer in answers] == ["too_long", None, "unencodable"]
    assert "max_model_len=60" in (answers[0].failure_detail or "")
    assert (answers[1].num_prompt_tokens or 0) + (answers[1].num_output_tokens or 0) <= 60


def test_transformers_engine_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: transformers cannot load this model"):
        TransformersEngine(_model(tmp_path))


def test_transformers_engine_layers_with_a_window_are_refused(scorer: Path, tmp_path: Path) -> None:
    for path in scorer.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["layer_types"] = ["full_attention", "sliding_attention"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"sliding_attention.*engine: vllm"):
        TransformersEngine(_model(tmp_path))


def test_local_judge_draws_every_answer_with_the_seed_of_its_record(scorer: Path) -> None:
    seen: list[Prompt] = []

    class Watched(TransformersEngine):
        def generate(
            self, prompts: Sequence[Prompt], draft: Place | None, doubts: Doubts | None
        ) -> list[Generated]:
            seen.extend(prompts)
            return super().generate(prompts, draft, doubts)

    judge = LocalJudge(Watched(_model(scorer)), max_tokens=2, is_expected=False, seed=7)
    _in_order(judge, _questions(3))
    assert [prompt.seed for prompt in seen] == [record_seed(7, name, 1) for name in "012"]


def test_transformers_engine_batches_are_of_prompts_of_like_length(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer, batch_size=2))
    prompts = [Prompt([1] * length, 1) for length in (5, 2, 4, 2, 9)]
    assert list(engine.batches(prompts)) == [[1, 3], [2, 0], [4]]
    assert list(engine.batches([])) == []


def _drawn(folder: Path, batch_size: int, *prompts: Prompt) -> list[list[int]]:
    engine = TransformersEngine(_model(folder, batch_size=batch_size))
    found: dict[int, list[int]] = {}
    for numbers in engine.batches(prompts):
        answers = engine.generate([prompts[number] for number in numbers], None, None)
        found.update(zip(numbers, (answer.ids for answer in answers), strict=True))
    return [found[number] for number in range(len(prompts))]


def test_transformers_engine_drawn_answers_follow_their_seeds_in_any_batch(scorer: Path) -> None:
    prompts = [
        Prompt(list(range(5, 9 + number)), 12, seed, temperature=1.5)
        for number in range(2)
        for seed in (1, 2, 1)
    ]
    alone = _drawn(scorer, 1, *prompts)
    assert alone[0] == alone[2] != alone[1]
    assert _drawn(scorer, 6, *prompts) == alone


def test_transformers_engine_draws_from_the_likeliest_tokens_alone(scorer: Path) -> None:
    ids = list(range(5, 12))
    greedy, narrow, wide = _drawn(
        scorer,
        1,
        Prompt(ids, 12),
        Prompt(ids, 12, 3, temperature=5.0, top_p=1e-9),
        Prompt(ids, 12, 3, temperature=5.0),
    )
    assert greedy == narrow != wide


def test_transformers_engine_draws_by_the_probabilities_of_the_model(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer))
    ids = list(range(5, 12))
    with torch.inference_mode():
        logits = engine._model(torch.tensor([ids])).logits[0, -1]
    expected = torch.softmax(logits / 2.0, -1)
    prompts = [Prompt(ids, 1, seed, temperature=2.0) for seed in range(2_000)]
    first = [answer.ids[0] if answer.ids else 2 for answer in engine.generate(prompts, None, None)]
    share = torch.bincount(torch.tensor(first), minlength=len(expected)) / len(first)
    # The standard deviation of a share over 2,000 draws is at most 0.011.
    assert (share - expected).abs().max() < 0.045


def test_transformers_engine_ends_at_a_stop_word(scorer: Path) -> None:
    engine = TransformersEngine(_model(scorer))
    ids = list(range(5, 12))
    (whole,) = engine.generate([Prompt(ids, 30)], None, None)
    text = engine.tokenizer.decode(whole.ids)
    middle = len(text) // 2
    word = text[middle : middle + 3]
    (ended,) = engine.generate([Prompt(ids, 30, stop=("not there", word))], None, None)
    assert ended.finish_reason == "stop"
    assert ended.ids == whole.ids[: len(ended.ids)]
    assert word in engine.tokenizer.decode(ended.ids)
    assert word not in engine.tokenizer.decode(ended.ids[:-1])
