from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from eval_files import MULTIPL_E, MULTIPL_E_TASK, write_lines, write_multipl_e

from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.multipl_e import MultiplE, humaneval_number, load_tasks
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Form, Sample, Status

EARLY_EXITS = {
    "cpp": "    exit(0);",
    "cs": "        Environment.Exit(0); return 0;",
    "java": "        System.exit(0); return 0;",
    "js": "  process.exit(0);\n}",
    "php": "    exit(0);\n}",
    "py": "    import os; os._exit(0)",
    "sh": "    echo 5; }; exit 0; x() { :",
    "ts": "  (globalThis as any).process.exit(0); return 0;\n}",
}
ON_EVERY_MACHINE = ("py", "sh")
INTEGRATION = (pytest.mark.integration,)
NO_PROGRAM = {"cpp": "%%%", "cs": "%%%", "java": "%%%", "ts": "  return x + ;\n}"}


def each(languages: Iterable[str]) -> list[ParameterSet]:
    """Compilers are hundreds of megabytes: `make test` does without those that few have."""
    apart = {
        language: () if language in ON_EVERY_MACHINE else INTEGRATION for language in languages
    }
    return [pytest.param(language, marks=marks) for language, marks in apart.items()]


def judged(sandbox: Sandbox, folder: Path, language: str, completion: str) -> tuple[Status, str]:
    try:
        LANGUAGES[language].found_tools()
    except ValueError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    benchmark = MultiplE(write_multipl_e(folder / "tasks.jsonl", language), language)
    code = benchmark.extract(Sample(task_id=MULTIPL_E_TASK, number=0, text=completion)).code
    assert code is not None
    return benchmark.judge(sandbox, MULTIPL_E_TASK, code).statuses[f"multipl_e_{language}"]


@pytest.mark.parametrize("language", each(LANGUAGES))
def test_a_right_program_passes_and_a_wrong_one_does_not(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    _, right, wrong, _ = MULTIPL_E[language]
    assert judged(sandbox, tmp_path, language, right) == (Status.PASS, "")
    assert judged(sandbox, tmp_path, language, wrong)[0] is Status.FAIL


@pytest.mark.parametrize("language", each(LANGUAGES))
def test_a_program_that_leaves_before_its_tests_has_not_passed(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    status, detail = judged(sandbox, tmp_path, language, EARLY_EXITS[language])
    assert status is Status.FAIL, detail
    assert "before its last test" in detail


@pytest.mark.parametrize("language", each(NO_PROGRAM))
def test_what_does_not_compile_is_an_error_with_the_compilers_words(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    status, detail = judged(sandbox, tmp_path, language, NO_PROGRAM[language])
    assert status is Status.ERROR
    assert "does not compile" in detail
    assert "error" in detail


@pytest.mark.integration
def test_a_crash_in_csharp_is_no_pass(sandbox: Sandbox, tmp_path: Path) -> None:
    status, _ = judged(sandbox, tmp_path, "cs", "        throw new Exception();")
    assert status is Status.FAIL


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_mark_stands_behind_the_last_test(language: str) -> None:
    tests = MULTIPL_E[language][3]
    marked = LANGUAGES[language].with_mark(tests, "MARK")
    before, after = marked.split("MARK")
    assert before.rsplit("\n", 1)[0].rstrip() == tests.rstrip().rstrip("} \n") or "}" not in after
    assert set(after) <= set('");}\n std:<endl')


def test_tests_that_do_not_end_in_a_block_are_refused_with_their_line(tmp_path: Path) -> None:
    entry = {"name": "HumanEval_1_x", "language": "java", "prompt": "", "tests": "}"}
    path = write_lines(tmp_path / "tasks.jsonl", [entry])
    with pytest.raises(ValueError, match=r"tasks\.jsonl:1: tests in java end in"):
        load_tasks(path, LANGUAGES["java"])


def test_the_file_of_another_language_is_refused(tmp_path: Path) -> None:
    path = write_multipl_e(tmp_path / "tasks.jsonl", "js")
    with pytest.raises(ValueError, match=r"language is 'js', expected 'php'"):
        MultiplE(path, "php")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "tasks.jsonl", [{"name": "a", "language": "js", "tests": ""}])
    with pytest.raises(ValueError, match=r"tasks\.jsonl:1: no text in prompt"):
        MultiplE(path, "js")


def test_a_missing_tool_is_named_with_its_package() -> None:
    language = replace(LANGUAGES["php"], tools=("no-such-tool",))
    with pytest.raises(ValueError, match="no-such-tool was not found; install php-cli"):
        language.found_tools()


def test_published_details_hold_the_tests_and_lose_them(tmp_path: Path) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "php"), "php")
    prompt, right, _, tests = MULTIPL_E["php"]
    for ending in ("?>", ""):
        whole = f"{prompt}{right}\n{tests}{ending}"
        sample = Sample(task_id=MULTIPL_E_TASK, number=0, text=whole, form=Form.PROGRAM)
        assert benchmark.extract(sample).code == f"{prompt}{right}\n"


def test_translations_of_one_task_share_a_cluster() -> None:
    assert humaneval_number("HumanEval_23_strlen") == "HumanEval/23"
    assert humaneval_number("mbpp_3_x") == "mbpp_3_x"


def test_tests_decide_the_digest(tmp_path: Path) -> None:
    first = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "sh"), "sh")
    entry = json.loads((tmp_path / "tasks.jsonl").read_text())
    other = MultiplE(
        write_lines(tmp_path / "other.jsonl", [{**entry, "tests": entry["tests"] + ";"}]), "sh"
    )
    assert first.task_digest(MULTIPL_E_TASK) != other.task_digest(MULTIPL_E_TASK)


def test_versions_of_tools_and_libraries_decide_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, library = tmp_path / "own-compiler", tmp_path / "own.jar"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    write_multipl_e(tmp_path / "tasks.jsonl", "sh")

    def task_digest(version: int, content: str) -> str:
        tool.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo {version}\n")
        tool.chmod(0o755)
        library.write_text(content)
        benchmark = MultiplE(tmp_path / "tasks.jsonl", "sh")
        benchmark.language = replace(LANGUAGES["sh"], tools=("own-compiler", str(library)))
        return benchmark.task_digest(MULTIPL_E_TASK)

    assert len({task_digest(1, "a"), task_digest(2, "a"), task_digest(1, "b")}) == 3
    assert task_digest(1, "a") == task_digest(1, "a")
