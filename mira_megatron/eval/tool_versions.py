"""What a language's tools say of themselves: inside the sandbox that programs will run in, for a
reader, and outside of it for what kept verdicts are known by.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from mira_megatron.eval.languages import Language
from mira_megatron.eval.sandbox.contract import Job, Limits, Sandbox
from mira_megatron.eval.sandbox.interpreter import system_interpreter
from mira_megatron.eval.verdicts import digest

_LIMITS = Limits(
    wall_seconds=60,
    cpu_seconds=30,
    memory_bytes=4 << 30,  # what a Java or JavaScript machine reserves before it does anything
    output_bytes=1 << 16,
    num_processes=64,
    file_bytes=64 << 20,
    num_open_files=256,
)


def tool_versions(sandbox: Sandbox, language: Language) -> dict[str, str]:
    """Returns the first line of each tool's version. Raises ValueError where one does not run."""
    versions = {}
    for command in language.commands:
        outcome = sandbox.run(Job(argv=(command, language.version_word), limits=_LIMITS))
        said = (outcome.stdout or outcome.stderr).decode(errors="replace").strip()
        first_line = said.partition("\n")[0]
        if not outcome.is_success:
            raise ValueError(
                f"{command} does not run in the sandbox: {first_line or 'it was killed'}"
            )
        versions[command] = first_line
    return versions


def language_digest(language: Language) -> str:
    """Returns what verdicts depend on: another compiler or library gives another verdict.

    Raises ValueError where a tool is missing here.
    """
    parts: list[str | bytes] = []
    for tool, path in zip(language.tools, language.found_tools().values(), strict=True):
        is_program = tool in language.commands
        parts += [
            tool,
            said_version(path, language.version_word) if is_program else path.read_bytes(),
        ]
    return digest(*parts)


def sandboxed_python() -> bytes:
    """Returns the version of the system's Python, which runs programs; another one may grade."""
    return said_version(system_interpreter().path)


def said_version(program: Path | str, word: str = "--version") -> bytes:
    """Returns what a program that is installed here says its version is."""
    said = subprocess.run(
        [program, word], stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/"
    )
    return said.stdout + said.stderr
