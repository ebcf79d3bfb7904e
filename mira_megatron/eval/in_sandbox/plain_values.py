"""Python values as JSON and back, with the types that JSON lacks. Nothing is executed on reading.

Used on both sides of the sandbox's wall, so it imports the standard library alone. What is no plain data
becomes `Unserialisable`, which is not None and equal to nothing.
"""

from __future__ import annotations

import collections.abc
import math
from itertools import islice
from typing import Any

MAX_DEPTH = 100
MAX_ITEMS = 5_000_000
_SMALL = 1 << 62  # a larger int is written in hexadecimal: decimal digits have a limit in Python
_TAG = "$"
_ITERABLES = (
    "dict_keys dict_values dict_items map filter zip reversed generator enumerate "
    "list_iterator list_reverseiterator tuple_iterator set_iterator"
).split()


class Unserialisable:
    """Stands for a value that is no plain data."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


class Iterable(Unserialisable):
    """An iterator or a view: no list, but its items are known."""

    def __init__(self, type_name: str, items: list[Any]) -> None:
        super().__init__(type_name)
        self.items = items

    def __iter__(self) -> collections.abc.Iterator[Any]:
        return iter(self.items)


def encode(value: Any, depth: int = 0) -> Any:
    """Returns what `json` can write. Raises ValueError above MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int.__add__(value, 0)
        return number if -_SMALL < number < _SMALL else {_TAG: "int", "v": hex(number)}
    if isinstance(value, float):
        real = float.__mul__(value, 1.0)
        return real if math.isfinite(real) else {_TAG: "float", "v": repr(real)}
    if isinstance(value, list):
        return [encode(item, depth + 1) for item in list.__iter__(value)]
    return _encode_tagged(value, type(value).__name__, depth + 1)


def _encode_tagged(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, tuple):
        return {_TAG: "tuple", "v": [encode(item, depth) for item in tuple.__iter__(value)]}
    if isinstance(value, frozenset | set):
        kind = "set" if isinstance(value, set) else "frozenset"
        return {_TAG: kind, "v": [encode(item, depth) for item in value]}
    if isinstance(value, dict):
        pairs = [[encode(key, depth), encode(item, depth)] for key, item in dict.items(value)]
        return {_TAG: "dict", "v": pairs}
    if isinstance(value, complex):
        return {_TAG: "complex", "v": [repr(value.real), repr(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {_TAG: "bytes", "v": bytes(value).hex()}
    if type(value).__module__.split(".")[0] == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), depth)
    if name in _ITERABLES:
        items = [encode(item, depth) for item in islice(value, MAX_ITEMS)]
        return {_TAG: "iterable", "v": items, "name": name}
    return {_TAG: "other", "v": name}


def decode(written: Any) -> Any:
    """Returns the value; ValueError where what was written is none of ours."""
    if isinstance(written, list):
        return [decode(item) for item in written]
    if not isinstance(written, dict):
        return written
    try:
        return _decode_tagged(written[_TAG], written["v"], written)
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"no value of ours: {str(written)[:80]}") from error


def _decode_tagged(tag: str, value: Any, written: dict[str, Any]) -> Any:
    match tag:
        case "int":
            return int(value, 16)
        case "float":
            return float(value)
        case "tuple":
            return tuple(decode(item) for item in value)
        case "set":
            return {decode(item) for item in value}
        case "frozenset":
            return frozenset(decode(item) for item in value)
        case "dict":
            return {decode(key): decode(item) for key, item in value}
        case "complex":
            return complex(float(value[0]), float(value[1]))
        case "bytes":
            return bytes.fromhex(value)
        case "iterable":
            return Iterable(str(written["name"]), [decode(item) for item in value])
        case "other":
            return Unserialisable(str(value))
        case _:
            raise ValueError(f"unknown tag {tag!r}")
