"""Units that several workers share. One worker runs within another's work: no timing decides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from mira_megatron.file_lock import joined_lock, waited_lock
from mira_megatron.launchers.claimed_parts import finish, unclaimed
from mira_megatron.launchers.sharing import HeldByOthers
from mira_megatron.manifest import Counts, Manifest, read_manifest
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit, unit_state
from mira_megatron.unit_folder import SCRATCH

ALONE, SHARED = Resources(), Resources(is_shared=True)


@dataclass(frozen=True, slots=True)
class Part:
    output: Path


def claim_and_write(workspace: Workspace, settings: Any) -> WorkResult:
    """The work of the units below: at most so many parts, and in the first something happens."""
    parts = [Part(workspace.folder / f"part-0000{number}.bin") for number in range(2)]
    if workspace.sharing is None:
        for part in parts:
            part.output.write_bytes(b"alone")
        return WorkResult(counts=Counts(num_in=2, num_out=2))
    claims = workspace.sharing.claims
    for number, part in enumerate(islice(unclaimed(parts, claims), settings["most"])):
        if number == 0:
            settings["meanwhile"]()
        claims.deliver(part.output, lambda path: written(path, settings["by"]))
    finish(parts, workspace.unit.label, workspace.sharing)
    return WorkResult(counts=Counts(num_in=2, num_out=2), rows={settings["by"]: 1})


def written(path: Path, by: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(by)


def unit(
    by: str = "a", most: int = 2, meanwhile: Callable[[], object] = lambda: None, **changes: Any
) -> Unit:
    made = Unit(
        stage="score",
        name="wiki",
        folder="ratings/wiki",
        version=1,
        config={"temperature": 0.5},
        can_be_shared=True,
        work="test_shared_unit:claim_and_write",
        settings={"by": by, "most": most, "meanwhile": meanwhile},
    )
    return replace(made, **changes)


def shared(run: Run, **settings: Any) -> Manifest:
    return run_unit(unit(**settings), run, SHARED)


def texts(run: Run) -> list[str]:
    return [path.read_text() for path in sorted((run.folder / "ratings/wiki").glob("part-*"))]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path)


def test_two_workers_share_the_parts_and_the_last_ends_the_unit(run: Run) -> None:
    def other() -> None:
        with pytest.raises(HeldByOthers, match="score wiki: others work on the last 1 of 2 parts"):
            shared(run, by="b")

    manifest = shared(run, by="a", meanwhile=other)
    assert texts(run) == ["a", "b"]
    assert [part.path for part in manifest.parts] == ["part-00000.bin", "part-00001.bin"]
    assert unit_state(unit(), run) == "done"
    assert sorted(path.name for path in (run.folder / "ratings/wiki").iterdir()) == [
        "manifest.json",
        "part-00000.bin",
        "part-00001.bin",
    ]


def test_worker_taken_for_dead_comes_back_to_an_ended_unit(run: Run) -> None:
    ended: list[Manifest] = []

    def taken_over() -> None:
        folder = run.folder / "ratings/wiki"
        (folder / SCRATCH / "claims" / "part-00000.bin.1").unlink()  # as if it had never been
        ended.append(shared(run, by="b"))

    assert shared(run, by="a", meanwhile=taken_over) == ended[0]
    assert texts(run) == ["b", "b"]
    assert read_manifest(run.folder / "ratings/wiki") == ended[0]
    assert not (run.folder / "ratings/wiki" / SCRATCH).exists()


def test_worker_that_comes_when_all_is_done_is_content(run: Run) -> None:
    assert shared(run) == shared(run, by="b")
    assert texts(run) == ["a", "a"]


def test_one_that_works_alone_is_refused_while_others_share(run: Run) -> None:
    def alone() -> None:
        with pytest.raises(ValueError, match="another process is working on score wiki"):
            run_unit(unit(), run, ALONE)

    shared(run, meanwhile=alone)
    assert texts(run) == ["a", "a"]


def test_worker_is_refused_while_one_works_alone(run: Run) -> None:
    lock = run.folder / ".locks" / "ratings.wiki.lock"
    with waited_lock(lock), pytest.raises(ValueError, match="another process is working on"):
        shared(run)
    assert len(texts(run)) == 0


@pytest.mark.parametrize("change", [{"config": {"temperature": 1.0}}, {"raw_inputs": {"x": "1"}}])
def test_worker_with_another_recipe_is_refused_while_others_work(
    run: Run, change: dict[str, Any]
) -> None:
    def other() -> None:
        with pytest.raises(ValueError, match="for a recipe with other settings or other inputs"):
            shared(run, by="b", **change)

    shared(run, meanwhile=other)
    assert texts(run) == ["a", "a"]


def test_failure_is_noted_in_the_unit_by_its_last_worker_only(run: Run) -> None:
    def fail() -> None:
        raise ValueError("the model is not there")

    def other() -> None:
        with pytest.raises(ValueError, match="the model is not there"):
            shared(run, by="b", meanwhile=fail)
        assert "not there" not in (run.folder / "ratings/wiki/intent.json").read_text()
        fail()

    with pytest.raises(ValueError, match="the model is not there"):
        shared(run, meanwhile=other)
    assert "not there" in (run.folder / "ratings/wiki/intent.json").read_text()
    # So that another setting is a repair, and what they held is free again.
    shared(run, by="c", config={"temperature": 1.0})
    assert texts(run) == ["c", "c"]


def test_unit_that_cannot_be_shared_is_worked_on_alone(run: Run) -> None:
    shared(run, can_be_shared=False)
    assert texts(run) == ["alone", "alone"]


def test_unit_that_cannot_be_shared_is_waited_for(run: Run) -> None:
    with ExitStack() as held:
        held.enter_context(waited_lock(run.folder / ".locks" / "ratings.wiki.lock"))
        release = Timer(0.1, held.close)
        release.start()
        shared(run, can_be_shared=False)
        release.join()
    assert texts(run) == ["alone", "alone"]


def test_joined_lock_knows_the_first_and_the_last(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with joined_lock(path, "no") as first:
        with joined_lock(path, "no") as second:
            assert (first.is_first, second.is_first) == (True, False)
            assert not second.is_last()
        assert first.is_last()
        with pytest.raises(ValueError, match="no"), joined_lock(path, "no"):
            pass
