"""MultiPL-E for chats: what is asked, and the program that an answer's tests can be put behind.

Asked as DeepSeek-Coder's and Qwen2.5-Coder's evaluations ask. Their answers hold a whole function,
or a whole class, while the tests of four languages begin with the brace that ends the function of
the prompt. So a function without a purpose is begun at the end of the program, and a class is left
open around it. What models add goes: a main function, as the tests bring their own, and PHP's
closing tag. What they leave out comes from the prompt: imports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mira_megatron.eval.answers.code_text import bare, block_end, statement_start
from mira_megatron.eval.answers.fences import code_in_answer
from mira_megatron.eval.benchmark import Prompt
from mira_megatron.eval.verdicts import Extraction

_MAX_TOKENS = 1024  # of DeepSeek-Coder's evaluation
_CLASS = re.compile(r"\bclass\s+Problem\b")
_PACKAGE = re.compile(r"^[ \t]*package[ \t][^;\n]*;", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRules:
    """What is peculiar to the answers in one language."""

    names: tuple[str, ...]  # of blocks in Markdown; the first is asked for
    imports: str = ""  # a regular expression of one line that brings something in
    main: str = ""  # a regular expression of the beginning of a main function
    opener: str = ""  # what the tests' first brace is to end
    has_class: bool = False  # tests stand in the prompt's class Problem


RULES: Mapping[str, AnswerRules] = {
    "cpp": AnswerRules(
        names=("cpp", "c++", "cc", "cxx"),
        imports=r"#\s*include\b|using\s",
        main=r"\b(?:int|auto|void|signed)\s+main\s*\(",
        opener="void after_the_answer() {",
    ),
    "cs": AnswerRules(
        names=("csharp", "c#", "cs"),
        imports=r"using\s[^(]*;",
        main=r"\b(?:void|int|Task|Task\s*<\s*int\s*>)\s+Main\s*\(",
        opener="    static void AfterTheAnswer() {",
        has_class=True,
    ),
    "java": AnswerRules(
        names=("java",),
        imports=r"import\s",
        main=r"\bvoid\s+main\s*\(",
        opener="    static void afterTheAnswer() {",
        has_class=True,
    ),
    "js": AnswerRules(names=("javascript", "js", "node")),
    "php": AnswerRules(names=("php",), imports=r"<\?php"),
    "py": AnswerRules(
        names=("python", "py", "python3"),
        imports=r"(?:from\s+\S+\s+)?import\s",
        main=r"^if\s+__name__\s*==",
    ),
    "sh": AnswerRules(names=("bash", "sh", "shell"), opener="after_the_answer() {\n    :"),
    "ts": AnswerRules(names=("typescript", "ts")),
}


def multipl_e_chat(prompt: str, language: str) -> Prompt:
    """Returns what a chat is asked for a task."""
    name = RULES[language].names[0]
    return Prompt(
        template="multipl_e-chat/1",
        messages=(
            {
                "role": "user",
                "content": "Please continue to complete the function and return all completed code "
                "in a codeblock. Here is the given code to do completion:\n"
                f"```{name}\n{prompt.strip()}\n```",
            },
        ),
        max_tokens=_MAX_TOKENS,
    )


def program_in_answer(answer: str, prompt: str, language: str) -> Extraction:
    """Returns the program in a chat's answer, without its tests, or why there is none."""
    rules = RULES[language]
    found = code_in_answer(answer, rules.names)
    if found.code is None:
        return found
    code = found.code
    name = _function_name(prompt, language)
    if name and not re.search(rf"\b{re.escape(name)}\b", code):
        return Extraction(code=prompt + code)  # the rest of the function alone
    if language == "php":
        code = code.rstrip().removesuffix("?>")
    if language == "py":
        guard = re.search(rules.main, code, re.MULTILINE)
        code = code[: guard.start()] if guard else code
    if language in ("cpp", "cs", "java"):
        code = _without_main(code, rules.main, language)
    if rules.has_class:
        code = _in_open_class(_PACKAGE.sub("", code), rules, name, language)
    code = f"{_missing_imports(code, prompt, rules)}{code.rstrip()}\n"
    return Extraction(code=f"{code}{rules.opener}" if rules.opener else code)


def _function_name(prompt: str, language: str) -> str:
    """Returns the name of the function that the prompt begins, "" where it cannot be read."""
    if language == "py":
        names = re.findall(r"^def\s+(\w+)", prompt, re.MULTILINE)
    else:
        names = re.findall(r"(\w+)\s*\(", prompt.rstrip().rpartition("\n")[2])[:1]
    return names[-1] if names else ""


def _missing_imports(code: str, prompt: str, rules: AnswerRules) -> str:
    if not rules.imports:
        return ""
    have = {line.strip() for line in code.splitlines()}
    lines = (line for line in prompt.splitlines() if re.match(rules.imports, line))
    return "".join(f"{line}\n" for line in lines if line.strip() not in have)


def _without_main(code: str, main: str, language: str) -> str:
    """Returns the code without main functions; one that is not ended goes with all behind it."""
    bare_code = bare(code, language)
    while found := re.search(main, bare_code):
        start = statement_start(bare_code, found.start())
        brace, semicolon = (bare_code.find(each, found.end()) for each in "{;")
        if 0 <= semicolon < brace or brace < 0:  # declared alone, or C#'s `=> …;`
            end = semicolon if semicolon >= 0 else len(code)
        else:
            ended = block_end(bare_code, found.end())
            end = len(code) if ended is None else ended
        code, bare_code = (each[:start] + each[end + 1 :] for each in (code, bare_code))
    return code


def _in_open_class(code: str, rules: AnswerRules, name: str, language: str) -> str:
    """Returns the code with class Problem at its end, left open; all else stands before it."""
    bare_code = bare(code, language)
    found = _CLASS.search(bare_code)
    if found is None:
        if not _is_at_top(bare_code, name):
            return f"{code}\nclass Problem {{"
        lines = code.splitlines()
        are_imports = [re.match(rules.imports, line.strip()) is not None for line in lines]
        imports = [line for line, is_one in zip(lines, are_imports, strict=True) if is_one]
        rest = [line for line, is_one in zip(lines, are_imports, strict=True) if not is_one]
        return "\n".join([*imports, "class Problem {", *rest])
    end = block_end(bare_code, found.end())
    if end is None:
        return code
    start = statement_start(bare_code, found.start())
    return f"{code[:start]}{code[end + 1 :].strip()}\n{code[start:end]}"


def _is_at_top(bare_code: str, name: str) -> bool:
    """Returns whether a function of this name stands in no block."""
    for found in re.finditer(rf"\b{re.escape(name)}\s*\(", bare_code):
        before = bare_code[: found.start()]
        if before.count("{") == before.count("}"):
            return True
    return False
