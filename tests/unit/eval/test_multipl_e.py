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
# Wrong programs that print all that lies in their folder, and leave.
PRINTS_ITS_FILES = {
    "cpp": '    system("cat /work/*"); exit(0);',
    "cs": """
        foreach (var path in System.IO.Directory.GetFiles("/work"))
            Console.WriteLine(System.IO.File.ReadAllText(path));
        Environment.Exit(0); return 0;""",
    "java": """
        try {
            for (java.io.File file : new java.io.File("/work").listFiles())
                System.out.write(java.nio.file.Files.readAllBytes(file.toPath()));
        } catch (java.io.IOException error) {}
        System.out.flush(); System.exit(0); return 0;""",
    "js": """
  const fs = require('fs');
  for (const name of fs.readdirSync('/work')) fs.writeSync(1, fs.readFileSync('/work/' + name));
  process.exit(0);
}""",
    "php": """
    foreach (glob("/work/*") as $path) { readfile($path); }
    exit(0);
}""",
    "py": """
    import glob, os
    for path in glob.glob("/work/*"):
        os.write(1, open(path, "rb").read())
    os._exit(0)""",
    "sh": "  :; }; cat /work/*; exit 0; x() { :",
    "ts": """
  const fs = require('fs');
  for (const name of fs.readdirSync('/work')) fs.writeSync(1, fs.readFileSync('/work/' + name));
  (globalThis as any).process.exit(0); return 0;
}""",
}
# Wrong programs that replace what the tests call or, where that cannot be done, wait for the test
# that does not hold and print the mark that they find in their own text.
PAYS_NO_HEED = {
    "cpp": "  return x - y;\n}\n#undef assert\n#define assert(x) 0\nlong other() {\n  return 0;",
    "cs": "        Trace.Listeners.Clear(); return x - y;",
    "java": """
        return x - y;
    }
    static {
        Thread.setDefaultUncaughtExceptionHandler((thread, error) -> {
            try {
                String own = new String(java.nio.file.Files.readAllBytes(
                    java.nio.file.Paths.get("Problem.class")), "ISO-8859-1");
                java.util.regex.Matcher found =
                    java.util.regex.Pattern.compile("[0-9a-f]{16}").matcher(own);
                while (found.find()) System.out.print(found.group());
                System.out.flush();
            } catch (java.io.IOException refused) {}
            Runtime.getRuntime().halt(0);
        });
    }
    static long other() {
        return 0;""",
    "js": "  return x - y;\n}\nrequire('node:assert').deepEqual = () => {};",
    "php": """
    return $x - $y;
}
set_exception_handler(function () {
    preg_match_all('/"([0-9a-f]{16})"/', file_get_contents(__FILE__), $found);
    echo implode("", $found[1]);
    exit(0);
});""",
    "py": """
    return x - y
def end(*_):
    import os, re
    print("".join(re.findall('"([0-9a-f]{16})"', open(__file__).read())), flush=True)
    os._exit(0)
import sys
sys.excepthook = end""",
    "sh": "    echo 7\n}\nset() { :; }\nx() { :",
    "ts": "  return x - y;\n}\nrequire('node:assert').deepEqual = () => {};",
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


@pytest.mark.parametrize("language", each(PRINTS_ITS_FILES))
def test_a_program_that_prints_its_own_text_has_not_printed_the_mark(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    status, detail = judged(sandbox, tmp_path, language, PRINTS_ITS_FILES[language])
    assert status is Status.FAIL, detail
    assert "before its last test" in detail


@pytest.mark.parametrize("language", each(PAYS_NO_HEED))
def test_a_program_under_which_no_test_can_fail_has_not_passed(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    status = judged(sandbox, tmp_path, language, PAYS_NO_HEED[language])
    assert status == (Status.FAIL, "also passes with a test that cannot hold")


@pytest.mark.integration
@pytest.mark.parametrize("language", ["cpp", "cs", "java", "ts"])
def test_a_compiled_program_does_not_find_its_source(
    sandbox: Sandbox, tmp_path: Path, language: str
) -> None:
    found = {
        "cpp": 'std::ifstream("program.cpp").good()',
        "cs": 'System.IO.File.Exists("Program.cs")',
        "java": 'new java.io.File("Problem.java").exists()',
        "ts": "require('fs').existsSync('program.ts')",
    }[language]
    _, right, wrong, _ = MULTIPL_E[language]
    body, other = right.strip().removesuffix("}"), wrong.strip().removesuffix("}")
    closed = "\n}" if language == "ts" else ""
    code = f"if ({found}) {{ {other} }} {body}{closed}"
    assert judged(sandbox, tmp_path, language, code) == (Status.PASS, "")


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
    marked = LANGUAGES[language].with_mark(tests, "FIRSTSECOND!")
    before, statement = marked.split("FIRSTS")
    between, after = statement.split("ECOND!")
    assert before.rsplit("\n", 1)[0].rstrip() == tests.rstrip().rstrip("} \n") or "}" not in after
    assert between
    assert set(after) <= set('");}\n std:<endl,sep=')


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_hold_stands_between_the_last_test_and_the_mark(language: str) -> None:
    tests = MULTIPL_E[language][3]
    marked = LANGUAGES[language].with_mark(tests, "FIRSTSECOND!", refuted=(12345, 67890))
    one, other = marked.index("12345"), marked.index("67890")
    assert marked.rindex("\n", 0, one) < one < other < marked.index("\n", other)
    assert marked.index("\n", other) < marked.index("FIRSTS")
    assert LANGUAGES[language].with_mark(tests, "FIRSTSECOND!") == "".join(
        line for line in marked.splitlines(keepends=True) if "12345" not in line
    )


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
