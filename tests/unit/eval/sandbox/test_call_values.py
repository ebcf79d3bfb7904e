from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter, OrderedDict
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.sandbox.values import MAX_ALIKE, MAX_DEPTH, NotAValue, decode, encode

_keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**53 - 1, max_value=2**80)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
_values = st.recursive(
    _keys,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.sets(_keys)
        | st.frozensets(_keys)
        | st.dictionaries(_keys, inner)
    ),
    max_leaves=20,
)


@given(_values)
def test_values_come_back_with_their_types(value: object) -> None:
    back = decode(encode(value))
    assert back == value
    assert _types(back) == _types(value)


@given(st.recursive(st.integers() | st.text() | st.floats(), lambda s: st.lists(s)))
def test_any_json_is_a_value_or_refused(plain: object) -> None:
    try:
        decode(json.dumps(plain))
    except NotAValue:
        return
    assert not isinstance(plain, dict)


def test_numbers_that_json_lacks_come_back() -> None:
    back = decode(encode([math.nan, math.inf, -math.inf, -0.0, 10**5000]))
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1
    assert back[4] == 10**5000


def test_lone_surrogates_come_back() -> None:
    assert decode(encode("a\ud800")) == "a\ud800"


def test_numpy_becomes_lists_and_numbers() -> None:
    value = (np.array([[1, 2], [3, 4]]), np.float64(0.5), np.bool_(True), np.array(7))
    assert decode(encode(value)) == ([[1, 2], [3, 4]], 0.5, True, 7)


def test_subclasses_lose_their_methods() -> None:
    class Colour(IntEnum):
        RED = 1

    class Liar(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

        def __str__(self) -> str:
            return "expected"

    class Point(NamedTuple):
        x: int
        y: int

    value = [Colour.RED, Liar("wrong"), Point(1, 2), Counter("aa"), OrderedDict(a=1)]
    back = decode(encode(value))
    assert back == [1, "wrong", (1, 2), {"a": 2}, {"a": 1}]
    assert [type(item) for item in back] == [int, str, tuple, dict, dict]


@pytest.mark.parametrize(
    ("value", "name"),
    [(object(), "builtins.object"), (range(3), "builtins.range"), (iter([]), "list_iterator")],
)
def test_other_objects_are_refused_by_name(value: object, name: str) -> None:
    with pytest.raises(NotAValue, match=name):
        encode([value])


def test_nesting_is_bounded_both_ways() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert decode(encode(deep)) == deep
    with pytest.raises(NotAValue, match="deep"):
        encode([deep])
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(NotAValue, match="deep"):
        encode(loop)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[", "{}", '{"a":1}', "[]", "[1]", '["nothing",1]', '["list"]', '["int",5]'),
        *('["int","z"]', '["set",[["list",[]]]]', '["dict",[[1]]]', '["dict",[[["list",[]],1]]]'),
        *("[" * 100_000, '["bytes","0"]', '["complex","a",1]', b"\xff", '["float","x"]'),
    ],
)
def test_text_that_encode_does_not_write_is_refused(text: str | bytes) -> None:
    with pytest.raises(NotAValue):
        decode(text)


def _types(value: object) -> object:
    """Returns the types inside a value; of sets, which have no order, only their own."""
    if isinstance(value, (list, tuple)):
        return type(value), [_types(item) for item in value]
    if isinstance(value, dict):
        return dict, [(_types(key), _types(item)) for key, item in value.items()]
    return type(value)


@pytest.mark.parametrize("form", ['["set",[{}]]', '["frozenset",[{}]]', '["dict",[{}]]'])
def test_members_of_one_hash_are_refused_where_they_are_many(form: str) -> None:
    def written(count: int) -> str:
        numbers = (f'["int","{number * sys.hash_info.modulus:x}"]' for number in range(count))
        return form.format(",".join(f"[{each},1]" if "dict" in form else each for each in numbers))

    assert len(decode(written(MAX_ALIKE))) == MAX_ALIKE
    started = time.process_time()
    with pytest.raises(NotAValue, match="40,000 members of one hash"):
        decode(written(40_000))
    assert time.process_time() - started < 3  # a set of them takes ten seconds
