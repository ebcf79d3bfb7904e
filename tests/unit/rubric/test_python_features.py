from __future__ import annotations

from mira_megatron.rubric.python_features import (
    MAX_PARSED_CHARS,
    PythonFeatures,
    measure_python,
    parses_as_python,
)

_MODULE = '''"""Two words."""


class Shape:
    def area(self, width: int, h) -> int:
        """Area."""
        for row in range(width):
            if row:
                pass
        return width


def todo():
    raise NotImplementedError
'''


def _measured(text: str) -> PythonFeatures:
    features = measure_python(text)
    assert features is not None
    return features


def test_measure_python_valid_module_counts_definitions_and_docstrings() -> None:
    features = _measured(_MODULE)
    assert features.error is None
    assert (features.num_definitions, features.num_documented) == (4, 2)
    assert features.num_docstring_words == 3


def test_measure_python_signatures_leave_self_out() -> None:
    features = _measured(_MODULE)
    # width, h and the result of area; the result of todo.
    assert (features.num_signature_slots, features.num_annotated_slots) == (4, 2)


def test_measure_python_nesting_restarts_in_each_function() -> None:
    assert _measured(_MODULE).deepest_nesting == 2


def test_measure_python_elif_chain_is_one_level() -> None:
    chain = "if a:\n    pass\n" + "elif b:\n    pass\n" * 50
    assert _measured(chain).deepest_nesting == 1


def test_measure_python_unfinished_functions_are_empty() -> None:
    assert _measured(_MODULE).num_empty_functions == 1


def test_measure_python_one_letter_argument_is_not_a_clear_name() -> None:
    features = _measured(_MODULE)
    # Shape, area, width, todo are; h is not.
    assert (features.num_names, features.num_clear_names) == (5, 4)


def test_measure_python_loose_handlers_are_bare_or_silent() -> None:
    handlers = "try:\n    run()\nexcept {}:\n    {}\n"
    loose = handlers.format("", "stop()") + handlers.format("Exception", "pass")
    careful = handlers.format("OSError", "pass") + handlers.format("Exception", "stop()")
    features = _measured(loose.replace("except :", "except:") + careful)
    assert (features.num_handlers, features.num_loose_handlers) == (4, 2)


def test_measure_python_cut_file_is_measured_above_the_cut() -> None:
    features = _measured('def first():\n    """Doc."""\n\ndef second(\n')
    assert features.num_parsed_lines == 3
    assert features.num_functions == features.num_documented == 1
    assert features.error is not None
    assert "line 4" in features.error


def test_measure_python_method_cut_keeps_the_class_above() -> None:
    features = _measured("class A:\n    def one(self): pass\n    @wraps\n    def two(self:\n")
    assert features.num_functions == 1


def test_measure_python_oversize_text_is_not_parsed() -> None:
    assert measure_python("x" * (MAX_PARSED_CHARS + 1)) is None


def test_parses_as_python_beyond_the_parser_stack_is_false() -> None:
    assert not parses_as_python("-" * 100_000 + "1")
    assert not parses_as_python("a" + ".b" * 90_000)
    assert not parses_as_python("a\0b")
