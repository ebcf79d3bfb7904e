"""Units one after another, of which some fail."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.ablation.surviving_run import SurvivingRun
from mira_megatron.atomic_files import write_bytes
from mira_megatron.file_lock import LockHeldError, held_lock
from mira_megatron.manifest import Counts, read_manifest
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit


def write_or_fail(workspace: Workspace, settings: Any) -> WorkResult:
    """The work of the units below."""
    if settings is not None:
        raise settings
    write_bytes(workspace.folder / "part", b"a")
    return WorkResult(counts=Counts(num_in=1, num_out=1))


def unit(stage: str, name: str, *upstream: str, error: Exception | None = None) -> Unit:
    return Unit(
        stage=stage,
        name=name,
        folder=f"checkpoints/{stage}.{name}",
        version=1,
        config={},
        upstream=tuple(f"checkpoints/{each}" for each in upstream),
        work=f"{__name__}:write_or_fail",
        settings=error,
    )


def run_all(folder: Path, *units: Unit) -> SurvivingRun:
    surviving = SurvivingRun()
    for each in units:
        surviving(each, Run(folder=folder), Resources())
    return surviving


@pytest.mark.parametrize(
    "error",
    [ValueError("bad weights"), FileNotFoundError("no base"), OSError(errno.EIO, "bad disk")],
)
def test_unit_that_fails_takes_only_what_reads_it(tmp_path: Path, error: Exception) -> None:
    found = run_all(
        tmp_path,
        unit("midtrain", "a", error=error),
        unit("midtrain", "b"),
        unit("held-out", "a", "midtrain.a"),
        unit("held-out", "b", "midtrain.b"),
        unit("report", "page", "held-out.a", "held-out.b"),
        unit("ablation", "table", "report.page"),
    )
    assert found.failed == {"midtrain a": str(error)}
    assert found.left_out == ["held-out a", "report page", "ablation table"]
    assert (found.num_made, found.num_reused) == (2, 0)
    assert read_manifest(tmp_path / "checkpoints/held-out.b") is not None
    assert read_manifest(tmp_path / "checkpoints/held-out.a") is None


def test_second_run_reuses_what_there_is_and_makes_what_failed(tmp_path: Path) -> None:
    run_all(tmp_path, unit("midtrain", "a", error=ValueError("x")), unit("midtrain", "b"))
    again = run_all(tmp_path, unit("midtrain", "a"), unit("midtrain", "b"))
    assert (again.num_made, again.num_reused, again.failed) == (1, 1, {})


def test_unit_of_another_run_counts_as_reused(tmp_path: Path) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    run_all(earlier, unit("midtrain", "a"))
    surviving = SurvivingRun()
    surviving(unit("midtrain", "a"), Run(folder=later, reuse=(earlier,)), Resources())
    assert (surviving.num_made, surviving.num_reused) == (0, 1)


def test_unit_that_a_helping_process_made_counts_as_made(tmp_path: Path) -> None:
    run_unit(unit("midtrain", "a"), Run(folder=tmp_path), Resources())
    surviving = SurvivingRun(made_ahead={"checkpoints/midtrain.a"})
    surviving(unit("midtrain", "a"), Run(folder=tmp_path), Resources())
    assert (surviving.num_made, surviving.num_reused) == (1, 0)


@pytest.mark.parametrize("stage", ["ingest", "group", "tokenize", "adopt"])
def test_unit_that_every_arm_is_made_of_ends_the_run(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ValueError, match="gone"):
        run_all(tmp_path, unit(stage, "wiki", error=ValueError("gone")))


def test_full_disk_ends_the_run(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "no space left")
    with pytest.raises(OSError, match="no space left"):
        run_all(tmp_path, unit("midtrain", "a", error=full))


def test_unit_that_another_process_works_on_ends_the_run(tmp_path: Path) -> None:
    lock = tmp_path / ".locks" / "checkpoints.midtrain.a.lock"
    with held_lock(lock, "mine"), pytest.raises(LockHeldError):
        run_all(tmp_path, unit("midtrain", "a"))


def test_bug_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        run_all(tmp_path, unit("midtrain", "a", error=KeyError("bug")))


def test_unit_whose_part_is_gone_fails_and_the_others_go_on(tmp_path: Path) -> None:
    run_unit(unit("midtrain", "a"), Run(folder=tmp_path), Resources())
    (tmp_path / "checkpoints/midtrain.a/part").unlink()
    found = run_all(tmp_path, unit("midtrain", "a"), unit("midtrain", "b"))
    assert list(found.failed) == ["midtrain a"]
    assert found.num_made == 1
