from __future__ import annotations

import re
from pathlib import Path

import pytest
from eval_files import MULTIPL_E, MULTIPL_E_TASK, write_multipl_e
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.answers.code_text import bare, block_end
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.multipl_e import MultiplE
from mira_megatron.eval.multipl_e_answers import RULES, program_in_answer
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Form, Sample, Status

ON_EVERY_MACHINE = ("py", "sh")
CLOSERS = {"cpp": "\n}\n", "cs": "\n    }\n}\n", "java": "\n    }\n}\n", "sh": "\n}\n"}
# What chats add to a right function: helpers, a main function, a use of it.
EXTRAS = {
    "cpp": '\n// int main() {\nint main() {\n    std::cout << "}" << add(1, 2);\n}\n'
    "struct Pair { long x; };\n",
    "cs": "\nclass Other {\n    public static void Main() { Console.WriteLine('}'); }\n}\n",
    "java": "\nclass Main {\n    // }\n    public static void main(String[] a) {\n"
    "        assert a != null;\n    }\n}\n",
    "js": "\nconsole.log(add(1, 2));\n",
    "php": "\necho add(1, 2);\n?>\n",
    "py": "\n\nif __name__ == '__main__':\n    print(add(int(input()), 2))\n",
    "sh": "\nadd 1 2\n",
    "ts": "\nconsole.log(add(1, 2));\n",
}


def whole(language: str, *, is_right: bool = True) -> str:
    prompt, right, wrong, _ = MULTIPL_E[language]
    return f"{prompt}{right if is_right else wrong}{CLOSERS.get(language, '')}"


def status_of(sandbox: Sandbox, folder: Path, language: str, code: str) -> Status:
    try:
        LANGUAGES[language].found_tools()
    except ValueError as error:
        pytest.skip(str(error))
    benchmark = MultiplE(write_multipl_e(folder / "tasks.jsonl", language), language)
    text = f"Sure:\n```{RULES[language].names[0]}\n{code}\n```\nIt adds."
    sample = Sample(task_id=MULTIPL_E_TASK, number=0, text=text, form=Form.ANSWER, is_raw=True)
    program = benchmark.extract(sample).code
    assert program is not None
    judgment = benchmark.judge(sandbox, MULTIPL_E_TASK, program)
    return judgment.statuses[f"multipl_e_{language}"][0]


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(each, marks=() if each in ON_EVERY_MACHINE else pytest.mark.integration)
        for each in RULES
    ],
)
def test_whole_functions_of_chats_are_judged_with_what_models_add(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    prompt = MULTIPL_E[language][0]
    code, wrong = whole(language), whole(language, is_right=False)
    assert status_of(sandbox, tmp_path, language, code) is Status.PASS
    assert status_of(sandbox, tmp_path, language, wrong) is Status.FAIL
    assert status_of(sandbox, tmp_path, language, code + EXTRAS[language]) is Status.PASS
    without_imports = re.sub(r"^(?:#include|using|import|<\?php).*\n", "", code, flags=re.M)
    assert status_of(sandbox, tmp_path, language, without_imports) is Status.PASS
    if RULES[language].has_class:
        method = code[len(prompt.partition("class Problem {\n")[0]) :].partition("{\n")[2]
        method = method.rstrip().removesuffix("}")
        assert status_of(sandbox, tmp_path, language, method) is Status.PASS
        opened = code.rstrip().removesuffix("}")  # the class is not closed, as in the prompt
        assert status_of(sandbox, tmp_path, language, opened) is Status.PASS


def test_the_rest_of_a_function_alone_goes_behind_the_prompt() -> None:
    prompt = MULTIPL_E["py"][0]

    found = program_in_answer("```python\n    return x + y\n```", prompt, "py")

    assert found.code == f"{prompt}    return x + y\n"


def test_java_class_goes_to_the_end_and_stays_open() -> None:
    code = (
        "package a.b;\nimport x.Y;\npublic class Problem {\n    long add(long x) { return x; }\n}\n"
        "class Box {}\n"
    )

    found = program_in_answer(f"```java\n{code}```", MULTIPL_E["java"][0], "java").code

    assert found is not None
    assert "package" not in found
    assert found.startswith("import org.javatuples.*;\n")
    assert found.index("class Box {}") < found.index("public class Problem {")
    assert found.endswith("return x; }\n    static void afterTheAnswer() {")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("cpp", 'R"(})" R"x()"})x" "}\\"}" \'}\' 1\'000 // }\n/* } */'),
        ("cs", '@"}\\" "}" \'}\' $@"}""}" // }\n/* } */'),
        ("java", '"""\n}"}\n""" "}\\"}" \'}\' // }\n/* } */'),
    ],
)
def test_bare_code_has_no_braces_of_strings_and_comments(language: str, code: str) -> None:
    found = bare(f"{{{code}\n}} {{", language)

    assert len(found) == len(code) + 5
    assert block_end(found, 0) == len(code) + 2


@pytest.mark.parametrize("code", ["", "x", "{", "{{}", "} {}"])
def test_block_that_does_not_begin_or_end_has_no_end(code: str) -> None:
    assert block_end(code, 0) is None


@given(st.text("{}\"'/*\n\\ R(x"), st.sampled_from(["cpp", "cs", "java"]))
def test_bare_code_keeps_the_length_and_the_lines_of_any_text(code: str, language: str) -> None:
    found = bare(code, language)

    assert len(found) == len(code)
    assert [len(line) for line in found.split("\n")] == [len(line) for line in code.split("\n")]


@given(
    st.text("int mainvodM(){};=>/\n \"'class Problem"),
    st.sampled_from(sorted(RULES)),
    st.booleans(),
)
def test_any_block_gives_a_program(code: str, language: str, has_name: bool) -> None:
    name = {"cs": "Add"}.get(language, "add")
    block = f"{code}{name}(" if has_name else code
    answer = f"```{RULES[language].names[0]}\n{block}\n```"

    found = program_in_answer(answer, MULTIPL_E[language][0], language)

    assert (found.code is None) == (not block.strip())


@pytest.mark.parametrize("language", sorted(RULES))
def test_chats_are_asked_with_the_task_in_a_block_of_its_language(
    tmp_path: Path, language: str
) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", language), language)

    prompt = benchmark.prompt(MULTIPL_E_TASK, Style.CHAT)

    assert prompt.template == "multipl_e-chat/1"
    (message,) = prompt.messages
    task = MULTIPL_E[language][0].strip()
    assert message["content"].endswith(f":\n```{RULES[language].names[0]}\n{task}\n```")


def test_an_answer_without_a_block_says_so() -> None:
    assert program_in_answer("return x", MULTIPL_E["py"][0], "py").reason == "no_code_block"
