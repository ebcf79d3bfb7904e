"""What programs of models can be graded in here: sandboxes, as measured, and their languages."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mira_megatron.doctor.doctor import print_findings
from mira_megatron.doctor.finding import ERROR, INFO, WARNING, Finding
from mira_megatron.doctor.library_checks import library_findings
from mira_megatron.eval.languages import LANGUAGES, Language
from mira_megatron.eval.sandbox.best import Candidate, candidates
from mira_megatron.eval.sandbox.contract import DEFAULT_MIN_LEVEL, Sandbox
from mira_megatron.eval.tool_versions import tool_versions

_INSTALL = "tests/environments/eval.sh installs all languages, as root"


def run(
    console: Console,
    image: Path | None = None,
    suite: Path | None = None,
    data_folder: Path | None = None,
) -> int:
    """Prints what was found; returns 0, or 2 where nothing may be graded here.

    With a suite also the libraries that its benchmarks' programs need.
    """
    tried = candidates(image)
    findings = sandbox_findings(tried)
    usable = [candidate for candidate in tried if candidate.level >= DEFAULT_MIN_LEVEL]
    if usable and usable[0].sandbox is not None:
        findings += language_findings(usable[0].sandbox)
        if suite is not None:
            findings += library_findings(usable[0].sandbox, suite, data_folder)
    print_findings(console, findings)
    return 2 if any(finding.level == ERROR for finding in findings) else 0


def sandbox_findings(tried: list[Candidate]) -> list[Finding]:
    """Returns a line for every sandbox, and an error where none reaches the level to grade in."""
    findings = []
    for candidate in tried:
        stopped = [escape.name for escape in candidate.escapes if escape.is_stopped]
        what = candidate.said().partition(": ")[2]
        if stopped:
            what += f". Tried and stopped: {', '.join(stopped)}"
        findings.append(Finding(level=INFO, what=what, where=f"sandbox: {candidate.name}"))
    best_level = max(candidate.level for candidate in tried)
    if best_level < DEFAULT_MIN_LEVEL:
        findings.append(
            Finding(
                level=ERROR,
                what=f"level {best_level}: programs of models are run in {DEFAULT_MIN_LEVEL} or "
                "above",
                where="sandbox",
                way_out="docs/sandbox.md says what each level needs",
            )
        )
    return findings


def language_findings(sandbox: Sandbox) -> list[Finding]:
    """Returns a line for every language, with the versions that are seen inside the sandbox."""
    return [_language(sandbox, language) for language in LANGUAGES.values()]


def _language(sandbox: Sandbox, language: Language) -> Finding:
    try:
        versions = tool_versions(sandbox, language)
    except ValueError as error:
        return Finding(
            level=WARNING,
            what=str(error),
            where=language.title,
            way_out=f"install {language.package} ({_INSTALL})",
        )
    return Finding(level=INFO, what="; ".join(versions.values()), where=language.title)
