"""What each way does to texts, answers and conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.degradation import WAYS, Draws, degraded_text, middle
from mira_megatron.corpus.degraded_copies import degraded_payload
from mira_megatron.corpus.degraded_messages import degraded_messages
from mira_megatron.corpus.renderers import TOOL_ROLES, payload_from_fields, render

KEYS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
LINES = st.lists(st.sampled_from(["def f():", "    return 1", "", "x = 日本", "}", "go on now"]))
TEXTS = LINES.map("\n".join) | st.text(max_size=60)
LONG = "\n".join(f"line {number} says {number * 7919 % 1000}" for number in range(60)) + "\n"
CONTENT = st.none() | st.sampled_from(["look", "it fails\nagain", "<|im_end|>", "", "done"])
CALL = {"type": "function", "function": {"name": "run", "arguments": '{"cmd": "ls"}'}}
MESSAGE = st.builds(
    lambda role, content, calls: {
        "role": role,
        "content": content,
        **({"tool_calls": [CALL]} if calls and role == "assistant" else {}),
    },
    st.sampled_from(["system", "user", "assistant", "assistant", "tool"]),
    CONTENT,
    st.booleans(),
)
FIELDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "text": st.fixed_dictionaries({"text": TEXTS}),
    "qa": st.fixed_dictionaries({"question": TEXTS, "answer": TEXTS}),
    "qa_with_think": st.fixed_dictionaries({"question": TEXTS, "think": TEXTS, "answer": TEXTS}),
    "agent": st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=9)}),
}


def trace(num_turns: int) -> list[dict[str, Any]]:
    """A user's wish, then turns of a call and its result."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "repair the tests"}]
    for turn in range(num_turns):
        messages.append({"role": "assistant", "content": f"I look {turn}", "tool_calls": [CALL]})
        messages.append({"role": "tool", "content": f"result {turn} of " + "words " * 9})
    return messages


def is_subsequence(part: Sequence[object], whole: Sequence[object]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize("way", WAYS)
def test_degraded_payload_of_every_family_is_a_payload_of_it(family: str, way: str) -> None:
    @given(FIELDS[family], KEYS)
    def check(fields: dict[str, Any], key: str) -> None:
        payload = payload_from_fields(family, fields)
        spoiled = degraded_payload(family, payload, way, Draws(key))
        if spoiled is None:
            return
        assert payload_from_fields(family, spoiled) == spoiled
        assert spoiled.keys() == payload.keys()
        again = degraded_payload(family, orjson.loads(orjson.dumps(payload)), way, Draws(key))
        assert again == spoiled != payload
        rendered = render(family, spoiled)
        for start in range(0, len(rendered.control_spans), 2):
            first, end = rendered.control_spans[start : start + 2]
            assert 0 <= first < end <= len(rendered.text)

    check()


@given(TEXTS, KEYS)
def test_truncated_text_is_30_to_70_percent_of_its_beginning(text: str, key: str) -> None:
    cut = degraded_text(text, "truncated", Draws(key))
    if len(text) < 2:
        assert cut is None
        return
    assert cut is not None
    assert text.startswith(cut)
    assert 0 < len(cut) < len(text)
    assert 3 * len(text) <= 10 * len(cut)
    assert 10 * len(cut) <= 7 * len(text) or len(text) < 4


@given(KEYS)
def test_truncated_text_ends_in_mid_word_where_there_are_words(key: str) -> None:
    cut = degraded_text(LONG, "truncated", Draws(key))
    assert cut is not None
    assert cut[-1].isalnum()
    assert LONG[len(cut)].isalnum()


def test_truncated_texts_are_cut_at_places_of_their_own() -> None:
    lengths = {
        len(degraded_text(LONG, "truncated", Draws(key)) or "") for key in map(str, range(9))
    }
    assert len(lengths) > 5


@given(TEXTS, KEYS)
def test_shuffled_text_has_the_same_lines_or_words_in_another_order(text: str, key: str) -> None:
    shuffled = degraded_text(text, "shuffled", Draws(key))
    body = text.rstrip("\n")
    if len(set(body.split("\n"))) > 1:
        assert shuffled is not None
        assert shuffled != text
        assert Counter(shuffled[: len(body)].split("\n")) == Counter(body.split("\n"))
    elif shuffled is not None:
        assert Counter(shuffled[: len(body)].split(" ")) == Counter(body.split(" "))
    else:
        assert len(set(body.split(" "))) == 1


@given(TEXTS | st.just(LONG), KEYS)
def test_duplicated_text_is_about_half_longer_and_still_holds_the_text(text: str, key: str) -> None:
    duplicated = degraded_text(text, "duplicated", Draws(key))
    if duplicated is None:
        assert len(text) < 3 or not text.strip()
        return
    assert is_subsequence(text, duplicated)
    assert Counter(duplicated).keys() <= Counter(text).keys()
    added = len(duplicated) - len(text)
    # A run with its joint is at most a third and one: rounding misses half by half of that.
    assert abs(added - len(text) / 2) <= (len(text) / 3 + 1) / 2


@given(KEYS)
def test_duplicated_text_repeats_whole_lines(key: str) -> None:
    duplicated = degraded_text(LONG, "duplicated", Draws(key))
    assert duplicated is not None
    counted = Counter(duplicated.split("\n"))
    assert counted.keys() == Counter(LONG.split("\n")).keys()
    assert 1 <= sum(count > 1 for count in counted.values()) <= 8


@given(TEXTS | st.just(LONG), KEYS)
def test_machine_made_text_is_as_long_and_of_the_same_characters(text: str, key: str) -> None:
    made = degraded_text(text, "machine_made", Draws(key))
    if not text:
        assert made is None
        return
    assert made is not None
    assert len(made) == len(text)
    assert set(made) <= set(text)


def test_machine_made_text_takes_only_steps_that_the_text_takes() -> None:
    made = degraded_text("a b a c a d " * 9, "machine_made", Draws("k"))
    assert made is not None
    words = made.split()
    after_others = {after for word, after in pairwise(words) if word != "a"}
    assert after_others == {"a"}
    assert {"b", "c", "d"} <= set(words)


@given(st.integers(2, 400), KEYS)
def test_middle_is_from_30_to_70_percent(num: int, key: str) -> None:
    found = middle(num, Draws(key))
    assert found is not None
    assert 0 < found < num
    assert 3 * num <= 10 * found


def test_degraded_answer_leaves_its_question() -> None:
    payload = {"question": LONG, "answer": LONG}
    for way in WAYS:
        spoiled = degraded_payload("qa", payload, way, Draws("k"))
        assert spoiled is not None
        assert spoiled["question"] == LONG != spoiled["answer"]


def test_degraded_thought_or_answer_is_one_of_them() -> None:
    payload = {"question": LONG, "think": LONG, "answer": LONG}
    changed = []
    for key in map(str, range(20)):
        spoiled = degraded_payload("qa_with_think", payload, "truncated", Draws(key))
        assert spoiled is not None
        changed.append(tuple(name for name in payload if spoiled[name] != payload[name]))
    assert set(changed) == {("think",), ("answer",)}


def test_truncated_conversation_loses_its_end_and_part_of_the_last_result() -> None:
    messages = trace(10)
    is_cut = []
    for key in map(str, range(20)):
        left = degraded_messages(messages, "truncated", Draws(key))
        assert left is not None
        assert 3 * len(messages) <= 10 * len(left) <= 7 * len(messages)
        assert left[:-1] == messages[: len(left) - 1]
        last, before = left[-1], messages[len(left) - 1]
        is_cut.append(last != before)
        assert is_cut[-1] == (before["role"] in TOOL_ROLES)
        assert before["content"].startswith(last["content"])
    assert set(is_cut) == {True, False}


def test_shuffled_conversation_keeps_roles_calls_and_what_each_role_says() -> None:
    messages = trace(10)
    shuffled = degraded_messages(messages, "shuffled", Draws("k"))
    assert shuffled is not None
    assert shuffled != messages
    without = [{**message, "content": None} for message in messages]
    assert [{**message, "content": None} for message in shuffled] == without
    for role in ("assistant", "tool"):
        said = [m["content"] for m in shuffled if m["role"] == role]
        before = [m["content"] for m in messages if m["role"] == role]
        assert said != before
        assert sorted(said) == sorted(before)


def test_duplicated_conversation_goes_through_a_turn_again_and_again() -> None:
    messages = trace(10)
    duplicated = degraded_messages(messages, "duplicated", Draws("k"))
    assert duplicated is not None
    assert is_subsequence(messages, duplicated)
    counted = Counter(message["content"] for message in duplicated)
    assert sorted(counted.values())[-3:] == [1, 6, 6]  # 10 turns: half as much again is 5 of them


def test_machine_made_conversation_keeps_calls_and_what_the_user_wants() -> None:
    messages = trace(10)
    made = degraded_messages(messages, "machine_made", Draws("k"))
    assert made is not None
    assert made[0] == messages[0]
    for message, before in zip(made[1:], messages[1:], strict=True):
        assert message.get("tool_calls") == before.get("tool_calls")
        assert len(message["content"]) == len(before["content"])
    assert sum(m != b for m, b in zip(made, messages, strict=True)) > 15


def test_degradation_in_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="rotten"):
        degraded_text("x", "rotten", Draws("k"))
    with pytest.raises(ValueError, match="rotten"):
        degraded_messages(trace(1), "rotten", Draws("k"))


def test_degraded_text_is_the_same_in_every_release() -> None:
    text = "one two three\nfour five six\nseven eight nine\nten\n"
    assert {way: degraded_text(text, way, Draws("k")) for way in WAYS} == {
        "truncated": "one two three\nfour five six\ns",
        "shuffled": "four five six\nten\nseven eight nine\none two three\n",
        "duplicated": "one two three\nfour five six\nseven eight nine\nseven eight nine\nten\n",
        "machine_made": "five six\nseven eight nine\nten\nten\nthree\nfour five",
    }
