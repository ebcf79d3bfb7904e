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


def test_read_trace_figures_of_the_assistant_are_traced_to_others() -> None:
    asked = {"role": "user", "content": "Cost of HAT136 on 5/20?"}
    told = {"role": "assistant", "content": "HAT136 costs $1,250 on May 20th."}
    trace = read_trace([asked, told])
    # hat136 and 20 were said before, 1250 was not.
    assert (trace.num_figures, trace.num_grounded_figures) == (3, 2)


def test_read_trace_figures_said_before_the_result_are_not_grounded_by_it() -> None:
    told = {"role": "assistant", "content": "It costs 375."}
    result = [_calling(_call("{}")), {"role": "tool", "content": "375"}]
    assert read_trace([told, *result]).num_grounded_figures == 0
    assert read_trace([*result, told]).num_grounded_figures == 1


def test_read_trace_calls_know_how_many_users_spoke_before() -> None:
    said = {"role": "user", "content": "hi"}
    trace = read_trace([_calling(_call("{}")), said, said, _calling(_call("{}"))])
    assert [call.num_users for call in trace.calls] == [0, 2]


def test_read_trace_announced_step_is_idle_without_a_call() -> None:
    said = {"role": "assistant", "content": "One moment."}
    trace = read_trace([said, _calling(_call("{}")), said])
    assert (trace.num_announcements, trace.num_idle_announcements) == (2, 1)


def test_read_trace_results_with_unknown_ids_answer_the_earliest_open_call() -> None:
    results = [{"role": "tool", "tool_call_id": "x", "content": text} for text in ("one", "two")]
    trace = read_trace([_calling(*(_call("{}", call_id) for call_id in "123")), *results])
    assert trace.results == ("one", "two", None)
