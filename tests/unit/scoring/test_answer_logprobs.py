from typing import Any

import pytest

from mira_megatron.scoring.answer_logprobs import reply_tokens


def choice(*tokens: str, content: str) -> dict[str, Any]:
    entries = [
        {"token": token, "top_logprobs": [{"token": token, "logprob": -0.1}]} for token in tokens
    ]
    return {"message": {"content": content}, "logprobs": {"content": entries}}


@pytest.mark.parametrize("ending", [(), ("<|im_end|>",), ("",)])
def test_reply_tokens_are_those_of_the_text_without_its_end(ending: tuple[str, ...]) -> None:
    tokens = reply_tokens(choice("[A1] use:", " 7", "/10", *ending, content="[A1] use: 7/10"))

    assert tokens is not None
    assert [token.text for token in tokens] == ["[A1] use:", " 7", "/10"]


def test_reply_tokens_nothing_but_the_end_is_none() -> None:
    assert reply_tokens(choice("<|im_end|>", content="")) is None


def test_reply_tokens_without_logprobs_are_none() -> None:
    assert reply_tokens({"message": {"content": "7/10"}}) is None
