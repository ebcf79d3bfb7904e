"""MultiPL-E: HumanEval in eight languages, each program compiled and run with its own tests.

A program is the task's prompt, a completion and the task's tests. It passes when it compiles, exits
with 0, and gets as far as its last test: a mark that nobody knows beforehand is printed behind it,
so a program that leaves early, `exit(0)` in the middle, has not passed. What passes is run once
more with a test that cannot hold behind the last one. A program that gets as far as the mark there
too pays its tests no heed: it has replaced what they call, or prints the mark itself.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.language_probes import PROBES
from mira_megatron.eval.languages import LANGUAGES, Language
from mira_megatron.eval.multipl_e_answers import multipl_e_chat, program_in_answer
from mira_megatron.eval.sandbox.contract import Job, Limits, Outcome, Sandbox
from mira_megatron.eval.tool_versions import language_digest
from mira_megatron.eval.verdicts import Extraction, Form, Judgment, Sample, Status, digest

GRADER = "multipl_e/2"

_FIELDS = ("name", "language", "prompt", "tests")
_COMPILER_REFUSED = 97
_CPU_SECONDS = 15  # of each process, as the published runs have it in wall seconds
_SIGABRT, _SIGKILL, _SIGXCPU = 6, 9, 24
_GIB = 1 << 30
_LIMITS = Limits(
    wall_seconds=4 * _CPU_SECONDS,  # for what only waits on a busy machine; CPU seconds decide
    cpu_seconds=_CPU_SECONDS,
    memory_bytes=6 * _GIB,  # of addresses: runtimes reserve far more than they use
    output_bytes=_GIB // 256,
    num_processes=256,
    file_bytes=_GIB // 4,
    num_open_files=256,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiplETask:
    """One task in one language."""

    task_id: str
    prompt: str
    tests: str
    stop_words: tuple[str, ...]
    digest: str  # of everything that decides a verdict


class MultiplE:
    """The benchmark over one language's file."""

    def __init__(self, path: Path, language: str) -> None:
        self.language = LANGUAGES[language]
        self.name = f"multipl_e_{language}"
        self.grader = GRADER
        self.verdict_names = (self.name,)
        self.tasks = load_tasks(path, self.language)

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the file."""
        return list(self.tasks)

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns what a base model continues, the task as the file has it, or a chat is asked."""
        task = self.tasks[task_id]
        if style is Style.CHAT:
            return multipl_e_chat(task.prompt, self.language.name)
        return Prompt(
            template="multipl_e-completion/1",
            text=task.prompt,
            stop=task.stop_words,
            max_tokens=1024,
        )

    def extract(self, sample: Sample) -> Extraction:
        """Returns the program without its tests: prompt and completion, or what holds both."""
        if not sample.text.strip():
            return Extraction(code=None, reason="empty")
        task = self.tasks[sample.task_id]
        if sample.form is Form.COMPLETION:
            return Extraction(code=task.prompt + sample.text)
        if sample.form is Form.ANSWER:
            return program_in_answer(sample.text, task.prompt, self.language.name)
        # Published details hold the program with its tests, PHP's closed by a tag.
        text = sample.text.removesuffix("?>") if sample.text.endswith("test();?>") else sample.text
        return Extraction(code=text.removesuffix(task.tests))

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the program and the grader.

        Raises ValueError where a tool of the language is missing here.
        """
        return digest(self.tasks[task_id].digest, self._tools)

    @cached_property
    def _tools(self) -> str:
        return language_digest(self.language)

    def gold(self, task_id: str) -> str | None:
        """Returns None: the translations come without solutions."""
        return None

    def cluster(self, task_id: str) -> str:
        """Returns the HumanEval task that this one, and seven others, were translated from."""
        return humaneval_number(task_id)

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns the verdict on a program. Raises ValueError where a tool is missing here."""
        outcome, status = _run_tests(sandbox, self.language, code, self.tasks[task_id].tests)
        return Judgment(
            statuses={self.name: status},
            isolation=outcome.isolation,
            seconds=outcome.wall_seconds,
        )

    def probe(self, sandbox: Sandbox) -> tuple[tuple[Status, str], tuple[Status, str]]:
        """Returns what a right and a wrong program of the language get, which no task knows."""
        probe = PROBES[self.language.name]
        right, wrong = (
            _run_tests(sandbox, self.language, f"{probe.prompt}{completion}", probe.tests)[1]
            for completion in (probe.right, probe.wrong)
        )
        return right, wrong


def humaneval_number(task_id: str) -> str:
    """Returns "HumanEval/23" of "HumanEval_23_strlen"."""
    found = re.match(r"HumanEval_(\d+)_", task_id)
    return f"HumanEval/{found[1]}" if found else task_id


def language_job(language: Language, program: str) -> Job:
    """Returns the job that compiles and runs a program in one sandbox."""
    tools = language.found_tools()
    words = {name: str(path) for name, path in tools.items()}
    run = f"exec {_filled(language.run, words)}"
    if language.compile:
        compile_ = _filled(language.compile, words)
        refusal = f"{{ cat said >&2; exit {_COMPILER_REFUSED}; }}"
        # The compiled program does not find its source, and the mark in it.
        run = f"{compile_} >said 2>&1 || {refusal}; rm -f said {language.file}; {run}"
    return Job(
        argv=("/bin/sh", "-c", run),
        files={language.file: program.encode("utf-8", "surrogatepass")},
        limits=_LIMITS,
        read_only=tuple(folder for folder in map(_folder_to_see, tools.values()) if folder),
        environment=language.environment,
    )


def load_tasks(path: Path, language: Language) -> dict[str, MultiplETask]:
    """Returns the tasks of one language's file. Raises ValueError with file and line."""
    tasks: dict[str, MultiplETask] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            task = _task_of_line(line, where, language)
            if task.task_id in tasks:
                raise ValueError(f"{where}: {task.task_id} is there twice")
            tasks[task.task_id] = task
    if not tasks:
        raise ValueError(f"{path}: no tasks; expected humaneval-{language.name}.jsonl of MultiPL-E")
    return tasks


def _task_of_line(line: bytes, where: str, language: Language) -> MultiplETask:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    wrong = [
        name
        for name in _FIELDS
        if not isinstance(fields, dict) or not isinstance(fields.get(name), str)
    ]
    if wrong:
        raise ValueError(f"{where}: no text in {', '.join(wrong)}; expected {', '.join(_FIELDS)}")
    if fields["language"] != language.name:
        raise ValueError(
            f"{where}: language is {fields['language']!r}, expected {language.name!r}: "
            "give this benchmark the file of its language"
        )
    try:
        language.with_mark(fields["tests"], "")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return MultiplETask(
        task_id=fields["name"],
        prompt=fields["prompt"],
        tests=fields["tests"],
        stop_words=tuple(map(str, fields.get("stop_tokens") or ())),
        digest=digest(GRADER, *(fields[name] for name in _FIELDS)),
    )


def _run_tests(
    sandbox: Sandbox, language: Language, code: str, tests: str
) -> tuple[Outcome, tuple[Status, str]]:
    outcome, status = _run_once(sandbox, language, code, tests)
    if status[0] is Status.PASS:
        one = secrets.randbelow(1 << 20)
        refuted = (one, one + 1 + secrets.randbelow(1 << 20))
        _, with_refuted = _run_once(sandbox, language, code, tests, refuted=refuted)
        if with_refuted[0] is Status.PASS:
            status = Status.FAIL, "also passes with a test that cannot hold"
    return outcome, status


def _run_once(
    sandbox: Sandbox,
    language: Language,
    code: str,
    tests: str,
    *,
    refuted: tuple[int, int] | None = None,
) -> tuple[Outcome, tuple[Status, str]]:
    mark = secrets.token_hex(16)
    program = f"{code}\n{language.with_mark(tests, mark, refuted=refuted)}"
    outcome = sandbox.run(language_job(language, program))
    return outcome, _status_of(outcome, language, mark.encode())


def _status_of(outcome: Outcome, language: Language, mark: bytes) -> tuple[Status, str]:
    is_out_of_cpu = outcome.signal == _SIGXCPU or (
        outcome.signal == _SIGKILL and outcome.cpu_seconds >= _CPU_SECONDS
    )
    if outcome.is_timed_out or is_out_of_cpu:
        return Status.TIMEOUT, ""
    said = outcome.stderr.decode(errors="replace")
    if outcome.exit_code == _COMPILER_REFUSED:
        return Status.ERROR, f"does not compile: {_first_error(said)}"
    if outcome.is_out_of_memory:
        return Status.ERROR, "out of memory"
    if outcome.signal == _SIGABRT:  # what C's assert ends in
        return Status.FAIL, f"aborted: {_first_error(said)}"
    if outcome.exit_code is None:
        return Status.ERROR, f"killed by signal {outcome.signal}"
    if any(word in said for word in language.failure_words):
        return Status.FAIL, "a test did not hold"
    if outcome.exit_code != 0:
        return Status.FAIL, f"exit code {outcome.exit_code}: {_first_error(said)}"
    if mark not in outcome.stdout:
        return Status.FAIL, "ended before its last test, with exit code 0"
    return Status.PASS, ""


def _first_error(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if re.search(r"error|exception|fatal|assert", line, re.I) and not line.endswith(":")
    ]
    return ascii((telling or lines or [""])[0])[1:-1][:160]


def _filled(words: str, tools: dict[str, str]) -> str:
    for name, path in tools.items():
        words = words.replace(f"{{{name}}}", path)
    return words


def _folder_to_see(tool: Path) -> Path | None:
    """Returns the folder of a tool that lies where a sandbox does not look, outside of /usr."""
    path = tool.resolve()
    return (
        None if path.is_relative_to("/usr") or path.is_relative_to("/bin") else path.parent.parent
    )
