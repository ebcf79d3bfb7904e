"""The level that is granted is the one that was measured: sandboxes with a hole each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from sandboxed_jobs import LIMITS

from mira_megatron.eval.sandbox.apptainer import ApptainerSandbox, apptainer_argv
from mira_megatron.eval.sandbox.best import best_sandbox, candidates
from mira_megatron.eval.sandbox.bubblewrap import bubblewrap_argv, host_mounts
from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox, SandboxError
from mira_megatron.eval.sandbox.escapes import Escape, measured_level, try_escapes
from mira_megatron.eval.sandbox.launch import Command, run_command
from mira_megatron.eval.sandbox.limits_only import LimitsOnlySandbox
from mira_megatron.eval.sandbox.started import outcome_of

GOLDEN = Path(__file__).parents[3] / "golden" / "sandbox"
JOB = Job(
    argv=("python3", "-I", "program.py"),
    files={"program.py": b"print(1)"},
    limits=LIMITS,
    read_only=(Path("/opt/jars"),),
    environment={"PYTHONHASHSEED": "0"},
)


class Holed:
    """Bubblewrap with its words changed."""

    level = 3

    def __init__(self, change: Callable[[list[str]], list[str]], folder: Path) -> None:
        self.change = change
        self.folder = folder

    def run(self, job: Job) -> Outcome:
        with ExitStack() as stack:
            files = {}
            for name, content in job.files.items():
                (self.folder / name).write_bytes(content)
                files[name] = stack.enter_context((self.folder / name).open("rb")).fileno()

            def render(results: int, status: int) -> Command:
                words = bubblewrap_argv(job, files, results, status, host_mounts())
                return Command(
                    argv=self.change(words),
                    environment={"PATH": "/usr/bin"},
                    inherited=tuple(files.values()),
                )

            return outcome_of(run_command(job, render), 3)


def without(*dropped: str) -> Callable[[list[str]], list[str]]:
    return lambda words: [word for word in words if not word.startswith(dropped)]


def with_more(*added: str) -> Callable[[list[str]], list[str]]:
    """Returns a change that puts words before the last of bwrap's own."""
    return lambda words: [
        more for word in words for more in ([*added, word] if word == "--chdir" else [word])
    ]


@pytest.mark.parametrize(
    ("change", "escape", "level"),
    [
        (with_more("--share-net"), "the network", 2),
        (with_more("--ro-bind", "/tmp", "/tmp"), "reading the host's files", 2),
        (with_more("--bind", "/tmp", "/tmp"), "writing outside /work", 2),
        (without("--nproc"), "more processes than allowed", 0),
        (without("--as="), "more memory than allowed", 0),
        (without("--fsize"), None, 3),  # the room in /work still bounds a file
    ],
)
def test_hole_in_bubblewrap_costs_its_level(
    sandbox: Sandbox,
    tmp_path: Path,
    change: Callable[[list[str]], list[str]],
    escape: str | None,
    level: int,
) -> None:
    escapes = try_escapes(Holed(change, tmp_path))
    assert measured_level(3, escapes) == level
    if escape is not None:
        assert escape in [tried.name for tried in escapes if not tried.is_stopped]


def test_limits_alone_are_level_one() -> None:
    escapes = try_escapes(LimitsOnlySandbox())
    assert measured_level(1, escapes) == 1
    open_ways = {escape.name for escape in escapes if not escape.is_stopped}
    assert open_ways >= {
        *("the network", "reading the host's files", "writing outside /work"),
        *("the host's processes", "a process left behind"),
    }


def test_promise_is_no_more_than_what_is_stopped() -> None:
    all_stopped = [Escape("a", True, 1), Escape("b", True, 3)]
    assert measured_level(4, all_stopped) == 4
    assert measured_level(4, [*all_stopped, Escape("c", False, 3)]) == 2
    assert measured_level(4, [*all_stopped, Escape("c", False, 1)]) == 0


def test_best_sandbox_is_of_level_three(sandbox: Sandbox) -> None:
    assert sandbox.level == 3
    assert candidates()[0].said() == "bubblewrap: level 3"


def test_level_that_nothing_reaches_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no sandbox of level 4 here.*limits only: level 1") as no:
        best_sandbox(4, image=tmp_path / "no.sif")
    assert "apt-get install bubblewrap" in str(no.value)


def test_bubblewrap_command_is_the_reviewed_one() -> None:
    mounts = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]
    words = bubblewrap_argv(JOB, {"program.py": 7}, results=5, status=6, mounts=mounts)
    assert "\n".join(words) + "\n" == (GOLDEN / "bubblewrap.txt").read_text()


def test_apptainer_command_is_the_reviewed_one() -> None:
    words = apptainer_argv(JOB, Path("/images/eval.sif"), Path("/tmp/mira-job-x"), results=5)
    assert "\n".join(words) + "\n" == (GOLDEN / "apptainer.txt").read_text()


def test_apptainer_that_is_not_there_is_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="apptainer could not be started"):
        ApptainerSandbox(tmp_path / "no.sif").run(JOB)
