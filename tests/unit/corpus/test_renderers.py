import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.renderers import (
    ControlToken,
    Rendered,
    RowError,
    payload_from_fields,
    render,
)

# Content that tries to look like control tokens, whole and in halves that could join up.
HOSTILE_TEXT = st.lists(
    st.sampled_from([*ControlToken, "<|endoftext|>", "<|im_", "end|>", "\n", "é", "𝕏", "a"])
).map("".join)


def agent_text(*messages: object) -> str:
    return render("agent", payload_from_fields("agent", {"messages": list(messages)})).text


def span_texts(rendered: Rendered) -> list[str]:
    spans = rendered.control_spans
    return [rendered.text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)]


def call(name: str, arguments: object) -> dict[str, object]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_render_qa_writes_two_chatml_turns_and_their_spans() -> None:
    rendered = render("qa", {"question": "2+2?", "answer": "4"})

    assert rendered.text == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    )
    assert rendered.control_spans == (0, 12, 21, 31, 32, 44, 55, 65)


def test_render_qa_with_think_puts_the_thought_before_the_answer() -> None:
    rendered = render("qa_with_think", {"question": "q", "think": "hm", "answer": "a"})

    assert rendered.text.endswith("<|im_start|>assistant\n<think>\nhm\n</think>\n\na<|im_end|>\n")
    assert span_texts(rendered)[3:5] == ["<think>", "</think>"]


def test_render_text_has_no_control_tokens() -> None:
    rendered = render("text", {"text": "a <|im_end|> b"})

    assert rendered == Rendered(text="a <|im_end|> b", control_spans=())


def test_render_agent_writes_calls_after_content_and_results_in_one_user_turn() -> None:
    text = agent_text(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "ok", "tool_calls": [call("f", "{}"), call("g", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "name": "g", "content": ""},
    )

    assert text == (
        "<|im_start|>user\ngo<|im_end|>\n"
        "<|im_start|>assistant\nok\n"
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n\n</tool_response><|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"b": 1, "a": 12345678901234567890123}', '{"b": 1, "a": 12345678901234567890123}'),
        ({"b": 1, "a": "é"}, '{"b": 1, "a": "é"}'),
        ('{"b": 1', r'"{\"b\": 1"'),
        ("[1]", '"[1]"'),
        ("", '""'),
        (None, '""'),
    ],
)
def test_render_agent_keeps_arguments_as_written_and_quotes_broken_ones(
    arguments: object, expected: str
) -> None:
    text = agent_text({"role": "assistant", "content": None, "tool_calls": [call("f", arguments)]})

    assert f'{{"name": "f", "arguments": {expected}}}\n</tool_call>' in text


def test_render_agent_reasoning_content_becomes_a_think_block() -> None:
    text = agent_text({"role": "assistant", "content": "a", "reasoning_content": "hm"})

    assert text == "<|im_start|>assistant\n<think>\nhm\n</think>\n\na<|im_end|>\n"


def test_payload_brings_old_and_flat_calls_into_the_openai_form() -> None:
    function = {"name": "f", "arguments": "{}"}
    forms = [
        {"role": "assistant", "content": None, "function_call": function},
        {"role": "assistant", "tool_calls": [function]},
        {"role": "assistant", "tool_calls": [{"function": function, "id": None}], "name": None},
    ]

    messages = payload_from_fields("agent", {"messages": forms})["messages"]

    tool_call = {"type": "function", "function": function}
    assert messages == [{"role": "assistant", "content": None, "tool_calls": [tool_call]}] * 3


def test_payload_joins_text_parts_and_keeps_other_keys() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"], "turn": 3}

    payload = payload_from_fields("agent", {"messages": [message]})

    assert payload == {"messages": [{"role": "user", "content": "ab", "turn": 3}]}


@pytest.mark.parametrize(
    ("family", "fields", "reason", "detail"),
    [
        ("qa", {"question": "q", "answer": None}, "missing_field", "answer is absent or null"),
        ("qa", {"question": "q", "answer": 4}, "wrong_type", "answer: expected str, found int"),
        ("agent", {"messages": "x"}, "wrong_type", "messages: expected list, found str"),
        ("agent", {"messages": ["x"]}, "wrong_type", "messages.0: expected dict, found str"),
        ("agent", {"messages": [{"content": "x"}]}, "missing_field", "messages.0.role"),
        ("agent", {"messages": [{"role": "<|im_end|>"}]}, "wrong_type", "messages.0.role"),
    ],
)
def test_payload_of_a_malformed_row_names_the_field(
    family: str, fields: dict[str, object], reason: str, detail: str
) -> None:
    with pytest.raises(RowError, match=detail) as caught:
        payload_from_fields(family, fields)

    assert caught.value.reason == reason


@given(question=HOSTILE_TEXT, think=HOSTILE_TEXT, answer=HOSTILE_TEXT)
def test_spans_cover_the_renderers_own_tokens_and_nothing_in_content(
    question: str, think: str, answer: str
) -> None:
    rendered = render("qa_with_think", {"question": question, "think": think, "answer": answer})

    assert span_texts(rendered) == [
        *("<|im_start|>", "<|im_end|>", "<|im_start|>"),
        *("<think>", "</think>", "<|im_end|>"),
    ]
    gaps = [0, *rendered.control_spans, len(rendered.text)]
    outside = [rendered.text[a:b] for a, b in zip(gaps[::2], gaps[1::2], strict=True)]
    assert outside == [
        *("", f"user\n{question}", "\n", "assistant\n"),
        *(f"\n{think}\n", f"\n\n{answer}", "\n"),
    ]


@given(content=HOSTILE_TEXT, result=HOSTILE_TEXT, arguments=HOSTILE_TEXT, name=HOSTILE_TEXT)
def test_spans_of_a_trace_depend_on_its_shape_not_on_its_content(
    content: str, result: str, arguments: str, name: str
) -> None:
    messages = [
        {"role": "assistant", "content": content, "tool_calls": [call(name, arguments)]},
        {"role": "tool", "content": result},
    ]

    payload = payload_from_fields("agent", {"messages": messages})
    rendered = render("agent", payload)

    assert span_texts(rendered) == [
        *("<|im_start|>", "<tool_call>", "</tool_call>", "<|im_end|>"),
        *("<|im_start|>", "<tool_response>", "</tool_response>", "<|im_end|>"),
    ]
    assert list(rendered.control_spans) == sorted(rendered.control_spans)
    assert render("agent", json.loads(json.dumps(payload, sort_keys=True))) == rendered
