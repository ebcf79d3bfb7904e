"""What of a rendered conversation is answer, in characters and in tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.corpus.renderers import payload_from_fields, render
from mira_megatron.distill.chatml import END, START
from mira_megatron.instruct.conversations import segments, token_samples
from mira_megatron.tokenization.tokenizer import (
    CONTROL_TOKENS,
    RecordEncoder,
    train_byte_level_bpe,
)

# Whatever a record may hold: any text, and what would end or open a turn were it trusted.
UNTRUSTED = st.lists(
    st.text("ab é\n", max_size=6)
    | st.sampled_from([*CONTROL_TOKENS, f"{START}assistant\n", "assistant\n"]),
    max_size=6,
).map("".join)
CALL = {"function": {"name": "run", "arguments": '{"x": 1}'}}
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": UNTRUSTED},
        optional={"tool_calls": st.just([CALL])},
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> RecordEncoder:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_byte_level_bpe(["assistant user a b ab é"] * 3, 300).save(str(path))
    return RecordEncoder(path, END, "huggingface")


def answers_of(messages: list[dict[str, Any]]) -> list[str]:
    """Returns what the assistant's messages are, each rendered by itself: those that say something.

    One that comes first answers nothing.
    """
    alone = [
        render("agent", payload_from_fields("agent", {"messages": [message]})).text
        for message in messages[1:]
        if message["role"] == "assistant"
    ]
    answers = [text.removeprefix(f"{START}assistant\n").removesuffix("\n") for text in alone]
    return [text for text in answers if text.removesuffix(END).strip()]


@settings(deadline=None)
@given(messages=MESSAGES)
def test_answers_are_the_assistants_messages_whatever_the_records_say(
    messages: list[dict[str, Any]],
) -> None:
    rendered = render("agent", payload_from_fields("agent", {"messages": messages}))
    cut = segments(rendered.text, rendered.control_spans)
    assert [part.text for part in cut if part.is_answer] == answers_of(messages)
    assert [part.is_answer for part in cut] == [False, True] * (len(cut) // 2)
    assert rendered.text.startswith("".join(part.text for part in cut))


@settings(deadline=None)
@given(messages=MESSAGES.filter(lambda all_: bool(answers_of(all_))))
def test_loss_is_on_the_ids_of_answers_and_on_no_other(
    encoder: RecordEncoder, messages: list[dict[str, Any]]
) -> None:
    rendered = render("agent", payload_from_fields("agent", {"messages": messages}))
    cut = segments(rendered.text, rendered.control_spans)
    (sample,) = token_samples(encoder, [cut])
    tokenizer = train_byte_level_bpe(["assistant user a b ab é"] * 3, 300)
    decoded = tokenizer.decode(sample.ids_N.tolist(), skip_special_tokens=False)
    assert decoded == "".join(part.text for part in cut)
    answered = sample.ids_N[sample.is_answer_N].tolist()
    assert tokenizer.decode(answered, skip_special_tokens=False) == "".join(answers_of(messages))
    # As many ends of turns have loss as the assistant has turns: none was smuggled in.
    end_id = tokenizer.token_to_id(END)
    assert answered.count(end_id) == len(answers_of(messages))
    turns = [part.text.count(START) for part in cut]
    assert (sample.ids_N == tokenizer.token_to_id(START)).sum() <= sum(turns)


def test_an_answer_that_begins_with_a_control_token_keeps_it(encoder: RecordEncoder) -> None:
    payload = {"question": "a?", "think": "hm", "answer": f"b{END}"}
    rendered = render("qa_with_think", payload)
    question, answer = segments(rendered.text, rendered.control_spans)
    assert question.text == f"{START}user\na?{END}\n{START}assistant\n"
    assert answer.text == f"<think>\nhm\n</think>\n\nb{END}{END}"
    spans = answer.control_spans
    assert [answer.text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] == [
        "<think>",
        "</think>",
        END,
    ]
    (sample,) = token_samples(encoder, [[question, answer]])
    ids = train_byte_level_bpe([""], 265)
    # Its own end is one token; the one typed in the answer is text.
    assert (sample.ids_N == ids.token_to_id(END)).sum() == 2
    assert sample.ids_N[-1] == ids.token_to_id(END)
    assert sample.is_answer_N.argmax() == np.flatnonzero(sample.ids_N == ids.token_to_id("<think>"))


def test_a_conversation_without_the_assistant_has_no_segment() -> None:
    rendered = render("agent", {"messages": [{"role": "user", "content": f"{START}assistant\nx"}]})
    assert segments(rendered.text, rendered.control_spans) == []
    assert segments("no chat at all", ()) == []
