from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.answers.python_code import sanitized

_NAMES = st.text("abcxyz_", min_size=1, max_size=4).filter(lambda name: not keyword.iskeyword(name))
_PROSE = st.lists(
    st.text("abc,.?:'\"( ", min_size=1, max_size=20).map(lambda words: f"So, {words} ?"), max_size=5
)


@given(_PROSE, _PROSE, _NAMES, st.integers(1, 20))
def test_sanitized_finds_a_function_between_lines_of_prose(
    before: list[str], after: list[str], name: str, num_lines: int
) -> None:
    function = [f"def {name}(n):", *(f"    n += {each}" for each in range(num_lines))]

    program = sanitized("\n".join([*before, *function, *after]), name)

    assert program == "".join(f"{line}\n" for line in function)


@given(st.text(st.sampled_from("def f(x):\n \t'\"#\\\x00,=1[]{}@;\r\ud800")))
def test_sanitized_text_parses_and_defines_something_or_is_none(text: str) -> None:
    program = sanitized(text, "f")

    assert program is None or ast.parse(program).body


def test_sanitized_keeps_imports_and_what_the_entry_point_reaches() -> None:
    text = '''"""Task."""
import math
from typing import List
LIMIT = 3
unused = 4
def helper(x):
    return x + LIMIT
def other():
    return unused
class Box:
    pass
@staticmethod
def f(x: List) -> Box:
    return helper(math.floor(x))
print(f(1))
assert f(1) == 2
if __name__ == "__main__":
    LIMIT = 5
'''
    program = sanitized(text, "f")

    assert program == (
        "import math\nfrom typing import List\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\n"
        "class Box:\n    pass\n@staticmethod\ndef f(x: List) -> Box:\n"
        "    return helper(math.floor(x))\n"
    )


def test_sanitized_keeps_the_first_of_two_functions_of_one_name() -> None:
    text = "def f():\n    return 1\ndef f():\n    return 2\n"

    assert sanitized(text, "f") == "def f():\n    return 1\n"


def test_sanitized_keeps_a_block_that_binds_what_is_reached() -> None:
    block = "try:\n    import a as b\nexcept ImportError:\n    b = None\n"
    text = f"{block}for i in range(3):\n    print(i)\ndef f():\n    return b\n"

    assert sanitized(text, "f") == f"{block}def f():\n    return b\n"


def test_sanitized_finds_statements_that_reach_over_lines_at_the_left() -> None:
    code = "T = [\n1,\n2,\n]\n@cache\ndef f():\n    return T, '''\nleft\n'''\n"

    assert sanitized(f"Here you go.\n{code}Thank you, all.\n", "f") == code


def test_sanitized_without_the_entry_point_keeps_all_definitions() -> None:
    text = "def g():\n    return h()\ndef h():\n    return 1\nprint(g())\n"

    assert sanitized(text, "f") == "def g():\n    return h()\ndef h():\n    return 1\n"


def test_sanitized_prefers_the_part_with_the_entry_point_to_a_longer_one() -> None:
    text = "def f():\n    return 1\n\nThat was it, and so\nx = 1\ny = 2\nz = 3\n"

    assert sanitized(text, "f") == "def f():\n    return 1\n"


def test_sanitized_leaves_out_the_line_that_was_cut_off() -> None:
    text = "def f(x):\n    if x:\n        return 1\n    return max(x,"

    assert sanitized(text, "f") == "def f(x):\n    if x:\n        return 1\n"


@pytest.mark.parametrize(
    "text", ["", "Sorry", "1 + 1", "import os\n", "def f(", "f" * 300_000, "(" * 5000, "x = 1\x00"]
)
def test_sanitized_of_text_without_a_definition_is_none(text: str) -> None:
    assert sanitized(text, "f") is None


def test_sanitized_of_many_wrong_lines_still_finds_the_function() -> None:
    text = "".join(f"{number} is a number.\n" for number in range(60)) + "def f():\n    pass\n"

    assert sanitized(text, "f") == "def f():\n    pass\n"


def test_sanitized_of_a_program_beyond_the_bounds_is_whole_where_it_parses() -> None:
    text = "".join(f"x{number} = {number}\n" for number in range(4000)) + "def f():\n    pass\n"

    assert sanitized(text, "f") == "def f():\n    pass\n"
    assert sanitized(f"{text}Thank you, all.\n", "f") is not None
