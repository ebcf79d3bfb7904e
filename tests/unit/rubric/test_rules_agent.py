from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mira_megatron.rubric.rule_judge import dimension_names, rate
from mira_megatron.rubric.verdict import Verdict


def _score(verdict: Verdict, name: str) -> float | None:
    return verdict.scores[dimension_names("agent").index(name)]


def _judge_agent(*messages: dict[str, Any]) -> Verdict:
    return rate("agent", json.dumps(messages), dimension_names("agent"))


def _exchange(arguments: str, result: str) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "run", "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


def test_agent_concatenated_arguments_score_at_most_three() -> None:
    verdict = _judge_agent(*_exchange("{}", "ok") * 9, *_exchange('{"a":1}{"a":2}', "ok"))
    assert _score(verdict, "Tool Call Validity") == 3


def test_agent_failed_calls_lower_tool_success() -> None:
    good, bad = _exchange('{"a": 2}', "done"), _exchange('{"a": 1}', "Error: no")
    # One error in four results is half of the half that is worst.
    assert _score(_judge_agent(*good, *good, *good, *bad), "Tool Success") == 5


def test_agent_error_is_made_good_by_a_later_success_only() -> None:
    good, bad = _exchange('{"a": 2}', "done"), _exchange('{"a": 1}', "Error: no")
    name = "Error Recovery"
    assert _score(_judge_agent(*bad, *good), name) == 10
    assert _score(_judge_agent(*good, *bad), name) == 0
    assert _score(_judge_agent(*good), name) is None


def test_agent_retry_without_a_change_lowers_recovery() -> None:
    failing, working = _exchange('{"a": 1}', "Error: no"), _exchange('{"a": 2}', "done")
    verdict = _judge_agent(*failing, *failing, *working)
    assert _score(verdict, "Error Recovery") == 8


def test_agent_repeated_call_with_the_same_result_lowers_efficiency() -> None:
    same, other = _exchange('{"a": 1}', "3 rows"), _exchange('{"a": 1}', "4 rows")
    name = "Action Efficiency"
    assert _score(_judge_agent(*same, *other), name) == 10
    assert _score(_judge_agent(*same, *same), name) == 0


def _update(result: str) -> list[dict[str, Any]]:
    call, answer = _exchange('{"id": 7}', result)
    call["tool_calls"][0]["function"]["name"] = "update_order"
    return [call, answer]


def test_agent_change_that_fails_lowers_change_success() -> None:
    verdict = _judge_agent(*_update("Error: locked"), *_update("ok"))
    assert _score(verdict, "Change Success") == 0
    assert _score(_judge_agent(*_exchange("{}", "ok")), "Change Success") is None


@pytest.mark.parametrize(("reply", "score"), [("Yes, go ahead.", 10), ("What is it?", 3)])
def test_agent_change_wants_the_users_yes(reply: str, score: int) -> None:
    users = [{"role": "user", "content": text} for text in ("My order 7 is late.", reply)]
    asking = {"role": "assistant", "content": "Shall I update order 7?"}
    verdict = _judge_agent(users[0], asking, users[1], *_update("ok"))
    assert _score(verdict, "Confirmation Before Changes") == score


@pytest.mark.parametrize("said", ["That is wrong.", "As I said, it is order 7."])
def test_agent_user_who_corrects_lowers_the_score(said: str) -> None:
    users = [{"role": "user", "content": text} for text in ("Hello", said)]
    spoken = {"role": "assistant", "content": "Here is order 8."}
    verdict = _judge_agent(users[0], spoken, users[1])
    assert _score(verdict, "No Corrections Needed") == 0


def test_agent_users_own_mistake_is_no_correction() -> None:
    users = [{"role": "user", "content": text} for text in ("Hello", "I gave the wrong number.")]
    assert _score(_judge_agent(*users), "No Corrections Needed") == 10


def test_agent_announced_step_wants_a_call() -> None:
    said = {"role": "assistant", "content": "Let me check that for you."}
    name = "Follow-Through"
    assert _score(_judge_agent(said, *_exchange("{}", "ok")), name) == 10
    assert _score(_judge_agent(said, {"role": "user", "content": "Well?"}), name) == 0


@pytest.mark.parametrize(
    "said", ["Please let me know!", "Once you confirm, I'll proceed.", "Shall I? Let me ask: now?"]
)
def test_agent_offer_is_no_announced_step(said: str) -> None:
    verdict = _judge_agent({"role": "assistant", "content": said})
    assert _score(verdict, "Follow-Through") is None


def test_agent_refusing_and_handing_over_count_neither_way() -> None:
    call, answer = _exchange('{"summary": "refund"}', "done")
    call["tool_calls"][0]["function"]["name"] = "transfer_to_human_agents"
    assert _score(_judge_agent(call, answer), "Task Closure") == 9
    texts = ("I cannot refund this ticket today.", "I have refunded this ticket today.")
    refusing, doing = (_judge_agent({"role": "assistant", "content": text}) for text in texts)
    assert refusing.scores == doing.scores


def test_agent_number_that_nobody_gave_lowers_message_grounding() -> None:
    asked = {"role": "user", "content": "What does flight HAT136 cost?"}
    told = {"role": "assistant", "content": "HAT136 costs $1,250 on the 20th."}
    verdict = _judge_agent(asked, *_exchange("{}", "price 1250, day 20"), told)
    assert _score(verdict, "Message Grounding") == 10
    assert _score(_judge_agent(asked, told), "Message Grounding") == 0


def test_agent_null_error_in_a_result_is_a_success() -> None:
    verdict = _judge_agent(*_exchange("{}", '{"error": null, "rows": 3}'))
    assert _score(verdict, "Tool Success") == 10


def test_agent_calls_that_use_results_score_higher() -> None:
    first = _exchange('{"name": "Smith"}', "order 4711")
    using = _judge_agent(*first, *_exchange('{"order": "4711"}', "ok"))
    ignoring = _judge_agent(*first, *_exchange('{"order": "99"}', "ok"))
    assert _score(using, "Use of Results") == 10
    assert _score(ignoring, "Use of Results") == 0


def test_agent_silent_tools_are_not_informative() -> None:
    verdict = _judge_agent(*_exchange('{"a": 1}', ""), *_exchange('{"a": 2}', "3 rows"))
    assert _score(verdict, "Informative Results") == 5


def test_agent_ending_on_an_open_call_is_unfinished() -> None:
    verdict = _judge_agent({"role": "user", "content": "Go"}, _exchange("{}", "ok")[0])
    assert _score(verdict, "Task Closure") == 1


def test_agent_last_word_after_an_empty_result_is_no_good_ending() -> None:
    closing = {"role": "assistant", "content": "Done."}
    assert _score(_judge_agent(*_exchange("{}", "ok"), closing), "Task Closure") == 10
    assert _score(_judge_agent(*_exchange("{}", ""), closing), "Task Closure") == 6


def test_agent_destructive_command_lowers_safety() -> None:
    verdict = _judge_agent(*_exchange('{"command": "rm -rf /"}', "ok"))
    assert _score(verdict, "Safety & Scope") == 6


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "let me " * 30_000}],
        [{"role": "assistant", "content": "a1" * 100_000}],
        [{"role": "assistant", "content": "please " * 30_000}] * 2,
        [{"role": "user", "content": "that is " * 30_000}] * 2,
    ],
)
def test_agent_long_messages_take_linear_time(messages: list[dict[str, Any]]) -> None:
    started = time.process_time()
    _judge_agent(*messages)
    assert time.process_time() - started < 10


def test_agent_many_open_calls_take_linear_time() -> None:
    calls = [{"id": f"{n}", "function": {"name": "run", "arguments": "{}"}} for n in range(30_000)]
    results = [{"role": "tool", "tool_call_id": f"x{n}", "content": "ok"} for n in range(30_000)]
    started = time.process_time()
    verdict = _judge_agent({"role": "assistant", "tool_calls": calls}, *results)
    assert time.process_time() - started < 10
    assert _score(verdict, "Tool Success") == 10
