from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.corpus.renderers import payload_from_fields
from mira_megatron.rubric.agent_trace import read_trace
from mira_megatron.rubric.agent_view import show_turns
from mira_megatron.rubric.token_cuts import TokenCounter, largest_fitting
from mira_megatron.tokenization.tokenizer import train_byte_level_bpe

_CHARS = 'abc 09\n"\\<|[A1]>é中文😀'
_texts = st.text(_CHARS, max_size=20).map(lambda text: text * 8)
Message = dict[str, Any]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> TokenCounter:
    """Counts one token per byte: the vocabulary is too small for any merge."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_byte_level_bpe(["text"], vocab_size=265).save(str(path))
    return TokenCounter(path)


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _step(number: int, result: str, arguments: str = '{"n": 1}') -> list[Message]:
    """A call and its result."""
    function = {"name": "run", "arguments": arguments}
    call = {"id": f"call {number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": f"step {number}", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call {number}", "content": result},
    ]


def _shown(messages: list[Message], budget: int, counter: TokenCounter) -> list[Message]:
    fitting = largest_fitting(show_turns(messages, counter), budget, counter)
    assert fitting is not None
    payload = json.loads(fitting[0])
    assert fitting[1] <= budget
    assert payload.keys() == {"messages"}
    read_trace(payload)
    return list(payload["messages"])


def _numbers(messages: list[Message]) -> list[int]:
    """The numbers of the steps shown."""
    calls = [message for message in messages if "tool_calls" in message]
    return [int(message["content"].split()[1]) for message in calls]


def test_show_turns_oldest_steps_give_way_to_a_note(counter: TokenCounter) -> None:
    steps = [message for number in range(20) for message in _step(number, "0" * 300)]
    task = [_said("system", "Be brief."), _said("user", "Do it.")]
    shown = _shown([*task, *steps, _said("assistant", "Done.")], 3000, counter)
    numbers = _numbers(shown)
    assert shown[:2] == task
    assert shown[-1] == _said("assistant", "Done.")
    assert 1 < len(numbers) < 10
    assert numbers == list(range(20 - len(numbers), 20))
    num_left_out = 2 * (20 - len(numbers))
    assert shown[2]["role"] == "system"
    assert shown[2]["content"].startswith(f"[…: {num_left_out} messages, ")


def test_show_turns_fills_the_budget(counter: TokenCounter) -> None:
    steps = [message for number in range(50) for message in _step(number, "0" * 20)]
    fitting = largest_fitting(show_turns(steps, counter), 5000, counter)
    assert fitting is not None
    assert 4500 < fitting[1] <= 5000


def test_show_turns_failing_call_comes_before_later_steps(counter: TokenCounter) -> None:
    results = {2: "Error: no such file", 5: "Traceback (most recent call last)"}
    steps = [
        message for number in range(30) for message in _step(number, results.get(number, "0" * 300))
    ]
    shown = _shown([_said("user", "Do it."), *steps], 3000, counter)
    assert _numbers(shown)[:2] == [2, 5]
    assert _numbers(shown)[-1] == 29
    assert [m["content"] for m in shown if m["role"] == "tool"][:2] == list(results.values())


def test_show_turns_when_not_all_failing_calls_fit_keeps_the_latest(counter: TokenCounter) -> None:
    steps = [message for number in range(50) for message in _step(number, "Error: " + "0" * 200)]
    numbers = _numbers(_shown([_said("user", "Do it."), *steps], 3000, counter))
    assert 2 < len(numbers) < 20
    assert numbers == list(range(50 - len(numbers), 50))


def test_show_turns_long_messages_are_cut_to_head_and_tail(counter: TokenCounter) -> None:
    task = _said("user", "first " + "x" * 5000 + " last")
    shown = _shown([task, *_step(1, "Error: " + "y" * 5000 + " end")], 2000, counter)
    assert [message["role"] for message in shown] == ["user", "assistant", "tool"]
    for content, head, tail in ((shown[0], "first", "last"), (shown[2], "Error:", "end")):
        assert content["content"].startswith(head)
        assert content["content"].endswith(tail)
        assert "tokens left out]" in content["content"]


def test_show_turns_arguments_that_are_json_stay_json(counter: TokenCounter) -> None:
    arguments = json.dumps({"path": "a.py", "lines": ["z" * 3000], "n": 3})
    shown = _shown([_said("user", "Do it."), *_step(1, "ok", arguments)], 1000, counter)
    cut = json.loads(shown[1]["tool_calls"][0]["function"]["arguments"])
    assert (cut["path"], cut["n"]) == ("a.py", 3)
    assert cut["lines"][0].startswith("zzz")
    assert "tokens left out]" in cut["lines"][0]


def test_show_turns_arguments_without_long_texts_give_way_to_a_note(counter: TokenCounter) -> None:
    arguments = json.dumps({"numbers": list(range(2000))})
    shown = _shown([_said("user", "Do it."), *_step(1, "ok", arguments)], 1000, counter)
    cut = json.loads(shown[1]["tool_calls"][0]["function"]["arguments"])
    assert cut == {"…": "[…: 10,903 tokens left out]"}


def test_show_turns_broken_arguments_stay_broken(counter: TokenCounter) -> None:
    broken = '{"a": 1}{"b": "' + "z" * 3000
    shown = _shown([_said("user", "Do it."), *_step(1, "ok", broken)], 1000, counter)
    assert not read_trace({"messages": shown}).calls[0].is_valid


def test_show_turns_cut_message_keeps_what_is_trained_on(counter: TokenCounter) -> None:
    message = {
        "role": "assistant",
        "content": "x" * 2000,
        "reasoning_content": "y" * 2000,
        "logprobs": [0.5] * 500,
    }
    [shown] = _shown([message], 1000, counter)
    assert shown.keys() == {"role", "content", "reasoning_content"}


def test_show_turns_result_is_shown_with_the_call_of_its_id(counter: TokenCounter) -> None:
    first, failure = _step(1, "Error: late")
    between = [message for number in range(2, 30) for message in _step(number, "0" * 200)]
    shown = _shown([_said("user", "Do it."), first, *between, failure], 2000, counter)
    assert _numbers(shown)[0] == 1
    assert shown[-1] == failure


def test_show_turns_message_that_cannot_be_cut_is_left_out(counter: TokenCounter) -> None:
    huge = {"role": "tool", "content": "x", "tool_call_id": "i" * 5000}
    shown = _shown([_said("user", "Do it."), huge, _said("assistant", "Done.")], 1000, counter)
    assert [message["role"] for message in shown] == ["user", "system", "assistant"]
    assert shown[1]["content"].startswith("[…: 1 message, ")


@st.composite
def _traces(draw: st.DrawFn) -> list[Message]:
    messages: list[Message] = []
    for number in range(draw(st.integers(1, 12))):
        role = draw(st.sampled_from(["system", "user", "assistant", "tool", "developer"]))
        message: Message = {"role": role, "content": draw(st.none() | _texts)}
        if role == "assistant":
            arguments = _texts | _texts.map(lambda text: json.dumps({"a": text, "b": [text]}))
            message["tool_calls"] = [
                {"id": f"{number} {call}", "function": {"name": "f", "arguments": draw(arguments)}}
                for call in range(draw(st.integers(0, 2)))
            ]
        if role == "tool" and draw(st.booleans()):
            message["tool_call_id"] = f"{draw(st.integers(0, number))} 0"
            message["content"] = f"Error: {message['content']}"
        messages.append(message)
    return list(payload_from_fields("agent", {"messages": messages})["messages"])


@settings(deadline=None)
@given(messages=_traces(), max_tokens=st.integers(64, 1500))
def test_show_turns_any_trace_keeps_the_limit_and_its_shape(
    counter: TokenCounter, messages: list[Message], max_tokens: int
) -> None:
    show = show_turns(messages, counter)
    fitting = largest_fitting(show, max_tokens, counter)
    text = show(0) if fitting is None else fitting[0]
    assert counter.count(text) <= max_tokens
    trace = read_trace(json.loads(text))
    num_answered = sum(result is not None for result in read_trace(messages).results)
    assert sum(result is not None for result in trace.results) <= num_answered


def test_show_turns_real_traces_keep_limit_task_and_last_turn(counter: TokenCounter) -> None:
    path = Path(__file__).parents[4] / "shared/data/corpus/taubench/gpt-4o-airline.json"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    for row in json.loads(path.read_text(encoding="utf-8"))[:10]:
        messages = payload_from_fields("agent", {"messages": row["traj"]})["messages"]
        shown = _shown(messages, 4000, counter)
        assert [message["role"] for message in shown[:2]] == ["system", "user"]
        assert shown[-1]["role"] == messages[-1]["role"]
