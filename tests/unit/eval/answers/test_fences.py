from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.answers.fences import Which, code_in_answer, fenced_blocks
from mira_megatron.eval.verdicts import Extraction

_PYTHON = ("python", "py")
_CODE_LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r`~")))


@given(_CODE_LINES, st.sampled_from(["```", "````", "~~~"]), st.sampled_from(["", "python", "C++"]))
def test_block_with_any_code_gives_back_every_line(lines: list[str], fence: str, name: str) -> None:
    code = "".join(f"{line}\n" for line in lines)

    blocks = fenced_blocks(f"Here it is:\n{fence}{name}\n{code}{fence}\nDone.")

    assert [(block.language, block.code, block.is_closed) for block in blocks] == [
        (name.lower(), code, True)
    ]


@given(st.text(st.sampled_from("`~ \tp\n<>")))
def test_fenced_blocks_of_any_text_leave_only_the_last_open(text: str) -> None:
    blocks = fenced_blocks(text)

    assert all(block.is_closed for block in blocks[:-1])


@pytest.mark.parametrize(
    ("which", "code"), [("first", "a = 1\n"), ("last", "c = 3\n"), ("longest", "b = 22\n")]
)
def test_code_in_answer_with_several_blocks_takes_the_one_asked_for(
    which: Which, code: str
) -> None:
    answer = "```python\na = 1\n```\n```py\nb = 22\n```\n```python\nc = 3\n```\n"

    assert code_in_answer(answer, _PYTHON, which=which).code == code


def test_code_in_answer_prefers_the_named_language_over_no_name_over_another() -> None:
    shell, plain = "```bash\npip install x\n```\n", "```\nprint(1)\n```\n"
    named = "```Python title=a\nprint(2)\n```\n"

    assert code_in_answer(shell + plain + named, _PYTHON).code == "print(2)\n"
    assert code_in_answer(shell + plain, _PYTHON).code == "print(1)\n"
    assert code_in_answer(shell, _PYTHON).code == "pip install x\n"


def test_code_in_answer_takes_an_unclosed_last_block_only_without_a_closed_one() -> None:
    assert code_in_answer("So:\n```python\nx = 1", _PYTHON) == Extraction(code="x = 1\n")
    closed_first = "```python\nx = 1\n```\nOr:\n```python\nx ="
    assert code_in_answer(closed_first, _PYTHON, which="last").code == "x = 1\n"


def test_code_in_answer_drops_what_the_model_thought() -> None:
    answer = "<think>So</think>\n```python\nx = 1\n```\nno</think>\n```python\nx = 2\n```"

    assert code_in_answer(answer, _PYTHON).code == "x = 2\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" \n</think>\n ", "empty"),
        ("```python\n\n```", "empty"),
        ("I cannot do that.", "no_code_block"),
        ("x = `1`", "no_code_block"),
        ("<think>\n```python\nx = 1\n```\n", "unfinished_thought"),
        ("a</think>\n<think>b ```python\nx\n```", "unfinished_thought"),
    ],
)
def test_code_in_answer_without_code_says_why(answer: str, reason: str) -> None:
    assert code_in_answer(answer, _PYTHON) == Extraction(code=None, reason=reason)


def test_code_in_answer_without_fence_is_code_only_where_that_is_allowed() -> None:
    assert code_in_answer("SELECT 1", ("sql",)).reason == "no_code_block"
    assert code_in_answer("SELECT 1", ("sql",), allow_bare=True).code == "SELECT 1"
    assert code_in_answer("```\n```", ("sql",), allow_bare=True).reason == "empty"


def test_fence_in_a_docstring_deeper_than_its_block_does_not_end_it() -> None:
    code = 'def f():\n    """\n    ```python\n    f()\n    ```\n    """\n'

    assert code_in_answer(f"```python\n{code}```\n", _PYTHON).code == code


def test_block_in_a_list_loses_the_depth_of_its_fence() -> None:
    answer = "1. First\n    ```python\n    if x:\n        y()\n    ```\n"

    assert code_in_answer(answer, _PYTHON).code == "if x:\n    y()\n"


def test_fence_with_a_name_ends_a_block_that_was_forgotten() -> None:
    blocks = fenced_blocks("```python\nx = 1\n```cpp\nint x;\n```\n")

    assert [(block.language, block.code) for block in blocks] == [
        ("python", "x = 1\n"),
        ("cpp", "int x;\n"),
    ]


def test_longer_fence_holds_shorter_ones() -> None:
    assert fenced_blocks("````md\n```python\nx\n```\n````\n")[0].code == "```python\nx\n```\n"


def test_windows_line_ends_become_newlines() -> None:
    assert code_in_answer("```bash\r\necho 1\r\n```\r\n", ("bash",)).code == "echo 1\n"
