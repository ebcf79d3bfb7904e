import json
from pathlib import Path

import pytest

from mira_megatron.corpus.python_corpus import docstring_question, doctest_trace, documented
from mira_megatron.corpus.renderers import RowError

MODULE = '''"""About shapes."""
import os

def area(width: float, height=1) -> float:
    """Return the area."""
    return width * height

def undocumented(): pass

class Box(dict):
    """A box."""

    @property
    @staticmethod
    def side():
        r"""Its \\side."""
        return 1
'''


def test_documented_finds_modules_functions_classes_and_methods_in_order() -> None:
    items = documented(MODULE)

    assert [(item.kind, item.name, item.line) for item in items] == [
        ("module", "", 1),
        ("function", "area", 4),
        ("class", "Box", 10),
        ("function", "Box.side", 13),
    ]


def test_documented_code_is_the_source_with_decorators_and_without_outer_indentation() -> None:
    side = documented(MODULE)[-1]

    assert side.code.splitlines()[:3] == ["@property", "@staticmethod", "def side():"]
    assert side.docstring == "Its \\side."


def test_documented_counts_lines_as_python_does_where_a_form_feed_stands() -> None:
    source = 'x = 1\n\x0c\ndef f():\r\n    """Doc."""\n    return "\u2028"\n'

    (item,) = documented(source)

    assert item.line == 3
    assert item.code == 'def f():\n    """Doc."""\n    return "\u2028"'


def test_docstring_question_asks_for_the_signature_and_answers_with_the_source() -> None:
    payload = docstring_question(documented(MODULE)[1])

    assert payload["question"] == (
        "Implement the Python function `area(width: float, height=1) -> float`.\n\nReturn the area."
    )
    assert payload["answer"].startswith("def area(")


@pytest.mark.parametrize(
    "source", ["def f(:", "a = '\0'", "(" * 5000, "x = " + "-" * 100_000 + "1"]
)
def test_documented_of_hostile_source_is_a_syntax_error(source: str) -> None:
    with pytest.raises(RowError) as caught:
        documented(source)

    assert caught.value.reason == "syntax_error"


def test_documented_never_runs_the_code(tmp_path: Path) -> None:
    target = tmp_path / "made"

    documented(f'"""Doc."""\nopen({str(target)!r}, "w")\n')

    assert not target.exists()


def test_doctest_trace_alternates_calls_and_expected_outputs() -> None:
    trace = doctest_trace("Adds.\n\n>>> x = 1\n>>> print()\n<BLANKLINE>\n>>> x\n1\n", "m.f")

    assert trace is not None
    roles = [message["role"] for message in trace["messages"]]
    assert roles == ["system", "user", *["assistant", "tool"] * 3, "assistant"]
    assert [m["content"] for m in trace["messages"] if m["role"] == "tool"] == ["", "", "1"]


def test_doctest_trace_prose_goes_to_the_task_the_next_call_and_the_end() -> None:
    trace = doctest_trace("Adds.\n\n>>> 1\n1\n\nTwo:\n\n>>> 2\n2\n>>> 3\n3\n\nDone.", "m.f")

    assert trace is not None
    spoken = [m["content"] for m in trace["messages"] if m["role"] in ("user", "assistant")]
    assert spoken == [
        "Show in a Python session how `m.f` works.\n\nAdds.",
        *(None, "Two:", None),
        "Done.",
    ]


def test_doctest_trace_calls_carry_the_code_as_json_arguments() -> None:
    trace = doctest_trace(">>> for i in 'é':\n...     i\n'é'\n", "f")

    assert trace is not None
    function = trace["messages"][2]["tool_calls"][0]["function"]
    assert function["name"] == "python"
    assert json.loads(function["arguments"]) == {"code": "for i in 'é':\n    i"}


def test_doctest_trace_without_examples_is_none() -> None:
    assert doctest_trace("Only prose.", "f") is None


def test_doctest_trace_with_broken_prompts_is_malformed() -> None:
    with pytest.raises(RowError, match="malformed_doctest"):
        doctest_trace(">>> x = 1\n>>>y\n", "f")
