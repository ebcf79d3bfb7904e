"""Python values as JSON text, so that what comes out of a sandbox is data and never code.

None, bool, int, float, str, bytes, complex and list, tuple, set, frozenset, dict keep their type; a
subclass of one becomes the type itself, without its methods; numpy arrays become lists and numpy
numbers become numbers. NaN, infinities, -0.0 and integers of any length are kept. Depth is bounded,
and so is how many members of a set have one hash: k * (2 ** 61 - 1) has the same for every k, and a
set of them takes time that grows with the square of their number.

The module also runs inside sandboxes, by itself: it needs only the standard library.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 64
MAX_ALIKE = 1024  # members of a set, or keys, of one hash
_SAFE_INT = 1 << 53  # JSON readers agree on numbers up to here; Python prints no endless ones
_SEQUENCES: dict[str, tuple[type, Callable[[Any], Iterable[object]]]] = {
    "list": (list, list.__iter__),
    "tuple": (tuple, tuple.__iter__),
    "set": (set, set.__iter__),
    "frozenset": (frozenset, frozenset.__iter__),
}


class NotAValue(ValueError):
    """Something that is no value of the kinds above, or nested too deeply."""


def encode(value: object) -> str:
    """Returns the value as JSON; raises NotAValue, which names the type that has no form."""
    return json.dumps(_plain(value, MAX_DEPTH), separators=(",", ":"))


def decode(text: str | bytes) -> Any:
    """Returns the value again; raises NotAValue for any text that `encode` does not write."""
    try:
        return _value(json.loads(text), MAX_DEPTH)
    except NotAValue:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise NotAValue(f"no encoded value: {error}") from error


def _plain(value: object, depth: int) -> Any:
    if depth == 0:
        raise NotAValue("nested too deeply")
    # The base types' own methods: a subclass may have others.
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        number = int.__add__(value, 0)
        return number if -_SAFE_INT < number < _SAFE_INT else ["int", hex(number)]
    if isinstance(value, float):
        real = float.__pos__(value)
        return real if real - real == 0.0 else ["float", float.__repr__(real)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        parts = complex.__pos__(value)
        return ["complex", _plain(parts.real, depth), _plain(parts.imag, depth)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", bytes(value).hex()]
    if isinstance(value, dict):
        return ["dict", [_items(pair, depth) for pair in dict.items(value)]]
    for name, (kind, iterate) in _SEQUENCES.items():
        if isinstance(value, kind):
            return [name, _items(iterate(value), depth)]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        listed = value.tolist()
        if type(listed) is not type(value):
            return _plain(listed, depth)
    raise NotAValue(f"{type(value).__module__}.{type(value).__qualname__}")


def _items(values: Iterable[object], depth: int) -> list[Any]:
    return [_plain(value, depth - 1) for value in values]


def _value(plain: Any, depth: int) -> Any:
    if depth == 0:
        raise NotAValue("nested too deeply")
    if not isinstance(plain, list):
        if isinstance(plain, dict):
            raise NotAValue("no encoded value: a JSON object")
        return plain
    match plain:
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["float", str(name)]:
            return float(name)
        case ["complex", real, imaginary]:
            return complex(_value(real, depth), _value(imaginary, depth))
        case ["bytes", str(digits)]:
            return bytes.fromhex(digits)
        case ["dict", list(pairs)]:
            read = [[_value(item, depth - 1) for item in pair] for pair in pairs]
            _check_hashes([pair[0] for pair in read if pair])
            return dict(read)
        case [str(name), list(items)] if name in _SEQUENCES:
            values = [_value(item, depth - 1) for item in items]
            if name in ("set", "frozenset"):
                _check_hashes(values)
            return _SEQUENCES[name][0](values)
        case _:
            raise NotAValue("no encoded value: a list without a known tag")


def _check_hashes(members: list[Any]) -> None:
    """Raises NotAValue where too many members have one hash, TypeError where one has none."""
    if len(members) > MAX_ALIKE:
        ((_, count),) = Counter(map(hash, members)).most_common(1)
        if count > MAX_ALIKE:
            raise NotAValue(f"{count:,} members of one hash")
