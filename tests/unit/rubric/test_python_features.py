from __future__ import annotations

from mira_megatron.rubric.python_features import PythonFeatures, measure_python
from mira_megatron.rubric.syntax_features import MAX_PARSED_CHARS, parses_as_python

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


def test_measure_python_valid_module_counts_public_definitions_and_docstrings() -> None:
    features = _measured(_MODULE + "\n\ndef _private():\n    return 1\n")
    assert features.error is None
    # The module and area have one, Shape and todo have not, _private is not asked.
    assert (features.docstrings.num_public, features.docstrings.num_documented) == (4, 2)
    assert features.docstrings.num_lines == 2


def test_measure_python_signatures_leave_self_out() -> None:
    functions = _measured(_MODULE).functions
    # width, h and the result of area; the result of todo.
    assert (functions.num_signature_slots, functions.num_annotated_slots) == (4, 2)
    assert functions.parameters == {"width", "h"}


def test_measure_python_function_lines_leave_docstrings_out() -> None:
    functions = _measured(_MODULE).functions
    # area has 6 lines and a docstring of one, todo has 2.
    assert (functions.num_functions, functions.num_lines) == (2, 7)


def test_measure_python_nesting_restarts_in_each_function() -> None:
    assert _measured(_MODULE).deepest_nesting == 2


def test_measure_python_elif_chain_is_one_level() -> None:
    chain = "if a:\n    pass\n" + "elif b:\n    pass\n" * 50
    assert _measured(chain).deepest_nesting == 1


def test_measure_python_unfinished_functions_are_empty() -> None:
    assert _measured(_MODULE).functions.num_empty == 1


def test_measure_python_abbreviated_argument_is_not_a_clear_name() -> None:
    names = _measured(_MODULE).names
    # Shape, area, width, todo are; h is not.
    assert (names.num_names, names.num_clear) == (5, 4)


def test_measure_python_branches_are_ifs_loops_handlers_and_cases() -> None:
    features = _measured(
        "for a in b:\n    if a:\n        pass\n    elif b:\n        pass\n"
        "try:\n    run()\nexcept OSError:\n    stop()\n"
        "match a:\n    case 1:\n        pass\n    case _:\n        pass\n"
    )
    assert features.num_branches == 6


def test_measure_python_tests_count_their_assertions_and_telling_names() -> None:
    features = _measured(
        "def test_add():\n    assert 1 + 1 == 2\n\n"
        "def test_add_of_text_raises():\n    with pytest.raises(TypeError):\n        1 + ''\n\n"
        "class TestCase:\n    def test_more(self):\n        self.assertEqual(1, 1)\n"
    )
    assert (features.functions.num_tests, features.functions.num_telling_tests) == (3, 1)
    assert features.checks.num_assertions == 3


def test_measure_python_imports_count_unused_late_and_star_ones() -> None:
    imports = _measured(
        "from __future__ import annotations\nimport os.path, sys\nfrom math import *\n\n"
        "def run():\n    import json as parser\n    return os, parser\n"
    ).imports
    assert (imports.num_names, imports.num_unused, imports.num_late, imports.num_stars) == (
        *(4, 1, 1, 1),
    )


def test_measure_python_exported_import_is_used() -> None:
    imports = _measured("from shapes import Circle\n\n__all__ = ['Circle']\n").imports
    assert (imports.num_names, imports.num_unused) == (1, 0)


def test_measure_python_body_is_what_a_question_did_not_give() -> None:
    body = _measured('import os\n\ndef size(\n    path,\n):\n    """Size."""\n    return 3\n').body
    assert body.strip() == "return 3"


def test_measure_python_loose_handlers_are_bare_or_silent() -> None:
    handlers = "try:\n    run()\nexcept {}:\n    {}\n"
    loose = handlers.format("", "stop()") + handlers.format("Exception", "pass")
    careful = handlers.format("OSError", "pass") + handlers.format("Exception", "stop()")
    features = _measured(loose.replace("except :", "except:") + careful)
    assert (features.checks.num_handlers, features.checks.num_loose_handlers) == (4, 2)


def test_measure_python_cut_file_is_measured_above_the_cut() -> None:
    features = _measured('def first():\n    """Doc."""\n\ndef second(\n')
    assert features.num_parsed_lines == 3
    assert features.functions.num_functions == features.docstrings.num_documented == 1
    assert features.error is not None
    assert "line 4" in features.error


def test_measure_python_method_cut_keeps_the_class_above() -> None:
    features = _measured("class A:\n    def one(self): pass\n    @wraps\n    def two(self:\n")
    assert features.functions.num_functions == 1


def test_measure_python_oversize_text_is_not_parsed() -> None:
    assert measure_python("x" * (MAX_PARSED_CHARS + 1)) is None


def test_parses_as_python_beyond_the_parser_stack_is_false() -> None:
    assert not parses_as_python("-" * 100_000 + "1")
    assert not parses_as_python("a" + ".b" * 90_000)
    assert not parses_as_python("a\0b")


def test_measure_python_commented_out_lines_are_statements() -> None:
    features = _measured(
        "# A note on x and y.\n# x = first(y)\n#run(x, y)\n# return x\n"
        "# Returns x when it is set.\n# if so: stop\n"
    )
    assert (features.num_comments, features.num_commented_out) == (6, 3)


def test_measure_python_top_level_statements_are_told_from_inner_ones() -> None:
    features = _measured("import os\n\ndef run():\n    x = 1\n    return x\n")
    assert (features.num_top_level, features.num_statements) == (2, 4)
