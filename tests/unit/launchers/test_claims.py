from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.launchers.claims import CLAIMS, PRIVATE, Claims, Owner, this_process

PART = "part-00000.parquet"
NUM_PROCESSES, NUM_PARTS = 8, 40
ABROAD = "another machine"


def claims(folder: Path, **changes: float) -> Claims:
    return Claims(folder, this_process(), **changes)


def newest(folder: Path, name: str = PART) -> Path:
    return sorted((folder / CLAIMS).glob(f"{name}.*"), key=lambda path: int(path.suffix[1:]))[-1]


def owned(folder: Path, owner: Owner) -> Path:
    """Puts a claim of this owner's there."""
    path = folder / CLAIMS / f"{PART}.1"
    path.parent.mkdir(parents=True)
    path.write_bytes(orjson.dumps(owner))
    return path


def outdate(path: Path, seconds: float = 601.0) -> None:
    modified = path.stat().st_mtime - seconds
    os.utime(path, (modified, modified))


def write(text: str) -> Callable[[Path], None]:
    def to(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return to


def race(folder: Path, barrier: Barrier) -> None:
    """Takes what it can get, once all are there, and notes it."""
    mine = claims(folder)
    barrier.wait(60)
    taken = [name for name in map(str, range(NUM_PARTS)) if mine.take(name)]
    (folder / f"{mine.owner.token}.taken").write_text("".join(f"{name}\n" for name in taken))
    barrier.wait(60)  # what the first to end has taken would be free again


def test_parts_that_processes_race_for_are_taken_once_each(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(NUM_PROCESSES)
    racing = [context.Process(target=race, args=(tmp_path, barrier)) for _ in range(NUM_PROCESSES)]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    taken = [name for path in tmp_path.glob("*.taken") for name in path.read_text().split()]
    assert sorted(taken) == sorted(map(str, range(NUM_PARTS)))


def test_part_is_of_whoever_takes_it_first(tmp_path: Path) -> None:
    first, second = claims(tmp_path), claims(tmp_path)
    assert not first.is_held(PART)
    assert first.take(PART)
    assert not second.take(PART)
    assert [worker.is_mine(PART) for worker in (first, second)] == [True, False]
    assert second.is_held(PART)


def test_claim_untouched_for_too_long_is_taken_over_by_one_other(tmp_path: Path) -> None:
    first, second, third = (claims(tmp_path) for _ in range(3))
    first.take(PART)
    outdate(newest(tmp_path), seconds=590.0)
    assert not second.take(PART)
    outdate(newest(tmp_path), seconds=20.0)
    assert not second.take(PART, takes_over=False)
    assert second.take(PART)
    assert not third.take(PART)
    assert not first.take(PART)
    assert [worker.is_mine(PART) for worker in (first, second)] == [False, True]


def test_claims_are_touched_while_their_worker_lives(tmp_path: Path) -> None:
    with claims(tmp_path, beat_seconds=0.01) as first:
        first.take(PART)
        outdate(newest(tmp_path))
        old = newest(tmp_path).stat().st_mtime
        until = time.monotonic() + 30
        while newest(tmp_path).stat().st_mtime == old and time.monotonic() < until:
            time.sleep(0.01)
        assert not claims(tmp_path).take(PART)


def test_worker_that_leaves_gives_back_what_it_has_not_delivered(tmp_path: Path) -> None:
    with claims(tmp_path) as first:
        first.take(PART)
        first.take("other")
        assert first.deliver(tmp_path / "other", write("rows"))
    second = claims(tmp_path)
    assert second.take(PART)
    assert not second.take("other")


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_claim_of_a_killed_process_of_this_machine_is_taken_over_at_once(
    tmp_path: Path, is_waited_for: bool
) -> None:
    program = (
        "import sys, time; from pathlib import Path; from mira_megatron.launchers import claims\n"
        "mine = claims.Claims(Path(sys.argv[1]), claims.this_process('17_4')).__enter__()\n"
        f"print(mine.take({PART!r}), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert orjson.loads(newest(tmp_path).read_bytes())["job"] == "17_4"
        assert not claims(tmp_path).take(PART)
        process.send_signal(signal.SIGKILL)
        if is_waited_for:
            process.wait()
        until = time.monotonic() + 30
        while not (is_taken := claims(tmp_path).take(PART)) and time.monotonic() < until:
            time.sleep(0.01)
        assert is_taken


def test_owner_is_known_gone_only_where_its_process_can_be_looked_for(tmp_path: Path) -> None:
    this = this_process()
    assert not this.is_known_gone(this.machine)
    successor = replace(this, started="1")  # its process id belongs to another
    assert successor.is_known_gone(this.machine)
    assert not replace(successor, machine=ABROAD).is_known_gone(this.machine)
    assert not replace(successor, machine="").is_known_gone("")


def test_claim_of_another_machine_lives_until_it_is_old(tmp_path: Path) -> None:
    claim = owned(tmp_path, replace(this_process(), machine=ABROAD, pid=1, started="1"))
    assert not claims(tmp_path).take(PART)
    outdate(claim)
    assert claims(tmp_path).take(PART)


@pytest.mark.parametrize("content", [b"", b'{"host": "a', b"[]"])
def test_claim_that_does_not_say_whose_it_is_lives_until_it_is_old(
    tmp_path: Path, content: bytes
) -> None:
    claim = owned(tmp_path, this_process())
    claim.write_bytes(content)
    assert not claims(tmp_path).take(PART)
    outdate(claim)
    assert claims(tmp_path).take(PART)


def no_links(*words: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("has_links", [True, False])
def test_part_counts_once_whoever_delivers_it_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    folder, output = tmp_path / "scratch", tmp_path / PART
    late, other = claims(folder), claims(folder)
    late.take(PART)
    outdate(newest(folder))
    other.take(PART)
    assert other.deliver(output, write("other's"))
    if not has_links:
        outdate(newest(folder, f"{PART}.rename"))
    assert not late.deliver(output, write("late"))
    assert output.read_text() == "other's"
    assert not list((folder / PRIVATE).iterdir())


def test_part_is_left_to_whoever_is_renaming_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    renaming, late = claims(tmp_path / "scratch"), claims(tmp_path / "scratch")
    assert renaming.take(f"{PART}.rename")
    assert not late.deliver(tmp_path / PART, write("late"))
    assert not (tmp_path / PART).exists()
    outdate(newest(tmp_path / "scratch", f"{PART}.rename"))  # it was killed
    assert late.deliver(tmp_path / PART, write("late"))


def test_failure_to_link_for_another_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="full"):
        claims(tmp_path / "scratch").deliver(tmp_path / PART, write("rows"))


def test_part_linked_by_a_request_that_was_heard_twice_counts_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def heard_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", heard_twice)
    assert claims(tmp_path / "scratch").deliver(tmp_path / PART, write("rows"))


def vanish(path: Path) -> None:
    raise FileNotFoundError(path)


def test_worker_whose_folder_went_is_content_where_the_part_is_there(tmp_path: Path) -> None:
    worker = claims(tmp_path / "scratch")
    with pytest.raises(FileNotFoundError):
        worker.deliver(tmp_path / PART, vanish)
    (tmp_path / PART).write_text("rows")
    assert not worker.deliver(tmp_path / PART, vanish)


def test_nothing_is_mine_when_the_folder_went(tmp_path: Path) -> None:
    worker = claims(tmp_path / "scratch")
    worker.take(PART)
    shutil.rmtree(tmp_path / "scratch")
    assert not worker.is_mine(PART)


@pytest.mark.parametrize("step", ["link", "fstat"])
def test_nothing_is_taken_when_the_folder_goes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = tmp_path / "scratch"
    with claims(folder) as others, claims(folder) as mine:
        others.take(PART)
        outdate(newest(folder))
        real = getattr(os, step)

        def gone_before(*words: object) -> object:
            if folder.exists():
                folder.rename(tmp_path / "gone")
            return real(*words)

        with monkeypatch.context() as patched:
            patched.setattr(f"mira_megatron.launchers.claims.os.{step}", gone_before)
            assert not mine.take(PART)
        assert not mine.is_mine(PART)


STEPS = st.tuples(st.integers(0, 2), st.sampled_from(["take", "take unclaimed", "outdate"]))


@given(st.lists(STEPS, max_size=12))
def test_part_is_held_by_at_most_one_as_in_a_model(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("model")
    workers = [claims(folder) for _ in range(3)]
    holder: int | None = None
    is_old = False
    for number, step in steps:
        if step == "outdate":
            if holder is not None:
                outdate(newest(folder))
                is_old = True
            continue
        is_free = holder is None or (is_old and step == "take")
        assert workers[number].take(PART, takes_over=step == "take") == is_free
        if is_free:
            holder, is_old = number, False
        mine = [worker for worker in workers if worker.is_mine(PART)]
        assert mine == ([] if holder is None else [workers[holder]])
