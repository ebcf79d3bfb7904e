from __future__ import annotations

import io

import pytest
from rich.console import Console

from mira_megatron.cli import main
from mira_megatron.doctor.doctor import print_findings
from mira_megatron.doctor.eval_checks import language_findings, sandbox_findings
from mira_megatron.doctor.finding import ERROR, INFO, LEVELS, WARNING, Finding
from mira_megatron.eval.languages import LANGUAGES
from mira_megatron.eval.sandbox.best import Candidate
from mira_megatron.eval.sandbox.contract import Job, Outcome
from mira_megatron.eval.sandbox.escapes import Escape


class Machine:
    """Runs the programs that it is told it has."""

    level = 3

    def __init__(self, *programs: str) -> None:
        self.programs = programs

    def run(self, job: Job) -> Outcome:
        has_it = job.argv[0] in self.programs
        return Outcome(
            exit_code=0 if has_it else 127,
            signal=None,
            is_timed_out=False,
            is_out_of_memory=False,
            cpu_seconds=0,
            wall_seconds=0,
            peak_bytes=0,
            stdout=b"",
            stderr=f"{job.argv[0]} 1.0\nmore".encode() if has_it else b"not found",
            num_output_bytes=0,
            results=b"",
            num_result_bytes=0,
            isolation=3,
        )


def test_language_needs_all_of_its_programs() -> None:
    findings = {finding.where: finding for finding in language_findings(Machine("javac", "bash"))}
    assert len(findings) == len(LANGUAGES) == 8
    assert (findings["bash"].level, findings["bash"].what) == (INFO, "bash 1.0")
    assert findings["Java"].level == WARNING
    assert findings["Java"].what == "java does not run in the sandbox: not found"
    assert "openjdk-17-jdk-headless" in findings["Java"].way_out


def test_machine_without_a_sandbox_is_an_error() -> None:
    holed = Candidate(
        name="bubblewrap",
        level=2,
        problem="",
        escapes=(Escape("the network", False, 3), Escape("capabilities", True, 3)),
    )
    missing = Candidate(name="apptainer", level=0, problem="apptainer is not installed")
    findings = sandbox_findings([holed, missing])
    assert [finding.level for finding in findings] == [INFO, INFO, ERROR]
    assert findings[0].what == (
        "level 2, does not stop the network. Tried and stopped: capabilities"
    )
    assert findings[1].what == "apptainer is not installed"
    assert findings[2].what.startswith("level 2:")


@pytest.mark.parametrize("words", [["my.yaml"], ["--config", "x"]])
def test_eval_is_asked_for_alone(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words, "--eval"]) == 2
    assert "give it alone" in capsys.readouterr().err


@pytest.mark.parametrize("level", LEVELS)
def test_finding_of_every_level_is_printed_whole(level: str) -> None:
    path = "data/eval/bigcodebench/" + "b" * 100
    said = io.StringIO()
    print_findings(Console(file=said, width=80), [Finding(level=level, what=path, where="x")])
    assert level in said.getvalue()
    assert said.getvalue().count("b") == path.count("b")
