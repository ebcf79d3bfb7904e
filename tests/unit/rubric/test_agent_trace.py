from __future__ import annotations

from typing import Any

import pytest

from mira_megatron.rubric.agent_trace import read_trace


def _call(arguments: object, call_id: str = "1", name: str = "search") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def test_read_trace_list_and_object_payloads_are_the_same() -> None:
    messages = [{"role": "user", "content": "hi"}, _calling(_call("{}"))]
    assert read_trace(messages) == read_trace({"messages": messages})


def test_read_trace_arguments_as_string_and_object_are_equal() -> None:
    trace = read_trace([_calling(_call('{"b": 1, "a": 2}'), _call({"a": 2, "b": 1}))])
    first, second = trace.calls
    assert (first.arguments, first.text) == (second.arguments, second.text)
    assert first.is_valid


def test_read_trace_concatenated_objects_are_counted_and_invalid() -> None:
    (call,) = read_trace([_calling(_call('{"a": 1}{"a": 2}\n{"a": 3}'))]).calls
    assert (call.num_values, call.is_valid) == (3, False)


def test_read_trace_truncated_arguments_have_no_value() -> None:
    (call,) = read_trace([_calling(_call('{"a": '))]).calls
    assert (call.num_values, call.is_valid) == (0, False)


def test_read_trace_results_find_their_call_by_id() -> None:
    trace = read_trace(
        [
            _calling(_call("{}", "1"), _call("{}", "2")),
            {"role": "tool", "tool_call_id": "2", "content": "second"},
            {"role": "tool", "tool_call_id": "1", "content": "first"},
        ]
    )
    assert trace.results == ("first", "second")


def test_read_trace_result_with_an_unknown_id_answers_the_earliest_call() -> None:
    trace = read_trace([_calling(_call("{}")), {"role": "tool", "content": "done"}])
    assert trace.results == ("done",)
    assert trace.num_orphan_results == 0


def test_read_trace_result_without_a_call_is_an_orphan() -> None:
    trace = read_trace([{"role": "tool", "content": "done"}])
    assert trace.num_orphan_results == 1


def test_read_trace_argument_words_seen_before_are_grounded() -> None:
    asked = {"role": "user", "content": "Order 4711 please"}
    (call,) = read_trace([asked, _calling(_call('{"order": "4711", "reason": "damaged"}'))]).calls
    assert (call.num_argument_words, call.num_grounded_words) == (2, 1)


def test_read_trace_words_of_a_result_are_told_from_new_ones() -> None:
    first = _calling(_call('{"name": "Smith"}'))
    result = {"role": "tool", "content": "order 4711"}
    trace = read_trace([first, result, _calling(_call('{"name": "Smith", "order": "4711"}'))])
    later = trace.calls[1]
    assert (later.num_resulting_words, later.num_new_words) == (1, 1)
    assert later.text.split() == ["4711", "Smith"]


def test_read_trace_word_the_user_said_is_not_the_results() -> None:
    asked = {"role": "user", "content": "Where is order 4711?"}
    result = {"role": "tool", "content": "order 4711 is in Bonn"}
    calls = (_calling(_call("{}")), result, _calling(_call('{"order": "4711", "city": "Bonn"}')))
    later = read_trace([asked, *calls]).calls[1]
    assert (later.num_grounded_words, later.num_resulting_words) == (2, 1)


def test_read_trace_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert read_trace([{"role": "assistant", "content": parts}]).spoken == ("one\ntwo",)


@pytest.mark.parametrize("payload", [None, 3, "text", [], {}, {"messages": 1}, [1], [{"role": 2}]])
def test_read_trace_other_payloads_are_refused(payload: object) -> None:
    with pytest.raises(ValueError, match="message"):
        read_trace(payload)
