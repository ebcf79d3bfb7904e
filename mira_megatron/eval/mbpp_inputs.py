"""The types that JSON loses: which arguments of MBPP tasks are tuples, sets or complex numbers.

MBPP's functions are called with tuples where its file, being JSON, holds lists. EvalPlus puts the
types back by task number; the same is written here as a table. A shape names the types from the
outside in: ("list", "tuple") is a list of tuples, ("tuple",) a tuple whose items stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Shape = tuple[str, ...]

_AS_IS: Shape = ()
_TUPLE: Shape = ("tuple",)
_LIST_OF_TUPLES: Shape = ("list", "tuple")
_TUPLE_OF_TUPLES: Shape = ("tuple", "tuple")

# Task numbers -> shapes of the arguments. The last shape holds for all arguments that follow.
_TABLE: tuple[tuple[str, tuple[Shape, ...]], ...] = (
    (
        "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809",
        (_TUPLE,),
    ),
    ("63 64 70 94 120 237 272 299 400 409 417 438 473 614 780", (_LIST_OF_TUPLES,)),
    ("75 413 444 753", (_LIST_OF_TUPLES, _AS_IS)),
    ("106 750", (_AS_IS, _TUPLE)),
    ("115", (("list", "set"),)),
    ("124", (("float",), ("complex",))),
    ("250 307 405 446 617 720 763 808", (_TUPLE, _AS_IS)),
    ("252", (("complex",),)),
    ("259 401 445", (_TUPLE_OF_TUPLES,)),
    ("278", (("tuple", "tuple if a list"),)),
    ("580 615 791", (("tuples all the way down",),)),
    ("722", (("values", "tuple"), _AS_IS)),
)
_SHAPES: Mapping[str, tuple[Shape, ...]] = {
    f"Mbpp/{number}": shapes for numbers, shapes in _TABLE for number in numbers.split()
}


def typed_arguments(task_id: str, arguments: Sequence[Any]) -> list[Any]:
    """Returns the arguments of one call with the types that the task's function expects."""
    shapes = _SHAPES.get(task_id, (_AS_IS,))
    return [
        _shaped(argument, shapes[min(position, len(shapes) - 1)])
        for position, argument in enumerate(arguments)
    ]


def _shaped(value: Any, shape: Shape) -> Any:
    if not shape:
        return value
    outer, inner = shape[0], shape[1:]
    match outer:
        case "tuple":
            return tuple(_shaped(item, inner) for item in value)
        case "list":
            return [_shaped(item, inner) for item in value]
        case "values":
            return {key: _shaped(item, inner) for key, item in value.items()}
        case "tuple if a list":
            return tuple(value) if isinstance(value, list) else value
        case "tuples all the way down":
            if not isinstance(value, list):
                return value
            return tuple(_shaped(item, shape) for item in value)
        case "set":
            # An empty one is a dictionary, as `{}` is in the tests that the file was made from.
            return set(value) if isinstance(value, list) and value else {}
        case "complex":
            return complex(value)
        case _:
            return float(value)
